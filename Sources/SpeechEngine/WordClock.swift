import Qwen3TTS

/// When a word of the spoken text begins.
public struct SpokenWord: Sendable, Codable, Equatable {
    /// The word with its punctuation, as it is read: after the voice's normaliser.
    public let word: String
    /// Seconds from the utterance's first sample.
    public let start: Double
}

/// A word of a part, and the frame of the part in which it begins.
struct BegunWord: Sendable {
    let word: String
    let frame: Int
}

/// Tells when the words of one part begin, from the text token that each of its frames speaks.
struct WordClock {
    private let tokenizer: Tokenizer
    /// UTF-8 of the text so far, and where the middle of each of its tokens is there: tokens begin with a word's blank.
    private var bytes: [UInt8] = []
    private var middles: [Int] = []
    /// Where the next word that has not begun starts, and how far the speech has come.
    private var nextWord = 0
    private var reached = 0
    /// The place of the frame before.
    private var lastPlace = 0

    /// Bytes that 80 ms of speech may be ahead of the frame before; more is believed when two frames agree.
    private static let longestStep = 8

    init(_ tokenizer: Tokenizer) { self.tokenizer = tokenizer }

    /// The words that begin in `frames`, which follow those of the call before.
    /// - Parameters:
    ///   - ids: the part's text so far.
    ///   - places: which of them each frame speaks.
    mutating func advance(_ frames: Range<Int>, ids: [Int32], places: [Int32]) -> [BegunWord] {
        for id in ids.dropFirst(middles.count) {
            let token = tokenizer.bytes(of: id)
            middles.append(bytes.count + token.count / 2)
            bytes += token
        }
        var words: [BegunWord] = []
        for frame in frames where places.indices.contains(frame) {
            guard middles.indices.contains(Int(places[frame])) else { continue }
            let place = middles[Int(places[frame])]
            defer { lastPlace = place }
            guard place <= max(reached, lastPlace) + Self.longestStep else { continue }
            reached = max(reached, place)
            while let range = word(from: nextWord), range.lowerBound <= reached {
                nextWord = range.upperBound
                words.append(BegunWord(word: String(decoding: bytes[range], as: UTF8.self), frame: frame))
            }
        }
        return words
    }

    /// The first word at or behind a byte; nil if there is none.
    private func word(from start: Int) -> Range<Int>? {
        let isBlank = { (byte: UInt8) in byte == 0x20 || byte == 0x0A || byte == 0x09 || byte == 0x0D }
        guard let first = bytes[start...].firstIndex(where: { !isBlank($0) }) else { return nil }
        return first..<(bytes[first...].firstIndex(where: isBlank) ?? bytes.count)
    }
}
