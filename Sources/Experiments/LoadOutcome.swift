/// A listener who plays audio from the moment that the first piece of it has come, and never skips.
public struct PlaybackSimulation: Sendable, Equatable {
    /// When the first audio came, in seconds; nil before.
    public private(set) var firstAudio: Double?
    /// Seconds of audio received.
    public private(set) var received = 0.0
    /// How often the next piece came after everything before it had been played.
    public private(set) var underruns = 0
    /// Seconds of silence that the listener heard in them.
    public private(set) var underrunSeconds = 0.0

    /// Nothing received.
    public init() {}

    /// Takes a piece of audio of `seconds` that comes at `now`, in seconds on any clock that runs on.
    public mutating func receive(_ seconds: Double, at now: Double) {
        guard seconds > 0 else { return }
        if let firstAudio {
            let late = now - (firstAudio + underrunSeconds + received)
            if late > 0 {
                underruns += 1
                underrunSeconds += late
            }
        } else {
            firstAudio = now
        }
        received += seconds
    }
}

/// What became of one request of a load.
public struct LoadOutcome: Sendable, Codable, Equatable {
    /// How it ended.
    public enum End: String, Sendable, Codable {
        /// With all its audio.
        case finished
        /// The server had no room: 503.
        case refused
        /// In any other way.
        case failed
    }

    /// The request's number in its plan.
    public var index: Int
    /// Seconds from the start to its arrival.
    public var arrival: Double
    /// How it ended.
    public var end: End
    /// Seconds from its arrival to the first audio.
    public var firstAudio: Double?
    /// Seconds from its arrival to the last.
    public var elapsed: Double
    /// Seconds of audio.
    public var seconds = 0.0
    /// Underruns of a listener.
    public var underruns = 0
    /// Seconds that the listener waited in them.
    public var underrunSeconds = 0.0
    /// What went wrong.
    public var error: String?

    /// An outcome, times in seconds from the request's arrival.
    public init(
        _ request: LoadPlan.Request, _ end: End, elapsed: Double, playback: PlaybackSimulation, error: String? = nil
    ) {
        index = request.index
        arrival = request.arrival
        self.end = end
        firstAudio = playback.firstAudio
        self.elapsed = elapsed
        seconds = playback.received
        underruns = playback.underruns
        underrunSeconds = playback.underrunSeconds
        self.error = error
    }

    enum CodingKeys: String, CodingKey {
        case index, arrival, end, elapsed, seconds, underruns, error
        case firstAudio = "ttfa"
        case underrunSeconds = "underrun_seconds"
    }
}

/// What a load did to a server.
public struct LoadReport: Sendable, Codable, Equatable {
    /// Requests a second that were asked for, and for how many seconds.
    public let rate: Double, duration: Double
    /// The plan's seed.
    public let seed: UInt64
    /// Requests, and how they ended.
    public let requests: Int, finished: Int, refused: Int, failed: Int
    /// Milliseconds from a request's arrival to its first audio, of those that finished.
    public let firstAudioMs: CodeRuns.Distribution
    /// Seconds from arrival to the last audio, by seconds of audio.
    public let realTimeFactor: CodeRuns.Distribution
    /// Listeners who heard a gap, gaps, and seconds of silence in them.
    public let interrupted: Int, underruns: Int, underrunSeconds: Double
    /// Seconds of audio received.
    public let audioSeconds: Double
    /// Seconds of audio received in a second, from the first arrival to the last audio.
    public let throughput: Double
    /// The most requests that were in progress at a time.
    public let mostAtOnce: Int
    /// Milliseconds by which the client itself sent a request late, at worst: much of it means that the client was
    /// the bottleneck.
    public let worstSendDelayMs: Double
    /// Different errors, with how often they came.
    public let errors: [String: Int]
    /// Request by request.
    public let outcomes: [LoadOutcome]

    enum CodingKeys: String, CodingKey {
        case rate, duration, seed, requests, finished, refused, failed, interrupted, underruns, throughput, errors
        case outcomes
        case firstAudioMs = "ttfa_ms"
        case realTimeFactor = "rtf"
        case underrunSeconds = "underrun_seconds"
        case audioSeconds = "audio_seconds"
        case mostAtOnce = "most_at_once"
        case worstSendDelayMs = "worst_send_delay_ms"
    }

    /// Sums outcomes up.
    public init(rate: Double, duration: Double, seed: UInt64, outcomes: [LoadOutcome], worstSendDelay: Double) {
        self.rate = rate
        self.duration = duration
        self.seed = seed
        self.outcomes = outcomes.sorted { $0.index < $1.index }
        requests = outcomes.count
        let whole = outcomes.filter { $0.end == .finished }
        finished = whole.count
        refused = outcomes.count { $0.end == .refused }
        failed = outcomes.count { $0.end == .failed }
        firstAudioMs = CodeRuns.Distribution(whole.compactMap { $0.firstAudio.map { $0 * 1000 } })
        realTimeFactor = CodeRuns.Distribution(whole.filter { $0.seconds > 0 }.map { $0.elapsed / $0.seconds })
        interrupted = outcomes.count { $0.underruns > 0 }
        underruns = outcomes.reduce(0) { $0 + $1.underruns }
        underrunSeconds = outcomes.reduce(0) { $0 + $1.underrunSeconds }
        audioSeconds = outcomes.reduce(0) { $0 + $1.seconds }
        let first = outcomes.map(\.arrival).min() ?? 0
        let last = outcomes.map { $0.arrival + $0.elapsed }.max() ?? 0
        throughput = last > first ? audioSeconds / (last - first) : 0
        let changes = outcomes.flatMap { [($0.arrival, 1), ($0.arrival + $0.elapsed, -1)] }.sorted { $0 < $1 }
        var (now, most) = (0, 0)
        for (_, change) in changes {
            now += change
            most = max(most, now)
        }
        mostAtOnce = most
        worstSendDelayMs = worstSendDelay * 1000
        errors = Dictionary(outcomes.compactMap { $0.error.map { ($0, 1) } }, uniquingKeysWith: +)
    }
}
