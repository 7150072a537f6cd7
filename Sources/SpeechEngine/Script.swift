import Qwen3TTS
import TextNormalization

/// The text of one request, handed to the model in parts that are spoken one after the other.
///
/// Models that read any text get it as it is, in one part. A voice that asks for a normaliser (`martlet_text_normalizer`)
/// is trained on sentences in words: each becomes a part of its own.
struct Script: Sendable {
    private enum Piece: Sendable {
        case text(String)
        case partEnd
    }

    private let request: SpeechRequest
    private var reader: EnglishReader?
    private var pieces: ArraySlice<Piece> = []
    private var partsBegun = 0
    /// Bytes of text that have come.
    private(set) var byteCount = 0
    private var isComplete = false
    /// Whether text may still come for the part that was begun last.
    private(set) var isPartOpen = false

    /// - Parameter normalizer: what the model's configuration asks for.
    init(_ request: SpeechRequest, normalizer: String?) {
        self.request = request
        if normalizer != nil { reader = EnglishReader() }
        append(request.text)
        if request.isComplete { complete() }
    }

    /// Text that has come.
    mutating func append(_ text: String) {
        byteCount += text.utf8.count
        guard let events = reader?.append(text) else {
            pieces.append(.text(text))
            return
        }
        take(events)
    }

    /// No more text comes.
    mutating func complete() {
        guard !isComplete else { return }
        isComplete = true
        guard let events = reader?.finish() else {
            pieces.append(.partEnd)
            return
        }
        take(events)
    }

    private mutating func take(_ events: [EnglishReader.Event]) {
        for event in events {
            switch event {
            case .words(let words): pieces.append(.text(words))
            case .sentenceEnd: pieces.append(.partEnd)
            }
        }
    }

    /// Whether the text is spoken in parts.
    var hasParts: Bool { reader != nil }

    /// Whether all text has come and been handed out.
    var isExhausted: Bool { isComplete && pieces.isEmpty }

    /// The request for the next part, with the text of it that has come; nil if its text has not begun. The first part of
    /// a text that comes in pieces begins at once.
    mutating func beginPart() -> SpeechRequest? {
        guard !pieces.isEmpty || partsBegun == 0 && !request.isComplete else { return nil }
        var part = request
        part.text = takeText()
        part.isComplete = !isPartOpen
        // What is spoken must not depend on how much of the text has come by now.
        if !request.isComplete { part.layout = .streaming }
        // Parts draw numbers of their own.
        part.sampling.seed &+= UInt64(partsBegun) &* 0x9E37_79B9_7F4A_7C15
        partsBegun += 1
        return part
    }

    /// More text of the part that was begun last; afterwards `isPartOpen` tells whether that was all.
    mutating func takeText() -> String {
        isPartOpen = true
        var text = ""
        while let piece = pieces.popFirst() {
            guard case .text(let more) = piece else {
                isPartOpen = false
                break
            }
            text += more
        }
        if isExhausted { isPartOpen = false }
        return text
    }
}
