public import Qwen3TTS
import SpeechEngine
import Tensors

extension CancelStress {
    /// Runs the rounds in this process or on a server.
    public static func run(
        _ source: SpeechSource, text: ExperimentText, sampling: SamplingOptions, rounds: Int, packet: Int
    ) async throws(ExperimentError) -> CancelStress {
        switch source {
        case .engine(let engine):
            try await run(engine, text: text, sampling: sampling, rounds: rounds, packet: packet)
        case .server(let client):
            try await run(client, text: text, sampling: sampling, rounds: rounds, packet: packet)
        }
    }

    /// Runs the rounds on a server: a client goes away before the first sound, or after some pieces of it; every tenth
    /// round another one listens to the end meanwhile. What the server did is read from its `/metrics`.
    /// - Parameter progress: called after each round with its number.
    public static func run(
        _ client: SpeechClient, text: ExperimentText, sampling: SamplingOptions, rounds: Int, packet: Int,
        progress: (Int) -> Void = { _ in }
    ) async throws(ExperimentError) -> CancelStress {
        guard rounds >= 1 else { throw .badSetting("the rounds are \(rounds), expected at least 1") }
        let random = Philox(seed: sampling.seed &+ 1)
        let before = try await client.metrics()
        let witnessRequest = request(text, sampling, packet: packet)
        var (hashes, times, memory): ([String], [Double], Double) = ([], [], 0)
        for round in 0..<rounds {
            async let witness = round % 10 == 0 ? try client.stream(witnessRequest) : nil
            var own = sampling
            own.seed &+= UInt64(round) &+ 1
            let pieces = Int(random.uniform(frame: round, codebook: 0) * 4)
            _ = try await client.exchange(
                .POST, "/tts/stream", json: request(text, own, packet: packet).json(), closeAfter: pieces)
            let closed = ContinuousClock.now
            do {
                if let witness = try await witness {
                    hashes.append(witness.isIntact ? witness.codesHash + witness.samplesHash : "broken \(round)")
                }
            } catch {
                throw (error as? ExperimentError) ?? .server(url: client.url, reason: "\(error)")
            }
            try await settle(client)
            if round % 10 != 0 { times.append((ContinuousClock.now - closed) / .milliseconds(1)) }
            if round == min(9, rounds - 1) { memory = try await client.metrics()[memoryName] ?? 0 }
            progress(round + 1)
        }
        let after = try await client.metrics()
        func ended(_ reason: FinishReason) -> Int {
            let name = "martlet_finished_total{reason=\"\(reason.rawValue)\"}"
            return Int((after[name] ?? 0) - (before[name] ?? 0))
        }
        let all = FinishReason.allCases.reduce(0) { $0 + ended($1) }
        let whole = ended(.stop) + ended(.length)
        return CancelStress(
            source: SpeechSource.server(client).label, rounds: rounds, cancelled: ended(.cancelled),
            endedBefore: max(0, whole - hashes.count), otherEnds: all - whole - ended(.cancelled),
            witnesses: hashes.count, witnessHashUnique: Set(hashes).count, cancelMs: CodeRuns.Distribution(times),
            left: Int((after["martlet_active"] ?? 0) + (after["martlet_queue"] ?? 0)),
            memoryGrowth: Int((after[memoryName] ?? 0) - memory))
    }

    private static let memoryName = "process_resident_memory_bytes"
    /// Seconds that a server gets to notice that a client is gone.
    private static let patience = 60.0

    private static func request(
        _ text: ExperimentText, _ sampling: SamplingOptions, packet: Int
    ) -> RemoteRequest {
        RemoteRequest(
            text, ExperimentVoice(), sampling: sampling, rules: RequestRules(), packet: packet, tag: nil)
    }

    /// Returns when nobody speaks or waits any more, or when patience ends.
    private static func settle(_ client: SpeechClient) async throws(ExperimentError) {
        let deadline = ContinuousClock.now + .seconds(patience)
        while ContinuousClock.now < deadline {
            let figures = try await client.metrics()
            if figures["martlet_active"] == 0, figures["martlet_queue"] == 0 { return }
            try? await Task.sleep(for: .milliseconds(5))
        }
    }
}
