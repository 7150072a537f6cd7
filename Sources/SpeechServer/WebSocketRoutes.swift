import HTTPTypes
import Hummingbird
import NIOHTTP1

/// Which requests become WebSockets, and who serves them.
struct WebSocketRoutes: Sendable {
    let server: ServerContext

    /// The paths, as a router names them.
    static let paths = [
        "/v1/audio/speech/stream", "/v1/text-to-speech/:voice/stream-input",
        "/v1/text-to-speech/:voice/multi-stream-input",
    ]

    /// The handler for a request that asks to become a WebSocket; nil for another path, a wrong key, or a page of
    /// another origin.
    func handler(_ head: HTTPRequestHead) -> WebSocketHandler? {
        let parts = head.uri.split(separator: "?", maxSplits: 1)
        let path = (parts.first ?? "").split(separator: "/").map { String($0).removingPercentEncodingOrSame }
        let query = parts.count == 2 ? Self.query(parts[1]) : [:]
        let serve: WebSocketHandler
        switch path {
        case ["v1", "audio", "speech", "stream"]:
            serve = { try await WebSocketSpeechSession(server, $0).run(&$1) }
        case let path where path.count == 4 && path[0] == "v1" && path[1] == "text-to-speech":
            guard path[3] == "stream-input" || path[3] == "multi-stream-input" else { return nil }
            let isMultiple = path[3] == "multi-stream-input"
            serve = {
                try await WebSocketElevenLabs(server, $0, voice: path[2], query: query, isMultiple: isMultiple).run(&$1)
            }
        default: return nil
        }
        guard isAllowed(head.headers),
            isOfOwnOrigin(head.headers.first(name: "Origin"), host: head.headers.first(name: "Host"))
        else { return nil }
        return serve
    }

    /// Answers for requests of these paths that do not become WebSockets: the HTTP side of the upgrade.
    func addRefusals<Context: RequestContext>(to router: some RouterMethods<Context>) {
        for path in Self.paths {
            router.get(RouterPath(path)) { request, _ -> Response in
                var headers = HTTPFields()
                headers[.contentType] = "application/json"
                let error: APIError
                if isOfOwnOrigin(request.headers[.origin], host: request.head.authority) {
                    headers[.upgrade] = "websocket"
                    error = APIError(
                        status: .upgradeRequired, kind: .invalidRequest,
                        message: "this path speaks WebSocket, version 13: connect to it with ws:// or wss://",
                        code: "upgrade_required")
                } else {
                    error = APIError(
                        status: .forbidden, kind: .invalidRequest,
                        message: "a page of another origin may not open a WebSocket here: allow it with --cors-origin",
                        code: "origin_not_allowed")
                }
                return Response(
                    status: error.status, headers: headers, body: .init(byteBuffer: .init(string: error.json.text)))
            }
        }
    }

    private func isAllowed(_ headers: HTTPHeaders) -> Bool {
        server.authorization.allows(
            authorization: headers.first(name: "Authorization"),
            apiKey: headers.first(name: "xi-api-key") ?? headers.first(name: "X-API-Key"))
    }

    /// Browsers let any page open a WebSocket anywhere, and say whose page it is: only this server's own and those that
    /// may call it anyway come in.
    private func isOfOwnOrigin(_ origin: String?, host: String?) -> Bool {
        guard let origin else { return true }
        if server.options.corsOrigins.contains(where: { $0 == "*" || $0.lowercased() == origin.lowercased() }) {
            return true
        }
        guard let host, let scheme = origin.range(of: "://") else { return false }
        return origin[scheme.upperBound...].lowercased() == host.lowercased()
    }

    private static func query(_ text: Substring) -> [String: String] {
        var values: [String: String] = [:]
        for pair in text.split(separator: "&") {
            let parts = pair.split(separator: "=", maxSplits: 1).map {
                String($0).replacing("+", with: " ").removingPercentEncodingOrSame
            }
            if let name = parts.first { values[name] = parts.count == 2 ? parts[1] : "" }
        }
        return values
    }
}

extension String {
    fileprivate var removingPercentEncodingOrSame: String { removingPercentEncoding ?? self }
}
