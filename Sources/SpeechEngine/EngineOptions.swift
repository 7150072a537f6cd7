/// How packets are cut from a stream of frames. Their size never changes a byte of the audio.
public enum PacketPolicy: Sendable, Equatable {
    /// This many frames each.
    case fixed(Int)
    /// One frame first, then 2, 4, 8 while the listener's lead grows.
    case growing
}

/// Who is stepped first.
public enum SchedulingPolicy: String, Sendable, CaseIterable {
    /// Who would run dry first; new utterances go ahead of those with lead to spare.
    case playbackLead
    /// Who came first: the plain scheduler that the other one is measured against.
    case arrival
}

/// Limits of an engine.
public struct EngineOptions: Sendable {
    /// Utterances stepped together.
    public var maxBatch = 8
    /// Utterances that speak at a time; more wait.
    public var maxActive = 64
    /// Utterances that wait at most; more are refused.
    public var maxQueued = 64
    /// Frames that a reader may be behind before its utterance is no longer stepped: 20 s.
    public var maxUnreadFrames = 250
    /// A reader that takes nothing for so many seconds, with audio waiting, is dropped.
    public var readerTimeout = 60.0
    /// An utterance whose text does not come for so many seconds is ended.
    public var textTimeout = 300.0
    /// Order of service.
    public var scheduling = SchedulingPolicy.playbackLead
    /// Whether an utterance waits until it can be kept from underrun.
    public var admitsByCapacity = true
    /// What counts as a run-away; nil lets the model speak on until its own limit.
    public var runaway: RunawayLimits? = RunawayLimits()

    /// The defaults.
    public init() {}
}

/// When the engine ends an utterance because the model has lost its way.
///
/// Each rule is a function of the utterance's own text, codes and samples, frame by frame: it ends at the same frame
/// whatever the packets or the load.
public struct RunawayLimits: Sendable, Equatable {
    /// Frames allowed without any text.
    public var baseFrames = 125
    /// Frames allowed for each text token: real speech takes three or four.
    public var framesPerToken = 16
    /// Frames of silence in a row.
    public var silentFrames = 100
    /// Samples below this are silence: -60 dB.
    public var silence: Float = 0.001
    /// Frames through which all codes repeat with one period of at most `loopPeriod` frames.
    public var loopFrames = 75
    /// Longest period looked for.
    public var loopPeriod = 12

    /// The defaults.
    public init() {}
}
