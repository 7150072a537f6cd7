import Hummingbird
import HummingbirdCore
import HummingbirdTLS
public import Logging
import NIOCore
import NIOSSL
public import ServiceLifecycle
public import SpeechEngine

/// The speech server: HTTP, WebSocket and Wyoming on one engine.
///
/// `run` serves until a graceful shutdown; then running streams finish, new requests get 503, and it returns.
public struct SpeechServer: Service {
    let context: ServerContext

    /// - Throws: a `ModelError` if the model's folder has become unreadable.
    public init(
        engine: SpeechEngine, options: ServerOptions = ServerOptions(),
        logger: Logger = Logger(label: "martlet.server")
    ) throws {
        context = try ServerContext(engine: engine, options: options, logger: logger)
    }

    /// The port that it listens on; nil before it does.
    public var port: Int? { context.port }

    /// Whether the warm-up has spoken and the server is not shutting down.
    public var isReady: Bool { context.isReady }

    /// Serves until a graceful shutdown or a cancel.
    /// - Throws: if the address cannot be listened on or the TLS files cannot be read.
    public func run() async throws {
        let options = context.options
        let application = Application(
            router: router, server: try server,
            configuration: ApplicationConfiguration(
                address: .hostname(options.host, port: options.port), serverName: "martlet",
                availableConnectionsDelegate: MaximumAvailableConnections(options.maxConnections)),
            services: services,
            onServerRunning: { channel in
                let port = channel.localAddress?.port
                context.listens(on: port)
                context.logger.info("listening on \(options.host):\(port ?? options.port)")
                // Connections are accepted after this returns: whoever asks meanwhile learns that it is not ready yet.
                Task {
                    await context.warmUp()
                    if context.isReady { context.logger.info("Application startup complete") }
                }
            },
            logger: Self.quiet(context.logger))
        let group = ServiceGroup(
            configuration: .init(services: [application], logger: Self.quiet(context.logger)))
        // Detached, so that a graceful shutdown reaches the application only when the streams have finished: until then
        // it answers new requests with 503.
        let serving = Task.detached { try await group.run() }
        try await withTaskCancellationHandler {
            try await withGracefulShutdownHandler {
                do {
                    try await serving.value
                } catch let error as IOError {
                    throw CannotListen(address: "\(options.host):\(options.port)", reason: error.description)
                }
            } onGracefulShutdown: {
                Task {
                    await drain()
                    await group.triggerGracefulShutdown()
                    try? await Task.sleep(for: .seconds(Self.lastWriteSeconds))
                    serving.cancel()
                }
            }
        } onCancel: {
            serving.cancel()
        }
    }

    /// The address is taken, or not this machine's.
    private struct CannotListen: Error, CustomStringConvertible {
        let address: String
        let reason: String

        var description: String { "cannot listen on \(address): \(reason); choose another --host or --port" }
    }

    /// Seconds that clients get to read what was made for them when the engine has finished.
    private static let lastWriteSeconds = 10.0

    /// Returns when the engine has finished what it had, or at the time limit.
    private func drain() async {
        context.beginDraining()
        context.logger.info("shutting down: running streams finish, new requests are refused")
        await withTaskGroup(of: Void.self) { group in
            let (drained, done) = AsyncStream<Void>.makeStream()
            // Not a child: `drain` cannot be cancelled.
            Task {
                await context.engine.drain()
                done.finish()
            }
            group.addTask { for await _ in drained {} }
            group.addTask { try? await Task.sleep(for: .seconds(context.options.drainTimeout)) }
            await group.next()
            group.cancelAll()
        }
    }

    /// All paths of HTTP.
    private var router: Router<ServerRequestContext> {
        let router = Router(context: ServerRequestContext.self)
        router.add(middleware: RequestGate(server: context))
        MonitoringRoutes(server: context).add(to: router)
        SpeechRoutes(server: context).add(to: router)
        VoiceRoutes(server: context).add(to: router)
        OldStackRoutes(server: context).add(to: router)
        CodeRoutes(server: context).add(to: router)
        WebSocketRoutes(server: context).addRefusals(to: router)
        PlaygroundRoutes(server: context).add(to: router)
        return router
    }

    /// What serves a connection.
    private var server: HTTPServerBuilder {
        get throws {
            let options = context.options
            let configuration = HTTP1Channel.Configuration(
                additionalChannelHandlers: [ClientWatch()],
                idleTimeout: .milliseconds(Int64(options.readTimeout * 1000)),
                httpDecoderConfiguration: .init(
                    maxHeaderFieldSize: 16 << 10, maxHeaderListSize: 64 << 10, maxHeaderFieldCount: 100))
            let routes = WebSocketRoutes(server: context)
            let plain = HTTPServerBuilder { responder in
                WebSocketChannel(
                    responder: responder, route: { routes.handler($0) }, limits: WebSocketLimits(options),
                    configuration: configuration)
            }
            guard let tls = options.tls else { return plain }
            let certificates = try NIOSSLCertificate.fromPEMFile(tls.certificate).map {
                NIOSSLCertificateSource.certificate($0)
            }
            let key = try NIOSSLPrivateKey(file: tls.key, format: .pem)
            return try .tls(
                plain,
                tlsConfiguration: .makeServerConfiguration(certificateChain: certificates, privateKey: .privateKey(key))
            )
        }
    }

    /// Servers of other protocols.
    private var services: [any Service] {
        guard let port = context.options.wyomingPort else { return [] }
        return [WyomingServer(server: context, host: context.options.host, port: port)]
    }

    /// The libraries' own logs, warnings only.
    static func quiet(_ logger: Logger) -> Logger {
        var logger = logger
        logger.logLevel = max(logger.logLevel, .warning)
        return logger
    }
}
