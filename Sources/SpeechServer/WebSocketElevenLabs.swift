import SpeechEngine
import Synchronization

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// The messages of ElevenLabs' streaming APIs, which Pipecat's and LiveKit's services speak: `multi-stream-input` with
/// contexts, and `stream-input` with one. `docs/api-streaming.md` says what is taken and what is left out.
///
/// With `auto_mode`, a text message is a sentence or phrase and is spoken at once; without, texts are pieces of an
/// utterance that a flush or the end completes.
final class WebSocketElevenLabs: Sendable {
    private let server: ServerContext
    private let connection: WebSocketConnection
    private let voice: String
    private let query: [String: String]
    private let isMultiple: Bool
    private let contexts = Mutex<[String: Entry]>([:])

    private struct Entry {
        let context: SpeechContext
        /// White space that ends a text, kept back until more text comes: the protocol asks for it, speech does not.
        var pendingSpace = ""
        var hasText = false
    }

    init(
        _ server: ServerContext, _ connection: WebSocketConnection, voice: String, query: [String: String],
        isMultiple: Bool
    ) {
        self.server = server
        self.connection = connection
        self.voice = voice
        self.query = query
        self.isMultiple = isMultiple
    }

    private var isAuto: Bool { query["auto_mode"]?.lowercased() == "true" }

    /// Serves the connection until either side closes it.
    func run(_ messages: inout WebSocketMessages) async throws -> WebSocketClose {
        let format: WebSocketAudioFormat
        let fields: SpeechFields
        do throws(APIError) {
            format = try outputFormat()
            fields = try speechFields()
            // A voice that is not there is told at once.
            _ = try await server.speaker.request(text: "", isComplete: false, fields: fields)
        } catch {
            try await tell(error, context: nil).value
            return WebSocketClose(.policyViolation, error.message)
        }
        try await withThrowingDiscardingTaskGroup { group in
            while let message = try await messages.next() {
                guard let (context, id) = try await receive(message, fields) else { continue }
                group.addTask { await self.speak(context, id, format) }
            }
            group.cancelAll()
        }
        return WebSocketClose(.normalClosure)
    }

    private func outputFormat() throws(APIError) -> WebSocketAudioFormat {
        let name = query["output_format"] ?? "pcm_24000"
        guard let format = WebSocketAudioFormat(name: name, modelRate: server.model.sampleRate) else {
            let known = WebSocketAudioFormat.names.joined(separator: ", ")
            throw .invalid(
                "output_format", "output_format is \(name.prefix(40).debugDescription), expected one of \(known)")
        }
        return format
    }

    private func speechFields() throws(APIError) -> SpeechFields {
        // Numbers of the speech API, beside ElevenLabs' own `seed`.
        var members: [String: JSONValue] = [:]
        for name in ["seed", "temperature", "top_k", "top_p", "repetition_penalty", "max_new_tokens"] {
            guard let text = query[name] else { continue }
            members[name] = UInt64(text).map { .unsigned($0) } ?? Double(text).map { .number($0) } ?? .string(text)
            if let integer = Int(text) { members[name] = .integer(integer) }
        }
        var fields = try SpeechFields(RequestFields(.object(members)))
        fields.voice = voice
        guard let code = query["language_code"] else { return fields }
        let language = WyomingLanguage.name(code)
        guard server.model.configuration.languages.contains(language) else {
            throw .invalid(
                "language_code",
                "the model does not speak \(code.prefix(40).debugDescription), it has "
                    + server.model.configuration.languages.joined(separator: ", "))
        }
        fields.language = language
        return fields
    }

    // MARK: Messages

    /// Does what a message says.
    /// - Returns: the context that it opened, to be run.
    private func receive(
        _ message: WebSocketMessage, _ speech: SpeechFields
    ) async throws -> (SpeechContext, String)? {
        var id = ""
        var opened: SpeechContext?
        var isEmpty = false
        do throws(APIError) {
            guard case .text(let json) = message else {
                throw .invalid(nil, "a message is JSON in a text frame", code: "invalid_type")
            }
            let fields = try RequestFields(JSONValue(parsing: json.utf8))
            let name = try fields.string("context_id")
            if isMultiple { id = name ?? "default" }
            guard id.utf8.count <= 128 else { throw .invalid("context_id", "a context's id has at most 128 bytes") }
            if try fields.bool("close_socket") == true {
                for entry in contexts.withLock({ Array($0.values) }) { entry.context.complete() }
                connection.closeWhenDone(WebSocketClose(.normalClosure))
                return nil
            }
            let text = try fields.string("text")
            let isKnown = contexts.withLock { $0[id] != nil }
            // An empty text ends the single-context form; with contexts, it keeps the connection open.
            let closesContext = try fields.bool("close_context") == true
            let closes = closesContext || (!isMultiple && text?.isEmpty == true)
            if let text, !text.isEmpty, !isKnown { opened = try open(id, speech) }
            if let text, !text.isEmpty { try append(text, to: id) }
            if try fields.bool("flush") == true { flush(id) }
            if closes {
                contexts.withLock { contexts in
                    contexts[id]?.context.complete()
                    // The id is free again: a text that follows opens another context.
                    if isMultiple { contexts[id] = nil }
                }
                isEmpty = !isKnown && opened == nil
            }
        } catch {
            try await tell(error, context: id).value
        }
        // The end of what never was.
        if isEmpty { try await finish(id, nil) }
        return opened.map { ($0, id) }
    }

