import Qwen3TTS
import SpeechEngine
import Tensors
import TestSupport
import Testing

/// Finished openers are answered from memory, to the same bytes; nothing else is.
@Suite struct StarterCacheTests {
    private func engine(entries: Int, frames: Int = 62) throws -> SpeechEngine {
        var options = EngineOptions()
        var limits = StarterCacheLimits()
        limits.entries = entries
        limits.frames = frames
        options.starterCache = limits
        return SpeechEngine(
            model: try SpeechModel(directory: Fixture.customVoice.directory, compute: Compute(threads: 2)),
            options: options)
    }

    private func request(_ text: String, seed: UInt64 = 1) -> SpeechRequest {
        var request = SpeechRequest(text: text)
        request.sampling.maxNewTokens = 5
        request.sampling.seed = seed
        return request
    }

    /// The packets' bytes, the fingerprint, and whether they were there at once.
    private func speak(
        _ engine: SpeechEngine, _ request: SpeechRequest, _ packets: PacketPolicy = .fixed(2)
    ) async throws -> (pcm: [[UInt8]], fingerprint: Fingerprint?, isKept: Bool) {
        var (pcm, fingerprint, isKept): ([[UInt8]], Fingerprint?, Bool) = ([], nil, false)
        for await event in try engine.speak(request, packets: packets) {
            switch event {
            case .packet(let packet): pcm.append(packet.pcm)
            case .end(let summary):
                fingerprint = summary.fingerprint
                isKept = summary.elapsed == 0
            }
        }
        return (pcm, fingerprint, isKept)
    }

    @Test func theSameRequestGivesTheSameBytesAtOnce() async throws {
        let engine = try engine(entries: 4)
        let first = try await speak(engine, request("Well, now."))
        let again = try await speak(engine, request("Well, now."))
        #expect(!first.isKept)
        #expect(again.isKept)
        #expect(again.pcm == first.pcm)
        #expect(again.fingerprint == first.fingerprint)
    }

    @Test func anotherRequestIsGenerated() async throws {
        let engine = try engine(entries: 4)
        _ = try await speak(engine, request("Well, now."))
        #expect(try await !speak(engine, request("Well, now!")).isKept)
        #expect(try await !speak(engine, request("Well, now.", seed: 2)).isKept)
        #expect(try await !speak(engine, request("Well, now."), .fixed(1)).isKept)
        var tapped = request("Well, now.")
        tapped.logitTap = LogitTap(LogitTap.Order(engine.model.configuration.talker))
        #expect(try await !speak(engine, tapped).isKept)
    }

    @Test func theOldestMakesRoomAndLongOnesAreLeftOut() async throws {
        let engine = try engine(entries: 1)
        _ = try await speak(engine, request("One."))
        _ = try await speak(engine, request("Two."))
        #expect(try await speak(engine, request("Two.")).isKept)
        #expect(try await !speak(engine, request("One.")).isKept)

        let brief = try self.engine(entries: 4, frames: 1)
        _ = try await speak(brief, request("One."))
        #expect(try await !speak(brief, request("One.")).isKept)
    }

    @Test func whatIsCutShortIsNotKept() async throws {
        let engine = try engine(entries: 4)
        var long = request("Well, now.")
        long.sampling.maxNewTokens = 2000
        for _ in 0..<2 {
            let stream = try engine.speak(long, packets: .fixed(1))
            stream.cancel()
            for await event in stream {
                if case .end(let summary) = event { #expect(summary.finishReason == .cancelled) }
            }
        }
    }

    @Test func aDrainedEngineAnswersNothing() async throws {
        let engine = try engine(entries: 4)
        _ = try await speak(engine, request("Well, now."))
        await engine.drain()
        #expect(throws: EngineError.self) { try engine.speak(request("Well, now."), packets: .fixed(2)) }
    }
}

/// Seeds that follow from what is said.
@Suite struct ContentSeedTests {
    @Test func everyPartCounts() {
        func seed(_ change: (inout SpeechRequest) -> Void = { _ in }, base: UInt64 = 0) -> UInt64 {
            var request = SpeechRequest(text: "Tea.")
            change(&request)
            return request.contentSeed(base)
        }
        let all = [
            seed(), seed(base: 1), seed { $0.text = "Tea!" }, seed { $0.voice = .named("serena") },
            seed { $0.language = "english" }, seed { $0.instruction = "Softly." },
            seed {
                $0.text = "Tea.e"; $0.language = "nglish"
            },
        ]
        #expect(Set(all).count == all.count)
        #expect(seed() == seed())
        // The first eight bytes of SHA-256 over the lengths and texts, computed elsewhere.
        #expect(seed() == 1374528541418164482)
    }
}
