import AsyncHTTPClient
import Experiments
import NIOCore
import NIOHTTP1

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Sends the requests of a plan to a server over HTTP, each at its time, and listens to all of them.
struct BenchLoadClient {
    /// The server's address, without a path.
    let url: String
    let apiKey: String?
    let voice: String?
    /// Seconds that one request may take.
    let timeout: Double

    /// Runs a plan to its end.
    /// - Parameter progress: called after each request with what became of it.
    /// - Returns: the outcomes, and by how many seconds the latest request left late.
    func run(
        _ plan: LoadPlan, progress: (LoadOutcome) -> Void
    ) async throws -> (outcomes: [LoadOutcome], worstDelay: Double) {
        try await withClient { client in
            let start = ContinuousClock.now
            return await withTaskGroup(of: (LoadOutcome, Double).self) { group in
                for request in plan.requests {
                    let due = start + .seconds(request.arrival)
                    group.addTask {
                        try? await Task.sleep(until: due, tolerance: .zero, clock: .continuous)
                        let delay = (ContinuousClock.now - due) / .seconds(1)
                        return (await speak(request, due: due, client: client), delay)
                    }
                }
                var (outcomes, worst): ([LoadOutcome], Double) = ([], 0)
                for await (outcome, delay) in group {
                    outcomes.append(outcome)
                    worst = max(worst, delay)
                    progress(outcome)
                }
                return (outcomes, worst)
            }
        }
    }

    /// Returns when the server is ready for requests.
    func waitUntilReady(_ seconds: Double, isAlive: () -> Bool) async throws {
        try await withClient { client in
            let deadline = ContinuousClock.now + .seconds(seconds)
            while true {
                let response = try? await client.execute(HTTPClientRequest(url: url + "/ready"), timeout: .seconds(5))
                if response?.status == .ok { return }
                guard isAlive() else { throw CommandError("the server has ended before it was ready") }
                guard ContinuousClock.now < deadline else {
                    let word = response.map { "answers \($0.status.code)" } ?? "does not answer"
                    throw CommandError("\(url)/ready \(word) after \(decimal(seconds, 0)) s")
                }
                try await Task.sleep(for: .milliseconds(50))
            }
        }
    }

    private func withClient<Value: Sendable>(_ body: (HTTPClient) async throws -> Value) async throws -> Value {
        var settings = HTTPClient.Configuration()
        settings.httpVersion = .http1Only
        settings.timeout.connect = .seconds(10)
        // An open loop waits for nobody: as many connections as it takes.
        settings.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = 1 << 16
        settings.connectionPool.retryConnectionEstablishment = false
        let client = HTTPClient(eventLoopGroupProvider: .singleton, configuration: settings)
        let result: Result<Value, any Error>
        do { result = .success(try await body(client)) } catch { result = .failure(error) }
        try? await client.shutdown()
        return try result.get()
    }

    private struct Body: Encodable {
        let input: String
        let voice: String?
        let language: String?
        let seed: UInt64
        let response_format = "pcm"
        let max_new_tokens: Int?
    }

    private func speak(
        _ request: LoadPlan.Request, due: ContinuousClock.Instant, client: HTTPClient
    ) async -> LoadOutcome {
        var playback = PlaybackSimulation()
        func outcome(_ end: LoadOutcome.End, _ error: String? = nil) -> LoadOutcome {
            LoadOutcome(
                request, end, elapsed: (ContinuousClock.now - due) / .seconds(1), playback: playback, error: error)
        }
        do {
            var message = HTTPClientRequest(url: url + "/v1/audio/speech")
            message.method = .POST
            message.headers.add(name: "Content-Type", value: "application/json")
            if let apiKey { message.headers.add(name: "Authorization", value: "Bearer \(apiKey)") }
            // The last token that the limit allows makes no frame.
            let body = Body(
                input: request.text.text, voice: voice, language: request.text.language, seed: request.seed,
                max_new_tokens: request.maxFrames.map { $0 + 1 })
            message.body = .bytes(ByteBuffer(bytes: try JSONEncoder().encode(body)))
            let response = try await client.execute(message, timeout: .milliseconds(Int64(timeout * 1000)))
            guard response.status == .ok else {
                let text = String(buffer: (try? await response.body.collect(upTo: 1 << 16)) ?? ByteBuffer())
                let isFull = response.status == .serviceUnavailable
                return outcome(
                    isFull ? .refused : .failed, isFull ? nil : "\(response.status.code) \(text.prefix(200))")
            }
            let rate = Self.sampleRate(response.headers.first(name: "Content-Type"))
            for try await bytes in response.body {
                playback.receive(
                    Double(bytes.readableBytes) / 2 / rate, at: (ContinuousClock.now - due) / .seconds(1))
            }
            return outcome(.finished)
        } catch let error as HTTPClientError {
            return outcome(.failed, error.shortDescription)
        } catch {
            return outcome(.failed, "\(error)")
        }
    }

    /// The rate that a content type such as `audio/pcm; rate=24000` names.
    private static func sampleRate(_ type: String?) -> Double {
        let parameter = type?.split(separator: ";").lazy.map { $0.drop { $0 == " " } }.first { $0.hasPrefix("rate=") }
        return parameter.flatMap { Double($0.dropFirst("rate=".count)) } ?? 24_000
    }
}
