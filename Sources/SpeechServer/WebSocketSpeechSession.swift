import Qwen3TTS
import SpeechEngine
import Synchronization

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// `/v1/audio/speech/stream`: contexts that are started, given text, completed and cancelled by JSON messages; their
/// audio comes back as it is made. `docs/api-streaming.md` describes the messages.
final class WebSocketSpeechSession: Sendable {
    private static let endpoint = "/v1/audio/speech/stream"

    private let server: ServerContext
    private let connection: WebSocketConnection
    private let contexts = Mutex<[String: SpeechContext]>([:])

    /// How a client wants its audio.
    private struct Delivery {
        let format: WebSocketAudioFormat
        let isBase64: Bool
    }

    init(_ server: ServerContext, _ connection: WebSocketConnection) {
        self.server = server
        self.connection = connection
    }

    /// Serves the connection until the client closes it.
    func run(_ messages: inout WebSocketMessages) async throws -> WebSocketClose {
        try await withThrowingDiscardingTaskGroup { group in
            while let message = try await messages.next() {
                guard let (context, id, delivery) = try await receive(message) else { continue }
                group.addTask { await self.speak(context, id, delivery) }
            }
            group.cancelAll()
        }
        return WebSocketClose(.normalClosure)
    }

    // MARK: Messages

    /// Does what a message says.
    /// - Returns: the context that it started, to be run.
    private func receive(_ message: WebSocketMessage) async throws -> (SpeechContext, String, Delivery)? {
        var id: String?
        var isPing = false
        do throws(APIError) {
            guard case .text(let text) = message else {
                throw .invalid(nil, "a message is JSON in a text frame", code: "invalid_type")
            }
            let fields = try RequestFields(JSONValue(parsing: text.utf8))
            let name = try fields.string("context") ?? ""
            guard name.utf8.count <= 128 else {
                throw .invalid("context", "a context's id has at most 128 bytes")
            }
            id = name
            switch try fields.string("type") {
            case "start": return try start(name, fields)
            case "append":
                let text = try fields.string("text") ?? ""
                try change(name) { context throws(SpeechContextError) in try context.append(text) }
            case "flush": try change(name) { $0.flush() }
            case "complete": try change(name) { $0.complete() }
            case "cancel":
                if fields["context"] == nil {
                    for context in contexts.withLock({ Array($0.values) }) { context.cancel() }
                } else {
                    // One that has just ended by itself is no mistake of the client.
                    contexts.withLock { $0[name] }?.cancel()
                }
            case "ping": isPing = true
            case let type:
                throw .invalid(
                    "type",
                    "the message's type is \(type?.prefix(40).debugDescription ?? "missing"), expected one of start, "
                        + "append, flush, complete, cancel, ping")
            }
        } catch {
            try await connection.tell(Self.event("error", id, Self.members(of: error.json))).value
        }
        // Browsers cannot send the protocol's own pings.
        if isPing { try await connection.send(Self.event("pong", nil)) }
        return nil
    }

    private func change(
        _ id: String, _ change: (SpeechContext) throws(SpeechContextError) -> Void
    ) throws(APIError) {
        guard let context = contexts.withLock({ $0[id] }) else {
            throw .invalid(
                "context", "there is no context \(id.debugDescription): start it first, it may have ended",
                code: "context_not_found")
        }
        do throws(SpeechContextError) { try change(context) } catch { throw APIError(error) }
    }

    private func start(_ id: String, _ fields: RequestFields) throws(APIError) -> (SpeechContext, String, Delivery) {
        let formatName = try fields.string("response_format") ?? "pcm"
        guard let format = WebSocketAudioFormat(name: formatName, modelRate: server.model.sampleRate) else {
            let known = (["pcm"] + WebSocketAudioFormat.names).joined(separator: ", ")
            throw .invalid(
                "response_format",
                "response_format is \(formatName.prefix(40).debugDescription), expected one of \(known)")
        }
        // A library that is missing is told at once.
        _ = try WebSocketAudioEncoder(format, modelRate: server.model.sampleRate)
        let audio = try fields.string("audio") ?? "binary"
        guard audio == "binary" || audio == "base64" else {
            throw .invalid("audio", "audio is \(audio.prefix(40).debugDescription), expected binary or base64")
        }
        let text = try fields.string("input") ?? ""
        let isComplete = try fields.bool("complete") ?? false
        let context = SpeechContext(
            server: server, fields: try SpeechFields(fields), endpoint: Self.endpoint, limits: connection.limits)
        do throws(SpeechContextError) {
            if isComplete {
                try context.speak(whole: text)
                context.complete()
            } else {
                try context.append(text)
            }
        } catch {
            throw APIError(error)
        }
        guard contexts.withLock({ $0[id] == nil }) else {
            throw .invalid(
                "context", "the context \(id.debugDescription) is still speaking: cancel it, or take another id",
                code: "context_exists")
        }
        guard connection.openContext() else {
            throw .invalid(
                "context",
                "\(connection.limits.contexts) contexts are open on this connection, that is all there may be",
                code: "too_many_contexts")
        }
        contexts.withLock { $0[id] = context }
        return (context, id, Delivery(format: format, isBase64: audio == "base64"))
    }

