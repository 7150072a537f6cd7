import Dispatch
public import Qwen3TTS
import Synchronization

/// What an utterance is called, in logs and by those who keep it.
public enum UtteranceName: Sendable, Equatable {
    /// As its client calls it.
    case tag(String)
    /// This and the number of its stream: `websocket-17`.
    case numbered(String)
}

/// An utterance that was spoken.
public struct SpokenUtterance: Sendable {
    /// Its name.
    public let tag: String
    /// What was asked for, with all text that came.
    public let request: SpeechRequest
    /// Codec frames of a packet; nil if they grew.
    public let packetFrames: Int?
    /// Its codes, [frames, code groups].
    public let codes: [Int32]
    /// What is known at its end.
    public let summary: SpeechSummary
}

/// Keeps what an engine speaks: every utterance that has a name, however it was asked for.
public protocol UtteranceKeeper: Sendable {
    /// Called before an utterance, to tap its logits.
    func willSpeak(_ request: inout SpeechRequest)
    /// Called after it, away from the engine's thread and before its reader learns that it has ended; it may wait for a
    /// disk. What goes wrong is the keeper's to tell.
    func keep(_ utterance: SpokenUtterance)
}

/// What is remembered of an utterance until it can be kept.
final class UtteranceRecord: Sendable {
    private let keeper: any UtteranceKeeper
    private let tag: String
    private let packetFrames: Int?
    private let state: Mutex<(request: SpeechRequest, codes: [Int32])>

    private static let queue = DispatchQueue(label: "martlet-keeper")

    init(_ request: SpeechRequest, tag: String, packets: PacketPolicy, keeper: any UtteranceKeeper) {
        self.keeper = keeper
        self.tag = tag
        if case .fixed(let count) = packets { packetFrames = count } else { packetFrames = nil }
        state = Mutex((request, []))
    }

    func append(_ text: String) { state.withLock { $0.request.text += text } }

    /// - Parameter andThen: called when nothing more is to be done for the event.
    func take(_ event: SpeechEvent, andThen: @escaping @Sendable () -> Void) {
        switch event {
        case .packet(let packet):
            state.withLock { $0.codes += packet.codes }
            andThen()
        case .end(let summary):
            let (request, codes) = state.withLock { $0 }
            let utterance = SpokenUtterance(
                tag: tag, request: request, packetFrames: packetFrames, codes: codes, summary: summary)
            Self.queue.async { [keeper] in
                keeper.keep(utterance)
                andThen()
            }
        }
    }
}
