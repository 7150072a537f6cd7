public import Qwen3TTS
import Synchronization

/// Audio of consecutive codec frames of one utterance.
public struct SpeechPacket: Sendable {
    /// Which frames, counted from 0.
    public let frames: Range<Int>
    /// Their codes, [frames, code groups].
    public let codes: [Int32]
    /// Samples in -1…1, [frames · samples per frame].
    public let samples: [Float]
    /// The same samples as 16-bit little-endian PCM: the bytes that fingerprints are taken of.
    public let pcm: [UInt8]
    /// The words that begin in it; nil where that cannot be told.
    public let words: [SpokenWord]?
    /// When it was made.
    public let times: PacketTimes
}

/// When a packet was generated and decoded, in seconds since its request was submitted.
public struct PacketTimes: Sendable, Codable, Equatable {
    /// Begin of the first step that worked on its frames; for the first packet that includes the prompt.
    public var generationStart = 0.0
    /// End of the step that made its last frame.
    public var generationEnd = 0.0
    /// Begin of the decode call.
    public var decodeStart = 0.0
    /// Codebooks and pre-transformer are done.
    public var preTransformerEnd = 0.0
    /// Upsampling and convolutions begin.
    public var convolutionsStart = 0.0
    /// End of the decode call.
    public var decodeEnd = 0.0

    /// All zero.
    public init() {}
}

/// What decoding did for one utterance.
public struct DecodeTrace: Sendable, Codable, Equatable {
    /// Seconds from submission to the first step.
    public var queueWait = 0.0
    /// Packets decoded.
    public var decodeCalls = 0
    /// Most frames in one of them.
    public var codesFramesMax = 0
    /// Samples of all packets.
    public var pcmSamplesTotal = 0
    /// Most samples of one packet.
    public var pcmSamplesMax = 0

    /// All zero.
    public init() {}
}

/// What is known when an utterance has ended.
public struct SpeechSummary: Sendable, Codable, Equatable {
    /// Why it ended.
    public let finishReason: FinishReason
    /// Frames generated.
    public let frames: Int
    /// Seconds of audio.
    public let seconds: Double
    /// The seed that reproduces it.
    public let seed: UInt64
    /// Hashes of its codes and PCM.
    public let fingerprint: Fingerprint
    /// Seconds from submission to the first packet; nil if there was none.
    public let firstAudio: Double?
    /// Seconds from submission to the end.
    public let elapsed: Double
    /// Time spent per stage in rounds that this utterance took part in.
    public let stages: StageTimes
    /// Packets that came after the audio before them would have been played.
    public let underruns: Int
    /// What decoding did.
    public let trace: DecodeTrace
    /// When each word begins; empty if the model cannot tell.
    public let words: [SpokenWord]
    /// Remarks on the request.
    public let warnings: [String]

    /// Computing time by speaking time: below 1 is faster than real time.
    public var realTimeFactor: Double { seconds > 0 ? elapsed / seconds : 0 }
}

/// What a stream brings: packets, then one end.
public enum SpeechEvent: Sendable {
    /// Audio.
    case packet(SpeechPacket)
    /// The end; nothing follows.
    case end(SpeechSummary)
}

/// The audio of one utterance while it is made, and the way to steer it.
///
/// Packets wait in a bounded queue: when the reader is far behind, the engine stops stepping this utterance until it
/// reads on. Dropping the stream cancels the utterance.
public final class SpeechStream: AsyncSequence, Sendable {
    /// Packets, then one end.
    public typealias Element = SpeechEvent

    /// A number of its own in this engine.
    public let id: UInt64
    /// Its name, or one that its number makes.
    public let tag: String
    private let state = Mutex(State())
    private let wakeEngine: @Sendable () -> Void
    private let recorder: (@Sendable (SpeechEvent) -> Void)?
    private let record: UtteranceRecord?

    private struct State {
        var events: [SpeechEvent] = []
        var unreadFrames = 0
        var readCount = 0
        var ended = false
        var cancelled: FinishReason?
        var reader: CheckedContinuation<SpeechEvent?, Never>?
        var text: [String] = []
        var textComplete = false
    }

    /// - Parameters:
    ///   - recorder: sees every event as it is delivered.
    ///   - record: takes what is to be kept; nil keeps nothing.
    init(
        id: UInt64, tag: String, wakeEngine: @escaping @Sendable () -> Void,
        recorder: (@Sendable (SpeechEvent) -> Void)? = nil, record: UtteranceRecord? = nil
    ) {
        self.id = id
        self.tag = tag
        self.recorder = recorder
        self.record = record
        self.wakeEngine = wakeEngine
    }

    deinit { cancel() }

    /// Appends text to an utterance that was started incomplete.
    public func append(_ text: String) {
        record?.append(text)
        state.withLock { $0.text.append(text) }
        wakeEngine()
    }

    /// Says that no more text comes.
    public func completeText() {
        state.withLock { $0.textComplete = true }
        wakeEngine()
    }

    /// Ends the utterance within one frame. Events that are queued can still be read.
    /// - Parameter reason: what it ends with; the first one counts.
    public func cancel(_ reason: FinishReason = .cancelled) {
        state.withLock { $0.cancelled = $0.cancelled ?? reason }
        wakeEngine()
    }

    /// Reads events in order.
    public struct Iterator: AsyncIteratorProtocol {
        let stream: SpeechStream

        /// The next event, when it is there; nil after the end.
        public mutating func next() async -> SpeechEvent? { await stream.next() }
    }

    /// Reads on from where the last reader stopped; one reader at a time.
    public func makeAsyncIterator() -> Iterator { Iterator(stream: self) }

    private func next() async -> SpeechEvent? {
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let ready: SpeechEvent?? = state.withLock { state in
                    if !state.events.isEmpty {
                        let event = state.events.removeFirst()
                        state.readCount += 1
                        if case .packet(let packet) = event { state.unreadFrames -= packet.frames.count }
                        return event
                    }
                    if state.ended { return .some(nil) }
                    state.reader = continuation
                    return nil
                }
                if let ready {
                    continuation.resume(returning: ready)
                    wakeEngine()
                }
            }
        } onCancel: {
            cancel()
        }
    }

    // MARK: The engine's side

    /// Frames delivered and not yet read.
    var unreadFrames: Int { state.withLock { $0.unreadFrames } }

    /// Events read so far.
    var readCount: Int { state.withLock { $0.readCount } }

    /// What it was told to end with; nil if nobody did.
    var cancelled: FinishReason? { state.withLock { $0.cancelled } }

    /// Text that arrived since the last call, and whether it is now complete.
    func takeText() -> (pieces: [String], isComplete: Bool) {
        state.withLock { state in
            defer { state.text = [] }
            return (state.text, state.textComplete)
        }
    }

    func deliver(_ event: SpeechEvent) {
        recorder?(event)
        if let record { record.take(event) { self.hand(event) } } else { hand(event) }
    }

    private func hand(_ event: SpeechEvent) {
        let reader = state.withLock { state -> CheckedContinuation<SpeechEvent?, Never>? in
            if case .end = event { state.ended = true }
            if let reader = state.reader {
                state.reader = nil
                return reader
            }
            if case .packet(let packet) = event { state.unreadFrames += packet.frames.count }
            state.events.append(event)
            return nil
        }
        reader?.resume(returning: event)
    }
}
