import Tensors
import TestSupport
import Testing

@testable import Qwen3TTS

/// Talker and code predictor against the Python reference's hidden states and logits, teacher-forced.
@Suite struct TalkerTests {
    static func weights(_ fixture: Fixture) throws -> Weights {
        Weights(
            file: try SafetensorsFile(path: fixture.directory + "/model.safetensors"), format: .bf16, quantized: nil)
    }

    @Test(arguments: [Fixture.customVoice, .base])
    func prefillAndStepsMatchReference(fixture: Fixture) throws {
        let configuration = try Configuration.load(directory: fixture.directory)
        let talker = try Talker(
            Self.weights(fixture), configuration: configuration.talker, compute: Compute(threads: 2))
        let width = configuration.talker.shape.hidden
        let cases = try FixtureCases(fixture)
        for name in cases.names {
            let golden = try fixture.golden("case_\(name).safetensors")
            let prefill = FloatBuffer(try golden.array("prefill_embeds"))
            let cache = talker.makeCache()
            let hidden = FloatBuffer(count: width)
            let logits = FloatBuffer(count: configuration.talker.vocabularySize)
            var layers: [Float] = []
            let rows = prefill.count / width
            withExtendedLifetime(prefill) {
                talker.forward(
                    prefill.pointer, segments: [.init(cache: cache, rows: rows)], results: [(hidden, logits)]
                ) { layers += UnsafeBufferPointer(start: $0, count: rows * width) }
            }
            if golden["prefill_layer_hidden"] != nil {
                #expect(maxDifference(layers, try golden.array("prefill_layer_hidden")) < 1e-4)
            }
            let expectedLogits = try golden.array("talker_logits")
            let expectedHidden = try golden.array("talker_hidden_rp1.00")
            let steps = try golden.array("step_input_embeds")
            for step in 0..<(expectedLogits.count / logits.count) {
                if step > 0 {
                    let x = FloatBuffer(Array(steps[((step - 1) * width)..<(step * width)]))
                    withExtendedLifetime(x) {
                        talker.forward(
                            x.pointer, segments: [.init(cache: cache, rows: 1)], results: [(hidden, logits)])
                    }
                }
                let logitRow = Array(expectedLogits[(step * logits.count)..<((step + 1) * logits.count)])
                #expect(maxDifference(logits.array, logitRow) < 3e-5, "\(name), step \(step)")
                let hiddenRow = Array(expectedHidden[(step * width)..<((step + 1) * width)])
                #expect(maxDifference(hidden.array, hiddenRow) < 1e-5, "\(name), step \(step)")
            }
        }
    }

    @Test(arguments: [Fixture.customVoice, .base])
    func predictorMatchesReference(fixture: Fixture) throws {
        let configuration = try Configuration.load(directory: fixture.directory)
        let weights = try Self.weights(fixture)
        let compute = Compute(threads: 2)
        let talker = try Talker(weights, configuration: configuration.talker, compute: compute)
        let predictor = try CodePredictor(
            weights, configuration: configuration, codecEmbedding: talker.codecEmbedding, compute: compute)
        let width = configuration.talker.shape.hidden
        for name in try FixtureCases(fixture).names {
            let golden = try fixture.golden("case_\(name).safetensors")
            let expected = try golden.array("predictor_logits")
            let codes = try golden.integers("codes_rp1.00").values
            let hidden = try golden.array("talker_hidden_rp1.00")
            let groups = configuration.talker.codeGroups
            let vocabulary = configuration.codePredictor.vocabularySize
            let frames = expected.count / (groups - 1) / vocabulary
            // All frames as one batch.
            var largest: Float = 0
            let states = FloatBuffer(Array(hidden[..<(frames * width)]))
            withExtendedLifetime(states) {
                _ = predictor.frames(
                    hidden: states.pointer, code0: (0..<frames).map { Int32(codes[$0 * groups]) }
                ) { frame, group, logits in
                    let start = (frame * (groups - 1) + group - 1) * vocabulary
                    largest = max(largest, maxDifference(Array(logits), Array(expected[start..<(start + vocabulary)])))
                    return Int32(codes[frame * groups + group])
                }
            }
            #expect(largest < 7e-5, "\(name)")
        }
    }
}
