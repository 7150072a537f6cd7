/// Turns English text, in whatever pieces it comes, into sentences in words that a letter-trained voice can read.
///
/// What it yields depends on the text alone, not on how it was cut: a piece is normalised once no later character can
/// change it. It is cut at the ends of sentences, between two plain words that no rule looks across, and in sentences
/// that are too long to be spoken in one breath.
public struct EnglishReader: Sendable {
    /// What the reader has to say.
    public enum Event: Sendable, Equatable {
        /// Words of the current sentence; with a space in front unless they begin it.
        case words(String)
        /// The current sentence is over.
        case sentenceEnd
    }

    /// Characters after which a sentence is cut at the next space.
    static let longSentence = 220

    /// Characters of a text without spaces that are read at once.
    static let longestWord = 1000

    private var pending: ArraySlice<Character> = []
    /// Characters of the current sentence that have been read.
    private var spoken = 0

    /// A reader at the beginning of a text.
    public init() {}

    /// Takes more text.
    public mutating func append(_ text: String) -> [Event] {
        pending += text
        return read(isComplete: false)
    }

    /// No more text comes.
    public mutating func finish() -> [Event] {
        read(isComplete: true) + emit(upTo: pending.endIndex, endsSentence: true)
    }

    private mutating func read(isComplete: Bool) -> [Event] {
        var events: [Event] = []
        while let cut = nextCut(isComplete: isComplete) {
            events += emit(upTo: cut.index, endsSentence: cut.endsSentence)
        }
        return events
    }

    private mutating func emit(upTo end: Int, endsSentence: Bool) -> [Event] {
        let piece = pending[..<end]
        pending = pending[end...]
        let words = EnglishNormalizer.normalize(String(piece))
        var events: [Event] = []
        if words.contains(where: { $0.isLetter }) {
            events.append(.words(spoken > 0 ? " " + words : words))
            spoken += piece.count
        }
        if endsSentence, spoken > 0 {
            events.append(.sentenceEnd)
            spoken = 0
        }
        return events
    }

    /// The first place where `pending` can be cut with certainty.
    private func nextCut(isComplete: Bool) -> (index: Int, endsSentence: Bool)? {
        var wordStart = pending.startIndex
        while let gap = word(from: wordStart) {
            // The rules look at the words that follow, which must have come entirely.
            guard let next = pending[gap...].firstIndex(where: { !$0.isWhitespace }) else { return nil }
            let isParagraph = pending[gap..<next].count { $0.isNewline } > 1
            if isParagraph || endsSentence(pending[wordStart..<gap], next: pending[next]) { return (next, true) }
            if spoken + (gap - pending.startIndex) > Self.longSentence { return (next, true) }
            if let nextGap = word(from: next),
                let following = pending[nextGap...].firstIndex(where: { !$0.isWhitespace }),
                let followingGap = word(from: following)
            {
                let words = [pending[wordStart..<gap], pending[next..<nextGap], pending[following..<followingGap]]
                if words.allSatisfy(Self.isPlain) { return (next, false) }
            } else if !isComplete {
                return nil
            }
            wordStart = next
        }
        if pending.endIndex - wordStart > Self.longestWord { return (wordStart + Self.longestWord, false) }
        return nil
    }

    /// The space that ends the word at `start`, if it has come.
    private func word(from start: Int) -> Int? {
        pending[start...].prefix(Self.longestWord).firstIndex(where: \.isWhitespace)
    }

    /// Lowercase letters only, long enough to be no unit, ordinal or half of a time: no rule joins it to a neighbour.
    private static func isPlain(_ word: ArraySlice<Character>) -> Bool {
        word.count > 3 && word.allSatisfy { $0.isASCII && $0.isLowercase } && !joining.contains(String(word))
    }

    /// Plain words that follow numbers.
    private static let joining: Set<String> = ["hundred", "thousand", "million", "billion", "trillion"]

    /// Whether a word ends a sentence, given what follows the space after it.
    private func endsSentence(_ word: ArraySlice<Character>, next: Character) -> Bool {
        var word = word
        while let last = word.last, "\"')]”’".contains(last) { word.removeLast() }
        guard let last = word.last, ".!?…".contains(last), !next.isLowercase else { return false }
        if last != "." { return true }
        let name = String(word.dropLast())
        // An initial, or an abbreviation that stands before a name or a number.
        let isInitial = name.count == 1 && name != "I"
        return !isInitial && !Self.openAbbreviations.contains(name)
    }

    private static let openAbbreviations: Set<String> = [
        "Mr", "Mrs", "Ms", "Dr", "Prof", "Gen", "Capt", "Lt", "Sgt", "Rev", "Gov", "Mt", "Ft", "St", "vs", "No", "e.g",
        "i.e", "approx", "dept", "est", "Jan", "Feb", "Mar", "Apr", "Jun", "Jul", "Aug", "Sep", "Sept", "Oct", "Nov",
        "Dec",
    ]
}
