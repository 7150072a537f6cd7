import HTTPTypes
import Hummingbird

/// Serves the playground at `/`, and what it asks about the model before it has a key.
struct PlaygroundRoutes: Sendable {
    let server: ServerContext

    /// Adds its paths to a router.
    func add<Context: RequestContext>(to router: some RouterMethods<Context>) {
        router.get("/") { request, _ -> Response in
            var headers: HTTPFields = [
                .contentType: "text/html; charset=utf-8",
                .contentSecurityPolicy: PlaygroundPage.contentSecurityPolicy,
                .xContentTypeOptions: "nosniff",
                .cacheControl: "no-cache",
                .eTag: PlaygroundPage.tag,
            ]
            headers[.referrerPolicy] = "no-referrer"
            headers[.permissionsPolicy] = "microphone=(self), camera=(), geolocation=()"
            if request.headers[.ifNoneMatch] == PlaygroundPage.tag {
                return Response(status: .notModified, headers: headers)
            }
            return Response(
                status: .ok, headers: headers, body: .init(byteBuffer: ByteBuffer(string: PlaygroundPage.html)))
        }
        router.get("/playground/model") { _, _ in Response(json: model) }
    }

    private var model: JSONValue {
        let configuration = server.model.configuration
        let isBase = configuration.kind == .base
        return .object([
            "kind": .string(configuration.kind.rawValue),
            "languages": .array(configuration.languages.map { .string($0) }),
            "sample_rate": .integer(server.model.sampleRate),
            "takes_voices": .bool(isBase && server.speaker.voices.takesVoices),
            "needs_key": .bool(!server.authorization.allows(authorization: nil)),
        ])
    }
}

extension HTTPField.Name {
    fileprivate static let referrerPolicy = HTTPField.Name("Referrer-Policy").unsafelyUnwrapped
    fileprivate static let permissionsPolicy = HTTPField.Name("Permissions-Policy").unsafelyUnwrapped
}
