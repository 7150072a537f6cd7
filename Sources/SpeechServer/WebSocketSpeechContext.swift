import Qwen3TTS
import SpeechEngine
import Synchronization

/// What a context has to tell.
enum SpeechContextEvent: Sendable {
    /// The request is in order; utterances follow.
    case ready(seed: UInt64)
    /// An utterance begins.
    case began(utterance: Int)
    /// Its audio, in order.
    case packet(SpeechPacket)
    /// It has ended.
    case ended(utterance: Int, tag: String, SpeechSummary)
}

/// Why a context takes no more text.
enum SpeechContextError: Error, Equatable, CustomStringConvertible {
    /// Its text was completed, or it was cancelled.
    case complete
    /// One utterance would have more text than allowed.
    case tooMuchText(limit: Int)
    /// More utterances wait than allowed.
    case tooManyWaiting(limit: Int)

    var description: String {
        switch self {
        case .complete: "the context takes no more text: it was completed or cancelled; start another one"
        case .tooMuchText(let limit): "one utterance has more than \(limit) bytes of text: flush before that"
        case .tooManyWaiting(let limit): "more than \(limit) utterances of this context wait; send text as it is spoken"
        }
    }
}

/// One voice on a connection that speaks text as it comes: one utterance, or several one after another.
///
/// Text that is appended goes straight into the utterance that is being spoken. The bytes of an utterance are a function
/// of its text and request alone, never of when its pieces came.
final class SpeechContext: Sendable {
    private let server: ServerContext
    private let fields: SpeechFields
    private let endpoint: String
    private let limits: WebSocketLimits
    private let state = Mutex(State())
    private let queue: AsyncStream<ContextUtterance>
    private let queueEnd: AsyncStream<ContextUtterance>.Continuation

    private struct State {
        /// The utterance that text is appended to.
        var open: ContextUtterance?
        /// The one that is being spoken.
        var speaking: ContextUtterance?
        var waiting = 0
        var isComplete = false
        var isCancelled = false
    }

    /// A context that speaks as the fields say.
    /// - Parameter endpoint: what metrics call the way that it came by.
    init(server: ServerContext, fields: SpeechFields, endpoint: String, limits: WebSocketLimits) {
        self.server = server
        self.fields = fields
        self.endpoint = endpoint
        self.limits = limits
        (queue, queueEnd) = AsyncStream.makeStream()
    }

    /// Whether it was cancelled.
    var isCancelled: Bool { state.withLock { $0.isCancelled } }

    /// Whether it takes no more text.
    var isComplete: Bool { state.withLock { $0.isComplete } }

    /// Appends text to the open utterance, or begins one.
    func append(_ text: String) throws(SpeechContextError) {
        guard !text.isEmpty else { return }
        let utterance = try openUtterance()
        guard utterance.append(text, limit: limits.utteranceBytes) else {
            throw .tooMuchText(limit: limits.utteranceBytes)
        }
    }

    /// Speaks a whole text as an utterance of its own, in the layout that the model prefers for whole texts.
    func speak(whole text: String) throws(SpeechContextError) {
        flush()
        let utterance = try openUtterance(isWhole: true)
        guard utterance.append(text, limit: limits.utteranceBytes) else {
            throw .tooMuchText(limit: limits.utteranceBytes)
        }
        flush()
    }

    /// Ends the open utterance, if there is one; text that follows begins another.
    func flush() {
        let open = state.withLock { state in
            defer { state.open = nil }
            return state.open
        }
        guard let open else { return }
        open.complete()
        // What is spoken whole is queued only now.
        if open.isWhole { queueEnd.yield(open) }
    }

    /// Says that no more text comes; what came is spoken to its end.
    func complete() {
        flush()
        state.withLock { $0.isComplete = true }
        queueEnd.finish()
    }

    /// Stops speaking within one frame and drops what waits.
    func cancel() {
        state.withLock { $0.isCancelled = true }
        end()
    }

    /// Takes no more text and stops speaking.
    func end() {
        let speaking = state.withLock { state in
            state.isComplete = true
            state.open = nil
            return state.speaking
        }
        queueEnd.finish()
        speaking?.cancel()
    }

