import Qwen3TTS
import Tensors
import TestSupport
import Testing

@testable import SpeechEngine

/// What a server's settings make of requests, and when silence ends them.
@Suite struct RequestRulesTests {
    @Test func aTextGetsItsSecondsButNotLessThanTheMinimum() throws {
        let model = try SpeechModel(directory: Fixture.customVoice.directory, compute: Compute(threads: 1))
        var rules = RequestRules()
        rules.maxSecondsPerCharacter = 0.4
        rules.maxSecondsMinimum = 2
        func tokens(_ text: String, given: Int? = nil) -> Int? {
            var request = SpeechRequest(text: text)
            request.sampling.maxNewTokens = given
            rules.apply(to: &request, of: model)
            return request.sampling.maxNewTokens
        }
        // Frames of 80 ms, and one token that makes no frame: 2 s are 25, 8 s are 100.
        #expect(tokens("Tea.") == 26)
        #expect(tokens("Twenty characters...") == 101)
        #expect(tokens("Twenty characters...", given: 7) == 7)
        rules.maxSecondsPerCharacter = 0
        #expect(tokens("Tea.") == nil)
    }

    @Test func aGivenSeedStands() throws {
        let model = try SpeechModel(directory: Fixture.customVoice.directory, compute: Compute(threads: 1))
        var rules = RequestRules()
        rules.seedMode = .content
        var request = SpeechRequest(text: "Tea.")
        rules.apply(to: &request, of: model, seedIsGiven: true)
        #expect(request.sampling.seed == 0)
        rules.apply(to: &request, of: model)
        #expect(request.sampling.seed == SpeechRequest(text: "Tea.").contentSeed(0))
    }

    @Test func silenceIsJudgedByItsLevelIfThatIsSet() {
        // Level 0.01, peaks of 0.05: loud by its peaks, silence by a level of 0.02.
        let samples: [Float] = (0..<100).map { $0 % 25 == 0 ? 0.05 : 0 }
        func frames(_ level: Float?) -> Int? {
            var limits = RunawayLimits()
            limits.silentFrames = 3
            limits.silenceRMS = level
            var detector = RunawayDetector(limits, groups: 1)
            return (1...10).first { frame in
                detector.add(codes: [Int32(frame)][...], samples: samples[...], textTokens: nil)
            }
        }
        #expect(frames(nil) == nil)
        #expect(frames(0.02) == 3)
        #expect(frames(0.005) == nil)
    }
}
