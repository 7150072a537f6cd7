import HTTPTypes
import Hummingbird

/// Serves the playground at `/`.
struct PlaygroundRoutes: Sendable {
    /// Adds its path to a router.
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
    }
}

extension HTTPField.Name {
    fileprivate static let referrerPolicy = HTTPField.Name("Referrer-Policy").unsafelyUnwrapped
    fileprivate static let permissionsPolicy = HTTPField.Name("Permissions-Policy").unsafelyUnwrapped
}
