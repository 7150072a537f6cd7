import CCUDA
import Qwen3TTS
import Tensors
import TestSupport
import Testing

@testable import CUDABackend

/// Packets of the codec decoder through recorded launches, on the emulator: the samples of launches one by one.
@Suite struct CodecGraphTests {
    static func load(
        _ card: EmulatedCard, _ driver: CUDADriver = EmulatedCard.driver, slots: Int = 4
    ) throws -> CUDADecoder {
        try #require(
            try CUDAStages(directory: Fixture.customVoice.directory, device: card.index, slots: slots, driver: driver)
                .decoder)
    }

    /// Three utterances in packets of 1, 2 and 5 frames, together and alone; each slot is used again.
    /// - Parameter waits: whether a call's first half is waited for.
    static func speak(_ decoder: CUDADecoder, waits: Bool = false) throws -> [[Float]] {
        var samples: [[Float]] = []
        for round in 0..<2 {
            let slots = try (0..<3).map { _ in try #require(try decoder.openSlot()) }
            defer { for slot in slots { decoder.closeSlot(slot) } }
            var spoken = slots.map { _ in [Float]() }
            for (call, (members, frames)) in [
                ([0], 1), ([0], 1), ([0, 1], 1), ([2, 1], 1), ([1, 0], 1), ([0], 5), ([0], 1), ([0, 1, 2], 2), ([2], 1),
            ].enumerated() {
                let packets = members.map { member in
                    (
                        slot: slots[member],
                        codes: (0..<(frames * 16)).map { Int32(($0 * 37 + 11 * member + 5 * call + round) % 128) }
                    )
                }
                let decoded = try decoder.finish(decoder.begin(packets, waits: waits))
                for (member, part) in zip(members, decoded) { spoken[member] += part }
            }
            samples += spoken
        }
        return samples
    }

    /// What launches one by one give.
    static let plain = Result {
        let card = EmulatedCard()
        let samples = try speak(try load(card, EmulatedCard.driverWithoutGraphs))
        #expect(card.graphLaunches == 0)
        return samples
    }

    @Test(arguments: [0, 77] as [UInt32])
    func sameSamplesAsLaunchByLaunch(seed: UInt32) throws {
        let plain = try Self.plain.get()
        #expect(plain.allSatisfy { $0.contains { $0 != 0 } && $0.allSatisfy(\.isFinite) })
        let card = EmulatedCard(multiprocessors: 2, seed: seed)
        let decoder = try Self.load(card)
        #expect(try Self.speak(decoder, waits: seed != 0) == plain)
        // Two a packet; more work memory for longer packets makes earlier ones worthless.
        #expect(card.graphLaunches > 12 && card.graphLaunches % 2 == 0)
        let before = card.graphLaunches
        #expect(try Self.speak(decoder) == plain)
        #expect(card.graphLaunches == before + 2 * 18, "all are recorded by now")
        #expect(decoder.codec.usesGraphs)
    }

    /// Few rows have their norms in their products, more rows have them apart; frames behind a page's end see those before it.
    @Test func anyPacketsGiveTheSameSamples() throws {
        let codes = (0..<(68 * 16)).map { Int32($0 * 53 % 128) }
        func speak(_ packets: [Int], _ card: EmulatedCard) throws -> [Float] {
            let decoder = try Self.load(card)
            let slot = try #require(try decoder.openSlot())
            var samples: [Float] = []
            var done = 0
            for frames in packets {
                samples += try decoder.decode([(slot, Array(codes[(done * 16)..<((done + frames) * 16)]))])[0]
                done += frames
            }
            return samples
        }
        let long = try speak([20, 20, 20, 8], EmulatedCard())
        #expect(long.count == 68 * 1920 && long.allSatisfy(\.isFinite))
        #expect(try speak([1, 1, 2, 16, 16, 16, 9, 7], EmulatedCard(multiprocessors: 2, seed: 9)) == long)
    }

    /// docs/cuda.md lists them.
    @Test func launchesOfAPacket() throws {
        let card = EmulatedCard()
        let decoder = try Self.load(card, EmulatedCard.driverWithoutGraphs)
        let layers = decoder.codec.configuration.transformer.layers
        let slot = try #require(try decoder.openSlot())
        for (frames, launches) in [(1, 44 + 5 * layers), (17, 44 + 5 * layers)] {
            let before = card.launches
            _ = try decoder.decode([(slot, Array(repeating: 1, count: frames * 16))])
            #expect(card.launches - before == launches)
        }
    }

    /// A part of the stages: what each gives is what the CPU's gives, the audio is silence, recorded or not.
    @Test(arguments: [
        (DecoderStages.preTransformerOnly, ["quantized", "pre_conv", "pre_transformer"]),
        (.convolutionsOnly, ["quantized", "pre_conv", "upsample.0.0", "upsample.1.1", "decoder.0"]),
    ]) func someStages(stages: DecoderStages, names: [String]) throws {
        let codes = (0..<(3 * 16)).map { Int32($0 * 53 % 128) }
        let directory = Fixture.customVoice.directory
        let cpu = try CodecDecoder(
            SafetensorsFile(path: directory + CUDADecoder.fileName),
            configuration: Configuration.load(directory: directory).codec, compute: Compute(threads: 1))
        let pcm = FloatBuffer(count: 3 * 1920)
        var there: [String: [Float]] = [:]
        withExtendedLifetime(pcm) {
            cpu.decode(
                [.init(state: cpu.makeState(), codes: codes, frames: 3, pcm: pcm.pointer)], stages: stages
            ) { name, values, _ in there[name] = Array(values) }
        }
        let decoder = try CUDADecoder(
            directory: directory, device: EmulatedCard().index, slots: 2, precision: .exact,
            driver: EmulatedCard.driver)
        let slot = try #require(try decoder.openSlot())
        var here: [String: [Float]] = [:]
        _ = try decoder.codec.decode(slots: [slot], positions: [0], codes: codes, frames: 3, stages: stages) {
            name, values, _ in here[name] = values
        }
        #expect(Set(names).isSubset(of: here.keys))
        #expect((here["pre_transformer"] != nil) == (stages == .preTransformerOnly))
        #expect((here["decoder.0"] != nil) == (stages == .convolutionsOnly))
        for name in names where there[name] != nil {
            let (a, b) = (try #require(here[name]), try #require(there[name]))
            #expect(a.count == b.count)
            let worst = zip(a, b).reduce(Float(0)) { max($0, ($1.0 - $1.1).magnitude) }
            #expect(worst < 1e-3, "\(name)")
        }
        try decoder.reset(slot)
        for _ in 0..<3 {
            let samples = try decoder.finish(decoder.begin([(slot, codes)], stages: stages))
            #expect(samples == [Array(repeating: 0, count: 3 * 1920)])
        }
    }

    /// More shapes than are kept.
    @Test func shapesComeAndGo() throws {
        let card = EmulatedCard()
        let decoder = try Self.load(card)
        decoder.codec.preparedShapes = 1
        #expect(try Self.speak(decoder) == Self.plain.get())
        #expect(card.graphLaunches > 0)
    }

    /// Others, of no utterance, fill a pass up, so that passes of 9 to 12 packets are the same launches.
    @Test func nineArePassedAsTwelve() throws {
        let card = EmulatedCard()
        let decoder = try Self.load(card, slots: 12)
        let slots = try (0..<12).map { _ in try #require(try decoder.openSlot()) }
        let codes = (0..<16).map { Int32($0 * 37 % 128) }, others = codes.map { ($0 + 5) % 128 }
        let alone = try decoder.decode([(slots[0], codes)])[0]
        for count in [9, 12] {
            for slot in slots { try decoder.reset(slot) }
            let before = card.graphLaunches
            let together = try decoder.decode(slots.prefix(count).enumerated().map { ($1, $0 == 0 ? codes : others) })
            #expect(together.count == count && together[0] == alone && together[1] == together[count - 1])
            #expect(card.graphLaunches - before == (count == 12 ? 2 : 0))
        }
    }

    /// Drivers older than CUDA 11.8 issue launches one after the other.
    @Test func launchesNeedNotOverlap() throws {
        let card = EmulatedCard()
        #expect(try Self.load(card).codec.device.overlapsLaunches)
        let decoder = try Self.load(card, EmulatedCard.makeDriver { $0.launch_with = nil })
        #expect(!decoder.codec.device.overlapsLaunches)
        #expect(try Self.speak(decoder) == Self.plain.get())
    }

    /// Where recording fails, launches go on one by one.
    @Test(arguments: [false, true])
    func aDriverThatCannotMakeGraphsStillDecodes(late: Bool) throws {
        let card = EmulatedCard()
        let driver = EmulatedCard.makeDriver {
            if late {
                $0.graph_upload = { _, _ in mk_cu_result(MK_CU_OUT_OF_MEMORY) }
            } else {
                $0.graph_instantiate = { _, _, _ in mk_cu_result(MK_CU_OUT_OF_MEMORY) }
            }
        }
        let decoder = try Self.load(card, driver)
        #expect(try Self.speak(decoder) == Self.plain.get())
        #expect(card.graphLaunches == 0 && !decoder.codec.usesGraphs)
    }

    @Test func whatCannotBeRecordedIsSaid() throws {
        let device = try CUDADevice(index: EmulatedCard().index, driver: EmulatedCard.driver)
        let buffer = try DeviceBuffer(device, bytes: 1024, "test")
        let error = #expect(throws: CUDAError.self) {
            try LaunchGraph(device) { () throws(CUDAError) in try device.copyIn(buffer.address, [1, 2, 3] as [Int32]) }
        }
        #expect(error?.description.contains("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED") == true)
        // The stream is as it was.
        try device.copyIn(buffer.address, [4, 5, 6] as [Int32])
        #expect(try device.integers(buffer.address, 3) == [4, 5, 6])
    }
}
