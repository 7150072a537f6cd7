import HTTPTypes
import Hummingbird
import NIOCore
import NIOHTTP1
import Qwen3TTS
import SpeechEngine

/// OpenAI's speech API: `POST /v1/audio/speech`, `GET /v1/models`.
struct SpeechRoutes: Sendable {
    let server: ServerContext

    private enum StreamFormat: String, CaseIterable { case audio, sse }

    /// Names of OpenAI's models, which stand for whatever model the server has.
    private static let modelAliases = ["tts-1", "tts-1-hd", "gpt-4o-mini-tts"]

    func add(to router: Router<ServerRequestContext>) {
        router.post("/v1/audio/speech") { request, context in
            try await speech(request, context)
        }
        router.get("/v1/models") { _, _ in
            Response(json: .object(["object": .string("list"), "data": .array(modelNames.map { model($0) })]))
        }
        router.get("/v1/models/**") { request, context in
            let name = request.uri.path.dropFirst("/v1/models/".count)
            return Response(json: model(try known(String(name).removingPercentEncoding ?? String(name))))
        }
    }

    private func speech(_ request: Request, _ context: ServerRequestContext) async throws -> Response {
        let json = try await request.json(server, context)
        let fields = try RequestFields(json)
        guard let text = try fields.string("input") else {
            throw APIError.invalid("input", "input is missing: it is the text to speak", code: "missing_parameter")
        }
        if let name = try fields.string("model"), !name.isEmpty { _ = try known(name) }
        let speed = try fields.number("speed", in: 0.25...4) ?? 1
        let streamFormat = try fields.choice("stream_format", of: StreamFormat.self) ?? .audio
        // OpenAI's default is MP3; a server without its library speaks WAV rather than not at all.
        let format =
            try fields.choice("response_format", of: AudioFormat.self)
            ?? (AudioFormat.mp3.isAvailable ? .mp3 : .wav)
        let encoder = try format.makeEncoder(sampleRate: server.model.sampleRate)
        let speechFields = try SpeechFields(fields)
        let speechRequest = try await server.speaker.request(text: text, fields: speechFields)
        let delivery = try await SpeechDelivery(
            speechRequest, fields: speechFields, json: json, server: server, context: context,
            endpoint: "/v1/audio/speech")
        switch streamFormat {
        case .audio:
            return delivery.response(
                encoder: encoder, contentType: format.contentType(sampleRate: server.model.sampleRate), speed: speed)
        case .sse:
            return delivery.events(
                encoder: encoder, speed: speed, inputTokens: server.model.tokenizer.encode(text).count)
        }
    }

    // MARK: Models

    private var modelNames: [String] { server.options.modelNames + Self.modelAliases }

    private func known(_ name: String) throws(APIError) -> String {
        // A snapshot such as gpt-4o-mini-tts-2025-12-15 is that model.
        if let known = modelNames.first(where: { $0.lowercased() == name.lowercased() || name.hasPrefix($0 + "-") }) {
            return known
        }
        throw APIError(
            status: .notFound, kind: .invalidRequest,
            message: "the model \(name.prefix(100).debugDescription) does not exist here; this server has "
                + modelNames.joined(separator: ", "),
            parameter: "model", code: "model_not_found")
    }

    private func model(_ name: String) -> JSONValue {
        .object([
            "id": .string(name), "object": .string("model"), "created": .integer(server.startedAt),
            "owned_by": .string("martlet"),
        ])
    }
}

extension Request {
    /// Its body, read within the limits on size and time.
    func bytes(limit: Int, _ server: ServerContext, _ context: ServerRequestContext) async throws -> ByteBuffer {
        let channel = context.channel
        let deadline = channel.eventLoop.scheduleTask(in: .milliseconds(Int64(server.options.readTimeout * 1000))) {
            channel.close(promise: nil)
        }
        defer { deadline.cancel() }
        if let length = headers[.contentLength].flatMap({ Int($0) }), length > limit { throw Self.tooLarge(limit) }
        do {
            return try await body.collect(upTo: limit)
        } catch is NIOTooManyBytesError {
            throw Self.tooLarge(limit)
        } catch is HTTPParserError {
            throw APIError.invalid(nil, "the request's body is not whole", code: "invalid_http")
        }
    }

    private static func tooLarge(_ limit: Int) -> APIError {
        APIError(
            status: .contentTooLarge, kind: .invalidRequest, message: "the request's body has more than \(limit) bytes",
            code: "request_too_large")
    }

    /// Its body as JSON.
    func json(_ server: ServerContext, _ context: ServerRequestContext) async throws -> JSONValue {
        try JSONValue(
            parsing: try await bytes(limit: server.options.maxBody, server, context).readableBytesView)
    }
}
