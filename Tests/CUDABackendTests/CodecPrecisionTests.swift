import Foundation
import Tensors
import TestSupport
import Testing

@testable import CUDABackend
@testable import Qwen3TTS

/// What the decoder's float16 costs a trained voice, on the emulator.
@Suite struct CodecPrecisionTests {
    struct Sentence: Decodable {
        let codes: [Int32]
    }

    /// Noise below speech, in decibels, against the CPU's float32. 16-bit samples at the level of this speech (rms 0.09)
    /// have 80 themselves; 60 is what a listener cannot hear.
    @Test(arguments: [(CodecPrecision.half, 60.0), (.exact, 90)])
    func aTrainedVoiceKeepsItsQuality(precision: CodecPrecision, decibels: Double) throws {
        let data = try Data(contentsOf: URL(fileURLWithPath: Fixture.shippedVoiceGoldens))
        let codes = Array(try JSONDecoder().decode([Sentence].self, from: data)[1].codes.prefix(8 * 16))
        let model = try SpeechModel(directory: Fixture.shippedVoice, compute: Compute(threads: 2))
        let expected = model.decode([.init(model.makeDecoder(reference: [], mode: .incremental), codes: codes)])[0]

        let card = EmulatedCard()
        let stages = try CUDAStages(
            directory: Fixture.shippedVoice, device: card.index, slots: 1, precision: precision,
            driver: EmulatedCard.driver)
        let decoder = try #require(stages.decoder)
        let slot = try #require(try decoder.openSlot())
        let samples = try decoder.decode([(slot, codes)])[0]

        #expect(samples.count == expected.count)
        let signal = expected.reduce(0.0) { $0 + Double($1 * $1) }
        let noise = zip(samples, expected).reduce(0.0) { $0 + pow(Double($1.0 - $1.1), 2) }
        #expect(signal / Double(expected.count) > 1e-4, "too quiet to say anything")
        #expect(10 * log10(signal / noise) > decibels, "\(10 * log10(signal / noise)) dB")
    }
}
