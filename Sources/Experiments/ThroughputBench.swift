public import Qwen3TTS
import SpeechEngine
import Tensors

/// How much more an engine says in a second when several speak at a time.
public struct ThroughputBench: Sendable, Codable, Equatable {
    /// So many utterances at a time.
    public struct Level: Sendable, Codable, Equatable {
        /// Utterances that speak together.
        public let sessions: Int
        /// Frames that were timed, of all of them, and the seconds that they took.
        public let frames: Int, seconds: Double
        /// Milliseconds of a round: one frame of each.
        public let roundMs: Double
        /// Of that, by stage.
        public let talkerMs: Double, predictorMs: Double, decoderMs: Double
        /// Milliseconds of a round at the least.
        public let floorMs: Double
        /// `roundMs` by `floorMs`.
        public let ratio: Double
        /// Seconds of audio in a second.
        public let throughput: Double
        /// That by the first level's, and what it would be if both took their floors.
        public let gain: Double, floorGain: Double
        /// Whether the first utterance has the same codes and samples as in the first level.
        public let isSame: Bool

        enum CodingKeys: String, CodingKey {
            case sessions, frames, seconds, ratio, throughput, gain
            case roundMs = "round_ms"
            case talkerMs = "talker_ms"
            case predictorMs = "predictor_ms"
            case decoderMs = "decoder_ms"
            case floorMs = "floor_ms"
            case floorGain = "floor_gain"
            case isSame = "same_bytes"
        }
    }

    /// The model's folder, and how its language model's weights are stored.
    public let model: String, weights: String
    /// Threads of the stages.
    public let threads: Int
    /// Codec frames of a packet.
    public let packet: Int
    /// What the floors are taken from.
    public let machine: MachineSpeed
    /// The load of the machine when the run began.
    public let load: Double
    /// In the order that was asked for.
    public let levels: [Level]

    /// Runs the levels one after the other, each on an engine of its own.
    /// - Parameters:
    ///   - sessions: how many utterances speak together, level by level.
    ///   - frames: frames of each utterance that are timed.
    ///   - packet: codec frames of a packet.
    ///   - machine: what floors are taken from; nil measures it.
    public static func run(
        _ model: SpeechModel, sessions: [Int], frames: Int, packet: Int, machine: MachineSpeed? = nil
    ) async throws(ExperimentError) -> ThroughputBench {
        guard !sessions.isEmpty, sessions.allSatisfy({ $0 >= 1 }), frames >= 1, packet >= 1 else {
            throw .badSetting("sessions, frames and packet must be 1 or more")
        }
        let load = loadAverage()
        let costs = try StageCosts(model, packet: 1)
        // Weights and buffers are in memory before anything is timed.
        _ = try await measure(model, sessions: sessions.max() ?? 1, frames: 2 * packet, packet: packet)
        var runs: [Run] = []
        for count in sessions {
            runs.append(try await measure(model, sessions: count, frames: frames, packet: packet))
        }
        let machine = machine ?? MachineSpeed.measure(model.compute)
        let floors = sessions.map { costs.roundSeconds(rows: $0, packet: packet, machine: machine) }
        let levels = sessions.indices.map { index in
            let run = runs[index], count = sessions[index]
            let rounds = Double(run.frames) / Double(count)
            let throughput = Double(run.frames) * model.secondsPerFrame / run.seconds
            let first = Double(runs[0].frames) * model.secondsPerFrame / runs[0].seconds
            return Level(
                sessions: count, frames: run.frames, seconds: run.seconds, roundMs: 1000 * run.seconds / rounds,
                talkerMs: 1000 * run.stages.talker / run.rounds,
                predictorMs: 1000 * run.stages.codePredictor / run.rounds,
                decoderMs: 1000 * run.stages.decoder / run.rounds, floorMs: 1000 * floors[index],
                ratio: run.seconds / rounds / floors[index], throughput: throughput, gain: throughput / first,
                floorGain: Double(count) / floors[index] / (Double(sessions[0]) / floors[0]),
                isSame: run.fingerprint == runs[0].fingerprint)
        }
        return ThroughputBench(
            model: model.directory, weights: model.weightFormat.rawValue, threads: model.compute.pool.threadCount,
            packet: packet, machine: machine, load: load, levels: levels)
    }

