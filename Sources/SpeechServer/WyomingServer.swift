import NIOCore
import NIOPosix
import Qwen3TTS
import ServiceLifecycle
import SpeechEngine
import Synchronization

/// Speaks to Home Assistant and other clients of the Wyoming protocol: whole texts and texts in pieces.
struct WyomingServer: Service {
    let server: ServerContext
    let host: String
    /// 0 takes a free one.
    let port: Int
    var limits = Limits()

    /// Bounds on what clients may do.
    struct Limits: Sendable {
        /// Connections at a time; more are closed at once.
        var connections = 64
        /// Requests of one connection that wait for those before them.
        var waitingRequests = 16
        /// Seconds without an event, with nothing being spoken, after which a connection is closed.
        var idleTimeout = 600.0
    }

    var group: any EventLoopGroup = MultiThreadedEventLoopGroup.singleton
    /// Called with the port once it listens.
    var onRunning: @Sendable (Int) -> Void = { _ in }

    private typealias Connection = NIOAsyncChannel<WyomingEvent, WyomingReply>

    func run() async throws {
        let listener = try await ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: 64)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .bind(host: host, port: port) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandlers(
                        ByteToMessageHandler(WyomingEventDecoder(), maximumBufferSize: 4 << 20),
                        MessageToByteHandler(WyomingReplyEncoder()))
                    return try Connection(wrappingChannelSynchronously: channel)
                }
            }
        let bound = listener.channel.localAddress?.port ?? port
        server.logger.info("Wyoming: listening on \(host):\(bound)")
        onRunning(bound)
        let open = ConnectionCount(limit: limits.connections)
        try await withGracefulShutdownHandler {
            try await listener.executeThenClose { connections in
                try await withThrowingDiscardingTaskGroup { tasks in
                    for try await connection in connections {
                        tasks.addTask {
                            guard open.enter() else {
                                server.logger.debug("Wyoming connection refused: \(limits.connections) are open")
                                try? await connection.executeThenClose { _, _ in }
                                return
                            }
                            await serve(connection)
                            open.leave()
                        }
                    }
                }
            }
        } onGracefulShutdown: {
            // No new connections; those that there are speak to the end.
            listener.channel.close(promise: nil)
        }
    }

    private func serve(_ connection: Connection) async {
        do {
            try await connection.executeThenClose { inbound, outbound in
                let session = WyomingSession(wyoming: self, channel: connection.channel, outbound: outbound)
                await withGracefulShutdownHandler {
                    await session.run(inbound)
                } onGracefulShutdown: {
                    session.closeWhenDone()
                }
            }
        } catch {
            server.logger.trace("Wyoming connection ended: \(error)")
        }
    }
}

/// How many connections are open.
private final class ConnectionCount: Sendable {
    private let count = Mutex(0)
    private let limit: Int

    init(limit: Int) { self.limit = limit }

    /// Counts one in; false if there are as many as may be.
    func enter() -> Bool {
        count.withLock { count in
            guard count < limit else { return false }
            count += 1
            return true
        }
    }

    func leave() { count.withLock { $0 -= 1 } }
}
