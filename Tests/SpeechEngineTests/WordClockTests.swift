import Qwen3TTS
import Tensors
import TestSupport
import Testing

@testable import SpeechEngine

/// When words begin, as the voice's alignment head tells.
@Suite struct WordClockTests {
    static let text = "We walked home late and slept."
    /// Where a recogniser (pocketsphinx 5.1.1, aligned with the text) hears these words begin in the greedy speech of the
    /// whole text, in seconds.
    static let heard: [(word: String, start: Double)] = [
        ("We", 0.02), ("walked", 0.19), ("home", 0.6), ("late", 0.83), ("and", 1.05), ("slept.", 1.2),
    ]

    private func request() -> SpeechRequest {
        var request = SpeechRequest(text: Self.text)
        request.voice = .named("linnet")
        request.language = "english"
        request.sampling.greedy = true
        return request
    }

    /// Without the decoder, which has no say in it.
    private func engine() throws -> SpeechEngine {
        var options = EngineOptions()
        options.decoderStages = .none
        options.runaway = nil
        return SpeechEngine(
            model: try SpeechModel(directory: Fixture.shippedVoice, compute: Compute(threads: 2)), options: options)
    }

    @Test func wordsBeginWhereARecogniserHearsThem() async throws {
        let engine = try engine()
        let words = try #require(await SpokenResult(try engine.speak(request())).summary).words
        #expect(words.map(\.word) == Self.heard.map(\.word))
        for (word, heard) in zip(words, Self.heard) { #expect(abs(word.start - heard.start) < 0.12, "\(heard)") }

        // The same in other packets, each word in the packet in which it begins.
        let packets = await SpokenResult(try engine.speak(request(), packets: .fixed(3))).packets
        #expect(packets.flatMap { $0.words ?? [] } == words)
        for packet in packets {
            let time = Double(packet.frames.lowerBound) * 0.08..<Double(packet.frames.upperBound) * 0.08
            #expect(packet.words?.allSatisfy { time.contains($0.start) } == true)
        }
    }

    @Test func textInPiecesAndInPartsIsFollowed() async throws {
        let engine = try engine()
        var pieces = request()
        pieces.text = "We wal"
        pieces.isComplete = false
        let stream = try engine.speak(pieces)
        for text in ["ked home late and sl", "ept. Then it r", "ained."] { stream.append(text) }
        stream.completeText()
        let summary = try #require(await SpokenResult(stream).summary)
        #expect(summary.words.map(\.word).joined(separator: " ") == Self.text + " Then it rained.")
        let starts = summary.words.map(\.start)
        #expect(starts == starts.sorted() && starts[6] > starts[5] + 0.16 && starts[8] < summary.seconds - 0.16)
    }

    @Test func aModelThatCannotTellSaysNothing() async throws {
        let engine = SpeechEngine(
            model: try SpeechModel(directory: Fixture.customVoice.directory, compute: Compute(threads: 1)))
        var request = SpeechRequest(text: "one two")
        request.sampling.maxNewTokens = 4
        let result = await SpokenResult(try engine.speak(request))
        #expect(result.summary?.frames == 3 && result.summary?.words == [])
        #expect(result.packets.allSatisfy { $0.words == nil })
    }
}