    // MARK: Audio

    private func speak(_ context: SpeechContext, _ id: String, _ delivery: Delivery) async {
        do {
            try await deliver(context, id, delivery)
        } catch let error as APIError {
            // Together, so that whoever misses the context is told of it later.
            let telling = contexts.withLock { contexts in
                contexts[id] = nil
                return connection.tell(Self.event("error", id, Self.members(of: error.json)))
            }
            try? await telling.value
        } catch {
            // The connection is gone, and with it whoever could be told.
            contexts.withLock { $0[id] = nil }
        }
        context.end()
        await connection.contextEnded()
    }

    private func deliver(_ context: SpeechContext, _ id: String, _ delivery: Delivery) async throws {
        let modelRate = server.model.sampleRate
        var encoder = try WebSocketAudioEncoder(delivery.format, modelRate: modelRate)
        var frames = 0
        var summaries: [SpeechSummary] = []
        func send(_ bytes: [UInt8], frames: Range<Int>, words: [SpokenWord]? = nil) async throws {
            guard !bytes.isEmpty else { return }
            var members: [String: JSONValue] = [
                "utterance": .integer(summaries.count),
                "frames": .array([.integer(frames.lowerBound), .integer(frames.upperBound)]),
                "bytes": .integer(bytes.count),
            ]
            if let words, !words.isEmpty { members["words"] = .array(words.map(\.json)) }
            if delivery.isBase64 {
                members["audio"] = .string(Data(bytes).base64EncodedString())
                try await connection.send(Self.event("audio", id, members))
            } else {
                try await connection.send(Self.event("audio", id, members), followedBy: bytes)
            }
        }
        try await context.run { event in
            switch event {
            case .ready(let seed):
                try await connection.send(
                    Self.event(
                        "started", id,
                        [
                            "response_format": .string(delivery.format.description),
                            "sample_rate": .integer(delivery.format.sampleRate), "seed": .unsigned(seed),
                        ]))
            case .began:
                encoder = try WebSocketAudioEncoder(delivery.format, modelRate: modelRate)
                frames = 0
            case .packet(let packet):
                frames = packet.frames.upperBound
                try await send(
                    encoder.encode(packet.samples, pcm: packet.pcm), frames: packet.frames, words: packet.words)
            case .ended(let index, let tag, let summary):
                if !context.isCancelled { try await send(encoder.finish(), frames: frames..<frames) }
                summaries.append(summary)
                var members = Self.members(of: summary.json)
                members["utterance"] = .integer(index)
                members["tag"] = .string(tag)
                try await connection.send(Self.event("utterance", id, members))
            }
        }
        // From here on the id is free again.
        contexts.withLock { $0[id] = nil }
        var members: [String: JSONValue] = [:]
        if summaries.count == 1 {
            members = Self.members(of: summaries[0].json)
        }
        let reason = context.isCancelled ? FinishReason.cancelled : summaries.last?.finishReason ?? .stop
        members["finish_reason"] = .string(reason.rawValue)
        members["utterances"] = .integer(summaries.count)
        members["frames"] = .integer(summaries.reduce(0) { $0 + $1.frames })
        members["seconds"] = .number(summaries.reduce(0) { $0 + $1.seconds })
        try await connection.send(Self.event("end", id, members))
    }

    // MARK: Events

    private static func event(_ type: String, _ id: String?, _ members: [String: JSONValue] = [:]) -> String {
        var members = members
        members["type"] = .string(type)
        if let id { members["context"] = .string(id) }
        return JSONValue.object(members).text
    }

    static func members(of value: JSONValue) -> [String: JSONValue] {
        if case .object(let members) = value { members } else { [:] }
    }
}
