import NIOCore
import NIOHTTP1
import NIOPosix

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// A speech server, as experiments drive it over HTTP/1.1: each request on a connection of its own, with the trailers and
/// the time of each piece of the body.
public struct SpeechClient: Sendable {
    /// The server's address, without a path.
    public let url: String
    /// Its host and port.
    public let host: String, port: Int
    /// Sent as a bearer token.
    public let apiKey: String?

    /// - Parameters:
    ///   - url: `http://host:port`.
    ///   - apiKey: sent as a bearer token.
    public init(_ url: String, apiKey: String? = nil) throws(ExperimentError) {
        let text = url.hasSuffix("/") ? String(url.dropLast()) : url
        let parts = text.contains("://") ? text : "http://" + text
        guard parts.hasPrefix("http://") else {
            throw .badSetting("the server \(url) should be http://HOST:PORT; experiments speak no https")
        }
        let place = parts.dropFirst("http://".count)
        let colon = place.lastIndex(of: ":").flatMap { place[$0...].contains("]") ? nil : $0 }
        let host = String(place[..<(colon ?? place.endIndex)]).filter { $0 != "[" && $0 != "]" }
        let port = colon.map { Int(place[place.index(after: $0)...]) } ?? 80
        guard !host.isEmpty, !place.contains("/"), let port, (1...65_535).contains(port) else {
            throw .badSetting("the server \(url) should be http://HOST:PORT, without a path")
        }
        self.url = parts
        self.host = host
        self.port = port
        self.apiKey = apiKey
    }

    /// What a server answered.
    struct Reply: Sendable {
        var status = 0
        var headers = HTTPHeaders()
        var trailers = HTTPHeaders()
        var body: [UInt8] = []
        /// When the connection for it was begun.
        let start = ContinuousClock.now
        /// Seconds from there to each piece of the body, and the bytes up to its end.
        var arrivals: [(seconds: Double, bytes: Int)] = []
        /// Whether the body came to its end.
        var isComplete = false

        /// A trailer, or a header of that name.
        func field(_ name: String) -> String? { trailers.first(name: name) ?? headers.first(name: name) }

        /// The message of an error, or the beginning of whatever came.
        var message: String {
            struct Problem: Decodable {
                struct Body: Decodable { let message: String }
                let error: Body
            }
            let problem = try? JSONDecoder().decode(Problem.self, from: Data(body))
            return "\(status) " + (problem?.error.message ?? String(decoding: body.prefix(200), as: UTF8.self))
        }
    }

    /// Sends a request and reads the answer to its end.
    /// - Parameters:
    ///   - pieces: closes the connection when so many pieces of the body have come; 0 does before any.
    ///   - timeout: seconds for all of it.
    func exchange(
        _ method: HTTPMethod, _ path: String, json: [UInt8]? = nil, closeAfter pieces: Int? = nil,
        timeout: Double = 3600
    ) async throws(ExperimentError) -> Reply {
        var head = HTTPRequestHead(version: .http1_1, method: method, uri: path)
        head.headers.add(name: "Host", value: "\(host):\(port)")
        head.headers.add(name: "Connection", value: "close")
        head.headers.add(name: "TE", value: "trailers")
        if let apiKey { head.headers.add(name: "Authorization", value: "Bearer \(apiKey)") }
        if let json {
            head.headers.add(name: "Content-Type", value: "application/json")
            head.headers.add(name: "Content-Length", value: "\(json.count)")
        }
        let loop = MultiThreadedEventLoopGroup.singleton.any()
        let promise = loop.makePromise(of: Reply.self)
        let bootstrap = ClientBootstrap(group: loop).connectTimeout(.seconds(10)).channelInitializer { [head] channel in
            channel.eventLoop.makeCompletedFuture {
                try channel.pipeline.syncOperations.addHTTPClientHandlers()
                try channel.pipeline.syncOperations.addHandler(
                    ExchangeHandler(head: head, body: json, pieces: pieces, promise: promise))
            }
        }
        do {
            let channel = try await bootstrap.connect(host: host, port: port).get()
            let limit = loop.scheduleTask(in: .milliseconds(Int64(timeout * 1000))) { channel.close(promise: nil) }
            defer { limit.cancel() }
            return try await withTaskCancellationHandler {
                try await promise.futureResult.get()
            } onCancel: {
                channel.close(promise: nil)
            }
        } catch {
            promise.fail(error)
            throw .server(url: url, reason: Self.reason(of: error))
        }
    }

