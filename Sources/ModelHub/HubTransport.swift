import AsyncHTTPClient
import NIOCore
import NIOHTTP1
import NIOPosix

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// A request that may succeed when repeated.
struct TransientFailure: Error {
    /// The host that was asked.
    let host: String
    /// The status, where there was an answer.
    let status: Int?
    /// What happened.
    let reason: String
    /// How long the server asks to wait.
    var wait: Duration = .zero

    /// The error when no attempt is left.
    var final: HubError {
        guard let status else { return .unreachable(host: host, reason: reason) }
        return .unexpectedStatus(host: host, status: status, reason: reason)
    }
}

/// HTTP with the hub's rules: redirects by hand, the token to the endpoint only, failures sorted into lasting and passing.
struct HubTransport: Sendable {
    let client: HTTPClient
    let configuration: HubConfiguration

    /// Which redirects are followed.
    enum Redirects {
        /// Those to the same origin; the first other one is the answer, as its headers describe the file.
        case sameOrigin
        /// All, except from https to http.
        case all
    }

    /// Runs `body` with connections of its own.
    static func with<Result: Sendable>(
        _ configuration: HubConfiguration, _ body: (HubTransport) async throws -> Result
    ) async throws -> Result {
        var settings = HTTPClient.Configuration()
        settings.redirectConfiguration = .disallow
        // One connection a file is faster than streams in one connection's window.
        settings.httpVersion = .http1Only
        settings.timeout.connect = .seconds(10)
        // Attempts are counted here.
        settings.connectionPool.retryConnectionEstablishment = false
        settings.timeout.read = .nanoseconds(
            configuration.retry.silence.components.seconds * 1_000_000_000
                + configuration.retry.silence.components.attoseconds / 1_000_000_000)
        if let proxy = configuration.proxy {
            let credentials = proxy.credentials?.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            settings.proxy = .server(
                host: proxy.host, port: proxy.port,
                authorization: credentials.map { .basic(username: String($0[0]), password: String($0[1])) })
        }
        let client = HTTPClient(eventLoopGroupProvider: .singleton, configuration: settings)
        let result: Swift.Result<Result, any Error>
        do {
            result = .success(try await body(HubTransport(client: client, configuration: configuration)))
        } catch {
            result = .failure(error)
        }
        try? await client.shutdown()
        return try result.get()
    }

    /// Sends a request and gives the answer, whatever its status, except those worth a repetition.
    func send(
        _ method: HTTPMethod, _ address: String, headers: [(String, String)] = [], follow: Redirects
    ) async throws -> HTTPClientResponse {
        guard var url = URL(string: address), let endpoint = URL(string: configuration.endpoint) else {
            throw HubError.unexpectedAnswer("'\(address)' is not an address")
        }
        for _ in 0..<10 {
            let host = url.host() ?? configuration.endpoint
            var request = HTTPClientRequest(url: url.absoluteString)
            request.method = method
            request.headers.add(name: "User-Agent", value: configuration.userAgent)
            request.headers.add(name: "Accept-Encoding", value: "identity")
            if let token = configuration.token, isSameOrigin(url, endpoint) {
                request.headers.add(name: "Authorization", value: "Bearer \(token)")
            }
            for (name, value) in headers { request.headers.add(name: name, value: value) }
            let response: HTTPClientResponse
            do {
                response = try await client.execute(request, deadline: .distantFuture)
            } catch {
                throw Self.connectionFailure(error, host: host)
            }
            switch response.status.code {
            case 301, 302, 303, 307, 308:
                guard let location = response.headers.first(name: "Location"),
                    let next = URL(string: location, relativeTo: url)?.absoluteURL,
                    let scheme = next.scheme?.lowercased(), ["http", "https"].contains(scheme), next.host() != nil
                else { throw HubError.unexpectedAnswer("\(host) redirects to nowhere") }
                if follow == .sameOrigin && !isSameOrigin(next, url) { return response }
                guard scheme == "https" || url.scheme?.lowercased() == "http" else {
                    throw HubError.unexpectedAnswer("\(host) redirects from https to http")
                }
                url = next
            case 408, 429, 500, 502, 503, 504:
                let seconds = response.headers.first(name: "Retry-After").flatMap { Int($0) } ?? 0
                throw TransientFailure(
                    host: host, status: Int(response.status.code), reason: response.status.reasonPhrase,
                    wait: .seconds(max(0, min(60, seconds))))
            default: return response
            }
        }
        throw HubError.unexpectedAnswer("\(address) redirects more than 10 times")
    }

    /// Repeats `attempt` while it fails in passing, with doubling waits.
    func withRetries<Result: Sendable>(_ attempt: () async throws -> Result) async throws -> Result {
        var failures = 0
        while true {
            do {
                return try await attempt()
            } catch let failure as TransientFailure {
                failures += 1
                try await pause(after: failure, failures: failures)
            }
        }
    }

    /// Waits before another attempt, or throws the failure when `failures` in a row are enough.
    func pause(after failure: TransientFailure, failures: Int) async throws {
        let policy = configuration.retry
        guard failures < policy.attempts else { throw failure.final }
        let doubled = policy.firstDelay * (1 << min(failures - 1, 16))
        try await Task.sleep(for: max(failure.wait, min(doubled, policy.longestDelay)))
    }

    /// What a failed connection means: cancelled, or worth another attempt.
    static func connectionFailure(_ error: any Error, host: String) -> any Error {
        if error is CancellationError || Task.isCancelled { return CancellationError() }
        let reason: String
        switch error {
        case let error as NIOConnectionError:
            reason = error.connectionErrors.first.map { words(for: $0.error) } ?? "the name is not known"
        case let error as HTTPClientError: reason = error.shortDescription
        default: reason = words(for: error)
        }
        return TransientFailure(host: host, status: nil, reason: String(reason.prefix(200)))
    }
}

/// The operating system's words where it reported the error.
private func words(for error: any Error) -> String {
    (error as? IOError).map { systemErrorText($0.errnoCode) } ?? "\(error)"
}

/// Whether scheme, host and port are the same.
private func isSameOrigin(_ a: URL, _ b: URL) -> Bool {
    func port(_ url: URL) -> Int { url.port ?? (url.scheme?.lowercased() == "http" ? 80 : 443) }
    return a.scheme?.lowercased() == b.scheme?.lowercased() && a.host()?.lowercased() == b.host()?.lowercased()
        && port(a) == port(b)
}
