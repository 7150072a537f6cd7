import Foundation
import Tensors
import TestSupport
import Testing

@testable import Qwen3TTS

/// The trained voice against the Python reference: whole sentences, from the text to the samples.
@Suite struct ShippedCheckpointTests {
    struct Sentence: Decodable, CustomTestStringConvertible {
        let speaker, text: String
        let streaming: Bool
        /// Of all frames up to EOS, [frames, 16].
        let codes: [Int32]
        /// Root mean square of the samples of each frame.
        let levels: [Float]

        var testDescription: String { "\(speaker), \(streaming ? "streaming" : "whole text")" }

        static func all() throws -> [Sentence] {
            let data = try Data(contentsOf: URL(fileURLWithPath: Fixture.shippedVoiceGoldens))
            return try JSONDecoder().decode([Sentence].self, from: data)
        }
    }

    @Test func speaksAsTheReferenceDoes() throws {
        let model = try SpeechModel(directory: Fixture.shippedVoice, compute: Compute(threads: 2))
        let sentences = try Sentence.all()
        #expect(sentences.count == 3)
        for sentence in sentences {
            var request = SpeechRequest(text: sentence.text)
            request.voice = .named(sentence.speaker)
            request.language = "english"
            request.layout = sentence.streaming ? .streaming : .nonStreaming
            request.sampling.greedy = true
            let prepared = try model.prepare(request)
            let utterance = model.makeUtterance(prepared)
            SynthesisTests.finish(utterance, model)
            #expect(utterance.finishReason == .stop, "\(sentence)")
            #expect(utterance.codes == sentence.codes, "\(sentence)")
            let pcm = model.decode([.init(model.makeDecoder(prepared), codes: utterance.codes)])[0]
            let levels = stride(from: 0, to: pcm.count, by: 1920).map { start in
                (pcm[start..<start + 1920].reduce(0) { $0 + $1 * $1 } / 1920).squareRoot()
            }
            #expect(maxDifference(levels, sentence.levels) < 1e-5, "\(sentence)")
        }
    }
}
