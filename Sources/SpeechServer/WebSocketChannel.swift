import HummingbirdCore
import Logging
import NIOCore
import NIOHTTP1
import NIOHTTPTypes
import NIOHTTPTypesHTTP1
import NIOWebSocket

/// What a WebSocket path does with a connection: reads and writes messages until it returns.
typealias WebSocketHandler =
    @Sendable (WebSocketConnection, inout WebSocketMessages) async throws -> WebSocketClose

/// HTTP/1.1 whose connections turn into WebSockets where the router of upgrades has a handler for the request.
///
/// Every other request, a refused upgrade too, is answered by the HTTP responder.
struct WebSocketChannel: ServerChildChannel, HTTPChannelHandler {
    /// What became of a connection after its first request.
    enum Negotiated: Sendable {
        case http(NIOAsyncChannel<HTTPRequestPart, HTTPResponsePart>)
        case webSocket(NIOAsyncChannel<WebSocketFrame, WebSocketFrame>, WebSocketHandler)
    }

    /// A connection on its way to either.
    struct Value: ServerChildChannelValue {
        let channel: any Channel
        let negotiated: EventLoopFuture<Negotiated>
    }

    let responder: HTTPChannelHandler.Responder
    /// The handler for a request that asks to become a WebSocket; nil leaves it to the HTTP responder.
    let route: @Sendable (HTTPRequestHead) -> WebSocketHandler?
    let limits: WebSocketLimits
    /// Header limits and the time that an idle HTTP connection may stay.
    let configuration: HTTP1Channel.Configuration

    func setup(channel: any Channel, logger: Logger) -> EventLoopFuture<Value> {
        channel.eventLoop.makeCompletedFuture {
            let upgrader = NIOTypedWebSocketServerUpgrader<Negotiated>(
                maxFrameSize: limits.messageBytes,
                shouldUpgrade: { channel, head in
                    channel.eventLoop.makeSucceededFuture(route(head) == nil ? nil : HTTPHeaders())
                },
                upgradePipelineHandler: { channel, head in
                    channel.eventLoop.makeCompletedFuture {
                        guard let handler = route(head) else {
                            throw NIOWebSocketUpgradeError.unsupportedWebSocketTarget
                        }
                        // What lies unread in between is bounded, so that a slow client is seen as such.
                        channel.setOption(.socketOption(.so_sndbuf), value: 64 << 10).whenComplete { _ in }
                        return .webSocket(try NIOAsyncChannel(wrappingChannelSynchronously: channel), handler)
                    }
                })
            let upgrades = NIOTypedHTTPServerUpgradeConfiguration<Negotiated>(
                upgraders: [upgrader],
                notUpgradingCompletionHandler: { channel in
                    channel.eventLoop.makeCompletedFuture {
                        let pipeline = channel.pipeline.syncOperations
                        try pipeline.addHandler(HTTP1ToHTTPServerCodec(secure: false))
                        try pipeline.addHandlers(configuration.additionalChannelHandlers())
                        try pipeline.addHandler(
                            HTTPConnectionStateHandler(
                                idleTimeout: configuration.idleTimeout.map { Duration($0) }, logger: logger))
                        return .http(
                            try NIOAsyncChannel(
                                wrappingChannelSynchronously: channel,
                                configuration: .init(isOutboundHalfClosureEnabled: true)))
                    }
                })
            var pipeline = NIOUpgradableHTTPServerPipelineConfiguration(upgradeConfiguration: upgrades)
            // NIOAsyncChannel pipelines, and Swift HTTP types validate headers.
            pipeline.enablePipelining = false
            pipeline.enableErrorHandling = false
            pipeline.enableResponseHeaderValidation = false
            pipeline.decoderConfiguration.maxHeaderFieldSize = configuration.httpDecoder.maxHeaderFieldSize
            pipeline.decoderConfiguration.maxHeaderListSize = configuration.httpDecoder.maxHeaderListSize
            pipeline.decoderConfiguration.maxHeaderFieldCount = configuration.httpDecoder.maxHeaderFieldCount
            let negotiated = try channel.pipeline.syncOperations.configureUpgradableHTTPServerPipeline(
                configuration: pipeline)
            let upgrade = try channel.pipeline.syncOperations.handler(
                type: NIOTypedHTTPServerUpgradeHandler<Negotiated>.self)
            try channel.pipeline.syncOperations.addHandler(
                UpgradeFilter { Self.isHandshake($0) && route($0) != nil }, position: .before(upgrade))
            let firstRequest = FirstRequestGuard(timeout: configuration.idleTimeout)
            try channel.pipeline.syncOperations.addHandler(firstRequest, position: .before(upgrade))
            negotiated.assumeIsolated().whenComplete { _ in
                channel.pipeline.syncOperations.removeHandler(firstRequest, promise: nil)
            }
            return Value(channel: channel, negotiated: negotiated)
        }
    }

