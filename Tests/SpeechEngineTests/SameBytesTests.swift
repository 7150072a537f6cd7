@testable import Qwen3TTS
import SpeechEngine
import Tensors
import TestSupport
import Testing

/// Requests that the tests draw: text, voice, language, seed.
private struct Draw {
    private var state: UInt64
    init(seed: UInt64) { state = seed }

    mutating func number(below limit: Int) -> Int {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return Int(truncatingIfNeeded: state >> 33) % limit
    }

    mutating func request(_ model: SpeechModel, frames: Int) -> SpeechRequest {
        let words = ["a", "tea", "two", "swift", "never", "lands", "ok", "über", "你好", "7", "x.", "so,"]
        var request = SpeechRequest(
            text: (0...number(below: 6)).map { _ in words[number(below: words.count)] }.joined(separator: " "))
        request.voice = .named(model.configuration.voices[number(below: model.configuration.voices.count)])
        request.sampling.seed = UInt64(number(below: 1000))
        request.sampling.maxNewTokens = frames + 1
        return request
    }
}

private func load(threads: Int) throws -> SpeechModel {
    try SpeechModel(directory: Fixture.customVoice.directory, compute: Compute(threads: threads))
}

/// Everything a stream brings.
private func collect(_ stream: SpeechStream) async -> (codes: [Int32], pcm: [UInt8], summary: SpeechSummary?) {
    var codes: [Int32] = [], pcm: [UInt8] = []
    var summary: SpeechSummary?
    for await event in stream {
        switch event {
        case .packet(let packet):
            codes += packet.codes
            pcm += packet.pcm
        case .end(let end): summary = end
        }
    }
    return (codes, pcm, summary)
}

/// The contract of docs/determinism.md: packets, threads, company and the arrival of text change no byte.
@Suite struct SameBytesTests {
    static let frames = 9

    @Test(arguments: [UInt64(1), 2])
    func packetsAndThreads(seed: UInt64) async throws {
        var draw = Draw(seed: seed)
        let alone = SpeechEngine(model: try load(threads: 1))
        let request = draw.request(alone.model, frames: Self.frames)
        let expected = await collect(try alone.speak(request, packets: .fixed(1)))
        #expect(expected.summary?.frames ?? 0 > 0)
        for packets in [PacketPolicy.fixed(2), .fixed(3), .fixed(4), .fixed(8), .growing] {
            let other = await collect(try alone.speak(request, packets: packets))
            #expect(other.codes == expected.codes, "\(packets)")
            #expect(other.pcm == expected.pcm, "\(packets)")
            #expect(other.summary?.fingerprint == expected.summary?.fingerprint, "\(packets)")
        }
        for threads in [2, 4] {
            let engine = SpeechEngine(model: try load(threads: threads))
            let other = await collect(try engine.speak(request, packets: .fixed(3)))
            #expect(other.summary?.fingerprint == expected.summary?.fingerprint, "\(threads) threads")
        }
    }

    @Test func eightInterleavedWithCancels() async throws {
        var draw = Draw(seed: 3)
        let engine = SpeechEngine(model: try load(threads: 2))
        let requests = (0..<8).map { _ in draw.request(engine.model, frames: Self.frames) }
        var alone: [SpeechSummary?] = []
        for request in requests { alone.append(await collect(try engine.speak(request, packets: .fixed(1))).summary) }

        var together: [Int: SpeechSummary] = [:]
        try await withThrowingTaskGroup(of: (Int, SpeechSummary?).self) { group in
            for (index, request) in requests.enumerated() {
                group.addTask {
                    // Before each, one that leaves after its first packet.
                    let doomed = try engine.speak(request, packets: .fixed(1))
                    for await _ in doomed { break }
                    doomed.cancel()
                    let packets = [PacketPolicy.growing, .fixed(1), .fixed(3)][index % 3]
                    return (index, await collect(try engine.speak(request, packets: packets)).summary)
                }
            }
            for try await (index, summary) in group { together[index] = summary }
        }
        for index in requests.indices {
            #expect(together[index]?.fingerprint == alone[index]?.fingerprint, "request \(index)")
            #expect(together[index]?.finishReason == alone[index]?.finishReason, "request \(index)")
        }
    }

    @Test func textInPieces() async throws {
        let engine = SpeechEngine(model: try load(threads: 2))
        var whole = SpeechRequest(text: "It never lands, they say: 你好 ok.")
        whole.layout = .streaming
        whole.sampling.seed = 5
        whole.sampling.maxNewTokens = 25
        let expected = await collect(try engine.speak(whole))
        for size in [1, 4] {
            var open = whole
            open.text = ""
            open.isComplete = false
            let stream = try engine.speak(open, packets: .fixed(2))
            let reader = Task { await collect(stream) }
            var rest = Array(whole.text)[...]
            while !rest.isEmpty {
                stream.append(String(rest.prefix(size)))
                rest = rest.dropFirst(size)
                await Task.yield()
            }
            stream.completeText()
            let pieces = await reader.value
            #expect(pieces.codes == expected.codes, "pieces of \(size)")
            #expect(pieces.summary?.fingerprint == expected.summary?.fingerprint, "pieces of \(size)")
        }
    }

    @Test func quantizedWeightsToo() async throws {
        for format in [WeightFormat.q8, .q4] {
            var fingerprints: [Fingerprint?] = []
            for threads in [1, 2] {
                let model = try SpeechModel(
                    directory: Fixture.customVoice.directory, weights: format, compute: Compute(threads: threads))
                var request = SpeechRequest(text: "so be it")
                request.sampling.maxNewTokens = 5
                fingerprints.append(
                    await collect(try SpeechEngine(model: model).speak(request)).summary?.fingerprint)
            }
            #expect(fingerprints[0] != nil && fingerprints[0] == fingerprints[1], "\(format)")
        }
    }

    /// The second request of a voice skips what the first one read; its bytes are those of a fresh engine.
    @Test func aKnownVoiceChangesNothing() async throws {
        func model() throws -> SpeechModel {
            try SpeechModel(directory: Fixture.base.directory, compute: Compute(threads: 2))
        }
        let warm = SpeechEngine(model: try model())
        let talker = warm.model.configuration.talker
        let groups = talker.codeGroups
        let prompt = ClonePrompt(
            speakerVector: (0..<talker.shape.hidden).map { Float($0 % 7) / 10 - 0.3 },
            codes: (0..<(7 * groups)).map { Int32($0 * 37 % 64) }, codeGroups: groups, referenceText: "So it goes.",
            modelIdentity: "")
        var vector = prompt
        vector.codes = []
        vector.referenceText = nil
        for clone in [prompt, vector] {
            for (text, layout) in [
                ("Tea.", TextLayout.streaming), ("Tea for two.", .streaming), ("Two.", .nonStreaming),
            ] {
                var request = SpeechRequest(text: text)
                request.voice = .clone(clone)
                request.layout = layout
                request.sampling.maxNewTokens = 5
                let known = await collect(try warm.speak(request)).summary
                let fresh = await collect(try SpeechEngine(model: try model()).speak(request)).summary
                #expect(known?.frames ?? 0 > 0)
                #expect(known?.fingerprint == fresh?.fingerprint, "\(text)")
            }
        }
    }
}