    /// Why a connection failed, in few words.
    package static func reason(of error: any Error) -> String {
        switch error {
        case let error as NIOConnectionError:
            return (error.connectionErrors.first?.error as? IOError).map { reason(of: $0) } ?? "it cannot be reached"
        case let error as IOError where error.errnoCode == ECONNREFUSED: return "connection refused"
        case let error as IOError: return error.description
        default: return "\(error)"
        }
    }

    /// Waits for a server that may still be starting: one that refuses connections, or answers `/ready` with 503.
    /// - Parameters:
    ///   - seconds: how long at the most.
    ///   - waiting: called once, with what is wrong, if it has to wait.
    ///   - isAlive: whether there is a server to wait for.
    public func waitUntilReady(
        _ seconds: Double, waiting: (String) -> Void = { _ in }, isAlive: () -> Bool = { true }
    ) async throws(ExperimentError) {
        let deadline = ContinuousClock.now + .seconds(seconds)
        var isFirst = true
        while true {
            var (reply, reason): (Reply?, String) = (nil, "")
            do throws(ExperimentError) {
                reply = try await exchange(.GET, "/ready", timeout: 10)
            } catch {
                guard case .server(_, let problem) = error else { throw error }
                reason = problem
            }
            if let reply {
                // A server that has no such path is not asked twice.
                if reply.status == 200 || reply.status == 404 { return }
                reason = reply.message
                guard reply.status == 503 else { throw .server(url: url, reason: reason) }
            }
            guard isAlive() else { throw .server(url: url, reason: "it has ended before it was ready") }
            guard ContinuousClock.now < deadline else {
                throw .server(url: url, reason: "not ready after \(Int(seconds)) s: \(reason)")
            }
            if isFirst { waiting(reason) }
            isFirst = false
            try? await Task.sleep(for: .milliseconds(200))
            if Task.isCancelled { throw .server(url: url, reason: "cancelled while it was not ready: \(reason)") }
        }
    }
}

/// One request and its answer on a connection.
private final class ExchangeHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPClientResponsePart
    typealias OutboundOut = HTTPClientRequestPart

    private let head: HTTPRequestHead
    private let body: [UInt8]?
    private let pieces: Int?
    private let promise: EventLoopPromise<SpeechClient.Reply>
    private var reply = SpeechClient.Reply()
    private var isDone = false

    init(head: HTTPRequestHead, body: [UInt8]?, pieces: Int?, promise: EventLoopPromise<SpeechClient.Reply>) {
        self.head = head
        self.body = body
        self.pieces = pieces
        self.promise = promise
    }

    func channelActive(context: ChannelHandlerContext) {
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        if let body { context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(bytes: body)))), promise: nil) }
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
        closeIfEnough(context)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head):
            reply.status = Int(head.status.code)
            reply.headers = head.headers
        case .body(let buffer):
            reply.body += buffer.readableBytesView
            reply.arrivals.append(((ContinuousClock.now - reply.start) / .seconds(1), reply.body.count))
            closeIfEnough(context)
        case .end(let trailers):
            reply.trailers = trailers ?? [:]
            reply.isComplete = true
            finish(context)
        }
    }

    private func closeIfEnough(_ context: ChannelHandlerContext) {
        if let pieces, reply.arrivals.count >= pieces { finish(context) }
    }

    private func finish(_ context: ChannelHandlerContext) {
        guard !isDone else { return }
        isDone = true
        promise.succeed(reply)
        context.close(promise: nil)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard !isDone else { return }
        isDone = true
        promise.fail(error)
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        // A connection that breaks gives what had come, without its end.
        guard !isDone else { return }
        isDone = true
        promise.succeed(reply)
    }
}