    private func openUtterance(isWhole: Bool = false) throws(SpeechContextError) -> ContextUtterance {
        let result = state.withLock { state -> Result<(ContextUtterance, isNew: Bool), SpeechContextError> in
            guard !state.isComplete else { return .failure(.complete) }
            if let open = state.open { return .success((open, false)) }
            guard state.waiting < limits.waitingUtterances else {
                return .failure(.tooManyWaiting(limit: limits.waitingUtterances))
            }
            let utterance = ContextUtterance(isWhole: isWhole)
            state.open = utterance
            state.waiting += 1
            return .success((utterance, true))
        }
        let (utterance, isNew) = try result.get()
        if isNew && !isWhole { queueEnd.yield(utterance) }
        return utterance
    }

    /// Speaks the utterances one after another until the text is complete, the context is cancelled or the task is.
    ///
    /// Audio that is made after a cancel is not handed on.
    /// - Throws: an ``APIError`` when the fields are wrong or the engine refuses an utterance, or what `handle` throws;
    ///   nothing is spoken after that, but text is still taken, in vain, until the caller has said so and calls ``end()``.
    func run(_ handle: (SpeechContextEvent) async throws -> Void) async throws {
        let request = try await server.speaker.request(text: "", isComplete: false, fields: fields)
        do throws(ModelError) {
            // What is wrong with the fields is said before there is text.
            _ = try server.model.prepare(request)
        } catch {
            throw APIError(error)
        }
        try await handle(.ready(seed: request.sampling.seed))
        var index = 0
        for await utterance in queue {
            let goesOn = state.withLock { state in
                state.waiting -= 1
                state.speaking = utterance
                return !state.isCancelled
            }
            guard goesOn else { return }
            let stream = try utterance.start(server, request, name: name(index))
            var packets: [PacketTimes] = []
            // A cancel that came before the stream was there.
            if isCancelled { stream.cancel() }
            try await handle(.began(utterance: index))
            for await event in stream {
                switch event {
                case .packet(let packet):
                    packets.append(packet.times)
                    if !isCancelled { try await handle(.packet(packet)) }
                case .end(let summary):
                    server.ended(summary, tag: stream.tag, endpoint: endpoint, packets: packets)
                    try await handle(.ended(utterance: index, tag: stream.tag, summary))
                }
            }
            // An utterance that ended by itself stays open: what is appended up to the next flush is its text, too late.
            // Whether it came before the end or after must change nothing.
            state.withLock { $0.speaking = nil }
            index += 1
        }
    }

    /// What one of its utterances is called: the client's own tag, with the utterance's number from the second on.
    private func name(_ index: Int) -> UtteranceName {
        if let tag = fields.tag { return .tag(index == 0 ? tag : "\(tag)-\(index + 1)") }
        return .numbered(endpoint.hasPrefix("/") ? "websocket" : endpoint)
    }
}

/// The text of one utterance: kept until it is spoken, then handed on as it comes.
private final class ContextUtterance: Sendable {
    /// Its text is complete before it is spoken.
    let isWhole: Bool
    private let state = Mutex(State())

    private struct State {
        var text = ""
        var bytes = 0
        var isComplete = false
        var stream: SpeechStream?
    }

    init(isWhole: Bool) { self.isWhole = isWhole }

    func append(_ text: String, limit: Int) -> Bool {
        state.withLock { state in
            guard state.bytes + text.utf8.count <= limit else { return false }
            state.bytes += text.utf8.count
            if let stream = state.stream { stream.append(text) } else { state.text += text }
            return true
        }
    }

    func complete() {
        state.withLock { state in
            state.isComplete = true
            state.stream?.completeText()
        }
    }

    func cancel() { state.withLock { $0.stream }?.cancel() }

    func start(
        _ server: ServerContext, _ base: SpeechRequest, name: UtteranceName
    ) throws(APIError) -> SpeechStream {
        let result = state.withLock { state -> Result<SpeechStream, APIError> in
            var request = base
            request.text = state.text
            request.isComplete = isWhole
            state.text = ""
            do throws(APIError) {
                let stream = try server.speak(request, name: name)
                if state.isComplete && !isWhole { stream.completeText() }
                state.stream = stream
                return .success(stream)
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }
}

extension APIError {
    /// What a context did not take.
    init(_ error: SpeechContextError) {
        switch error {
        case .complete: self = .invalid("context", error.description, code: "context_complete")
        case .tooMuchText: self = .invalid("text", error.description, code: "string_above_max_length")
        case .tooManyWaiting: self = .invalid("text", error.description, code: "too_many_utterances")
        }
    }
}
