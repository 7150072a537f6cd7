import Qwen3TTS
@testable import SpeechEngine
import Tensors
import TestSupport
import Testing

@Suite struct SpeechEngineTests {
    private func model() throws -> SpeechModel {
        try SpeechModel(directory: Fixture.customVoice.directory, compute: Compute(threads: 2))
    }

    private func request(frames: Int) -> SpeechRequest {
        var request = SpeechRequest(text: "tea for two")
        request.sampling.maxNewTokens = frames + 1
        return request
    }

    @Test func badRequestsAreRefusedAtOnce() throws {
        let engine = SpeechEngine(model: try model())
        var unknown = request(frames: 2)
        unknown.voice = .named("nobody")
        #expect { _ = try engine.speak(unknown) } throws: { error in
            // The error lists the voices that there are.
            let text = "\(error)"
            return text.contains("nobody") && text.contains(engine.model.configuration.voices[0])
        }
        #expect(throws: EngineError.self) { _ = try engine.speak(request(frames: 2), packets: .fixed(0)) }
        #expect(engine.statistics.active == 0)
    }

    @Test func aReaderThatIsFarBehindIsNotStepped() async throws {
        var options = EngineOptions()
        options.maxUnreadFrames = 4
        options.readerTimeout = 3600
        let engine = SpeechEngine(model: try model(), options: options)
        let slow = try engine.speak(request(frames: 20), packets: .fixed(1))
        // Others are served meanwhile.
        var others = 0
        for await event in try engine.speak(request(frames: 12)) { if case .packet = event { others += 1 } }
        #expect(others > 0)
        #expect(slow.unreadFrames <= 5)
        var frames = 0
        for await event in slow {
            if case .packet(let packet) = event { frames = packet.frames.upperBound }
            if case .end(let summary) = event { #expect(summary.frames == frames) }
        }
        #expect(frames > 5)
    }

    @Test func aReaderThatNeverReadsIsDropped() async throws {
        var options = EngineOptions()
        options.maxUnreadFrames = 2
        options.readerTimeout = 0.3
        let engine = SpeechEngine(model: try model(), options: options)
        let stream = try engine.speak(request(frames: 20), packets: .fixed(1))
        while engine.statistics.finished[.timeout, default: 0] == 0 { try await Task.sleep(for: .milliseconds(20)) }
        var reason: FinishReason?
        for await event in stream { if case .end(let summary) = event { reason = summary.finishReason } }
        #expect(reason == .timeout)
    }

    @Test func aDroppedStreamFreesItsPlace() async throws {
        var options = EngineOptions()
        // It cannot end before it is dropped.
        options.maxUnreadFrames = 2
        options.readerTimeout = 3600
        let engine = SpeechEngine(model: try model(), options: options)
        do {
            let stream = try engine.speak(request(frames: 200))
            for await _ in stream { break }
        }
        while engine.statistics.finished[.cancelled, default: 0] == 0 { try await Task.sleep(for: .milliseconds(10)) }
        #expect(engine.statistics.active == 0)
    }

    @Test func theQueueIsBounded() async throws {
        var options = EngineOptions()
        options.maxActive = 1
        options.maxQueued = 1
        // The first one stands still because nobody reads it.
        options.maxUnreadFrames = 4
        options.readerTimeout = 3600
        let engine = SpeechEngine(model: try model(), options: options)
        let first = try engine.speak(request(frames: 200))
        for await _ in first { break }
        while engine.statistics.active == 0 { await Task.yield() }
        let second = try engine.speak(request(frames: 2))
        while engine.statistics.queued == 0 { await Task.yield() }
        #expect {
            _ = try engine.speak(request(frames: 2))
        } throws: { error in
            if case .busy(_, let retryAfter)? = error as? EngineError { return retryAfter > 0 }
            return false
        }
        #expect(engine.statistics.refused == 1)
        first.cancel()
        var reason: FinishReason?
        for await event in second { if case .end(let summary) = event { reason = summary.finishReason } }
        #expect(reason != nil && reason != .cancelled)
    }

    @Test func drainingFinishesWhatWasTaken() async throws {
        let engine = SpeechEngine(model: try model())
        let stream = try engine.speak(request(frames: 8))
        async let drained: Void = engine.drain()
        var reason: FinishReason?
        for await event in stream { if case .end(let summary) = event { reason = summary.finishReason } }
        await drained
        #expect(reason == .length || reason == .stop)
        #expect(throws: EngineError.draining) { _ = try engine.speak(request(frames: 2)) }
    }

    @Test func aRunawayEndsAtTheSameFrameForEveryPacketSize() async throws {
        var options = EngineOptions()
        options.runaway?.baseFrames = 3
        options.runaway?.framesPerToken = 1
        let engine = SpeechEngine(model: try model(), options: options)
        var summaries: [SpeechSummary] = []
        for packets in [PacketPolicy.fixed(1), .fixed(4), .fixed(8), .growing] {
            for await event in try engine.speak(request(frames: 40), packets: packets) {
                if case .end(let summary) = event { summaries.append(summary) }
            }
        }
        #expect(summaries.count == 4)
        for summary in summaries {
            #expect(summary.finishReason == .runaway)
            #expect(summary.frames == summaries[0].frames)
            #expect(summary.fingerprint == summaries[0].fingerprint)
        }
    }
}

@Suite struct RunawayDetectorTests {
    private func frames(
        _ limits: RunawayLimits, textTokens: Int? = nil, codes: (Int) -> [Int32], level: Float
    ) -> Int? {
        var detector = RunawayDetector(limits, groups: 2)
        for frame in 0..<500 {
            let samples = [level, -level]
            let ranAway = detector.add(codes: codes(frame)[...], samples: samples[...], textTokens: textTokens)
            if ranAway { return frame + 1 }
        }
        return nil
    }

    @Test func rules() {
        let limits = RunawayLimits()
        let changing: (Int) -> [Int32] = { [Int32($0), Int32($0 * 7 % 1000)] }
        #expect(frames(limits, codes: changing, level: 0.5) == nil)
        #expect(frames(limits, codes: changing, level: 0) == limits.silentFrames)
        let longest = limits.baseFrames + 2 * limits.framesPerToken
        #expect(frames(limits, textTokens: 2, codes: changing, level: 0.5) == longest + 1)
        for period in [1, 5, 12] {
            let loop: (Int) -> [Int32] = { [Int32($0 % period), 3] }
            #expect(frames(limits, codes: loop, level: 0.5) == limits.loopFrames + period, "period \(period)")
        }
        #expect(frames(limits, codes: { [Int32($0 % 13), 3] }, level: 0.5) == nil)
    }
}

@Suite struct CapacityEstimateTests {
    @Test func learnsALine() throws {
        var estimate = CapacityEstimate()
        #expect(estimate.roundSeconds(1) == nil)
        for round in 0..<60 {
            let count = 1 + round % 4
            estimate.record(count: count, seconds: 0.02 + 0.005 * Double(count))
        }
        let eight = try #require(estimate.roundSeconds(8))
        #expect(abs(eight - 0.06) < 1e-6)
    }
}
