#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// An HTTP proxy.
public struct HubProxy: Equatable, Sendable {
    /// Its host name or address.
    public var host: String
    /// Its port.
    public var port: Int
    /// `USER:PASSWORD`, if it wants that.
    public var credentials: String?

    /// Makes a proxy.
    public init(host: String, port: Int, credentials: String? = nil) {
        self.host = host
        self.port = port
        self.credentials = credentials
    }

    /// The proxy that `https_proxy` (or `http_proxy` for a plain endpoint, or `all_proxy`) names, unless `no_proxy`
    /// names the endpoint's host or a domain it is in. Lower-case names win, as in curl.
    public init?(environment: [String: String], for endpoint: String) throws(HubError) {
        guard let target = URL(string: endpoint), let targetHost = target.host()?.lowercased() else { return nil }
        func value(_ name: String) -> (name: String, text: String)? {
            for name in [name, name.uppercased()] {
                if let text = environment[name], !text.isEmpty { return (name, text) }
            }
            return nil
        }
        for entry in value("no_proxy")?.text.split(separator: ",") ?? [] {
            var domain = String(entry).lowercased().trimmingCharacters { $0.isWhitespace }
            if domain == "*" { return nil }
            if domain.hasPrefix(".") { domain.removeFirst() }
            if !domain.isEmpty && (targetHost == domain || targetHost.hasSuffix("." + domain)) { return nil }
        }
        let scheme = target.scheme?.lowercased() ?? "https"
        guard let (name, text) = value("\(scheme)_proxy") ?? value("all_proxy") else { return nil }
        let address = text.contains("://") ? text : "http://" + text
        guard let url = URL(string: address), url.scheme?.lowercased() == "http", let host = url.host(),
            !host.isEmpty
        else {
            throw .invalidSetting(name: name, reason: "an address like http://HOST:PORT is expected")
        }
        self.host = host
        port = url.port ?? 80
        credentials = url.user(percentEncoded: false).map { "\($0):\(url.password(percentEncoded: false) ?? "")" }
    }
}
