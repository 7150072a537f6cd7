#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Where the hub and its cache are, and how patient to be.
public struct HubConfiguration: Sendable {
    /// The hub that is asked unless `HF_ENDPOINT` names another.
    public static let defaultEndpoint = "https://huggingface.co"

    /// The hub's address without a trailing slash.
    public var endpoint: String
    /// What `Authorization: Bearer` carries, to the endpoint only.
    public var token: String?
    /// The folder of `models--ORGANISATION--NAME` folders.
    public var cacheDirectory: String
    /// Whether only the cache may be used.
    public var isOffline: Bool
    /// The proxy for requests, if any.
    public var proxy: HubProxy?
    /// How failed requests are repeated.
    public var retry = RetryPolicy()
    /// The `User-Agent` header.
    public var userAgent = "martlet"

    /// How failed requests are repeated: after connection errors and the statuses 408, 429, 500, 502, 503 and 504.
    public struct RetryPolicy: Equatable, Sendable {
        /// Attempts in a row without one new byte before giving up.
        public var attempts = 5
        /// Attempts for one file at all, however much progress each makes.
        public var totalAttempts = 100
        /// The first wait; each further one is twice as long. `Retry-After` is heeded if it is longer.
        public var firstDelay: Duration = .milliseconds(500)
        /// The longest wait.
        public var longestDelay: Duration = .seconds(30)
        /// How long a connection may be silent.
        public var silence: Duration = .seconds(30)

        /// The default policy.
        public init() {}
    }

    /// A configuration for `endpoint` (`http` or `https`) and a cache folder.
    public init(
        endpoint: String = defaultEndpoint, token: String? = nil, cacheDirectory: String
    ) throws(HubError) {
        self.endpoint = try Self.checkedEndpoint(endpoint)
        self.token = try token.flatMap { token throws(HubError) in try Self.checkedToken(token, from: "the token") }
        self.cacheDirectory = cacheDirectory
        isOffline = false
    }

    /// The configuration that the environment describes, as huggingface_hub reads it: `HF_ENDPOINT`, `HF_TOKEN` or the
    /// file `HF_TOKEN_PATH` or `$HF_HOME/token`, `HF_HUB_CACHE` or `$HF_HOME/hub`, `HF_HOME` or
    /// `${XDG_CACHE_HOME:-~/.cache}/huggingface`, `HF_HUB_OFFLINE`, and the proxy variables.
    public init(environment: [String: String] = ProcessInfo.processInfo.environment) throws(HubError) {
        func value(_ name: String) -> String? {
            environment[name].flatMap { $0.isEmpty ? nil : $0 }
        }
        let home = value("HOME") ?? FileManager.default.homeDirectoryForCurrentUser.path
        func expanded(_ path: String) -> String {
            path == "~" ? home : path.hasPrefix("~/") ? home + path.dropFirst() : path
        }
        let caches = value("XDG_CACHE_HOME").map(expanded) ?? "\(home)/.cache"
        let hubHome = value("HF_HOME").map(expanded) ?? "\(caches)/huggingface"
        endpoint = try Self.checkedEndpoint(value("HF_ENDPOINT") ?? Self.defaultEndpoint)
        cacheDirectory =
            (value("HF_HUB_CACHE") ?? value("HUGGINGFACE_HUB_CACHE")).map(expanded) ?? "\(hubHome)/hub"
        let tokenPath = value("HF_TOKEN_PATH").map(expanded) ?? "\(hubHome)/token"
        if let token = value("HF_TOKEN") {
            self.token = try Self.checkedToken(token, from: "HF_TOKEN")
        } else if let data = FileManager.default.contents(atPath: tokenPath) {
            token = try Self.checkedToken(String(decoding: data, as: UTF8.self), from: tokenPath)
        }
        isOffline = ["1", "ON", "YES", "TRUE"].contains((value("HF_HUB_OFFLINE") ?? "").uppercased())
        proxy = try HubProxy(environment: environment, for: endpoint)
    }

    private static func checkedEndpoint(_ text: String) throws(HubError) -> String {
        var text = text
        while text.hasSuffix("/") { text.removeLast() }
        guard let url = URL(string: text), let scheme = url.scheme?.lowercased(), ["http", "https"].contains(scheme),
            let host = url.host(), !host.isEmpty, url.query() == nil, url.fragment() == nil
        else {
            throw .invalidSetting(name: "HF_ENDPOINT", reason: "'\(text)' is not an http or https address")
        }
        return text
    }

    /// The token without white space around it; nil if nothing is left.
    private static func checkedToken(_ text: String, from source: String) throws(HubError) -> String? {
        let token = text.trimmingCharacters { $0.isWhitespace }
        guard token.utf8.allSatisfy({ 33...126 ~= $0 }) else {
            throw .invalidSetting(name: source, reason: "a token has printable characters only")
        }
        return token.isEmpty ? nil : token
    }
}

extension String {
    /// The text without the characters at both ends that satisfy `isTrimmed`.
    func trimmingCharacters(where isTrimmed: (Character) -> Bool) -> String {
        let start = drop(while: isTrimmed)
        guard let last = start.lastIndex(where: { !isTrimmed($0) }) else { return "" }
        return String(start[...last])
    }
}
