import HTTPTypes
import Hummingbird
import Logging
import NIOCore
import NIOPosix
import Qwen3TTS
import SpeechEngine
import Synchronization

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Sends one utterance as an HTTP response while it is made, no faster than the client reads.
///
/// A client that goes away cancels it; one that leaves what was sent unread loses its connection at the time limit.
struct SpeechDelivery: Sendable {
    let server: ServerContext
    let context: ServerRequestContext
    let stream: SpeechStream
    /// The path, for the metrics.
    let endpoint: String
    /// Names the request.
    var tag: String { stream.tag }
    let submitted = ContinuousClock.now
    private let json: JSONValue
    private let first: SpeechEvent?
    private let kept: Kept

    /// Starts the utterance and waits for its first packet, so that whatever goes wrong before it is answered as such.
    /// - Parameter json: the request as it came, for its record.
    init(
        _ request: SpeechRequest, fields: SpeechFields, json: JSONValue, server: ServerContext,
        context: ServerRequestContext, endpoint: String
    ) async throws(APIError) {
        let packets = fields.packetTokens.map { PacketPolicy.fixed($0) } ?? server.options.packets
        let kind = ["/tts/stream": "stream", "/synthesize": "synthesize"][endpoint] ?? "speech"
        let stream = try server.speak(
            request, packets: packets, name: fields.tag.map { .tag($0) } ?? .numbered(kind))
        kept = Kept(request: request)
        self.json = json
        self.server = server
        self.context = context
        self.stream = stream
        self.endpoint = endpoint
        await ClientWatch.watch(context.channel) { [weak stream] in stream?.cancel() }
        var events = stream.makeAsyncIterator()
        first = await events.next()
        guard case .end(let summary) = first else { return }
        if summary.finishReason == .timeout || summary.finishReason == .cancelled {
            note(summary)
            throw .unavailable("the request took too long and was ended", code: "timeout", retryAfter: 1)
        }
        if summary.finishReason.isFault {
            note(summary)
            throw .unavailable(
                "\(Self.fault(summary)); try again", code: summary.finishReason.rawValue, retryAfter: 5)
        }
    }

    /// What the headers say of the first audio, in milliseconds: from submission to the engine's first packet, and to
    /// now.
    var firstAudioMilliseconds: Int { Int(((ContinuousClock.now - submitted) / .milliseconds(1)).rounded()) }

    /// The whole utterance.
    /// - Returns: its samples, and what is known at its end.
    func collect() async throws(APIError) -> (samples: [Float], summary: SpeechSummary) {
        var samples: [Float] = []
        var end: SpeechSummary?
        await forEach { event in
            switch event {
            case .packet(let packet): samples += packet.samples
            case .end(let summary): end = summary
            }
        }
        guard let end else { throw .server("the speech ended without a result") }
        note(end)
        guard !end.finishReason.isFault else { throw .server("\(Self.fault(end)) on the way; try again") }
        return (samples, end)
    }

    private static func fault(_ summary: SpeechSummary) -> String {
        summary.finishReason == .workerLost
            ? "the process that generates speech died" : "the GPU that makes speech failed, or has no memory left"
    }

    /// Encoded bytes, in chunks as they come or of `chunkBytes` each, and the fingerprint in the trailers.
    func response(
        encoder: any AudioEncoder, contentType: String, speed: Double = 1, chunkBytes: Int? = nil,
        headers: HTTPFields = [:]
    ) -> Response {
        response(contentType: contentType, headers: headers) { writer in
            var pieces = Pieces(size: chunkBytes)
            return try await encoded(encoder, speed: speed) { bytes in
                let buffers = pieces.add(bytes)
                if !buffers.isEmpty { try await write(buffers, to: &writer) }
            } atEnd: { _ in
                let buffers = pieces.finish()
                if !buffers.isEmpty { try await write(buffers, to: &writer) }
            }
        }
    }

    /// Server-sent events as OpenAI sends them: `speech.audio.delta` with base64, then `speech.audio.done`.
    func events(encoder: any AudioEncoder, speed: Double = 1, inputTokens: Int) -> Response {
        response(contentType: "text/event-stream", headers: [.cacheControl: "no-cache"]) { writer in
            func send(_ event: JSONValue) async throws {
                try await write([ByteBuffer(string: "data: \(event.text)\n\n")], to: &writer)
            }
            return try await encoded(encoder, speed: speed) { bytes in
                guard !bytes.isEmpty else { return }
                try await send(
                    .object([
                        "type": .string("speech.audio.delta"), "audio": .string(Data(bytes).base64EncodedString()),
                    ]))
            } atEnd: { summary in
                try await send(
                    .object([
                        "type": .string("speech.audio.done"),
                        "usage": .object([
                            "input_tokens": .integer(inputTokens), "output_tokens": .integer(summary.frames),
                            "total_tokens": .integer(inputTokens + summary.frames),
                        ]),
                        "martlet": summary.json,
                    ]))
            }
        }
    }

