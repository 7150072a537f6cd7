/// Cuts a growing text into the pieces that a bridge passes on: a short starter as soon as there is one, then up to each
/// punctuation mark, else after 8 to 12 characters, at a blank if one lies there.
///
/// Pieces joined give the text. Where they are cut never changes what is spoken, only when.
public struct BridgeSegmenter: Sendable {
    /// Characters of the starter, at the least; it ends with a word.
    public var starter = 4
    /// Characters after which a piece may end at a blank, and must end anyhow.
    public var shortest = 8, longest = 12

    private var pending: [Character] = []
    private var hasStarted = false

    /// Nothing yet.
    public init() {}

    private static let marks: Set<Character> = [
        ".", ",", "!", "?", ";", ":", "\n", "。", "，", "！", "？", "；", "：", "、", "…",
    ]

    /// Adds text, and gives the pieces that are ready.
    public mutating func add(_ text: String) -> [String] {
        var pieces: [String] = []
        for character in text {
            pending.append(character)
            if isReady { pieces.append(take()) }
        }
        return pieces
    }

    /// What is left at the end; nil if nothing is.
    public mutating func finish() -> String? { pending.isEmpty ? nil : take() }

    private var isReady: Bool {
        guard let last = pending.last else { return false }
        if Self.marks.contains(last) { return true }
        guard hasStarted else { return pending.count >= longest || (pending.count > starter && last.isWhitespace) }
        return pending.count >= longest || (pending.count >= shortest && last.isWhitespace)
    }

    private mutating func take() -> String {
        defer { pending = [] }
        hasStarted = true
        return String(pending)
    }
}