    private func open(_ id: String, _ fields: SpeechFields) throws(APIError) -> SpeechContext {
        guard connection.openContext() else {
            throw .invalid(
                "context_id", "\(connection.limits.contexts) contexts are open, that is all there may be",
                code: "max_active_conversations")
        }
        let context = SpeechContext(
            server: server, fields: fields, endpoint: isMultiple ? "multi-stream-input" : "stream-input",
            limits: connection.limits)
        contexts.withLock { $0[id] = Entry(context: context) }
        return context
    }

    private func append(_ text: String, to id: String) throws(APIError) {
        let result = contexts.withLock { contexts -> Result<Void, SpeechContextError> in
            guard var entry = contexts[id] else { return .success(()) }
            defer { contexts[id] = entry }
            var body = entry.pendingSpace + text
            if !entry.hasText { body = String(body.drop { $0.isWhitespace }) }
            let end = body.lastIndex { !$0.isWhitespace }.map { body.index(after: $0) } ?? body.startIndex
            entry.pendingSpace = String(body[end...])
            body.removeSubrange(end...)
            guard !body.isEmpty else { return .success(()) }
            do throws(SpeechContextError) {
                if isAuto {
                    try entry.context.speak(whole: body)
                    entry.pendingSpace = ""
                } else {
                    try entry.context.append(body)
                    entry.hasText = true
                }
                return .success(())
            } catch {
                return .failure(error)
            }
        }
        do throws(SpeechContextError) { try result.get() } catch { throw APIError(error) }
    }

    private func flush(_ id: String) {
        contexts.withLock { contexts in
            contexts[id]?.context.flush()
            contexts[id]?.pendingSpace = ""
            contexts[id]?.hasText = false
        }
    }

    /// The id may have been taken by another context since.
    private static func remove(_ context: SpeechContext, _ id: String, _ contexts: inout [String: Entry]) {
        if contexts[id]?.context === context { contexts[id] = nil }
    }

    // MARK: Audio

    private func speak(_ context: SpeechContext, _ id: String, _ format: WebSocketAudioFormat) async {
        var summary: SpeechSummary?
        do {
            var encoder = try WebSocketAudioEncoder(format, modelRate: server.model.sampleRate)
            try await context.run { event in
                switch event {
                case .ready: break
                case .began: encoder = try WebSocketAudioEncoder(format, modelRate: server.model.sampleRate)
                case .packet(let packet):
                    try await send(
                        encoder.encode(packet.samples, pcm: packet.pcm), context: id,
                        alignment: Self.alignment(packet, secondsPerFrame: server.model.secondsPerFrame))
                case .ended(_, _, let end):
                    try await send(encoder.finish(), context: id)
                    summary = end
                }
            }
        } catch let error as APIError {
            // Together, so that whoever misses the context is told of it later.
            let telling = contexts.withLock { contexts in
                Self.remove(context, id, &contexts)
                return tell(error, context: id)
            }
            try? await telling.value
        } catch {
            // The connection is gone, and with it whoever could be told.
        }
        contexts.withLock { Self.remove(context, id, &$0) }
        context.end()
        try? await finish(id, summary)
        await connection.contextEnded()
    }

    private func finish(_ id: String, _ summary: SpeechSummary?) async throws {
        var members = summary.map { WebSocketSpeechSession.members(of: $0.json) } ?? [:]
        members["isFinal"] = .bool(true)
        try await send(members, context: id)
        if !isMultiple { connection.closeWhenDone(WebSocketClose(.normalClosure)) }
    }

    private func send(_ audio: [UInt8], context id: String, alignment: JSONValue = .null) async throws {
        guard !audio.isEmpty else { return }
        try await send(
            [
                "audio": .string(Data(audio).base64EncodedString()), "isFinal": .null, "alignment": alignment,
                "normalizedAlignment": alignment,
            ], context: id)
    }

    /// The characters that begin in a packet, in milliseconds from its own start: those of a word share the time up to the
    /// next word, or to the packet's end. A blank takes what is left, so that clients that add up durations stay in time.
    /// Null where nobody can tell.
    static func alignment(_ packet: SpeechPacket, secondsPerFrame: Double) -> JSONValue {
        guard let words = packet.words else { return .null }
        let milliseconds = { (seconds: Double) in Int((seconds * 1000).rounded()) }
        let begin = milliseconds(Double(packet.frames.lowerBound) * secondsPerFrame)
        let length = milliseconds(Double(packet.frames.upperBound) * secondsPerFrame) - begin
        let starts = words.map { milliseconds($0.start) - begin }
        var (characters, times) = ([String](), [Int]())
        if starts.first != 0 { (characters, times) = ([" "], [0]) }
        for (index, spoken) in words.enumerated() {
            let end = index + 1 < starts.count ? starts[index + 1] : length
            let letters = spoken.word.map { String($0) } + [" "]
            characters += letters
            times += letters.indices.map { starts[index] + (end - starts[index]) * $0 / letters.count }
        }
        let durations = zip(times, times.dropFirst() + [length]).map { $1 - $0 }
        return .object([
            "chars": .array(characters.map { .string($0) }),
            "charStartTimesMs": .array(times.map { .integer($0) }),
            "charDurationsMs": .array(durations.map { .integer($0) }),
        ])
    }

    private func tell(_ error: APIError, context id: String?) -> Task<Void, any Error> {
        let members: [String: JSONValue] = [
            "error": .string(error.code ?? error.kind.rawValue), "message": .string(error.message),
            "code": .integer(1008),
        ]
        return connection.tell(text(members, context: id))
    }

    private func send(_ members: [String: JSONValue], context id: String?) async throws {
        try await connection.send(text(members, context: id))
    }

    private func text(_ members: [String: JSONValue], context id: String?) -> String {
        var members = members
        if isMultiple, let id { members["contextId"] = .string(id) }
        return JSONValue.object(members).text
    }
}