    /// The fingerprint and what else is known at the end.
    func trailers(_ summary: SpeechSummary) -> HTTPFields {
        summary.trailers(firstCodes: kept.firstCodes, firstTimes: kept.times.first)
    }

    // MARK: Parts

    private func response(
        contentType: String, headers: HTTPFields,
        _ body: @escaping @Sendable (inout any ResponseBodyWriter) async throws -> SpeechSummary
    ) -> Response {
        var headers = headers
        headers[.contentType] = contentType
        headers[.trailer] = SpeechSummary.trailerNames
        headers[.martletFirstAudio] = "\(firstAudioMilliseconds)"
        return Response(
            status: .ok, headers: headers,
            body: ResponseBody { writer in
                do {
                    let summary = try await body(&writer)
                    try await writer.finish(trailers(summary))
                } catch {
                    stream.cancel()
                    // The connection cannot be used for anything else: the response has no end.
                    context.channel.close(promise: nil)
                    throw error
                }
            })
    }

    private func encoded(
        _ encoder: any AudioEncoder, speed: Double, _ send: ([UInt8]) async throws -> Void,
        atEnd: (SpeechSummary) async throws -> Void
    ) async throws -> SpeechSummary {
        var stretch = speed == 1 ? nil : TimeStretch(speed: speed, sampleRate: server.model.sampleRate)
        var end: SpeechSummary?
        try await forEach { event in
            switch event {
            case .packet(let packet):
                try await send(encoder.encode(stretch?.add(packet.samples) ?? packet.samples))
            case .end(let summary):
                end = summary
                note(summary)
                if let rest = stretch?.finish(), !rest.isEmpty { try await send(encoder.encode(rest)) }
                try await send(encoder.finish())
                try await atEnd(summary)
            }
        }
        guard let end else { throw APIError.server("the speech ended without a result") }
        return end
    }

    private func forEach<Failure>(_ body: (SpeechEvent) async throws(Failure) -> Void) async throws(Failure) {
        if let first {
            kept.add(first)
            try await body(first)
        }
        if case .end = first { return }
        for await event in stream {
            kept.add(event)
            try await body(event)
        }
    }

    private func write(_ buffers: [ByteBuffer], to writer: inout any ResponseBodyWriter) async throws {
        let channel = context.channel
        let limit = channel.eventLoop.scheduleTask(in: .milliseconds(Int64(server.options.writeTimeout * 1000))) {
            channel.close(promise: nil)
        }
        defer { limit.cancel() }
        try await writer.write(contentsOf: buffers)
    }

    private func note(_ summary: SpeechSummary) {
        server.ended(summary, tag: tag, endpoint: endpoint, packets: kept.times)
        let result = summary.json
        context.notes.add("speech", result)
        guard let directory = server.options.recordDirectory else { return }
        RequestRecord(request: kept.effective(json), result: result).save(
            to: directory, name: "\(server.startedAt)-\(stream.id).json",
            failed: { [logger = server.logger] in logger.error("a record cannot be written: \($0)") })
    }
}

/// What is remembered of an utterance until its end.
private final class Kept: Sendable {
    private let request: SpeechRequest
    private let state = Mutex<(first: [Int32], times: [PacketTimes])>(([], []))

    init(request: SpeechRequest) { self.request = request }

    var times: [PacketTimes] { state.withLock { $0.times } }

    /// Codes of the first packet.
    var firstCodes: [Int32] { state.withLock { $0.first } }

    func add(_ event: SpeechEvent) {
        guard case .packet(let packet) = event else { return }
        state.withLock { state in
            if state.times.isEmpty { state.first = packet.codes }
            state.times.append(packet.times)
        }
    }

    /// The request as it was sent, with what the server's own settings made of it.
    func effective(_ json: JSONValue) -> JSONValue {
        guard case .object(var members) = json else { return json }
        if request.sampling.greedy { members["greedy"] = .bool(true) }
        if let tokens = request.sampling.maxNewTokens { members["max_new_tokens"] = .integer(tokens) }
        return .object(members)
    }
}

/// Cuts bytes into pieces of one size; without a size, leaves them as they come.
private struct Pieces {
    let size: Int?
    private var pending: [UInt8] = []

    init(size: Int?) { self.size = size }

    mutating func add(_ bytes: [UInt8]) -> [ByteBuffer] {
        guard let size else { return bytes.isEmpty ? [] : [ByteBuffer(bytes: bytes)] }
        pending += bytes
        var pieces: [ByteBuffer] = []
        var start = 0
        while pending.count - start >= size {
            pieces.append(ByteBuffer(bytes: pending[start..<(start + size)]))
            start += size
        }
        pending.removeFirst(start)
        return pieces
    }

    mutating func finish() -> [ByteBuffer] {
        defer { pending = [] }
        return pending.isEmpty ? [] : [ByteBuffer(bytes: pending)]
    }
}
