/// What a server is started with.
public struct ServerOptions: Sendable {
    /// Address to listen on; loopback unless the operator says otherwise.
    public var host = "127.0.0.1"
    /// TCP port.
    public var port = 9000
    /// Key that clients must present as a bearer token; nil lets everyone in.
    public var apiKey: String?

    /// The defaults.
    public init() {}
}
