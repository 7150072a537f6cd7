extension RewrittenText {
    /// Titles, streets, months, days and the like.
    mutating func expandAbbreviations() {
        guard scalars.contains(".") || scalars.contains(where: \.isDecimalDigit) else { return }
        rewrite { text, index in
            guard text[index] == "N", text.isBoundary(index), let stop = text.end(of: "No.", at: index) else {
                return nil
            }
            let end = text.skipping(" ", at: stop)
            return text.isDigit(end) ? Match(end: end, words: "Number ") : nil
        }
        expandSaintsAndStreets()
        for abbreviation in EnglishAbbreviations.fixed {
            if abbreviation.mayEndSentence {
                // A full stop that also ends the sentence stays.
                replace(abbreviation.short, with: abbreviation.full + ".") { text, range in
                    !text.isLetter(range.lowerBound - 1) && text[range.lowerBound - 1] != "."
                        && text.endsSentence(range.upperBound)
                }
            }
            replace(abbreviation.short, with: abbreviation.full) { text, range in
                !text.isLetter(range.lowerBound - 1) && text[range.lowerBound - 1] != "."
                    && !text.isLetter(range.upperBound)
            }
        }
        for (short, full) in EnglishAbbreviations.months + EnglishAbbreviations.days {
            replace(short + ".", with: full) { text, range in text.isBoundary(range.lowerBound) }
        }
        for (short, full) in EnglishAbbreviations.months {
            replace(short, with: full) { text, range in
                text.isBoundary(range.lowerBound) && text[range.upperBound] == " " && text.isDigit(range.upperBound + 1)
            }
        }
    }

    /// "St." and "Dr." depend on what stands around them.
    private mutating func expandSaintsAndStreets() {
        rewrite { text, index in
            guard text.isCapital(index), text.isBoundary(index) else { return nil }
            if let name = text.nameBeforeSaint(index) {
                let words = text[name.hasComma ? index..<name.end : index..<name.saintEnd]
                return Match(end: name.saintEnd, words: String(words) + (name.hasComma ? "Saint " : ""))
            }
            return text.saintEnd(index).map { Match(end: $0, words: "Saint ") }
        }
        replace("St.", with: "Street") { text, range in text.isBoundary(range.lowerBound) }
        replace("Dr.", with: "Drive") { text, range in
            let isAfterLowercase = text[range.lowerBound - 1] == " " && ("a"..."z").contains(text[range.lowerBound - 2])
            return isAfterLowercase && !(text[range.upperBound] == " " && text.isCapital(range.upperBound + 1))
        }
    }

    /// Behind "St. " in front of a capital.
    private func saintEnd(_ index: Int) -> Int? {
        guard self[index] == "S", let end = end(of: "St. ", at: index), isCapital(end) else { return nil }
        return end
    }

    /// A capitalised word in front of "St. " and a capital: without a comma it names a street.
    private func nameBeforeSaint(_ index: Int) -> (end: Int, hasComma: Bool, saintEnd: Int)? {
        var wordEnd = index + 1
        while isWord(wordEnd) { wordEnd += 1 }
        let gap = skipping(",", at: wordEnd)
        guard self[gap] == " ", let saintEnd = saintEnd(gap + 1) else { return nil }
        return (gap + 1, gap > wordEnd, saintEnd)
    }

    /// Whether what follows an abbreviation's full stop shows that the sentence is over.
    private func endsSentence(_ index: Int) -> Bool {
        if index == count || self[index] == "\"" || self[index] == "'" || self[index] == ")" { return true }
        var next = index
        while self[next] == " " { next += 1 }
        return next > index && isCapital(next)
    }
}

/// What is written short.
enum EnglishAbbreviations {
    /// An abbreviation that is read the same way whatever follows.
    struct Fixed: Sendable {
        /// With its full stop.
        let short: String
        let full: String
        /// Whether its full stop may be the sentence's as well.
        let mayEndSentence: Bool
    }

    static let fixed = [
        titlesAndPlaces.map { Fixed(short: $0.0 + ".", full: $0.1, mayEndSentence: endings.contains($0.0)) },
        words.map { Fixed(short: $0.0 + ".", full: $0.1, mayEndSentence: endings.contains($0.0)) },
    ].flatMap { $0 }

    private static let titlesAndPlaces = [
        ("Mr", "Mister"), ("Mrs", "Missus"), ("Ms", "Miss"), ("Dr", "Doctor"), ("Prof", "Professor"), ("Jr", "Junior"),
        ("Sr", "Senior"), ("Gen", "General"), ("Capt", "Captain"), ("Lt", "Lieutenant"), ("Sgt", "Sergeant"),
        ("Rev", "Reverend"), ("Gov", "Governor"), ("Ave", "Avenue"), ("Blvd", "Boulevard"), ("Rd", "Road"),
        ("Mt", "Mount"), ("Ft", "Fort"),
    ]
    private static let words = [
        ("vs", "versus"), ("etc", "et cetera"), ("approx", "approximately"), ("dept", "department"),
        ("est", "established"), ("Inc", "Incorporated"), ("Ltd", "Limited"), ("Corp", "Corporation"),
        ("Co", "Company"), ("min", "minutes"), ("max", "maximum"), ("e.g", "for example"), ("i.e", "that is"),
        ("a.m", "a m"), ("p.m", "p m"), ("A.M", "a m"), ("P.M", "p m"),
    ]
    private static let endings: Set = [
        "etc", "a.m", "p.m", "A.M", "P.M", "Jr", "Sr", "Inc", "Ltd", "Co", "Corp", "Ave", "Rd", "Blvd",
    ]

    static let months = [
        ("Jan", "January"), ("Feb", "February"), ("Mar", "March"), ("Apr", "April"), ("Jun", "June"), ("Jul", "July"),
        ("Aug", "August"), ("Sep", "September"), ("Oct", "October"), ("Nov", "November"), ("Dec", "December"),
        ("Sept", "September"),
    ]
    static let days = [
        ("Mon", "Monday"), ("Tue", "Tuesday"), ("Tues", "Tuesday"), ("Wed", "Wednesday"), ("Thu", "Thursday"),
        ("Thurs", "Thursday"), ("Fri", "Friday"), ("Sat", "Saturday"), ("Sun", "Sunday"),
    ]
}
