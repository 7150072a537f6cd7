import Logging
public import SpeechEngine
import ServiceLifecycle
import UnixSignals

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

extension SpeechServer {
    /// Serves until SIGTERM or SIGINT, with its log on standard error; a second signal ends it at once.
    /// - Throws: what ``run()`` throws.
    public static func serve(engine: SpeechEngine, options: ServerOptions) async throws {
        // A limit on the size of files is an error of the write that meets it, not the end of the server.
        signal(SIGXFSZ, SIG_IGN)
        let logger = Logger(label: "martlet", factory: { StreamLogHandler.standardError(label: $0) })
        let server = try SpeechServer(engine: engine, options: options, logger: logger)
        var configuration = ServiceGroupConfiguration(
            services: [.init(service: server, successTerminationBehavior: .gracefullyShutdownGroup)],
            gracefulShutdownSignals: [.sigterm, .sigint], logger: Self.quiet(logger))
        configuration.maximumGracefulShutdownDuration = .seconds(options.drainTimeout + 30)
        try await ServiceGroup(configuration: configuration).run()
    }
}
