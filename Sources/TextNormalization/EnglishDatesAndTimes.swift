private let months = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
]

extension RewrittenText {
    /// A number as a rule found it in the text.
    private struct Part {
        let end: Int
        let digits: ArraySlice<Unicode.Scalar>
    }

    // MARK: Dates

    /// 2021-03-04, 3/4/2021, March 4, 2021, the 4th of March 2021 and 1980s.
    mutating func readDates() {
        rewrite { text, index in
            guard text.isDigit(index), text.isBoundary(index) else { return nil }
            return text.isoDate(index)
        }
        rewrite { text, index in
            guard text.isDigit(index), text.isBoundary(index) else { return nil }
            return text.slashedDate(index)
        }
        rewrite { text, index in
            guard text.isCapital(index), text.isBoundary(index) else { return nil }
            return text.monthAndDay(index)
        }
        rewrite { text, index in
            guard text[index] == "t" || text.isDigit(index), text.isBoundary(index) else { return nil }
            return text.dayAndMonth(index)
        }
        rewrite { text, index in
            guard text.isDigit(index), text.isBoundary(index), let end = text.yearEnd(index), text[end] == "s",
                !text.isWord(end + 1)
            else { return nil }
            let words = EnglishNumbers.year(EnglishNumbers.value(text[index..<end]))
            return Match(end: end + 1, words: words.last == "y" ? words.dropLast() + "ies" : words + "s")
        }
    }

    /// 1100…2099.
    func yearEnd(_ index: Int) -> Int? {
        let isCentury = self[index] == "1" ? ("1"..."9").contains(self[index + 1]) : end(of: "20", at: index) != nil
        return isCentury && hasDigits(index + 2..<index + 4) ? index + 4 : nil
    }

    /// 2021-03-04
    private func isoDate(_ index: Int) -> Match? {
        guard let yearEnd = yearEnd(index), self[yearEnd] == "-", self[yearEnd + 3] == "-",
            let month = twoDigitMonth(yearEnd + 1)
        else { return nil }
        let day = yearEnd + 4
        let isDay =
            switch self[day] {
            case "0": ("1"..."9").contains(self[day + 1])
            case "1", "2": isDigit(day + 1)
            case "3": self[day + 1] == "0" || self[day + 1] == "1"
            default: false
            }
        guard isDay, !isWord(day + 2) else { return nil }
        return Match(
            end: day + 2, words: monthFirst(months[month - 1], day: self[day..<day + 2], year: self[index..<yearEnd]))
    }

    private func twoDigitMonth(_ index: Int) -> Int? {
        switch (self[index], self[index + 1]) {
        case ("0", "1"..."9"): self[index + 1].digitValue
        case ("1", "0"..."2"): 10 + self[index + 1].digitValue
        default: nil
        }
    }

    /// 3/4/2021, the month first.
    private func slashedDate(_ index: Int) -> Match? {
        let month: Int
        let monthEnd: Int
        if let number = twoDigitMonth(index) {
            (month, monthEnd) = (number, index + 2)
        } else {
            guard ("1"..."9").contains(self[index]) else { return nil }
            (month, monthEnd) = (self[index].digitValue, index + 1)
        }
        guard self[monthEnd] == "/" else { return nil }
        for day in days(at: monthEnd + 1) where self[day.end] == "/" {
            guard let yearEnd = yearEnd(day.end + 1), !isWord(yearEnd) else { continue }
            let year = self[day.end + 1..<yearEnd]
            return Match(end: yearEnd, words: monthFirst(months[month - 1], day: day.digits, year: year))
        }
        return nil
    }

    /// March 4th, 2021
    private func monthAndDay(_ index: Int) -> Match? {
        guard let month = month(at: index), self[month.end] == " " else { return nil }
        for day in days(at: month.end + 1) {
            if let year = yearBehind(day.end), !isDigit(year.end), self[year.end] != ":" {
                return Match(end: year.end, words: monthFirst(month.name, day: day.digits, year: year.digits))
            }
            if !isDigit(day.end), self[day.end] != ":" {
                return Match(end: day.end, words: monthFirst(month.name, day: day.digits, year: nil))
            }
        }
        return nil
    }

    /// the 4th of March, 2021
    private func dayAndMonth(_ index: Int) -> Match? {
        for day in days(at: end(of: "the ", at: index) ?? index) where self[day.end] == " " {
            guard let month = month(at: end(of: "of ", at: day.end + 1) ?? day.end + 1) else { continue }
            let words = "the \(EnglishNumbers.ordinal(day.digits)) of \(month.name)"
            if let year = yearBehind(month.end), !isDigit(year.end) {
                return Match(end: year.end, words: words + ", " + inWords(year: year.digits))
            }
            if !isDigit(month.end) { return Match(end: month.end, words: words) }
        }
        return nil
    }

