import ArgumentParser
import Experiments
import Qwen3TTS
import Settings
import SpeechEngine
import SpeechServer

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif
#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// `martlet serve`: the speech server.
struct ServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve", abstract: "Serve speech over HTTP, WebSocket and Wyoming.",
        discussion: """
            Speaks OpenAI's speech API, so that its clients need only another base URL:
              martlet serve --model Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice
              curl localhost:9000/v1/audio/speech -d '{"input": "Hello."}' -o hello.mp3
            The page at http://localhost:9000/ tries it out. SIGTERM lets running streams finish. 'martlet config' shows \
            what is set by flags, variables and martlet.json.
            """)

    @OptionGroup var model: ModelOptions
    @OptionGroup var network: NetworkOptions
    @OptionGroup var limits: ServerLimits
    @OptionGroup(title: "Settings") var options: SettingOptions

    @Option(help: "Where uploaded voices are kept.")
    var voicesDir: String?

    @Flag(
        help: "Let clients name a recording by its address, which the server fetches; private ones are never fetched.")
    var allowAudioURLs = false

    @Option(help: "Port of the Wyoming protocol, for Home Assistant; off by default.")
    var wyomingPort: Int?

    @Option(help: "Keep every speech request with its result in this folder, for 'martlet replay'.")
    var recordDir: String?

    @Flag(help: "Start even if the model seems to need more memory than is free.")
    var force = false

    @Flag(help: "No access log on standard output.")
    var quiet = false

    func run() async throws {
        let environment = ProcessInfo.processInfo.environment
        let settings = try self.options.announced(model.flags + network.flags)
        var options = ServerOptions()
        network.apply(to: &options, environment: environment)
        limits.apply(to: &options)
        settings.apply(to: &options)
        options.voicesDirectory = voicesDir ?? Self.defaultVoicesDirectory(environment)
        options.recordDirectory = recordDir
        options.allowsAudioURLs = allowAudioURLs
        options.wyomingPort = wyomingPort
        if !quiet { options.accessLog = { Self.log($0) } }

        let named = settings.text(.model)
        if !force { try checkMemory(settings) }
        let loaded = try model.load(settings)
        options.modelNames = ServerOptions.modelNames(asked: named, folder: loaded.directory)
        options.version = Martlet.configuration.version
        let codes = try settings.codeDump(loaded, switches: settings.switches)
        if let codes { options.readCodes = { try codes.read($0) } }
        let engine = try settings.engine(loaded) {
            limits.apply(to: &$0)
            $0.keeper = codes
        }
        if options.apiKeys.isEmpty && !["127.0.0.1", "::1", "localhost"].contains(options.host) {
            printError("warning: everyone who reaches \(options.host) may use this server: set --api-key")
        }
        try await SpeechServer.serve(engine: engine, options: options)
    }

    /// Says before anything is loaded that it will not fit; a GPU's stages ask for their own memory.
    private func checkMemory(_ settings: Settings) throws {
        let need = try MemoryNeed(
            folder: ModelLocation.directory(of: settings.text(.model)), format: settings.weights,
            stages: settings.devices().stages, sessions: limits.sessions)
        if let problem = need.problem(free: MachineSurvey.freeMemory()) { throw CommandError(problem) }
    }

    /// One line on standard output, whole, also when that is a pipe.
    private static func log(_ line: String) {
        let bytes = Array((line + "\n").utf8)
        _ = bytes.withUnsafeBytes { write(STDOUT_FILENO, $0.baseAddress, $0.count) }
    }

    private static func defaultVoicesDirectory(_ environment: [String: String]) -> String? {
        if let data = environment["XDG_DATA_HOME"], data.hasPrefix("/") { return data + "/martlet/voices" }
        return environment["HOME"].map { $0 + "/.local/share/martlet/voices" }
    }
}

/// Where the server listens and who may come in.
struct NetworkOptions: ParsableArguments {
    @Option(help: .of(.host))
    var host: String?

    @Option(help: .of(.port))
    var port: String?

