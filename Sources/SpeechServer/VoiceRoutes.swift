import HTTPTypes
import Hummingbird
import NIOCore
import NIOPosix
import Qwen3TTS

/// `GET`, `POST` and `DELETE` of `/v1/audio/voices`.
struct VoiceRoutes: Sendable {
    let server: ServerContext

    private var voices: VoiceStore { server.speaker.voices }

    func add(to router: Router<ServerRequestContext>) {
        router.get("/v1/audio/voices") { _, _ in list }
        router.post("/v1/audio/voices") { request, context in
            try await upload(request, context)
        }
        router.delete("/v1/audio/voices/:name") { _, context in
            let name = context.parameters.get("name")?.removingPercentEncoding ?? ""
            guard try await blocking({ () throws(APIError) in try voices.delete(name) }) else {
                throw APIError(
                    status: .notFound, kind: .invalidRequest,
                    message: "there is no saved voice \(name.prefix(80).debugDescription)", parameter: "name",
                    code: "voice_not_found")
            }
            return Response(
                json: .object([
                    "id": .string(name.lowercased()), "object": .string("audio.voice.deleted"), "deleted": .bool(true),
                ]))
        }
    }

    /// Voices of the model, saved ones, and those of OpenAI's names that stand for one.
    private var list: Response {
        let own = server.model.configuration.voices
        let saved = voices.all
        let names = own + saved.map(\.name)
        let aliases = VoiceNames.all.compactMap { alias in
            VoiceNames.voice(for: alias, in: names.filter { own.isEmpty || own.contains($0) }).map { (alias, $0) }
        }
        let builtIn = own.map { name in
            JSONValue.object(["id": .string(name), "name": .string(name), "object": .string("audio.voice")])
        }
        return Response(
            json: .object([
                "object": .string("list"),
                "data": .array(builtIn + saved.map { object($0) }),
                "voices": .array(names.map { .string($0) }),
                "uploaded_voices": .array(saved.map { object($0) }),
                "aliases": .object(Dictionary(uniqueKeysWithValues: aliases.map { ($0.0, .string($0.1)) })),
                "languages": .array(server.model.configuration.languages.map { .string($0) }),
            ]))
    }

    private func upload(_ request: Request, _ context: ServerRequestContext) async throws -> Response {
        guard server.model.configuration.kind == .base else {
            throw APIError.invalid(
                nil,
                "saving a voice needs a Base model, this server speaks with a "
                    + "\(server.model.configuration.kind.rawValue) model", code: "unsupported_value")
        }
        guard voices.takesVoices else {
            throw APIError.invalid(
                nil, "this server keeps no voices: start it with --voices-dir", code: "unsupported_value")
        }
        // The form's own text beside the recording is small.
        let body = try await request.bytes(limit: server.options.maxUpload + 64 << 10, server, context)
        let form = try MultipartForm(
            body: Array(buffer: body), contentType: request.headers[.contentType] ?? "")
        guard let name = form.text("name")?.lowercased(), VoiceStore.isValid(name) else {
            throw APIError.invalid(
                "name", "a voice's name is 1 to 64 letters, digits, '-' and '_', and begins with a letter or digit")
        }
        guard !VoiceNames.isAlias(name) else {
            throw APIError.invalid("name", "\(name) is one of OpenAI's voices: take another name")
        }
        guard let recording = form["audio_sample"] ?? form["audio"] ?? form["file"], !recording.isEmpty else {
            throw APIError.invalid(
                "audio_sample", "audio_sample is missing: it is the recording, a WAV file", code: "missing_parameter")
        }
        guard recording.count <= server.options.maxUpload else {
            throw APIError.invalid(
                "audio_sample",
                "the recording has \(recording.count) bytes, at most \(server.options.maxUpload) are taken",
                code: "request_too_large")
        }
        let text = form.text("ref_text").flatMap { $0.isEmpty ? nil : $0 }
        let prompt = try await server.speaker.cloner.prompt(recording: recording, text: text, field: "audio_sample")
        let voice = try await blocking { () throws(APIError) in
            try voices.save(name: name, prompt: prompt, recording: recording)
        }
        return Response(json: object(voice))
    }

    private func object(_ voice: SavedVoice) -> JSONValue {
        .object([
            "id": .string(voice.name), "name": .string(voice.name), "object": .string("audio.voice"),
            "created_at": .integer(voice.createdAt), "in_context": .bool(voice.prompt.isInContext),
            "ref_text": voice.prompt.referenceText.map { .string($0) } ?? .null,
        ])
    }

    /// Runs what touches files away from the threads that serve.
    private func blocking<Value: Sendable>(
        _ body: @escaping @Sendable () throws(APIError) -> Value
    ) async throws -> Value {
        try await NIOThreadPool.singleton.runIfActive { try body() }
    }
}
