import Crypto

/// Whether a client may come in.
struct Authorization: Sendable {
    /// Digests of the keys: comparing those takes the same time whatever was sent.
    private let digests: [[UInt8]]

    init(keys: [String]) { digests = keys.map { Array(SHA256.hash(data: Array($0.utf8))) } }

    /// Whether a request with these headers may come in.
    /// - Parameters:
    ///   - authorization: the value of `Authorization`, `Bearer KEY`.
    ///   - apiKey: the value of `xi-api-key` or `X-API-Key`, as other services' clients send it.
    func allows(authorization: String?, apiKey: String? = nil) -> Bool {
        guard !digests.isEmpty else { return true }
        var presented = apiKey ?? ""
        if let authorization {
            let parts = authorization.split(separator: " ", maxSplits: 1)
            if parts.count == 2, parts[0].lowercased() == "bearer" { presented = String(parts[1]) }
        }
        let digest = Array(SHA256.hash(data: Array(presented.utf8)))
        var isAllowed = false
        for key in digests {
            var difference: UInt8 = 0
            for (a, b) in zip(key, digest) { difference |= a ^ b }
            if difference == 0 { isAllowed = true }
        }
        return isAllowed
    }
}
