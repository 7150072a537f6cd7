import CCUDA
import Qwen3TTS
import TestSupport
import Testing

@testable import CUDABackend

/// Sessions on the emulator: what a session says does not depend on what runs beside it, on how it is cut into launches, on
/// the card's size, or on the order in which its threads run.
@Suite struct EmulatedSessionsTests {
    static let frames = 4

    struct Speech: Equatable {
        var codes: [[Int32]] = []
        var samples: [Float] = []
        var hidden: [Float] = []
        /// Where the alignment head looked, frame by frame.
        var looks: [Int] = []
    }

    static let fixture = Result { try Fixture.customVoice.withAlignmentHead(layer: 1, head: 1) }

    static func load(_ card: EmulatedCard, slots: Int = 4) throws -> CUDAStages {
        try CUDAStages(
            directory: try fixture.get().directory, device: card.index, slots: slots, driver: EmulatedCard.driver)
    }

    static func rules(_ stages: CUDAStages) -> GenerationConfiguration {
        var rules = stages.configuration.generation
        rules.talker.samples = true
        rules.codePredictor.samples = true
        rules.talker.topP = 0.9
        return rules
    }

    static func prompt(_ count: Int, first: Int32 = 3) -> [CUDAStages.PromptRow] {
        (0..<count).map { .init(text: first + Int32($0) * 7 % 300, codes: $0 % 3 == 0 ? [] : [Int32($0 % 100)]) }
    }

