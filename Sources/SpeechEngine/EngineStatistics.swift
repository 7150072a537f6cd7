public import Qwen3TTS

/// What an engine has done since it started, and what it does now.
public struct EngineStatistics: Sendable, Equatable {
    /// Utterances that speak now.
    public var active = 0
    /// Utterances that wait to be admitted.
    public var queued = 0
    /// Requests refused because the queue was full or the engine was draining.
    public var refused = 0
    /// Utterances ended, by reason.
    public var finished: [FinishReason: Int] = [:]
    /// Frames generated.
    public var frames = 0
    /// Packets that came after the audio before them had been played.
    public var underruns = 0
    /// Seconds that listeners waited in those underruns.
    public var underrunSeconds = 0.0
    /// How often the worker process died and was started again.
    public var workerRestarts = 0
    /// Seconds spent per stage.
    public var stages = StageTimes()
    /// Smallest lead of the utterances that speak now, in seconds; nil if none does.
    public var smallestLead: Double?
    /// Expected seconds of a round with one more utterance; nil before anything is known.
    public var nextRoundSeconds: Double?

    /// All zero.
    public init() {}
}

/// Why an engine does not take a request.
public enum EngineError: Error, Equatable, CustomStringConvertible {
    /// The request itself is wrong.
    case request(ModelError)
    /// The queue is full.
    case busy(queued: Int, retryAfter: Double)
    /// The engine finishes what it has and takes nothing new.
    case draining

    /// One line for a person.
    public var description: String {
        switch self {
        case .request(let error): error.description
        case .busy(let queued, let retryAfter):
            "\(queued) requests are waiting already; try again in \(Int(retryAfter.rounded(.up))) s"
        case .draining: "the server is shutting down and takes no new requests"
        }
    }
}
