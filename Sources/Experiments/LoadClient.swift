import NIOHTTP1

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Sends the requests of a plan to a server, each at its time, and listens to all of them.
public struct LoadClient: Sendable {
    private let client: SpeechClient
    private let voice: String?
    private let timeout: Double

    /// - Parameters:
    ///   - voice: a voice of the server; nil is its default.
    ///   - timeout: seconds that one request may take.
    public init(_ client: SpeechClient, voice: String? = nil, timeout: Double) {
        self.client = client
        self.voice = voice
        self.timeout = timeout
    }

    /// Runs a plan to its end.
    /// - Parameter progress: called after each request with what became of it.
    /// - Returns: the outcomes, and by how many seconds the latest request left late.
    public func run(
        _ plan: LoadPlan, progress: (LoadOutcome) -> Void
    ) async -> (outcomes: [LoadOutcome], worstDelay: Double) {
        let start = ContinuousClock.now
        return await withTaskGroup(of: (LoadOutcome, Double).self) { group in
            for request in plan.requests {
                let due = start + .seconds(request.arrival)
                group.addTask {
                    try? await Task.sleep(until: due, tolerance: .zero, clock: .continuous)
                    let delay = (ContinuousClock.now - due) / .seconds(1)
                    return (await speak(request, due: due), delay)
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

    private struct Body: Encodable {
        let input: String
        let voice: String?
        let language: String?
        let seed: UInt64
        let response_format = "pcm"
        let max_new_tokens: Int?
    }

    private func speak(_ request: LoadPlan.Request, due: ContinuousClock.Instant) async -> LoadOutcome {
        var playback = PlaybackSimulation()
        func outcome(_ end: LoadOutcome.End, _ error: String? = nil) -> LoadOutcome {
            LoadOutcome(
                request, end, elapsed: (ContinuousClock.now - due) / .seconds(1), playback: playback, error: error)
        }
        do {
            // The last token that the limit allows makes no frame.
            let body = Body(
                input: request.text.text, voice: voice, language: request.text.language, seed: request.seed,
                max_new_tokens: request.maxFrames.map { $0 + 1 })
            let reply = try await client.exchange(
                .POST, "/v1/audio/speech", json: Array(try JSONEncoder().encode(body)), timeout: timeout)
            if reply.status == 503 { return outcome(.refused) }
            guard reply.status == 200 else { return outcome(.failed, reply.message) }
            let rate = Self.sampleRate(reply.field("Content-Type"))
            let begun = (reply.start - due) / .seconds(1)
            var heard = 0
            for (seconds, bytes) in reply.arrivals {
                playback.receive(Double(bytes - heard) / 2 / rate, at: begun + seconds)
                heard = bytes
            }
            return reply.isComplete
                ? outcome(.finished) : outcome(.failed, "the connection ended before the audio, or after \(timeout) s")
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
