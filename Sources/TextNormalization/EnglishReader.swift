/// Turns English text, in whatever pieces it comes, into sentences in words that a letter-trained voice can read.
///
/// What it yields depends on the text alone, not on how it was cut. The words of a sentence come as soon as no later
/// character can change them: sentences are cut between words that no rule of the normaliser looks across, so that the
/// words of a sentence, joined, are the normalised sentence. A sentence that is too long for one breath ends at its last
/// comma; words behind a comma where that may happen wait for the next comma or the end.
public struct EnglishReader: Sendable {
    /// What the reader has to say.
    public enum Event: Sendable, Equatable {
        /// Words of the current sentence; with a space in front unless they begin it.
        case words(String)
        /// The current sentence is over.
        case sentenceEnd
    }

    /// Where the text is cut, and whether a sentence ends there.
    private struct Cut {
        let index: Int
        let endsSentence: Bool
    }

    /// Characters (Unicode scalars) of a sentence after which it is cut.
    static let longSentence = 150
    /// How many more it may have, to be cut where no rule looks across.
    static let longSentenceSlack = 10
    /// Characters of a sentence before a comma at which it may be cut.
    static let shortestClause = 60
    /// Characters of a text without spaces that are read at once, as the end of a sentence.
    static let longestWord = 1000

    /// Text that hasn't been read, and begins with a word. Indices stay the same as it is read and appended to.
    private var pending: ArraySlice<Unicode.Scalar> = []
    /// Characters of the current sentence that have been read.
    private var spoken = 0
    /// The word that is looked at begins here,
    private var wordStart = 0
    /// ends here, if its end has been seen,
    private var wordEnd: Int?
    /// and everything up to here has been looked at.
    private var scanned = 0
    /// Behind the last comma at which the sentence may be cut.
    private var clauseEnd: Int?
    /// The last place behind it that no rule looks across.
    private var clauseCut: Int?

    /// A reader at the beginning of a text.
    public init() {}

    /// Takes more text.
    public mutating func append(_ text: String) -> [Event] {
        pending += text.unicodeScalars
        return read(isComplete: false)
    }

    /// No more text comes.
    public mutating func finish() -> [Event] {
        read(isComplete: true) + emit(Cut(index: pending.endIndex, endsSentence: true))
    }

    private mutating func read(isComplete: Bool) -> [Event] {
        var events: [Event] = []
        while let cut = nextCut(isComplete: isComplete) { events += emit(cut) }
        return events
    }

    private mutating func emit(_ cut: Cut) -> [Event] {
        let start = pending.startIndex
        var piece = pending[..<cut.index]
        pending = pending[cut.index...]
        // An abbreviation's full stop ends a sentence only where nothing follows.
        while piece.last?.isSpacing == true { piece.removeLast() }
        let words = EnglishNormalizer.normalize(String(piece))
        var events: [Event] = []
        if words.unicodeScalars.contains(where: \.isASCIILetter) {
            events.append(.words(spoken > 0 ? " " + words : words))
            spoken += cut.index - start
        }
        if cut.endsSentence {
            if spoken > 0 { events.append(.sentenceEnd) }
            spoken = 0
            clauseEnd = nil
            clauseCut = nil
            beginWord(at: cut.index)
        }
        return events
    }

    private mutating func beginWord(at index: Int) {
        wordStart = index
        wordEnd = nil
        scanned = index
    }

