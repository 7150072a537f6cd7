extension RewrittenText {
    // MARK: Money

    /// $12.50, £5 million
    mutating func readMoney() {
        rewrite { text, index in
            guard let currency = EnglishQuantities.currency(text[index]) else { return nil }
            let start = text.skipping(" ", at: index + 1)
            guard text.isDigit(start) else { return nil }
            for amountEnd in text.amountEnds(start) {
                if let scale = text.scale(amountEnd) {
                    let amount = EnglishNumbers.number(text[start..<amountEnd])
                    return Match(end: scale.end, words: "\(amount) \(scale.name) \(currency.unit)s")
                }
                if !text.isWord(amountEnd) {
                    return Match(end: amountEnd, words: currency.inWords(text[start..<amountEnd]))
                }
            }
            return nil
        }
    }

    /// Where an amount may end, in the order of preference: grouped before plain, the most groups first, a fraction
    /// before none.
    private func amountEnds(_ start: Int) -> [Int] {
        let plainEnd = digitsEnd(start)
        var wholeEnds = [plainEnd]
        if plainEnd - start <= 3 {
            let end = groupsEnd(plainEnd)
            // One group less is followed by a comma, which is good enough for an amount.
            wholeEnds = [end, end - 4].filter { $0 > plainEnd } + wholeEnds
        }
        return wholeEnds.flatMap { end in
            let fractionEnd = fractionEnd(end)
            return fractionEnd > end ? [fractionEnd, end] : [end]
        }
    }

    /// " million" and the like, as a whole word.
    private func scale(_ index: Int) -> (name: String, end: Int)? {
        guard self[index] == " " else { return nil }
        for name in EnglishQuantities.scales {
            if let end = end(of: name, at: index + 1), !isWord(end) { return (name, end) }
        }
        return nil
    }

    // MARK: Telephone numbers

    /// Groups joined by hyphens, digit by digit.
    mutating func readTelephoneNumbers() {
        guard scalars.contains("-") else { return }
        rewrite { text, index in
            guard text.isDigit(index) || text[index] == "+" || text[index] == "(",
                let end = text.telephoneNumberEnd(index)
            else { return nil }
            let groups = text[index..<end].split { !$0.isDecimalDigit }
            return Match(end: end, words: groups.map { EnglishNumbers.spelled($0) }.joined(separator: ", "))
        }
    }

    private func telephoneNumberEnd(_ index: Int) -> Int? {
        if self[index] == "(" {
            // (555) 123-4567
            guard hasDigits(index + 1..<index + 4), self[index + 4] == ")" else { return nil }
            let local = skipping(" ", at: index + 5)
            let isLocal = hasDigits(local..<local + 3) && self[local + 3] == "-" && hasDigits(local + 4..<local + 8)
            return isLocal ? local + 8 : nil
        }
        guard !isDigit(index - 1), self[index - 1] != "-" else { return nil }
        var end = digitsEnd(skipping("+", at: index))
        var lengths = [end - skipping("+", at: index)]
        while self[end] == "-", isDigit(end + 1), lengths.count < 6 {
            let start = end + 1
            end = digitsEnd(start)
            lengths.append(end - start)
        }
        guard self[end] != "-", (1...4).contains(lengths[0]), let last = lengths.last else { return nil }
        if lengths == [3, 4], self[index] != "+" { return end }
        // The last four digits may be joined to the group before them.
        let inner = lengths.dropFirst().dropLast()
        guard inner.allSatisfy((2...4).contains) else { return nil }
        let isSeparate = last == 4 && (1...3).contains(inner.count)
        let isJoined = (6...8).contains(last) && inner.count < 3 && lengths.count > 1
        return isSeparate || isJoined ? end : nil
    }

    // MARK: Fractions, ranges, ordinals, units

    /// 1/2, 3-4, 21st, 5 km
    mutating func readQuantities() {
        rewrite { text, index in
            guard ("1"..."3").contains(text[index]), text[index + 1] == "/", !text.isDigit(index - 1),
                text[index - 1] != "/", !text.isDigit(index + 3), text[index + 3] != "/",
                let words = EnglishQuantities.fractions[String(text[index..<min(index + 3, text.count)])]
            else { return nil }
            return Match(end: index + 3, words: words)
        }
        rewrite { text, index in
            guard text[index] == "-" || text[index] == " ", text.isDigit(index - 1) else { return nil }
            let hyphen = text.skipping(" ", at: index)
            let end = text.skipping(" ", at: hyphen + 1)
            return text[hyphen] == "-" && text.isDigit(end) ? Match(end: end, words: " to ") : nil
        }
        readOrdinals()
        readUnits()
    }

    private mutating func readOrdinals() {
        var chain = 0..<0
        rewrite { text, index in
            guard text.isDigit(index), text.isBoundary(index) else { return nil }
            for end in text.numberEnds(index, chain: &chain)
            where text.isOrdinalEnding(end) && !text.isWord(end + 2) {
                return Match(end: end + 2, words: EnglishNumbers.ordinal(text[index..<end].filter { $0 != "," }[...]))
            }
            return nil
        }
    }

    private mutating func readUnits() {
        var chain = 0..<0
        rewrite { text, index in
            // Within a run of digits, only the first and, before groups, the third from the end make a difference.
            guard text.isDigit(index),
                !text.isDigit(index - 1) || text[index + 3] == "," && text.hasDigits(index..<index + 3)
            else { return nil }
            for wholeEnd in text.numberEnds(index, chain: &chain) {
                let end = text.fractionEnd(wholeEnd)
                guard let unit = text.unit(text.skipping(" ", at: end)) else { continue }
                let number = text[index..<end]
                let name = number.elementsEqual(["1"]) ? unit.one : unit.several
                return Match(end: unit.end, words: EnglishNumbers.number(number) + " " + name)
            }
            return nil
        }
    }

    private func unit(_ index: Int) -> (one: String, several: String, end: Int)? {
        guard let units = EnglishQuantities.unitsByFirst[self[index]] else { return nil }
        for unit in units {
            if let end = end(of: unit.short, at: index), !isLetter(end) { return (unit.one, unit.several, end) }
        }
        return nil
    }

    // MARK: Numbers

    /// What is left: minus signs, digits next to letters, years, numbers.
    mutating func readNumbers() {
        rewrite { text, index in
            guard text[index] == "-", text.isDigit(index + 1), !text.isWord(index - 1), text[index - 1] != "." else {
                return nil
            }
            return Match(end: index + 1, words: "minus ")
        }
        rewrite { text, index in
            let isJoint =
                text.isDigit(index) && text.isLetter(index + 1) || text.isLetter(index) && text.isDigit(index + 1)
            return isJoint ? Match(end: index + 1, words: "\(text[index]) ") : nil
        }
        rewrite { text, index in
            guard text.isDigit(index) else { return nil }
            let plainEnd = text.digitsEnd(index)
            let wholeEnd = plainEnd - index <= 3 ? text.groupsEnd(plainEnd) : plainEnd
            let end = text.fractionEnd(wholeEnd)
            let number = text[index..<end]
            let words =
                end == index + 4 && text.yearEnd(index) == end
                ? EnglishNumbers.year(EnglishNumbers.value(number)) : EnglishNumbers.number(number)
            return Match(end: end, words: words)
        }
    }

    /// Behind the groups of three digits, each with a comma in front, that follow the digits of a number.
    private func groupsEnd(_ index: Int) -> Int {
        var end = index
        while self[end] == ",", hasDigits(end + 1..<end + 4) { end += 4 }
        return end
    }

    /// Behind a point and digits; `index` if there are none.
    private func fractionEnd(_ index: Int) -> Int {
        self[index] == "." && isDigit(index + 1) ? digitsEnd(index + 1) : index
    }

    /// Where a number that something other than a digit, a comma or a point must follow may end: behind its groups or
    /// behind its digits. `chain` remembers groups, which end in the same place seen from each of them.
    private func numberEnds(_ index: Int, chain: inout Range<Int>) -> [Int] {
        let plainEnd = digitsEnd(index)
        guard plainEnd - index <= 3, self[plainEnd] == "," else { return [plainEnd] }
        if !chain.contains(index) { chain = index..<groupsEnd(plainEnd) }
        return chain.upperBound > plainEnd ? [chain.upperBound, plainEnd] : [plainEnd]
    }
}