    @Option(help: "Key that clients must send as a bearer token; may be given several times. Also MARTLET_API_KEY.")
    var apiKey: [String] = []

    @Option(help: "Origin of web pages that may call the server, or *; may be given several times.")
    var corsOrigin: [String] = []

    @Option(help: "Certificate chain, a PEM file: serves HTTPS together with --tls-key.")
    var tlsCertificate: String?

    @Option(help: "Private key, a PEM file.")
    var tlsKey: String?

    func validate() throws {
        guard (tlsCertificate == nil) == (tlsKey == nil) else {
            throw ValidationError("--tls-certificate and --tls-key belong together.")
        }
        guard apiKey.allSatisfy({ !$0.isEmpty }) else { throw ValidationError("--api-key is empty.") }
    }

    /// What the flags say of settings.
    var flags: [(Setting, String?)] { [(.host, host), (.port, port)] }

    func apply(to options: inout ServerOptions, environment: [String: String]) {
        options.apiKeys = apiKey
        if let key = environment["MARTLET_API_KEY"], !key.isEmpty { options.apiKeys.append(key) }
        options.corsOrigins = corsOrigin
        if let tlsCertificate, let tlsKey { options.tls = (tlsCertificate, tlsKey) }
    }
}

/// How much the server takes.
struct ServerLimits: ParsableArguments {
    @Option(help: "Utterances that are spoken at a time; more wait.")
    var maxStreams = 64

    @Option(help: "Utterances that wait at most; more get 503.")
    var maxQueue = 64

    @Option(help: "Utterances stepped together; default: 8 on the CPU, 128 on a GPU.")
    var maxBatch: Int?

    @Option(
        help: """
            Who is stepped first: playback-lead (who would run dry first), or arrival (who came first, all taken at \
            once: the plain scheduler to compare with).
            """)
    var scheduling = SchedulingArgument.playbackLead

    @Option(help: "Connections at a time.")
    var maxConnections = 1024

    @Option(help: "Bytes of a request's body.")
    var maxBody = 16 << 20

    @Option(help: "Bytes of text in a request.")
    var maxText = 64 << 10

    @Option(help: "Seconds that a client may leave what was sent to it unread.")
    var writeTimeout = 60.0

    @Option(help: "Seconds that running streams get to finish at shutdown.")
    var drainTimeout = 60.0

    func validate() throws {
        let counts = [
            ("--max-streams", maxStreams), ("--max-batch", maxBatch ?? 1), ("--max-connections", maxConnections),
            ("--max-body", maxBody), ("--max-text", maxText),
        ]
        for (name, value) in counts where value < 1 {
            throw ValidationError("\(name) is \(value), expected 1 or more.")
        }
        guard maxQueue >= 0 else { throw ValidationError("--max-queue is \(maxQueue), expected 0 or more.") }
        let times = [
            ("--write-timeout", writeTimeout), ("--drain-timeout", drainTimeout),
        ]
        for (name, value) in times where !(value > 0 && value < 1e6) {
            throw ValidationError("\(name) is \(value), expected more than 0 seconds.")
        }
    }

    func apply(to options: inout ServerOptions) {
        options.maxConnections = maxConnections
        options.maxBody = maxBody
        options.maxText = maxText
        options.writeTimeout = writeTimeout
        options.drainTimeout = drainTimeout
    }

    /// Utterances whose memory has to be there at once on the CPU, which lets in no more than it keeps up with.
    var sessions: Int { min(maxStreams, maxBatch ?? EngineOptions.cpuBatch) }

    func apply(to options: inout EngineOptions) {
        options.maxActive = maxStreams
        options.maxQueued = maxQueue
        options.maxBatch = maxBatch
        scheduling.apply(to: &options)
    }
}

/// A scheduler by its name on the command line.
enum SchedulingArgument: String, ExpressibleByArgument, CaseIterable {
    case playbackLead = "playback-lead"
    case arrival

    func apply(to options: inout EngineOptions) {
        switch self {
        case .playbackLead: options.scheduling = .playbackLead
        case .arrival:
            options.scheduling = .arrival
            options.admitsByCapacity = false
        }
    }
}
