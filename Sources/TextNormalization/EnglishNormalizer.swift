/// Rewrites English text as words to read aloud: digits, dates, times, money, abbreviations, spelled letters.
///
/// The rules of `Training/normalise.py`, in its order: voices that ask for them are trained on text of that form. Takes
/// time proportional to the text.
public enum EnglishNormalizer {
    /// The text in letters, blanks and the marks . , ; : ! ? ' " -.
    ///
    /// Letters with marks lose them, and letters, digits and signs in another form (ﬁ, ², ™, Ａ, 𝐀) become plain, up to
    /// U+1FFF, among punctuation, sub- and superscripts, letter-like signs and number forms, ligatures, full-width forms
    /// mathematical letters and those in circles. Python's NFKD also takes apart enclosed and squared ones (⒜, ㎏), which are left out
    /// here, as everything else is.
    public static func normalize(_ text: String) -> String {
        // Readers ask word by word, and most words are plain.
        if text.utf8.dropFirst().allSatisfy({ (0x61...0x7A).contains($0) }),
            text.unicodeScalars.first?.isASCIILetter == true
        {
            return text
        }
        var text = RewrittenText(text)
        text.unifyCharacters()
        text.readAddresses()
        text.expandAbbreviations()
        if text.scalars.contains(where: \.isDecimalDigit) {
            text.readDates()
            text.readTimes()
            text.readMoney()
            text.readTelephoneNumbers()
            text.readQuantities()
            text.readNumbers()
        }
        text.spellCapitals()
        text.keepLetters()
        return text.trimmed
    }
}

extension RewrittenText {
    /// Quotes, dashes and white space in one form.
    fileprivate mutating func unifyCharacters() {
        if scalars.contains(where: { !$0.isASCII }) {
            replaceScalars { scalar in
                switch scalar {
                case "‘", "’": "'"
                case "“", "”": "\""
                case "…": "..."
                case "—": ", "
                default: nil
                }
            }
            replace(" – ", with: ", ") { _, _ in true }
            replaceScalars { scalar in
                switch scalar {
                case "–", "−": "-"
                case "×": " times "
                case "½": " one half "
                case "¼": " one quarter "
                case "¾": " three quarters "
                default: nil
                }
            }
        }
        collapseSpaces()
    }

    /// White space becomes single blanks.
    private mutating func collapseSpaces() {
        replaceScalars { $0 != " " && $0.isSpacing ? " " : nil }
        filter { text, index in text[index] != " " || text[index - 1] != " " }
    }

    /// Addresses of the web and of mail.
    fileprivate mutating func readAddresses() {
        rewrite { text, index in
            guard text[index] == "h" || text[index] == "w", text.isBoundary(index) else { return nil }
            if let end = text.end(of: "http://", at: index) ?? text.end(of: "https://", at: index) {
                return Match(end: text.end(of: "www.", at: end) ?? end, words: "")
            }
            return text.end(of: "www.", at: index).map { Match(end: $0, words: "") }
        }
        rewrite { text, index in
            guard text[index] == ".", text.isLetter(index - 1) || ("0"..."9").contains(text[index - 1]) else {
                return nil
            }
            for domain in ["com", "org", "net", "edu", "gov", "io", "uk", "de"] {
                if let end = text.end(of: domain, at: index + 1), !text.isWord(end) {
                    return Match(end: index + 1, words: " dot ")
                }
            }
            return nil
        }
        rewrite { text, index in
            guard text[index] == "@", text.isWord(index - 1), text.isWord(index + 1) else { return nil }
            return Match(end: index + 1, words: " at ")
        }
    }

    /// Capitals that are no word: letter by letter.
    fileprivate mutating func spellCapitals() {
        rewrite { text, index in
            guard text.isCapital(index), text[index + 1] == ".", text.isBoundary(index) else { return nil }
            var end = index
            while text.isCapital(end), text[end + 1] == "." { end += 2 }
            guard end >= index + 4 else { return nil }
            return Match(end: end, words: String.spaced(text[index..<end].filter { $0 != "." }))
        }
        rewrite { text, index in
            guard text.isCapital(index), text.isCapital(index + 1), text.isBoundary(index) else { return nil }
            var capitalsEnd = index
            while text.isCapital(capitalsEnd) { capitalsEnd += 1 }
            let end = text.skipping("s", at: capitalsEnd)
            guard capitalsEnd - index <= 5, !text.isWord(end), !isReadAsWord(text[index..<end]) else { return nil }
            let letters = String.spaced(text[index..<capitalsEnd])
            return Match(end: end, words: end > capitalsEnd ? letters + "'s" : letters)
        }
    }

    /// Symbols in words, letters without marks, and nothing else.
    fileprivate mutating func keepLetters() {
        replaceScalars { scalar in
            switch scalar {
            case "&": " and "
            case "+": " plus "
            case "=": " equals "
            case "@": " at "
            case "%": " percent "
            case "/": " slash "
            case "#": " number "
            case "°": " degrees "
            case "$": " dollars "
            case "£": " pounds "
            case "€": " euros "
            case "*", "_", "~", "^", "|", "<", ">", "\\": " "
            case "[", "]", "{", "}", "(", ")": ", "
            default: nil
            }
        }
        if scalars.contains(where: { !$0.isASCII }) {
            filter { text, index in
                text[index].isASCII || text[index].properties.canonicalCombiningClass == .notReordered
            }
            replaceScalars { $0.isASCII ? nil : LatinForms.plain($0) ?? " " }
        }
        replaceScalars { scalar in
            switch scalar {
            case "a"..."z", "A"..."Z", "0"..."9", " ", ".", ",", ";", ":", "!", "?", "'", "\"", "-": nil
            default: " "
            }
        }
        collapseSpaces()
        filter { text, index in text[index] != " " || !text[index + 1].isStop }
        filter { text, index in text[index] != "," || !text[index + 1].isStop }
    }

    /// Without blanks and commas around it.
    fileprivate var trimmed: String {
        let isKept = { (scalar: Unicode.Scalar) in scalar != " " && scalar != "," }
        guard let first = scalars.firstIndex(where: isKept), let last = scalars.lastIndex(where: isKept) else {
            return ""
        }
        return String(scalars[first...last])
    }
}

/// Capitals, perhaps with an s, that are read as a word: longer than three and with a vowel inside, or well known.
private func isReadAsWord(_ letters: ArraySlice<Unicode.Scalar>) -> Bool {
    if letters.count > 3, letters.dropFirst().contains(where: { "AEIOUY".unicodeScalars.contains($0) }) { return true }
    return shortWords.contains(String(letters))
}

private let shortWords: Set = [
    "OK", "NO", "YES", "AND", "THE", "NOT", "YOU", "ALL", "BUT", "FOR", "ARE", "WAS", "IT", "IS", "IN", "ON", "OF",
    "TO", "WE", "MY", "ME", "HE", "BE", "DO", "GO", "SO", "UP", "IF", "OR", "AT", "BY", "AS", "AN",
]

extension Unicode.Scalar {
    /// A mark that no blank goes before.
    fileprivate var isStop: Bool {
        switch self {
        case ".", ",", ";", ":", "!", "?": true
        default: false
        }
    }
}

extension String {
    init(_ scalars: some Sequence<Unicode.Scalar>) {
        var view = UnicodeScalarView()
        view.append(contentsOf: scalars)
        self.init(view)
    }

    /// With a blank between each two.
    fileprivate static func spaced(_ scalars: some Sequence<Unicode.Scalar>) -> String {
        scalars.map { String($0) }.joined(separator: " ")
    }
}
