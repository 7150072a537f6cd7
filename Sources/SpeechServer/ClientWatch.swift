import NIOCore
import NIOHTTPTypes

/// Notices that a client goes away while something is made for it.
///
/// A client that closes its half of the connection in the middle of a response counts as gone, as for proxies: nothing
/// tells it from one that has closed the whole.
final class ClientWatch: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPRequestPart
    typealias InboundOut = HTTPRequestPart
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = HTTPResponsePart

    private var hasLeft = false
    private var onDeparture: (@Sendable () -> Void)?

    /// What lies between server and client unread is bounded, so that a slow client is seen as such: half a second of
    /// network, or 2.7 s of audio.
    private static let sendBuffer = 64 << 10

    /// Calls `onDeparture`, once, if the client goes before the response has ended; at once if it has gone.
    static func watch(_ channel: any Channel, onDeparture: @escaping @Sendable () -> Void) async {
        let watching = channel.eventLoop.submit {
            let watch = try channel.pipeline.syncOperations.handler(type: ClientWatch.self)
            if watch.hasLeft || !channel.isActive { onDeparture() } else { watch.onDeparture = onDeparture }
        }
        // A channel without the handler has been closed.
        do { try await watching.get() } catch { onDeparture() }
    }

    func handlerAdded(context: ChannelHandlerContext) {
        context.channel.setOption(.socketOption(.so_sndbuf), value: numericCast(Self.sendBuffer)).whenComplete { _ in }
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        if case .end = unwrapOutboundIn(data) { onDeparture = nil }
        context.write(data, promise: promise)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event as? ChannelEvent == .inputClosed {
            hasLeft = true
            if let onDeparture {
                self.onDeparture = nil
                onDeparture()
                context.close(promise: nil)
                return
            }
        }
        context.fireUserInboundEventTriggered(event)
    }

    func channelInactive(context: ChannelHandlerContext) {
        hasLeft = true
        onDeparture?()
        onDeparture = nil
        context.fireChannelInactive()
    }
}

@available(*, unavailable)
extension ClientWatch: Sendable {}
