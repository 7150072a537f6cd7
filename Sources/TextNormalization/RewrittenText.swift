/// Text that rules rewrite one after the other, as Unicode scalars.
///
/// Rules see what the expressions in `Training/normalise.py` see: digits and word characters are Unicode's, ranges of
/// letters are ASCII. Places outside the text read as U+0000, which is in no class.
struct RewrittenText {
    /// What a rule puts in the place of the text from the place it was tried at.
    struct Match {
        /// Behind the last scalar that is replaced.
        let end: Int
        let words: String
    }

    private(set) var scalars: [Unicode.Scalar]

    init(_ text: String) {
        scalars = Array(text.unicodeScalars)
    }

    var count: Int { scalars.count }

    subscript(_ index: Int) -> Unicode.Scalar {
        index >= 0 && index < scalars.count ? scalars[index] : "\0"
    }

    subscript(_ range: Range<Int>) -> ArraySlice<Unicode.Scalar> { scalars[range] }

    /// Replaces each match, from left to right; matches are never empty, and look at the text before this rule.
    @inline(__always)
    mutating func rewrite(_ match: (_ text: borrowing RewrittenText, _ index: Int) -> Match?) {
        var output: [Unicode.Scalar] = []
        var copied = 0
        var index = 0
        while index < scalars.count {
            guard let found = match(self, index) else {
                index += 1
                continue
            }
            output += scalars[copied..<index]
            output += found.words.unicodeScalars
            index = found.end
            copied = index
        }
        guard copied > 0 else { return }
        output += scalars[copied...]
        scalars = output
    }

    /// Replaces a word where it stands; `condition` gets the text and the place behind the word.
    @inline(__always)
    mutating func replace(
        _ word: String, with words: String, where condition: (borrowing RewrittenText, Range<Int>) -> Bool
    ) {
        guard let first = word.unicodeScalars.first else { return }
        var output: [Unicode.Scalar] = []
        var copied = 0
        var index = 0
        while let start = firstIndex(of: first, from: index) {
            index = start + 1
            guard let end = end(of: word, at: start), condition(self, start..<end) else { continue }
            output += scalars[copied..<start]
            output += words.unicodeScalars
            index = end
            copied = end
        }
        guard copied > 0 else { return }
        output += scalars[copied...]
        scalars = output
    }

    /// There are many words to look for, and few places where one may begin.
    private func firstIndex(of scalar: Unicode.Scalar, from start: Int) -> Int? {
        scalars.withUnsafeBufferPointer { scalars in
            var index = start
            while index < scalars.count {
                if scalars[index] == scalar { return index }
                index += 1
            }
            return nil
        }
    }

    /// Replaces single scalars.
    @inline(__always)
    mutating func replaceScalars(_ replacement: (Unicode.Scalar) -> String?) {
        rewrite { text, index in replacement(text[index]).map { Match(end: index + 1, words: $0) } }
    }

    /// Keeps the scalars that `isKept` holds for; it gets the text before.
    @inline(__always)
    mutating func filter(_ isKept: (borrowing RewrittenText, Int) -> Bool) {
        guard let first = scalars.indices.first(where: { !isKept(self, $0) }) else { return }
        var output = Array(scalars[..<first])
        for index in first + 1..<max(count, first + 1) where isKept(self, index) { output.append(scalars[index]) }
        scalars = output
    }

    // MARK: Questions about a place

    /// Behind a literal that stands at `index`.
    func end(of literal: String, at index: Int) -> Int? {
        var end = index
        for scalar in literal.unicodeScalars {
            guard self[end] == scalar else { return nil }
            end += 1
        }
        return end
    }

    func isDigit(_ index: Int) -> Bool { self[index].isDecimalDigit }

    /// An ASCII letter.
    func isLetter(_ index: Int) -> Bool { self[index].isASCIILetter }

    /// An ASCII capital.
    func isCapital(_ index: Int) -> Bool { ("A"..."Z").contains(self[index]) }

    /// A letter, a number or an underscore.
    func isWord(_ index: Int) -> Bool { self[index].isWordCharacter }

    /// Whether a word begins or ends in front of `index`.
    func isBoundary(_ index: Int) -> Bool { isWord(index - 1) != isWord(index) }

    /// Behind the digits that begin at `index`.
    func digitsEnd(_ index: Int) -> Int {
        var end = index
        while isDigit(end) { end += 1 }
        return end
    }

    func hasDigits(_ range: Range<Int>) -> Bool { range.allSatisfy(isDigit) }

    /// Behind one optional scalar.
    func skipping(_ scalar: Unicode.Scalar, at index: Int) -> Int { self[index] == scalar ? index + 1 : index }
}

extension Unicode.Scalar {
    var isASCIILetter: Bool { ("a"..."z").contains(self) || ("A"..."Z").contains(self) }

    var isDecimalDigit: Bool {
        isASCII ? ("0"..."9").contains(self) : properties.numericType == .decimal
    }

    /// The value of a decimal digit.
    var digitValue: Int {
        isASCII ? Int(value) - 48 : Int(properties.numericValue ?? 0)
    }

    /// A letter, a number of any kind or an underscore.
    var isWordCharacter: Bool {
        if isASCII { return isASCIILetter || isDecimalDigit || self == "_" }
        switch properties.generalCategory {
        case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter: return true
        default: return properties.numericType != nil
        }
    }

    /// White space, with the separators among the control characters.
    var isSpacing: Bool {
        switch value {
        case 0x09...0x0D, 0x1C...0x20, 0x85, 0xA0, 0x1680, 0x2000...0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000: true
        default: false
        }
    }
}
