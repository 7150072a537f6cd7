import NIOCore
import NIOPosix
import Qwen3TTS
import ServiceLifecycle
import SpeechEngine
import Synchronization

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Speaks to Home Assistant and other clients of the Wyoming protocol: whole texts and texts in pieces.
struct WyomingServer: Service {
    /// What it is started with.
    struct Configuration: Sendable {
        var host = "127.0.0.1"
        var port = 10_200
        /// Connections at a time; more are closed at once.
        var maxConnections = 64
        /// Seconds without an event, with nothing being spoken, after which a connection is closed.
        var idleTimeout = 600.0
        /// Seconds that a client may leave written audio unread.
        var writeTimeout = 60.0
    }

    let server: ServerContext
    let configuration: Configuration
    /// Martlet's version, as `describe` tells it.
    var version: String?
    var group: any EventLoopGroup = MultiThreadedEventLoopGroup.singleton
    /// Called with the port when it listens.
    var onRunning: @Sendable (Int) async -> Void = { _ in }

    private typealias Connection = NIOAsyncChannel<WyomingEvent, WyomingReply>

    func run() async throws {
        let listener = try await ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: 64)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .bind(host: configuration.host, port: configuration.port) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandlers(
                        ByteToMessageHandler(WyomingEventDecoder(), maximumBufferSize: 4 << 20),
                        MessageToByteHandler(WyomingReplyEncoder()))
                    return try Connection(wrappingChannelSynchronously: channel)
                }
            }
        server.logger.info("Wyoming server listens on \(configuration.host):\(listener.channel.localAddress?.port ?? 0)")
        await onRunning(listener.channel.localAddress?.port ?? configuration.port)
        let open = ConnectionCount(limit: configuration.maxConnections)
        try await withGracefulShutdownHandler {
            try await listener.executeThenClose { connections in
                try await withThrowingDiscardingTaskGroup { tasks in
                    for try await connection in connections {
                        tasks.addTask {
                            guard open.enter() else {
                                server.logger.debug("Wyoming connection refused: \(configuration.maxConnections) are open")
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