private enum EnglishQuantities {
    struct Currency: Sendable {
        let unit: String
        let cent: String
        let cents: String

        /// An amount without a scale.
        func inWords(_ written: ArraySlice<Unicode.Scalar>) -> String {
            let amount = written.filter { $0 != "," }[...]
            let whole = amount.prefix { $0 != "." }
            let rest = amount[whole.endIndex...].dropFirst()
            if !rest.isEmpty, rest.count != 2 { return "\(EnglishNumbers.number(amount)) \(unit)s" }
            let wholeWords = EnglishNumbers.cardinal(whole)
            let restValue = EnglishNumbers.value(rest)
            var parts: [String] = []
            if wholeWords != "zero" || restValue == 0 {
                parts.append(wholeWords + " " + unit + (wholeWords == "one" ? "" : "s"))
            }
            if restValue > 0 {
                parts.append(EnglishNumbers.cardinal(restValue) + " " + (restValue == 1 ? cent : cents))
            }
            return parts.joined(separator: " and ")
        }
    }

    static func currency(_ sign: Unicode.Scalar) -> Currency? {
        switch sign {
        case "$": Currency(unit: "dollar", cent: "cent", cents: "cents")
        case "£": Currency(unit: "pound", cent: "penny", cents: "pence")
        case "€": Currency(unit: "euro", cent: "cent", cents: "cents")
        default: nil
        }
    }

