import Qwen3TTS
import SpeechEngine
import Tensors
import TestSupport
import Testing

/// How packets are decoded and how decoding shares the machine with generation: what must not change a byte does not, and what
/// may change the samples leaves the codes alone.
@Suite struct DecodingModesTests {
    /// One way to run an engine, and to cut packets.
    struct Way: CustomTestStringConvertible {
        let mode: SyncMode
        let prefill: Int
        let every: Int
        let packets: PacketPolicy

        var options: EngineOptions {
            var options = EngineOptions()
            options.syncMode = mode
            options.prefillPackets = prefill
            options.decodeEvery = every
            return options
        }
        var testDescription: String { "\(mode), prefill \(prefill), decode every \(every), \(packets)" }
    }

    static let ways = SyncMode.allCases.flatMap { mode in
        [
            Way(mode: mode, prefill: 0, every: 1, packets: .fixed(1)),
            Way(mode: mode, prefill: 0, every: 2, packets: .growing),
            Way(mode: mode, prefill: 1, every: 1, packets: .fixed(2)),
            Way(mode: mode, prefill: 1, every: 3, packets: .fixed(1)),
        ]
    }

    private func request(frames: Int, seed: UInt64 = 4) -> SpeechRequest {
        var request = SpeechRequest(text: "tea for two, they say")
        request.sampling.seed = seed
        request.sampling.maxNewTokens = frames + 1
        return request
    }

    private func model(_ fixture: Fixture = .customVoice) throws -> SpeechModel {
        try SpeechModel(directory: fixture.directory, compute: Compute(threads: 2))
    }

    /// The samples of codes by the decoder alone, in one piece.
    private func decoded(_ model: SpeechModel, _ codes: [Int32]) -> [Float] {
        let frames = codes.count / model.codeGroups
        let pcm = FloatBuffer(count: frames * model.samplesPerFrame)
        model.decoder.decode([.init(state: model.decoder.makeState(), codes: codes, frames: frames, pcm: pcm.pointer)])
        return pcm.array
    }

    @Test func noModeChangesAByte() async throws {
        let model = try model()
        let request = request(frames: 7)
        var expected: SpokenResult?
        for way in Self.ways {
            let engine = SpeechEngine(model: model, options: way.options)
            #expect(engine.notes.isEmpty)
            let result = await SpokenResult(try engine.speak(request, packets: way.packets))
            let first = expected ?? result
            expected = first
            #expect(result.codes == first.codes, "\(way)")
            #expect(result.summary?.fingerprint == first.summary?.fingerprint, "\(way)")
            #expect(result.samples == decoded(model, first.codes), "\(way)")
        }
        #expect(expected?.summary?.frames ?? 0 > 3)
    }

    /// Cloning in context: the decoder hears the recording first.
    @Test func norDoesItForAClonedVoice() async throws {
        let model = try model(.base)
        let groups = model.configuration.talker.codeGroups
        var request = request(frames: 5)
        request.voice = .clone(
            ClonePrompt(
                speakerVector: (0..<model.configuration.talker.shape.hidden).map { Float($0 % 7) / 10 - 0.3 },
                codes: (0..<(7 * groups)).map { Int32($0 * 37 % 64) }, codeGroups: groups,
                referenceText: "So it goes.", modelIdentity: ""))
        var fingerprints: [Fingerprint?] = []
        for mode in SyncMode.allCases {
            // A model of its own has heard no recording before.
            let engine = SpeechEngine(
                model: try self.model(.base),
                options: Way(mode: mode, prefill: 0, every: 1, packets: .fixed(1)).options)
            let result = await SpokenResult(try engine.speak(request, packets: .fixed(2)))
            fingerprints.append(result.summary?.fingerprint)
        }
        #expect(fingerprints[0] != nil && Set(fingerprints.map { $0?.pcm }).count == 1)
        #expect(Set(fingerprints.map { $0?.codes }).count == 1)
    }

