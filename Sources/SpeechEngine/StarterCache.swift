import Qwen3TTS
import Synchronization

/// What an engine keeps of short utterances that have ended.
public struct StarterCacheLimits: Sendable, Equatable {
    /// Utterances kept; the one that was asked for longest ago makes room.
    public var entries = 64
    /// Frames of the longest one that is kept: 5 s.
    public var frames = 62

    /// The defaults.
    public init() {}
}

/// Finished short utterances by their requests: the same request again is answered from here, to the same bytes, since an
/// utterance is a function of its request.
///
/// Cloned voices are left out: they are large, and nobody's opener. So are requests whose logits someone looks at.
final class StarterCache: Sendable {
    /// Everything that an utterance is a function of, and how its packets are cut.
    private struct Key: Hashable {
        let text: [UInt8], instruction: [UInt8]
        let options: [String]
    }

    private struct Entry {
        let events: [SpeechEvent]
        var lastUse: UInt64
    }

    private struct State {
        var entries: [Key: Entry] = [:]
        var uses: UInt64 = 0
    }

    private let limits: StarterCacheLimits
    private let state = Mutex(State())

    init(_ limits: StarterCacheLimits) { self.limits = limits }

    private static func key(_ request: SpeechRequest, _ packets: PacketPolicy) -> Key? {
        guard request.isComplete, request.logitTap == nil else { return nil }
        let voice: String
        switch request.voice {
        case .named(let name): voice = "named " + name
        case .standard: voice = "standard"
        case .clone: return nil
        }
        let sampling = request.sampling
        let numbers: [Double?] = [
            sampling.temperature, sampling.topP, sampling.predictorTemperature, sampling.predictorTopP,
            sampling.repetitionPenalty,
        ]
        let counts: [Int?] = [sampling.topK, sampling.predictorTopK, sampling.maxNewTokens]
        return Key(
            text: Array(request.text.utf8), instruction: Array((request.instruction ?? "").utf8),
            options: [
                voice, request.language, "\(request.layout.map { "\($0)" } ?? "")", "\(request.controlTokens)",
                "\(packets)", "\(sampling.seed)", "\(sampling.greedy)",
            ] + numbers.map { $0.map { "\($0)" } ?? "" } + counts.map { $0.map { "\($0)" } ?? "" })
    }

    /// The events of an equal request that has ended; its times are those of the answer.
    func events(_ request: SpeechRequest, _ packets: PacketPolicy) -> [SpeechEvent]? {
        guard let key = Self.key(request, packets) else { return nil }
        return state.withLock { state in
            guard state.entries[key] != nil else { return nil }
            state.uses += 1
            state.entries[key]?.lastUse = state.uses
            return state.entries[key]?.events
        }
    }

    /// Takes the events of an utterance while it is made, and keeps them if it ends as it should and is short; nil if it
    /// is not to be kept at all.
    func recorder(_ request: SpeechRequest, _ packets: PacketPolicy) -> (@Sendable (SpeechEvent) -> Void)? {
        guard let key = Self.key(request, packets) else { return nil }
        let recorded = Mutex<[SpeechEvent]?>([])
        return { [self] event in
            switch event {
            case .packet(let packet):
                recorded.withLock { events in
                    if packet.frames.upperBound > limits.frames { events = nil } else { events?.append(event) }
                }
            case .end(let summary):
                guard [.stop, .length].contains(summary.finishReason), let events = recorded.withLock({ $0 }) else {
                    return
                }
                keep(events + [.end(summary.answeredAtOnce)], key)
            }
        }
    }

    private func keep(_ events: [SpeechEvent], _ key: Key) {
        state.withLock { state in
            state.uses += 1
            state.entries[key] = Entry(events: events, lastUse: state.uses)
            guard state.entries.count > limits.entries else { return }
            let oldest = state.entries.min { $0.value.lastUse < $1.value.lastUse }
            if let oldest { state.entries[oldest.key] = nil }
        }
    }
}

extension SpeechSummary {
    /// The same utterance without the time that it took.
    fileprivate var answeredAtOnce: SpeechSummary {
        var trace = trace
        trace.queueWait = 0
        return SpeechSummary(
            finishReason: finishReason, frames: frames, seconds: seconds, seed: seed, fingerprint: fingerprint,
            firstAudio: firstAudio.map { _ in 0 }, elapsed: 0, stages: StageTimes(), underruns: 0, trace: trace,
            words: words, warnings: warnings)
    }
}
