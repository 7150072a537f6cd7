import NIOCore
import NIOHTTP1

/// Looks after a connection until its first request has said whether it becomes a WebSocket: a client that speaks no HTTP
/// is told so, one that says nothing is not waited for.
///
/// What comes after that is the business of the handlers of either protocol.
final class FirstRequestGuard: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias InboundOut = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let timeout: TimeAmount?
    private var deadline: Scheduled<Void>?

    /// - Parameter timeout: the time that a client gets for its first request; nil sets no bound.
    init(timeout: TimeAmount?) { self.timeout = timeout }

    func handlerAdded(context: ChannelHandlerContext) {
        let channel = context.channel
        deadline = timeout.map { context.eventLoop.scheduleTask(in: $0) { channel.close(promise: nil) } }
    }

    func handlerRemoved(context: ChannelHandlerContext) { deadline?.cancel() }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if error is HTTPParserError {
            let refusal = APIError(
                status: .badRequest, kind: .invalidRequest, message: "the request is no HTTP/1.1", code: "invalid_http")
            let body = ByteBuffer(string: refusal.json.text)
            let head = HTTPResponseHead(
                version: .http1_1, status: .badRequest,
                headers: [
                    "Content-Type": "application/json", "Content-Length": "\(body.readableBytes)",
                    "Connection": "close",
                ])
            context.write(wrapOutboundOut(.head(head)), promise: nil)
            context.write(wrapOutboundOut(.body(.byteBuffer(body))), promise: nil)
            context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
        }
        context.fireErrorCaught(error)
        context.close(promise: nil)
    }
}

@available(*, unavailable)
extension FirstRequestGuard: Sendable {}
