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
            return Value(channel: channel, negotiated: negotiated)
        }
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