    @Test(arguments: [SyncMode.none, .event, .phase])
    func manyAtOnceWithCancels(mode: SyncMode) async throws {
        let model = try model()
        let alone = SpeechEngine(model: model)
        let requests = (0..<5).map { request(frames: 4 + Int($0), seed: $0) }
        var expected: [Fingerprint?] = []
        for request in requests {
            expected.append(await SpokenResult(try alone.speak(request)).summary?.fingerprint)
        }
        let options = Way(mode: mode, prefill: 0, every: 1, packets: .growing).options
        let engine = SpeechEngine(model: model, options: options)
        try await withThrowingTaskGroup(of: (Int, SpeechSummary?).self) { group in
            for (index, request) in requests.enumerated() {
                group.addTask {
                    let doomed = try engine.speak(request, packets: .fixed(1))
                    for await _ in doomed { break }
                    doomed.cancel()
                    return (index, await SpokenResult(try engine.speak(request, packets: .fixed(2))).summary)
                }
            }
            for try await (index, summary) in group { #expect(summary?.fingerprint == expected[index], "\(index)") }
        }
    }

    @Test(arguments: DecoderStages.allCases.filter { $0 != .all })
    func aPartOfTheDecoderLeavesTheCodesAlone(stages: DecoderStages) async throws {
        let model = try model()
        let request = request(frames: 6)
        let whole = await SpokenResult(try SpeechEngine(model: model).speak(request))
        for mode in [SyncMode.sync, .phase] {
            var options = EngineOptions()
            options.decoderStages = stages
            options.syncMode = mode
            // Silence by order is no run-away.
            options.runaway?.silentFrames = 2
            let part = await SpokenResult(try SpeechEngine(model: model, options: options).speak(request))
            #expect(part.summary?.fingerprint.codes == whole.summary?.fingerprint.codes)
            #expect(part.samples == [Float](repeating: 0, count: whole.samples.count))
        }
    }

    @Test func windowedPacketsAreTheReferencesChunks() async throws {
        let model = try model()
        let golden = try Fixture.customVoice.golden("decoder.safetensors")
        let codes = try golden.integers("codes").values.map { Int32($0) }
        let groups = model.codeGroups
        let prepared = try model.prepare(SpeechRequest(text: "tea"))
        let decoder = model.makeDecoder(prepared, mode: .windowed(leftContext: 4))
        var samples: [Float] = []
        for start in stride(from: 0, to: codes.count, by: 10 * groups) {
            let chunk = Array(codes[start..<min(start + 10 * groups, codes.count)])
            samples += model.decode([.init(decoder, codes: chunk)])[0]
        }
        #expect(maxDifference(samples, try golden.array("pcm_chunked")) < 3e-5)
    }

    @Test(arguments: [0, 2, 25])
    func windowedDecodingLeavesTheCodesAlone(leftContext: Int) async throws {
        let model = try model()
        let request = request(frames: 7)
        let whole = await SpokenResult(try SpeechEngine(model: model).speak(request))
        var options = EngineOptions()
        options.decoding = .windowed(leftContext: leftContext)
        let windowed = await SpokenResult(
            try SpeechEngine(model: model, options: options).speak(request, packets: .fixed(3)))
        #expect(windowed.summary?.fingerprint.codes == whole.summary?.fingerprint.codes)
        let expected = model.decoder.decodeWindowed(
            whole.codes, frames: whole.codes.count / model.codeGroups, chunk: 3, leftContext: leftContext)
        #expect(windowed.samples == expected)
        // With all that came before in the window, nothing is lost.
        #expect((windowed.samples == whole.samples) == (leftContext == 25))
    }

    @Test func theTraceTellsWhatWasDone() async throws {
        let model = try model()
        for mode in SyncMode.allCases {
            let way = Way(mode: mode, prefill: 1, every: 2, packets: .fixed(2))
            let engine = SpeechEngine(model: model, options: way.options)
            let result = await SpokenResult(try engine.speak(request(frames: 7), packets: way.packets))
            let summary = try #require(result.summary)
            #expect(summary.trace.decodeCalls == result.packets.count)
            #expect(summary.trace.codesFramesMax == min(4, summary.frames))
            #expect(summary.trace.pcmSamplesTotal == summary.frames * model.samplesPerFrame)
            #expect(summary.trace.pcmSamplesMax == result.packets.map(\.samples.count).max())
            #expect(summary.trace.queueWait >= 0 && summary.trace.queueWait <= summary.firstAudio ?? -1)
            #expect(result.packets.first?.times.generationStart == summary.trace.queueWait)
            for packet in result.packets {
                let t = packet.times
                let inOrder = [
                    0, t.generationStart, t.generationEnd, t.decodeStart, t.preTransformerEnd, t.convolutionsStart,
                    t.decodeEnd, summary.elapsed,
                ]
                #expect(inOrder == inOrder.sorted(), "\(mode)")
            }
            for (one, next) in zip(result.packets, result.packets.dropFirst()) {
                // The first packet overlaps in no mode, an utterance's own packets not in these.
                if one.frames.lowerBound == 0 || mode == .sync || mode == .event {
                    #expect(next.times.generationStart >= one.times.decodeEnd, "\(mode)")
                }
            }
        }
    }

    @Test func phaseNeedsOneProcess() throws {
        var options = EngineOptions()
        options.syncMode = .phase
        options.workerProcess = true
        options.workerExecutable = "/nonexistent"
        let engine = SpeechEngine(model: try model(), options: options)
        #expect(engine.notes.count == 1 && engine.notes[0].hasPrefix("phase sync disabled: "))
    }
}