    /// The first place where `pending` can be cut with certainty; nil if more text must come.
    private mutating func nextCut(isComplete: Bool) -> Cut? {
        while let wordEnd = findWordEnd() {
            if wordEnd - wordStart >= Self.longestWord { return Cut(index: wordEnd, endsSentence: true) }
            while scanned < pending.endIndex, pending[scanned].isSpacing { scanned += 1 }
            guard scanned < pending.endIndex else { return nil }
            let next = scanned
            if wordEnd == wordStart {
                // White space in front of the text.
                pending = pending[next...]
                beginWord(at: next)
                continue
            }
            let word = pending[wordStart..<wordEnd]
            let ahead = { [pending] (length: Int) in
                Self.wordPrefix(pending, at: next, length: length, isComplete: isComplete)
            }
            guard let isOver = endsSentence(word, gap: pending[wordEnd..<next], next: pending[next], ahead: ahead)
            else { return nil }
            if isOver { return Cut(index: next, endsSentence: true) }
            // Where a rule might look across, it shows in four characters.
            guard let start = ahead(Self.mayBeJoined(pending[next]) ? 4 : 1) else { return nil }
            let isOpen = Self.isOpen(between: word, and: start)
            let position = spoken + wordEnd - pending.startIndex
            if position > Self.longSentence {
                if let clauseEnd { return Cut(index: clauseEnd, endsSentence: true) }
                if isOpen || position > Self.longSentence + Self.longSentenceSlack {
                    return Cut(index: next, endsSentence: true)
                }
            }
            beginWord(at: next)
            if position >= Self.shortestClause, Self.endsClause(word), !pending[next].isDecimalDigit {
                clauseEnd = next
                if let cut = clauseCut {
                    clauseCut = nil
                    return Cut(index: cut, endsSentence: false)
                }
            } else if isOpen {
                if clauseEnd == nil { return Cut(index: next, endsSentence: false) }
                clauseCut = next
            }
        }
        return nil
    }

    /// The end of the word at `wordStart`: white space that has come, or too many characters.
    private mutating func findWordEnd() -> Int? {
        if wordEnd == nil {
            while scanned < pending.endIndex, !pending[scanned].isSpacing, scanned - wordStart < Self.longestWord {
                scanned += 1
            }
            if scanned < pending.endIndex || scanned - wordStart == Self.longestWord { wordEnd = scanned }
        }
        return wordEnd
    }

    /// The word at `index`, cut to `length`; nil if that much of it hasn't come.
    private static func wordPrefix(
        _ text: ArraySlice<Unicode.Scalar>, at index: Int, length: Int, isComplete: Bool
    ) -> ArraySlice<Unicode.Scalar>? {
        let word = text[index...].prefix(length).prefix { !$0.isSpacing }
        return word.count == length || word.endIndex < text.endIndex || isComplete ? word : nil
    }

    private static func endsClause(_ word: ArraySlice<Unicode.Scalar>) -> Bool {
        let last = word.last { !EnglishSentences.closing.contains($0) }
        return last == "," || last == ";" || last == ":"
    }

    private static func mayBeJoined(_ first: Unicode.Scalar) -> Bool {
        first == "h" || first == "w" || first == "D" || first == "S"
    }

    /// Whether no rule looks across the space between a word and the next, of which up to four characters are known.
    ///
    /// Rules that do: a lowercase word before "Dr.", a capitalised one before "St.", a month before a day, "the" before
    /// a day and "of" before a month. A web address may leave nothing but punctuation, which would join the word before.
    private static func isOpen(between word: ArraySlice<Unicode.Scalar>, and next: ArraySlice<Unicode.Scalar>) -> Bool {
        guard word.last?.isASCIILetter == true, word.allSatisfy({ $0.isASCIILetter || $0 == "'" || $0 == "’" }),
            let first = next.first
        else { return false }
        switch first {
        case "a"..."z": return !["http", "www."].contains(String(next))
        case "A"..."Z":
            return !["Dr.", "St."].contains(String(next.prefix(3))) && !["the", "of"].contains(String(word))
        case "0"..."9": return word.allSatisfy { ("a"..."z").contains($0) } && !["the", "of"].contains(String(word))
        default: return false
        }
    }

    /// Whether a sentence ends in the gap behind a word; nil if that depends on what hasn't come. `ahead` gives so many
    /// characters of the next word.
    private func endsSentence(
        _ word: ArraySlice<Unicode.Scalar>, gap: ArraySlice<Unicode.Scalar>, next: Unicode.Scalar,
        ahead: (Int) -> ArraySlice<Unicode.Scalar>?
    ) -> Bool? {
        let lineBreaks = EnglishSentences.lineBreaks(gap)
        if lineBreaks > 1 { return true }
        let isFirst = spoken == 0 && wordStart == pending.startIndex
        switch EnglishSentences.end(word, isFirst: isFirst, next: next) {
        case .sentence: return true
        case .openBeforeName:
            guard let start = ahead(EnglishSentences.longestStarter + 2) else { return nil }
            if EnglishSentences.isStarter(start) { return true }
        case .none: break
        }
        if lineBreaks == 1 {
            guard let start = ahead(5) else { return nil }
            return EnglishSentences.isListMarker(start)
        }
        return false
    }
}
