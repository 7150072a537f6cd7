import Tensors
import TestSupport
import Testing

@testable import Qwen3TTS

/// Whole utterances against the Python reference, and the promise that a request always gives the same codes.
@Suite struct SynthesisTests {
    /// The request that a golden case describes.
    static func request(_ example: FixtureCases.Case, _ fixture: Fixture, case name: String) throws -> SpeechRequest {
        let arguments = example.arguments
        var request = SpeechRequest(text: arguments.text)
        request.language = arguments.language
        request.instruction = arguments.instruct
        request.controlTokens = .recognized
        request.layout = arguments.non_streaming_mode.map { $0 ? .nonStreaming : .streaming }
        request.sampling.greedy = true
        if let speaker = arguments.speaker { request.voice = .named(speaker) }
        if example.method == "generate_voice_clone" {
            let golden = try fixture.golden("case_\(name).safetensors")
            let codes = golden["ref_codes"] == nil ? [] : try golden.integers("ref_codes").values.map { Int32($0) }
            request.voice = .clone(
                ClonePrompt(
                    speakerVector: try fixture.golden("encoder.safetensors").array("speaker_embedding"), codes: codes,
                    referenceText: arguments.ref_text))
        }
        return request
    }

    /// Runs an utterance to its end.
    static func finish(_ utterance: Utterance, _ model: SpeechModel) {
        var times = StageTimes()
        while utterance.finishReason == nil { _ = model.step([utterance], times: &times) }
    }

    @Test(arguments: [Fixture.customVoice, .base])
    func greedyCodesMatchReference(fixture: Fixture) throws {
        let model = try SpeechModel(directory: fixture.directory, compute: Compute(threads: 2))
        let cases = try FixtureCases(fixture)
        for name in cases.names {
            let golden = try fixture.golden("case_\(name).safetensors")
            for penalty in ["1.00", "1.05"] {
                var request = try Self.request(try #require(cases.cases[name]), fixture, case: name)
                request.sampling.repetitionPenalty = Double(penalty)
                request.sampling.maxNewTokens = cases.framesRequested + 1
                let prepared = try model.prepare(request)
                let utterance = model.makeUtterance(prepared)
                model.begin(utterance)
                let embeds = try golden.array("prefill_embeds")
                #expect(maxDifference(utterance.prompt.array, embeds) < 1e-5, "\(name)")
                Self.finish(utterance, model)
                let expected = try golden.integers("codes_rp\(penalty)").values.map { Int32($0) }
                #expect(utterance.codes == expected, "\(name), penalty \(penalty)")
                let stopped = try golden.integers("sampled_code0_rp\(penalty)").values.last
                let eos = Int(model.configuration.talker.control.eos)
                #expect(utterance.finishReason == (stopped == eos ? .stop : .length), "\(name)")
            }
        }
    }

    @Test func clonedSpeechMatchesReferenceSamples() throws {
        let fixture = Fixture.base
        let model = try SpeechModel(directory: fixture.directory, compute: Compute(threads: 2))
        let cases = try FixtureCases(fixture)
        for name in ["icl_nonstream", "xvector"] {
            var request = try Self.request(try #require(cases.cases[name]), fixture, case: name)
            request.sampling.repetitionPenalty = 1
            request.sampling.maxNewTokens = cases.framesRequested + 1
            let prepared = try model.prepare(request)
            let utterance = model.makeUtterance(prepared)
            Self.finish(utterance, model)
            let pcm = model.decode([.init(model.makeDecoder(prepared), codes: utterance.codes)])[0]
            let golden = try fixture.golden("case_\(name).safetensors").array("wav")
            #expect(maxDifference(pcm, golden) < 3e-5, "\(name)")
        }
    }

    @Test func samplerMatchesReference() throws {
        struct File: Decodable {
            struct Case: Decodable {
                let history: [Int32]
                let repetition_penalty: Double
                let temperature: Double
                let top_k: Int
                let top_p: Double
            }
            let sampler: [Case]
        }
        for fixture in [Fixture.customVoice, .base] {
            let talker = try Configuration.load(directory: fixture.directory).talker
            let golden = try fixture.golden("sampler.safetensors")
            let cases = try fixture.decodeGolden(File.self).sampler
            #expect(!cases.isEmpty)
            for (index, example) in cases.enumerated() {
                var constraints = TalkerConstraints(talker, repetitionPenalty: example.repetition_penalty)
                for token in example.history { constraints.record(token) }
                var scores = try golden.array("logits.\(index)")
                let rule = Sampler.Rule(
                    samples: true, temperature: example.temperature, topK: example.top_k, topP: example.top_p)
                let probabilities = scores.withUnsafeMutableBufferPointer { buffer in
                    constraints.apply(buffer)
                    return Sampler.probabilities(buffer, rule: rule)
                }
                #expect(maxDifference(probabilities, try golden.array("probs.\(index)")) < 1e-6, "case \(index)")
            }
        }
    }

    /// Philox against the published test vectors of its authors (Random123, kat_vectors).
    @Test func philoxMatchesPublishedVectors() {
        #expect(
            Philox(seed: 0).words(SIMD4(0, 0, 0, 0))
                == SIMD4(0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8))
        #expect(
            Philox(seed: .max).words(SIMD4(repeating: .max))
                == SIMD4(0x408F_276D, 0x41C8_3B0E, 0xA20B_C7C6, 0x6D54_51FD))
    }
}
