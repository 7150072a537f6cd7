import HTTPTypes
import Hummingbird
import NIOCore
import Synchronization

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// What every request passes: its id, the key, cross-origin rules, errors in OpenAI's form, the access log.
struct RequestGate: RouterMiddleware {
    typealias Context = ServerRequestContext

    let server: ServerContext

    /// Paths that need no key: a browser and an orchestrator cannot present one.
    private static let openPaths: Set<String> = ["/", "/health", "/ready", "/favicon.ico"]
    /// Where the page's own files are; they hold nothing secret.
    private static let openPrefix = "/playground/"

    func handle(
        _ request: Request, context: Context, next: (Request, Context) async throws -> Response
    ) async throws -> Response {
        let start = ContinuousClock.now
        let id = Self.requestID(request)
        var response: Response
        do {
            response = try await answer(request, context, next)
        } catch {
            let refusal = Self.apiError(error, request)
            if refusal.status.code >= 500, refusal.status != .serviceUnavailable {
                server.logger.error("request \(id): \(error)")
            }
            context.notes.add("error", .string(refusal.message))
            response = refusal.response
        }
        response.headers[.requestID] = id
        allowOrigin(request, &response)
        return logged(request, response, context, id, start)
    }

    private func answer(
        _ request: Request, _ context: Context, _ next: (Request, Context) async throws -> Response
    ) async throws -> Response {
        if request.method == .options, request.headers[.origin] != nil,
            request.headers[.accessControlRequestMethod] != nil
        {
            return Response(status: .noContent)
        }
        let path = request.uri.path
        guard
            Self.openPaths.contains(path) || path.hasPrefix(Self.openPrefix)
                || server.authorization.allows(
                    authorization: request.headers[.authorization],
                    apiKey: request.headers[.xiAPIKey] ?? request.headers[.xAPIKey])
        else {
            throw APIError(
                status: .unauthorized, kind: .authentication,
                message: "the API key is missing or wrong: send it as 'Authorization: Bearer KEY'",
                code: "invalid_api_key")
        }
        return try await next(request, context)
    }

    /// The client's own id if it sends a plain one, else a new one.
    private static func requestID(_ request: Request) -> String {
        if let id = request.headers[.requestID], (1...128).contains(id.utf8.count),
            id.utf8.allSatisfy({ 33...126 ~= $0 })
        {
            return id
        }
        let digits = String(UInt64.random(in: 0...UInt64.max), radix: 16)
        return "req_" + String(repeating: "0", count: 16 - digits.count) + digits
    }

    private static func apiError(_ error: any Error, _ request: Request) -> APIError {
        switch error {
        case let error as APIError: return error
        case let error as HTTPError where error.status == .notFound:
            return APIError(
                status: .notFound, kind: .invalidRequest,
                message: "unknown URL: \(request.method.rawValue) \(request.uri.path.prefix(200))", code: "unknown_url")
        case let error as HTTPError:
            return APIError(
                status: error.status, kind: .invalidRequest, message: error.body ?? error.status.reasonPhrase,
                code: error.status == .contentTooLarge ? "request_too_large" : nil)
        default: return .server("an internal error; the server's log says more")
        }
    }

    private func allowOrigin(_ request: Request, _ response: inout Response) {
        let allowed = server.options.corsOrigins
        guard let origin = request.headers[.origin], allowed.contains(origin) || allowed.contains("*") else { return }
        response.headers[.accessControlAllowOrigin] = allowed.contains("*") ? "*" : origin
        response.headers[.accessControlExposeHeaders] = "*"
        response.headers[.vary] = "Origin"
        guard request.method == .options else { return }
        response.headers[.accessControlAllowMethods] = "GET, POST, DELETE"
        response.headers[.accessControlAllowHeaders] = "Authorization, Content-Type, X-Request-Id, X-API-Key"
        response.headers[.accessControlMaxAge] = "600"
    }

    /// The response, noted in the metrics and the access log once its last byte is written or its client is gone.
    private func logged(
        _ request: Request, _ response: Response, _ context: Context, _ id: String, _ start: ContinuousClock.Instant
    ) -> Response {
        let endpoint = context.endpointPath ?? "other"
        let status = Int(response.status.code)
        server.metrics.responded(endpoint: endpoint, status: status)
        guard let log = server.options.accessLog else { return response }
        let client = context.channel.remoteAddress?.ipAddress ?? ""
        let line: @Sendable (Int, Bool) -> String = { bytes, isComplete in
            var members = context.notes.all
            members["time"] = .string(Date().ISO8601Format())
            members["request_id"] = .string(id)
            members["client"] = .string(client)
            members["method"] = .string(request.method.rawValue)
            members["path"] = .string(request.uri.path)
            members["status"] = .integer(status)
            members["bytes"] = .integer(bytes)
            members["seconds"] = .number((ContinuousClock.now - start) / .seconds(1))
            members["complete"] = .bool(isComplete)
            return JSONValue.object(members).text
        }
        let body = response.body
        var logged = response
        logged.body = ResponseBody(contentLength: body.contentLength) { writer in
            let count = ByteCount()
            do {
                try await body.write(CountingWriter(base: writer, count: count))
                log(line(count.value, true))
            } catch {
                log(line(count.value, false))
                throw error
            }
        }
        return logged
    }
}

private final class ByteCount: Sendable {
    private let count = Atomic<Int>(0)

    var value: Int { count.load(ordering: .relaxed) }

    func add(_ bytes: Int) { count.wrappingAdd(bytes, ordering: .relaxed) }
}

/// Counts what passes.
private struct CountingWriter: ResponseBodyWriter {
    var base: any ResponseBodyWriter
    let count: ByteCount

    mutating func write(_ buffer: ByteBuffer) async throws {
        try await base.write(buffer)
        count.add(buffer.readableBytes)
    }

    mutating func write(contentsOf buffers: some Sequence<ByteBuffer>) async throws {
        let buffers = Array(buffers)
        try await base.write(contentsOf: buffers)
        count.add(buffers.reduce(0) { $0 + $1.readableBytes })
    }

    consuming func finish(_ trailingHeaders: HTTPFields?) async throws { try await base.finish(trailingHeaders) }
}

extension HTTPField.Name {
    static let requestID = HTTPField.Name("X-Request-Id").unsafelyUnwrapped
    static let xiAPIKey = HTTPField.Name("xi-api-key").unsafelyUnwrapped
    static let xAPIKey = HTTPField.Name("X-API-Key").unsafelyUnwrapped
}

extension APIError {
    /// As an HTTP response.
    var response: Response {
        var response = Response(json: json, status: status)
        if let retryAfter { response.headers[.retryAfter] = "\(Int(retryAfter.rounded(.up)))" }
        if status == .unauthorized { response.headers[.wwwAuthenticate] = "Bearer" }
        return response
    }
}

extension Response {
    /// A JSON body.
    init(json: JSONValue, status: HTTPResponse.Status = .ok) {
        self.init(
            status: status, headers: [.contentType: "application/json"],
            body: ResponseBody(byteBuffer: ByteBuffer(string: json.text)))
    }
}
