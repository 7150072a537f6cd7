import Qwen3TTS
import TestSupport
import Tensors
import Testing

@testable import Experiments

@Suite struct LoadTests {
    private let texts = TextSet.builtInTexts

    @Test func arrivalsAreAPoissonProcess() throws {
        let plan = try LoadPlan(rate: 20, duration: 500, seed: 3, texts: texts)
        #expect(try LoadPlan(rate: 20, duration: 500, seed: 3, texts: texts) == plan)
        #expect(try LoadPlan(rate: 20, duration: 500, seed: 4, texts: texts) != plan)
        let times = plan.requests.map(\.arrival)
        #expect(times == times.sorted())
        #expect(times.allSatisfy { 0 <= $0 && $0 < 500 })
        #expect(plan.requests.map(\.index) == Array(0..<times.count))
        // 10,000 are expected, with a deviation of 100.
        #expect((9_600...10_400).contains(times.count))
        // Exponential gaps: their deviation is their mean, and a share of 1/e exceeds it.
        let gaps = zip(times.dropFirst(), times).map { $0 - $1 }
        let mean = gaps.reduce(0, +) / Double(gaps.count)
        let variance = gaps.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(gaps.count)
        #expect(abs(variance.squareRoot() / mean - 1) < 0.05)
        #expect(abs(Double(gaps.count { $0 > mean }) / Double(gaps.count) - 0.3679) < 0.02)
        // Every text is as likely as another: a tenth, with a deviation of 30 in 10,000.
        for text in texts {
            let count = plan.requests.count { $0.text == text }
            #expect(abs(count - plan.requests.count / texts.count) < 150, "\(text.id)")
        }
        #expect(Set(plan.requests.map(\.seed)).count == plan.requests.count)
    }

    @Test func aPaceBoundsEachTextByItsLength() throws {
        let plan = try LoadPlan(rate: 50, duration: 10, seed: 1, texts: texts, pace: 16)
        let frames = Dictionary(
            plan.requests.map { ($0.text.id, $0.maxFrames ?? 0) }, uniquingKeysWith: { first, _ in first })
        // 32 characters at 16 a second are two seconds of 80 ms.
        #expect(frames["short_01"] == 25)
        #expect(frames["long_01"] ?? 0 > 200)
        #expect(throws: ExperimentError.self) { _ = try LoadPlan(rate: 0, duration: 1, seed: 1, texts: texts) }
        #expect(throws: ExperimentError.self) { _ = try LoadPlan(rate: 1, duration: 1e9, seed: 1, texts: texts) }
        #expect(throws: ExperimentError.self) { _ = try LoadPlan(rate: 1, duration: 1, seed: 1, texts: []) }
        #expect(throws: ExperimentError.self) { _ = try LoadPlan(rate: 1, duration: 1, seed: 1, texts: texts, pace: 0) }
    }

    @Test func aListenerHearsGapsWhereAudioIsLate() {
        var playback = PlaybackSimulation()
        playback.receive(0, at: 1)
        #expect(playback.firstAudio == nil)
        playback.receive(0.5, at: 2)
        playback.receive(0.5, at: 2.5)  // just in time
        #expect(playback.firstAudio == 2)
        #expect(playback.underruns == 0)
        playback.receive(1, at: 3.25)  // 0.25 s late
        #expect(playback.underruns == 1)
        #expect(playback.underrunSeconds == 0.25)
        playback.receive(1, at: 4.25)  // playback had stood still: in time
        #expect(playback.underruns == 1)
        playback.receive(1, at: 6.25)  // 1 s late
        #expect(playback.underruns == 2)
        #expect(playback.underrunSeconds == 1.25)
        #expect(playback.received == 4)
    }

    @Test func aReportSumsOutcomesUp() throws {
        let plan = try LoadPlan(rate: 100, duration: 1, seed: 1, texts: texts)
        var heard = PlaybackSimulation()
        heard.receive(2, at: 0.25)
        heard.receive(2, at: 2.75)
        var first = LoadOutcome(plan.requests[0], .finished, elapsed: 3, playback: heard)
        first.arrival = 0
        var second = LoadOutcome(plan.requests[1], .refused, elapsed: 0.5, playback: PlaybackSimulation())
        second.arrival = 1
        var third = LoadOutcome(plan.requests[2], .failed, elapsed: 1, playback: PlaybackSimulation(), error: "gone")
        third.arrival = 3.5
        let report = LoadReport(
            rate: 1, duration: 4, seed: 1, outcomes: [third, first, second], worstSendDelay: 0.002)
        #expect(report.outcomes.map(\.index) == [0, 1, 2])
        #expect([report.requests, report.finished, report.refused, report.failed] == [3, 1, 1, 1])
        #expect(report.firstAudioMs.p50 == 250)
        #expect(report.realTimeFactor.p99 == 0.75)
        #expect(report.interrupted == 1 && report.underruns == 1 && report.underrunSeconds == 0.5)
        #expect(report.audioSeconds == 4)
        #expect(report.throughput == 4 / 4.5)
        #expect(report.mostAtOnce == 2)
        #expect(report.worstSendDelayMs == 2)
        #expect(report.errors == ["gone": 1])
    }

    @Test func throughputIsCountedInFramesAndBytesStayTheSame() async throws {
        let model = try SpeechModel(directory: Fixture.customVoice.directory, compute: Compute(threads: 2))
        let machine = MachineSpeed(bytesPerSecond: 1e9, multiplyAddsPerSecond: 1e9)
        // Other tests may keep its listeners from their threads until all is over: then nothing can be timed.
        var timed: ThroughputBench?
        for _ in 0..<50 where timed == nil {
            timed = try? await ThroughputBench.run(model, sessions: [1, 3], frames: 20, packet: 2, machine: machine)
        }
        let bench = try #require(timed)
        #expect(bench.levels.map(\.sessions) == [1, 3])
        #expect(bench.levels.allSatisfy { $0.isSame && $0.frames > 0 && $0.floorMs > 0 && $0.seconds > 0 })
        for level in bench.levels {
            let audio = level.throughput * level.seconds
            #expect(abs(audio - Double(level.frames) * 0.08) < 1e-9)
        }
        #expect(bench.levels[0].gain == 1)
        #expect(bench.levels[0].floorGain == 1)
        await #expect(throws: ExperimentError.self) {
            _ = try await ThroughputBench.run(model, sessions: [0], frames: 6, packet: 2)
        }
    }
}