    /// Whether the upgrader can take a request.
    private static func isHandshake(_ head: HTTPRequestHead) -> Bool {
        head.method == .GET && head.headers[canonicalForm: "Upgrade"].contains { $0.lowercased() == "websocket" }
            && head.headers["Sec-WebSocket-Key"].count == 1 && head.headers["Sec-WebSocket-Version"] == ["13"]
    }

    func handle(value: Value, logger: Logger) async {
        let negotiated: Negotiated
        do {
            negotiated = try await withTaskCancellationHandler {
                try await value.negotiated.get()
            } onCancel: {
                value.channel.close(promise: nil)
            }
        } catch {
            // The client left, or sent no HTTP.
            logger.trace("no request on the connection: \(error)")
            value.channel.close(promise: nil)
            return
        }
        switch negotiated {
        case .http(let channel): await handleHTTP(asyncChannel: channel, logger: logger)
        case .webSocket(let channel, let handler):
            await WebSocketConnection.serve(channel, limits: limits, logger: logger, handler: handler)
        }
    }
}

/// Takes the wish for an upgrade out of a request where there will be none.
///
/// NIO's upgrade handler drops the head of a request whose upgrade is refused, which would then never be answered; some
/// HTTP clients ask for `h2c`. The parser reads nothing after such a request, the connection's first or a later one, so
/// the connection ends with its response, which says so.
private final class UpgradeFilter: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias InboundOut = HTTPServerRequestPart
    typealias OutboundIn = HTTPServerResponsePart
    typealias OutboundOut = HTTPServerResponsePart

    private let isWanted: (HTTPRequestHead) -> Bool
    private var isFirst = true
    /// Requests without such a wish whose responses have not begun.
    private var waiting = 0
    private var hasRefused = false

    init(isWanted: @escaping (HTTPRequestHead) -> Bool) { self.isWanted = isWanted }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard case .head(var head) = unwrapInboundIn(data) else {
            context.fireChannelRead(data)
            return
        }
        defer { isFirst = false }
        guard head.headers.contains(name: "Upgrade") else {
            waiting += 1
            context.fireChannelRead(data)
            return
        }
        if isFirst && isWanted(head) {
            context.fireChannelRead(data)
            context.pipeline.syncOperations.removeHandler(self, promise: nil)
            return
        }
        hasRefused = true
        head.headers.remove(name: "Upgrade")
        head.headers.replaceOrAdd(name: "Connection", value: "close")
        context.fireChannelRead(wrapInboundOut(.head(head)))
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        guard case .head(var head) = unwrapOutboundIn(data), head.status.code >= 200 else {
            context.write(data, promise: promise)
            return
        }
        if waiting > 0 {
            waiting -= 1
        } else if hasRefused {
            head.headers.replaceOrAdd(name: "Connection", value: "close")
        }
        context.write(wrapOutboundOut(.head(head)), promise: promise)
    }
}