    private func month(at index: Int) -> (name: String, end: Int)? {
        guard isCapital(index) else { return nil }
        for name in months {
            if let end = end(of: name, at: index) { return (name, end) }
        }
        return nil
    }

    /// A year behind a month or a day, with or without a comma.
    private func yearBehind(_ index: Int) -> Part? {
        let gap = skipping(",", at: index)
        guard self[gap] == " ", let end = yearEnd(gap + 1) else { return nil }
        return Part(end: end, digits: self[gap + 1..<end])
    }

    /// What may be a day of the month at `index`, in the order of preference: two digits before one, an ending before
    /// none.
    private func days(at index: Int) -> [Part] {
        guard isDigit(index) else { return [] }
        var ends: [Int] = []
        switch self[index] {
        case "3" where self[index + 1] == "0" || self[index + 1] == "1": ends = [index + 2, index + 1]
        case "1", "2": ends = isDigit(index + 1) ? [index + 2, index + 1] : [index + 1]
        case "0": if ("1"..."9").contains(self[index + 1]) { ends = [index + 2] }
        case "3"..."9": ends = [index + 1]
        default: break
        }
        return ends.flatMap { end in
            let plain = Part(end: end, digits: self[index..<end])
            return isOrdinalEnding(end) ? [Part(end: end + 2, digits: plain.digits), plain] : [plain]
        }
    }

    /// st, nd, rd or th
    func isOrdinalEnding(_ index: Int) -> Bool {
        switch (self[index], self[index + 1]) {
        case ("s", "t"), ("n", "d"), ("r", "d"), ("t", "h"): true
        default: false
        }
    }

    private func inWords(year: ArraySlice<Unicode.Scalar>) -> String {
        EnglishNumbers.year(EnglishNumbers.value(year))
    }

    private func monthFirst(_ month: String, day: ArraySlice<Unicode.Scalar>, year: ArraySlice<Unicode.Scalar>?)
        -> String
    {
        month + " " + EnglishNumbers.ordinal(day) + (year.map { ", " + inWords(year: $0) } ?? "")
    }

    // MARK: Times

    /// 5:30 pm, 17:30 and 5 pm.
    mutating func readTimes() {
        rewrite { text, index in
            guard text.isDigit(index), text.isBoundary(index) else { return nil }
            return text.clockTime(index)
        }
        rewrite { text, index in
            guard ("1"..."9").contains(text[index]), text.isBoundary(index) else { return nil }
            let hourEnd = text[index] == "1" && ("0"..."2").contains(text[index + 1]) ? index + 2 : index + 1
            guard let half = text.halfOfDay(text.skipping(" ", at: hourEnd)) else { return nil }
            let hour = EnglishNumbers.cardinal(text[index..<hourEnd])
            return Match(end: half.end, words: "\(hour) \(half.letter) m")
        }
    }

    private func clockTime(_ index: Int) -> Match? {
        let colon: Int
        if self[index + 1] == ":" {
            colon = index + 1
        } else {
            let isHour =
                switch self[index] {
                case "0", "1": isDigit(index + 1)
                case "2": ("0"..."3").contains(self[index + 1])
                default: false
                }
            guard isHour, self[index + 2] == ":" else { return nil }
            colon = index + 2
        }
        guard ("0"..."5").contains(self[colon + 1]), isDigit(colon + 2) else { return nil }
        let end = colon + 3
        var hour = EnglishNumbers.value(self[index..<colon])
        let minute = EnglishNumbers.value(self[colon + 1..<end])
        let half = halfOfDay(skipping(" ", at: end))
        if half != nil { hour = hour % 12 == 0 ? 12 : hour % 12 }
        var words = EnglishNumbers.cardinal(hour)
        if minute > 0 {
            words += (minute < 10 ? " oh " : " ") + EnglishNumbers.cardinal(minute)
        } else if half == nil {
            words += (1...12).contains(hour) ? " o'clock" : " hundred"
        }
        guard let half else { return isDigit(end) ? nil : Match(end: end, words: words) }
        let stop = skipping(".", at: half.end)
        return Match(end: isDigit(stop) ? half.end : stop, words: "\(words) \(half.letter) m")
    }

    /// am, PM, a.m and so on, as a whole word; its full stop isn't part of it.
    private func halfOfDay(_ index: Int) -> (letter: String, end: Int)? {
        let letter: String
        switch self[index] {
        case "a", "A": letter = "a"
        case "p", "P": letter = "p"
        default: return nil
        }
        let last = skipping(".", at: index + 1)
        guard self[last] == "m" || self[last] == "M", !isWord(last + 1) else { return nil }
        return (letter, last + 1)
    }
}
