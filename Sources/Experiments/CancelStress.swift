public import Qwen3TTS
public import SpeechEngine
import Tensors

/// Cancels utterances again and again while another one speaks: its bytes must not change, and nothing may stay behind.
public struct CancelStress: Sendable, Codable, Equatable {
    /// `in_process` or `http`; nil in files of before.
    public let source: String?
    /// Rounds made.
    public let rounds: Int
    /// Utterances that ended as cancelled, and those that had ended by themselves before.
    public let cancelled: Int, endedBefore: Int
    /// Utterances that ended in any other way.
    public let otherEnds: Int
    /// Utterances that spoke beside them, and the different hashes of their codes and samples: 1 if none changed.
    public let witnesses: Int, witnessHashUnique: Int
    /// Milliseconds from a cancel to the stream's end; on a server, from the client's going to its last trace.
    public let cancelMs: CodeRuns.Distribution
    /// Utterances still in the engine at the end.
    public let left: Int
    /// Bytes that the process's largest size, or a server's size, grew by from the tenth round to the last.
    public let memoryGrowth: Int

    enum CodingKeys: String, CodingKey {
        case source, rounds, cancelled, witnesses, left
        case endedBefore = "ended_before"
        case otherEnds = "other_ends"
        case witnessHashUnique = "witness_hash_unique"
        case cancelMs = "cancel_ms"
        case memoryGrowth = "memory_growth_bytes"
    }

    /// Rounds of which nothing came to the engine: on a server, the client was gone before its request was read.
    public var neverBegun: Int { max(0, rounds - cancelled - endedBefore - otherEnds) }

    /// Whether nothing went wrong.
    public var pass: Bool { otherEnds == 0 && witnessHashUnique <= 1 && left == 0 }

    /// Runs the rounds.
    /// - Parameters:
    ///   - text: what is spoken, by witnesses and by those who are cancelled.
    ///   - progress: called after each round with its number.
    public static func run(
        _ engine: SpeechEngine, text: ExperimentText, sampling: SamplingOptions, rounds: Int, packet: Int,
        progress: (Int) -> Void = { _ in }
    ) async throws(ExperimentError) -> CancelStress {
        guard rounds >= 1 else { throw .badSetting("the rounds are \(rounds), expected at least 1") }
        let model = engine.model
        let random = Philox(seed: sampling.seed &+ 1)
        let request = try model.experimentRequest(text, ExperimentVoice(), sampling: sampling)
        var (cancelled, before, other, memory): (Int, Int, Int, Int) = (0, 0, 0, 0)
        var (hashes, times): ([Fingerprint], [Double]) = ([], [])
        for round in 0..<rounds {
            let witness = round % 10 == 0 ? try EngineRun.start(engine, request, packet: packet) : nil
            var own = request
            own.sampling.seed &+= UInt64(round) &+ 1
            let stream = try EngineRun.start(engine, own, packet: packet)
            // Before the prompt is read, after it, or after some packets.
            let packets = Int(random.uniform(frame: round, codebook: 0) * 4)
            var (seen, cancelTime): (Int, ContinuousClock.Instant?) = (0, nil)
            func cancel() {
                cancelTime = ContinuousClock.now
                stream.cancel()
            }
            if packets == 0 { cancel() }
            for await event in stream {
                switch event {
                case .packet:
                    seen += 1
                    if seen == packets { cancel() }
                case .end(let summary):
                    if let cancelTime { times.append((ContinuousClock.now - cancelTime) / .milliseconds(1)) }
                    switch summary.finishReason {
                    case .cancelled: cancelled += 1
                    case .stop, .length: before += 1
                    default: other += 1
                    }
                }
            }
            if let witness {
                for await event in witness { if case .end(let summary) = event { hashes.append(summary.fingerprint) } }
            }
            if round == min(9, rounds - 1) { memory = peakMemory() }
            progress(round + 1)
        }
        await engine.drain()
        let statistics = engine.statistics
        return CancelStress(
            source: SpeechSource.engine(engine).label, rounds: rounds, cancelled: cancelled, endedBefore: before,
            otherEnds: other, witnesses: hashes.count,
            witnessHashUnique: Set(hashes.map { $0.codes + $0.pcm }).count,
            cancelMs: CodeRuns.Distribution(times), left: statistics.active + statistics.queued,
            memoryGrowth: peakMemory() - memory)
    }
}