    static let scales = ["hundred", "thousand", "million", "billion", "trillion"]

    static let fractions = [
        "1/2": "one half", "1/3": "one third", "2/3": "two thirds", "1/4": "one quarter", "3/4": "three quarters",
    ]

    typealias Unit = (short: String, one: String, several: String)

    /// Longer ones first.
    static let unitsByFirst: [Unicode.Scalar: [Unit]] = Dictionary(
        grouping: units.sorted { $0.short.unicodeScalars.count > $1.short.unicodeScalars.count }
    ) { $0.short.unicodeScalars.first ?? " " }

    private static let units: [Unit] = [
        ("km", "kilometer", "kilometers"), ("m", "meter", "meters"), ("cm", "centimeter", "centimeters"),
        ("mm", "millimeter", "millimeters"), ("kg", "kilogram", "kilograms"), ("g", "gram", "grams"),
        ("mg", "milligram", "milligrams"), ("l", "liter", "liters"), ("ml", "milliliter", "milliliters"),
        ("lb", "pound", "pounds"), ("lbs", "pound", "pounds"), ("oz", "ounce", "ounces"), ("ft", "foot", "feet"),
        ("mi", "mile", "miles"), ("mph", "mile an hour", "miles an hour"), ("h", "hour", "hours"),
        ("hr", "hour", "hours"), ("hrs", "hour", "hours"), ("min", "minute", "minutes"), ("s", "second", "seconds"),
        ("sec", "second", "seconds"), ("ms", "millisecond", "milliseconds"), ("Hz", "hertz", "hertz"),
        ("kHz", "kilohertz", "kilohertz"), ("MHz", "megahertz", "megahertz"), ("GHz", "gigahertz", "gigahertz"),
        ("KB", "kilobyte", "kilobytes"), ("kB", "kilobyte", "kilobytes"), ("MB", "megabyte", "megabytes"),
        ("GB", "gigabyte", "gigabytes"), ("TB", "terabyte", "terabytes"), ("W", "watt", "watts"),
        ("kW", "kilowatt", "kilowatts"), ("V", "volt", "volts"), ("°C", "degree Celsius", "degrees Celsius"),
        ("°F", "degree Fahrenheit", "degrees Fahrenheit"), ("°", "degree", "degrees"), ("%", "percent", "percent"),
    ]
}
