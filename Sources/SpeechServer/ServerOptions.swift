public import SpeechEngine

/// What a server is started with.
public struct ServerOptions: Sendable {
    /// Address to listen on; loopback unless the operator says otherwise.
    public var host = "127.0.0.1"
    /// TCP port; 0 takes a free one.
    public var port = 9000
    /// Keys of which a client must present one as a bearer token; empty lets everyone in.
    public var apiKeys: [String] = []
    /// Origins that browsers may call from, or `*`; empty answers no cross-origin request.
    public var corsOrigins: [String] = []
    /// Certificate chain and private key, PEM files; nil speaks plain HTTP.
    public var tls: (certificate: String, key: String)?
    /// Names that the model answers to in `model`, the first one is its own.
    public var modelNames: [String] = ["martlet"]
    /// Martlet's version, for protocols that tell it.
    public var version: String?
    /// Where uploaded voices are kept; nil takes no uploads.
    public var voicesDirectory: String?
    /// Seed of requests that name none.
    public var defaultSeed: UInt64 = 0
    /// Whether requests that say nothing of it take the likeliest codes instead of sampling.
    public var isGreedy = false
    /// What holds for every request.
    public var rules = RequestRules()
    /// How packets are cut for requests that do not say it.
    public var packets = PacketPolicy.growing
    /// How the engine's decoder remembers, for the header of the old stack's paths.
    public var decodeMode = "incremental"
    /// Which figures of each request are logged.
    public var traces: Set<RequestTrace> = []
    /// The JSON of the codes that the engine's keeper has under a tag, nil if it has none, for `GET /v1/codes/{tag}`; nil
    /// if none are kept.
    public var readCodes: (@Sendable (String) throws -> [UInt8]?)?
    /// Texts that are spoken at the start, so that the engine's cache of openers has them.
    public var starterTexts: [String] = []
    /// Bytes of text in one request.
    public var maxText = 64 << 10
    /// Bytes of a request's body that is no upload.
    public var maxBody = 16 << 20
    /// Bytes of an uploaded recording.
    public var maxUpload = 32 << 20
    /// Voices that may be kept.
    public var maxVoices = 1_000
    /// Connections at a time; more wait to be accepted.
    public var maxConnections = 1_024
    /// Seconds that a client gets to send a request, and that an idle connection is kept.
    public var readTimeout = 60.0
    /// Seconds that a client may leave what was sent to it unread.
    public var writeTimeout = 60.0
    /// Seconds of silence after which a WebSocket client is asked for a sign of life, and again so many until it is taken
    /// for gone.
    public var pingInterval = 20.0
    /// Seconds that one utterance may take, whatever way it came; nil sets no bound.
    public var requestTimeout: Double?
    /// Seconds that running streams get to finish at shutdown.
    public var drainTimeout = 60.0
    /// Whether `ref_audio` may be an http or https address, which the server then fetches. Private ones are never.
    public var allowsAudioURLs = false
    /// Milliseconds of audio in one chunk of `/tts/stream`.
    public var streamChunkMilliseconds = 30.0
    /// Where requests are kept with their results, for a replay; nil keeps none.
    public var recordDirectory: String?
    /// Takes a line of JSON for every request; nil logs none.
    public var accessLog: (@Sendable (String) -> Void)?
    /// Port of the Wyoming protocol; nil leaves it off.
    public var wyomingPort: Int?

    /// The defaults.
    public init() {}
}