    /// Speech of one session.
    /// - Parameters:
    ///   - others: sessions beside it; with each frame one of them goes, or one comes. Those of the first frame read their
    ///     prompts together with the end of its own.
    ///   - packet: frames that are decoded together.
    static func speak(
        _ stages: CUDAStages, persistent: Bool = true, others: Int = 0, packet: Int = 1, promptPiece: Int = 64
    ) throws -> Speech {
        stages.usesPersistentKernels = persistent
        let decoder = try #require(stages.decoder)
        var speech = Speech()
        let slot = try #require(try stages.openSlot())
        let voice = try #require(try decoder.openSlot())
        defer {
            stages.closeSlot(slot)
            decoder.closeSlot(voice)
        }
        let rows = prompt(11)
        var prompts: [CUDAStages.PromptPart] = []
        for start in stride(from: 0, to: rows.count, by: promptPiece) {
            let end = min(start + promptPiece, rows.count)
            try stages.prefill(prompts)
            prompts = [
                .init(
                    slot: slot, rows: Array(rows[start..<end]), isLast: end == rows.count, textPositions: 2..<rows.count
                )
            ]
        }
        let own: UInt64 = 12
        func entry(_ slot: Int, _ frame: Int, seed: UInt64) -> CUDAStages.Entry {
            .init(
                slot: slot, frame: frame, sampled: frame, text: 5 + Int32(frame), seed: seed, rules: rules(stages),
                textPositions: 2..<(seed == own ? rows.count + frame % 3 : 4))
        }
        var companions: [(slot: Int, voice: Int, since: Int)] = []
        defer {
            for companion in companions {
                stages.closeSlot(companion.slot)
                decoder.closeSlot(companion.voice)
            }
        }
        var pending: [Int32] = []
        for frame in 0..<frames {
            // Before odd frames all come, before even ones one goes.
            if frame % 2 == 1, let gone = companions.popLast() {
                stages.closeSlot(gone.slot)
                decoder.closeSlot(gone.voice)
            }
            while frame % 2 == 0, companions.count < others {
                let slot = try #require(try stages.openSlot())
                companions.append((slot, try #require(try decoder.openSlot()), frame))
                let rows = prompt(3 + companions.count, first: 40)
                prompts.insert(.init(slot: slot, rows: rows, isLast: true), at: prompts.count / 2)
            }
            try stages.prefill(prompts)
            prompts = []
            let speakers = companions.filter { $0.since < frame }.map { entry($0.slot, frame, seed: 99) }
            let session = frame > 0 ? [entry(slot, frame, seed: own)] : []
            try stages.step(frame % 2 == 0 ? session + speakers : speakers + session)
            let all = companions.map { entry($0.slot, frame, seed: 99) } + [entry(slot, frame, seed: own)]
            let codes = try stages.frame(all)
            speech.codes.append(codes[codes.count - 1])
            speech.looks += try stages.looks([slot])
            pending += codes[codes.count - 1]
            if (frame + 1) % packet == 0 || frame + 1 == frames {
                let packets = companions.enumerated().map { (slot: $1.voice, codes: codes[$0]) }
                speech.samples += try decoder.decode([(voice, pending)] + packets)[0]
                pending = []
            }
        }
        speech.hidden = try stages.hiddenState(slot)
        return speech
    }

    @Test func aSessionHasTheSameBitsInAnyCompany() throws {
        let stages = try Self.load(EmulatedCard())
        let alone = try Self.speak(stages)
        #expect(alone.samples.count == Self.frames * stages.configuration.codec.samplesPerFrame)
        #expect(Set(alone.looks).count > 1 && alone.looks.allSatisfy((2..<15).contains))
        #expect(alone.samples.contains { $0 != 0 } && alone.samples.allSatisfy { abs($0) <= 1 })
        #expect(try Self.speak(stages, persistent: false, packet: 2, promptPiece: 4) == alone)
        #expect(try Self.speak(stages, others: 3, packet: 3) == alone)
    }

    /// Another order shows a race as other bits.
    @Test func neitherOrderNorSizeOfTheCardChangesABit() throws {
        let inOrder = try Self.speak(try Self.load(EmulatedCard()), others: 1)
        let disordered = try Self.load(EmulatedCard(multiprocessors: 2, seed: 4711))
        #expect(try Self.speak(disordered) == inOrder)
        #expect(try Self.speak(disordered, persistent: false, others: 1, promptPiece: 3) == inOrder)
    }

    @Test func tooLittleMemoryForTheModelIsSaidBeforeLoading() {
        let card = EmulatedCard(memory: 300 << 20)
        let error = #expect(throws: CUDAError.self) { try Self.load(card) }
        guard case .outOfMemory(let needed, let free, "the model") = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(needed > 1 << 30 && free == 300 << 20)
        #expect(error?.description.contains("300 MiB are free") == true)
        #expect(card.launches == 0)
    }

    @Test func aSessionWithoutMemoryForItsCacheLeavesTheOthersAlone() throws {
        let card = EmulatedCard()
        let stages = try Self.load(card)
        let reference = try Self.speak(stages)
        // Pages of the first speech are free again: they are taken, and one more.
        let (first, second) = (try #require(try stages.openSlot()), try #require(try stages.openSlot()))
        try stages.reserve(first, rows: 64)
        let free = stages.device.freeMemory
        card.setMemory((8 << 30) - free)
        let error = #expect(throws: CUDAError.self) { try stages.reserve(second, rows: 1) }
        #expect(error == .outOfMemory(needed: stages.talker.pageBytes, free: 0, what: "KV cache"))
        #expect(error?.isSticky == false)
        // The page of the one that ends is the next one's.
        stages.closeSlot(first)
        stages.closeSlot(second)
        #expect(try Self.speak(stages) == reference)
    }

    @Test func aLostContextIsSaidAndANewOneWorks() throws {
        let card = EmulatedCard()
        var stages: CUDAStages? = try Self.load(card)
        let reference = try Self.speak(try #require(stages))
        card.failLaunch(after: 9, code: 700)
        let error = #expect(throws: CUDAError.self) { try Self.speak(try #require(stages)) }
        #expect(error?.isSticky == true)
        #expect(error?.description.contains("CUDA_ERROR_ILLEGAL_ADDRESS") == true)
        let next = #expect(throws: CUDAError.self) { try Self.speak(try #require(stages)) }
        #expect(next?.isSticky == true, "the context stays lost")
        stages = nil
        #expect(try Self.speak(try Self.load(card)) == reference)
    }

    /// All that the other tests rest on: the emulator sees what a kernel must not do.
    @Test func aKernelThatWritesOutsideIsNamed() throws {
        for (bytes, count) in [(4096, 1025), (1000, 251)] {
            let card = EmulatedCard()
            let device = try CUDADevice(index: card.index, driver: EmulatedCard.driver)
            let buffer = try DeviceBuffer(device, bytes: bytes, "test")
            var noise = mk_noise_arguments()
            noise.output = buffer.address
            noise.count = Int64(count)
            noise.amplitude = 1
            noise.type = Int32(MK_F32)
            try device.launch("fill_noise", grid: (2, 1), noise)
            let error = #expect(throws: CUDAError.self) { try device.wait() }
            #expect(error?.isSticky == true)
            #expect(error?.description.contains("fill_noise") == true, "\(String(describing: error))")
            #expect(error?.description.contains("behind an allocation of \(bytes) bytes") == true)
        }
    }
}
