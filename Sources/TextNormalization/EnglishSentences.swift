/// Where sentences end.
enum EnglishSentences {
    typealias Word = ArraySlice<Unicode.Scalar>

    /// What a word says about the end of a sentence behind it.
    enum End {
        case sentence
        /// An abbreviation or an initial, unless a word follows that begins sentences.
        case openBeforeName
        case none
    }

    /// Quotes, brackets and emphasis that may stand behind the mark that ends a sentence.
    static let closing = Set("\"')]}”’»*_`".unicodeScalars)
    private static let opening = Set("\"'([{“‘«*_`".unicodeScalars)

    /// - Parameters:
    ///   - isFirst: whether the word begins its sentence.
    ///   - next: what follows the white space behind the word.
    static func end(_ word: Word, isFirst: Bool, next: Unicode.Scalar) -> End {
        var word = word
        while let last = word.last, closing.contains(last) { word.removeLast() }
        guard let mark = word.popLast(), !next.properties.isLowercase else { return .none }
        if mark == "!" || mark == "?" || mark == "…" { return .sentence }
        guard mark == "." else { return .none }
        // An ellipsis, or the stop behind another mark.
        guard let last = word.last, last.isWordCharacter else { return .sentence }
        let name = word.drop { opening.contains($0) }
        if name.allSatisfy(\.isDecimalDigit) { return isFirst && name.count <= 3 ? .none : .sentence }
        let text = String(name)
        switch text {
        case "I", "a.m", "p.m", "A.M", "P.M": return .sentence
        case "e.g", "i.e", "vs": return .none
        case "No", "no", "Nos": return next.isDecimalDigit ? .none : .sentence
        default: break
        }
        // J., U.S.
        let isInitials = name.split(separator: ".", omittingEmptySubsequences: false).allSatisfy {
            $0.count == 1 && $0.first?.properties.isAlphabetic == true
        }
        return isInitials || open.contains(text) ? .openBeforeName : .sentence
    }

    private static let open: Set = [
        "Mr", "Mrs", "Ms", "Dr", "Prof", "Gen", "Capt", "Lt", "Sgt", "Rev", "Gov", "Sen", "Rep", "Col", "Mt", "Ft",
        "St",
        "approx", "dept", "est", "Fig", "fig", "Vol", "vol", "pp", "Ph.D", "Jan", "Feb", "Mar", "Apr", "Jun", "Jul",
        "Aug", "Sep", "Sept", "Oct", "Nov", "Dec", "Mon", "Tue", "Tues", "Wed", "Thu", "Thurs", "Fri", "Sat", "Sun",
    ]

    /// Whether a word is one that begins sentences, and is no name.
    static func isStarter(_ word: Word) -> Bool {
        let letters = word.drop { opening.contains($0) }
        let name = letters.prefix(while: \.isASCIILetter)
        // An initial.
        if letters.dropFirst(name.count).first == "." { return false }
        return starters.contains(String(name))
    }

    private static let starters: Set = [
        "A", "After", "Also", "And", "Are", "As", "At", "But", "Did", "Do", "Does", "For", "He", "Her", "His", "How",
        "However", "I", "If", "In", "Is", "It", "Its", "My", "On", "Our", "She", "That", "The", "Their", "Then",
        "There",
        "These", "They", "This", "Those", "We", "What", "When", "Where", "While", "Who", "Why", "You", "Your",
    ]
    static let longestStarter = 7

    /// How many lines end in white space, counting CR LF as one.
    static func lineBreaks(_ gap: Word) -> Int {
        var previous: Unicode.Scalar = " "
        var count = 0
        for scalar in gap {
            switch scalar {
            case "\n": count += previous == "\r" ? 0 : 1
            case "\r", "\u{B}", "\u{C}", "\u{85}", "\u{2028}": count += 1
            case "\u{2029}": count += 2
            default: break
            }
            previous = scalar
        }
        return count
    }

    /// Whether a word at the beginning of a line marks an item: - * • 1. 2)
    static func isListMarker(_ word: Word) -> Bool {
        let marks: [Unicode.Scalar] = ["-", "*", "•", "–", "—", "+"]
        if word.count == 1, let mark = word.first { return marks.contains(mark) }
        let digits = word.prefix(while: \.isDecimalDigit)
        let rest = word.dropFirst(digits.count)
        return (1...3).contains(digits.count) && rest.count == 1 && (rest.first == "." || rest.first == ")")
    }
}