    private struct Run {
        var frames = 0
        var seconds = 0.0
        /// Times of the stages, and the rounds that they are of: the engine's own figures are a round behind now and
        /// then.
        var stages = StageTimes()
        var rounds = 0.0
        var fingerprint: Fingerprint?
    }

    /// Reads one utterance and notes when what came.
    private struct Listener {
        var packets: [(time: ContinuousClock.Instant, frames: Int)] = []
        var end: ContinuousClock.Instant?
        var fingerprint: Fingerprint?
        var atStart = EngineStatistics(), atEnd = EngineStatistics()

        init() {}

        init(_ stream: SpeechStream, _ engine: SpeechEngine) async {
            for await event in stream {
                let now = ContinuousClock.now
                switch event {
                case .packet(let packet):
                    if packets.isEmpty { atStart = engine.statistics }
                    packets.append((now, packet.frames.count))
                case .end(let summary):
                    end = now
                    atEnd = engine.statistics
                    fingerprint = summary.fingerprint
                }
            }
        }
    }

    /// Lets utterances speak together, and times them from where all are under way to where the first one ends.
    private static func measure(
        _ model: SpeechModel, sessions: Int, frames: Int, packet: Int
    ) async throws(ExperimentError) -> Run {
        var options = EngineOptions()
        options.maxBatch = sessions
        options.maxActive = sessions
        options.admitsByCapacity = false
        options.scheduling = .arrival
        options.runaway = nil
        let engine = SpeechEngine(model: model, options: options)
        var sampling = SamplingOptions()
        // The first packets, while the prompts of others are read, and the last token, which makes no frame, aside.
        sampling.maxNewTokens = frames + packet + 1
        var streams: [SpeechStream] = []
        for index in 0..<sessions {
            sampling.seed = UInt64(index) + 1
            let request = try model.experimentRequest(
                TextSet.builtInTexts[0], ExperimentVoice(), sampling: sampling)
            streams.append(try EngineRun.start(engine, request, packet: packet))
        }
        let listeners = await withTaskGroup(of: (Int, Listener).self) { group in
            for (index, stream) in streams.enumerated() { group.addTask { (index, await Listener(stream, engine)) } }
            var listeners = streams.map { _ in Listener() }
            for await (index, listener) in group { listeners[index] = listener }
            return listeners
        }
        // Those that begin first are ahead by the prompts of the rest, and end first.
        guard let start = listeners.compactMap(\.packets.first?.time).max(),
            let end = listeners.compactMap(\.end).min(),
            let before = listeners.first(where: { $0.packets.first?.time == start })?.atStart,
            let after = listeners.first(where: { $0.end == end })?.atEnd
        else { throw .badSetting("an utterance had no audio") }
        var run = Run(fingerprint: listeners[0].fingerprint)
        run.seconds = (end - start) / .seconds(1)
        for listener in listeners {
            run.frames += listener.packets.reduce(0) { start < $1.time && $1.time <= end ? $0 + $1.frames : $0 }
        }
        run.rounds = Double(after.frames - before.frames) / Double(sessions)
        run.stages.talker = after.stages.talker - before.stages.talker
        run.stages.codePredictor = after.stages.codePredictor - before.stages.codePredictor
        run.stages.decoder = after.stages.decoder - before.stages.decoder
        guard run.frames > 0, run.rounds > 0 else { throw .badSetting("no frame could be timed: take more frames") }
        return run
    }
}

extension StageCosts {
    /// The least seconds of a round over `rows` utterances: every weight read once for all of them, and all computing.
    fileprivate func roundSeconds(rows: Int, packet: Int, machine: MachineSpeed) -> Double {
        let frame = [talker, codePredictor].reduce(0) {
            $0 + machine.floor(bytes: $1.weightBytes, multiplyAdds: $1.multiplyAdds * rows)
        }
        // A packet's weights are read once for all of its frames.
        let decoding = machine.floor(bytes: decoder.weightBytes, multiplyAdds: decoder.multiplyAdds * rows * packet)
        return frame + decoding / Double(packet)
    }
}
