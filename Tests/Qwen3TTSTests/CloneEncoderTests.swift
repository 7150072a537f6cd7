import Foundation
import Tensors
import TestSupport
import Testing

@testable import Qwen3TTS

/// From a recording to cloned speech, against the Python reference.
@Suite struct CloneEncoderTests {
    let compute = Compute(threads: 2)

    private func encoder() throws -> CloneEncoder {
        try CloneEncoder(directory: Fixture.base.directory, compute: compute)
    }

    @Test func promptMatchesReference() throws {
        let golden = try Fixture.base.golden("encoder.safetensors")
        let wav = try golden.array("wav")
        let encoder = try encoder()
        let prompt = try encoder.encode(wav, referenceText: "Some words.")
        #expect(maxDifference(prompt.speakerVector, try golden.array("speaker_embedding")) < 1e-4)
        #expect(prompt.codes == (try golden.integers("codes").values.map { Int32($0) }))
        #expect(prompt.referenceText == "Some words.")
        #expect(prompt.isInContext)
        #expect(prompt.modelIdentity == encoder.modelIdentity)
        try prompt.check(Configuration.load(directory: Fixture.base.directory))

        let vectorOnly = try encoder.encode(wav, referenceText: nil)
        #expect(vectorOnly.speakerVector == prompt.speakerVector)
        #expect(vectorOnly.codes.isEmpty && vectorOnly.referenceText == nil && !vectorOnly.isInContext)
    }

    /// The whole way: recording → prompt → file → prompt → greedy codes and samples of every cloning case.
    @Test func clonedSpeechFromTheRecordingMatchesReference() throws {
        let fixture = Fixture.base
        let model = try SpeechModel(directory: fixture.directory, compute: compute)
        let wav = try fixture.golden("encoder.safetensors").array("wav")
        let encoder = try CloneEncoder(model)
        #expect(try encoder.modelIdentity == model.identity)
        let cases = try FixtureCases(fixture)
        var clones = 0
        for name in cases.names {
            let example = try #require(cases.cases[name])
            guard example.method == "generate_voice_clone" else { continue }
            clones += 1
            let vectorOnly = example.arguments.x_vector_only_mode ?? false
            var made = try encoder.encode(wav, referenceText: vectorOnly ? nil : example.arguments.ref_text)
            let golden = try fixture.golden("case_\(name).safetensors")
            // To keep the cases short, the reference was given the beginning of the recording's codes.
            if let frames = golden["ref_codes"]?.shape[0] { made.codes.removeLast(made.codes.count - 16 * frames) }
            var request = try SynthesisTests.request(example, fixture, case: name)
            try ClonePromptTests.withFile { path in
                try made.save(to: path)
                request.voice = .clone(try ClonePrompt.load(from: path, expectedIdentity: model.identity))
            }
            request.sampling.repetitionPenalty = 1
            request.sampling.maxNewTokens = cases.framesRequested + 1
            let prepared = try model.prepare(request)
            let utterance = model.makeUtterance(prepared)
            SynthesisTests.finish(utterance, model)
            #expect(utterance.codes == (try golden.integers("codes_rp1.00").values.map { Int32($0) }), "\(name)")
            guard golden["wav"] != nil else { continue }
            let pcm = model.decode([.init(model.makeDecoder(prepared), codes: utterance.codes)])[0]
            #expect(maxDifference(pcm, try golden.array("wav")) < 1e-4, "\(name)")
        }
        #expect(clones >= 4)
    }

    @Test func unusableInputIsRefused() throws {
        let encoder = try encoder()
        func refusal(_ samples: [Float], _ text: String? = nil) -> String {
            ClonePromptTests.message { _ = try encoder.encode(samples, referenceText: text) }
        }
        #expect(refusal([]).contains("empty"))
        #expect(refusal([Float](repeating: 0.1, count: 1000)).contains("1280"))
        #expect(
            refusal([Float](repeating: 0, count: CloneEncoder.longestSeconds * 24_000 + 1)).contains("600"))
        #expect(refusal([Float](repeating: 0.1, count: 9000), "").contains("transcript"))
        #expect(refusal([Float](repeating: 0.1, count: 9000), " \n\t").contains("transcript"))
        let long = String(repeating: "a", count: SpeechModel.textLimit + 1)
        #expect(refusal([Float](repeating: 0.1, count: 9000), long).contains("transcript"))
    }

    @Test func otherKindsOfModelSaySo() throws {
        for fixture in ["tiny-custom-voice", "tiny-voice-design"] {
            let text = ClonePromptTests.message {
                _ = try CloneEncoder(directory: Fixture(fixture).directory, compute: compute)
            }
            #expect(text.contains("no speaker encoder") && text.contains("Base"))
        }
    }

    /// Calls from several threads take turns and give what one gives.
    @Test func severalThreadsMayAsk() async throws {
        let wav = Array(try Fixture.base.golden("encoder.safetensors").array("wav")[..<9_000])
        let encoder = try encoder()
        let expected = try encoder.encode(wav, referenceText: "x")
        await withTaskGroup(of: ClonePrompt?.self) { group in
            for _ in 0..<4 { group.addTask { try? encoder.encode(wav, referenceText: "x") } }
            for await prompt in group { #expect(prompt == expected) }
        }
    }
}
