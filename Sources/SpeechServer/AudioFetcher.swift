import AsyncHTTPClient
import NIOCore
import NIOPosix

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Fetches a recording from an address that a client names: never from a private network, whatever the name resolves to
/// and wherever it is redirected.
struct AudioFetcher: Sendable {
    /// Bytes at most.
    let limit: Int
    /// Seconds at most.
    let timeout: Double

    private static let field = "ref_audio"
    private static let maxRedirects = 3

    /// The bytes at an http or https address.
    func fetch(_ address: String) async throws(APIError) -> [UInt8] {
        var address = address
        for _ in 0...Self.maxRedirects {
            switch try await fetchOnce(address) {
            case .body(let bytes): return bytes
            case .redirect(let next): address = next
            }
        }
        throw .invalid(Self.field, "its address is redirected more than \(Self.maxRedirects) times")
    }

    private enum Answer {
        case body([UInt8])
        case redirect(String)
    }

    private func fetchOnce(_ address: String) async throws(APIError) -> Answer {
        guard let url = URL(string: address), let scheme = url.scheme?.lowercased(), let host = url.host(),
            scheme == "http" || scheme == "https", url.user() == nil
        else {
            throw .invalid(Self.field, "its address is no plain http or https URL")
        }
        let target = try await Self.publicAddress(of: host)
        var configuration = HTTPClient.Configuration(
            redirectConfiguration: .disallow,
            timeout: .init(connect: .seconds(5), read: .seconds(Int64(timeout.rounded(.up)))))
        // The connection goes to the address that was checked, not to what the name resolves to a moment later.
        configuration.dnsOverride = [host: target]
        let client = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
        let result = await Self.result { () async throws -> Answer in
            let response = try await client.execute(
                HTTPClientRequest(url: address), timeout: .milliseconds(Int64(timeout * 1000)))
            if (300..<400).contains(response.status.code), let location = response.headers.first(name: "location"),
                let next = URL(string: location, relativeTo: url)
            {
                return .redirect(next.absoluteString)
            }
            guard response.status == .ok else {
                throw APIError.invalid(Self.field, "its address answers \(response.status.code)")
            }
            return .body(Array(buffer: try await response.body.collect(upTo: limit)))
        }
        try? await client.shutdown()
        return try result.get()
    }

    private static func result(_ body: () async throws -> Answer) async -> Result<Answer, APIError> {
        do {
            return .success(try await body())
        } catch let error as APIError {
            return .failure(error)
        } catch is NIOTooManyBytesError {
            return .failure(.invalid(field, "what its address holds is too big"))
        } catch {
            return .failure(.invalid(field, "its address cannot be fetched: \(error)"))
        }
    }

    /// An address of the host, once all that its name resolves to are public.
    private static func publicAddress(of host: String) async throws(APIError) -> String {
        let name = host.hasPrefix("[") ? String(host.dropFirst().dropLast()) : host
        let addresses: [SocketAddress]
        do {
            addresses = try await NIOThreadPool.singleton.runIfActive { try resolve(name) }
        } catch {
            throw .invalid(field, "the host \(host.debugDescription) of its address is not known")
        }
        guard let first = addresses.first?.ipAddress else {
            throw .invalid(field, "the host \(host.debugDescription) of its address is not known")
        }
        guard addresses.allSatisfy({ isPublic($0) }) else {
            throw .invalid(
                field, "its address leads into a private network, from which nothing is fetched", code: "forbidden_url")
        }
        return first
    }

    /// Whether an address belongs to the public internet.
    static func isPublic(_ address: SocketAddress) -> Bool {
        switch address {
        case .v4(let address):
            return isPublic(v4: withUnsafeBytes(of: address.address.sin_addr) { Array($0) })
        case .v6(let address):
            let bytes = withUnsafeBytes(of: address.address.sin6_addr) { Array($0) }
            // IPv4 inside: mapped, compatible (with loopback and unspecified), NAT64.
            if bytes[0..<10].allSatisfy({ $0 == 0 }), bytes[10] == bytes[11], bytes[10] == 0 || bytes[10] == 0xFF {
                return isPublic(v4: Array(bytes[12...]))
            }
            if bytes[0..<4].elementsEqual([0, 0x64, 0xFF, 0x9B]) { return isPublic(v4: Array(bytes[12...])) }
            // Global unicast is 2000::/3; of it, Teredo, documentation and 6to4 are not for fetching.
            guard bytes[0] & 0xE0 == 0x20 else { return false }
            let head = bytes[0..<4]
            return !head.elementsEqual([0x20, 0x01, 0, 0]) && !head.elementsEqual([0x20, 0x01, 0x0D, 0xB8])
                && !(bytes[0] == 0x20 && bytes[1] == 0x02)
        case .unixDomainSocket: return false
        }
    }

    private static func isPublic(v4 bytes: [UInt8]) -> Bool {
        switch (bytes[0], bytes[1], bytes[2]) {
        case (0, _, _), (10, _, _), (127, _, _), (169, 254, _), (192, 168, _), (192, 0, 0), (192, 0, 2), (198, 51, 100),
            (203, 0, 113), (198, 18...19, _), (100, 64...127, _), (172, 16...31, _), (224...255, _, _):
            false
        default: true
        }
    }
}
