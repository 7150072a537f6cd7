import CCUDA
import Qwen3TTS
import TestSupport
import Testing

@testable import CUDABackend

/// The persistent kernels on the emulator: any number of sessions has the bits that one kernel an operation gives.
@Suite struct PersistentKernelTests {
    struct Frame: Equatable {
        var codes: [[Int32]] = []
        var predictorLogits: [[Float]] = []
        var hidden: [[Float]] = []
        var talkerLogits: [[Float]] = []
    }

    static func load(multiprocessors: Int, seed: UInt32 = 0) throws -> CUDAStages {
        try CUDAStages(
            directory: Fixture.customVoice.directory,
            device: EmulatedCard(multiprocessors: multiprocessors, seed: seed).index, slots: 20,
            driver: EmulatedCard.driver)
    }

    /// A frame and the step and frame after it.
    static func speak(_ stages: CUDAStages, sessions: Int, rows: (Int) -> Int, persistent: Bool) throws -> Frame {
        var rules = stages.configuration.generation
        rules.talker.samples = true
        rules.codePredictor.samples = true
        stages.usesPersistentKernels = true
        let slots = try (0..<sessions).map { _ in try #require(try stages.openSlot()) }
        defer { for slot in slots { stages.closeSlot(slot) } }
        for (place, slot) in slots.enumerated() {
            let prompt = (0..<rows(place)).map { row in
                CUDAStages.PromptRow(text: Int32(row * 7 % 90 + place), codes: [Int32((row + 3 * place) % 100)])
            }
            try stages.prefill(slot, prompt, isLast: true)
        }
        stages.usesPersistentKernels = persistent
        var result = Frame()
        for frame in 0..<2 {
            let batch = slots.enumerated().map { place, slot in
                CUDAStages.Entry(
                    slot: slot, frame: frame, sampled: frame, text: 5, seed: UInt64(place), rules: rules)
            }
            if frame > 0 { try stages.step(batch) }
            result.codes += try stages.frame(batch)
            result.predictorLogits += try stages.predictorLogits(batch: sessions)
            for slot in slots {
                result.hidden.append(try stages.hiddenState(slot))
                result.talkerLogits.append(try stages.talkerLogits(slot))
            }
        }
        return result
    }

    /// Teams of all blocks with one to eight rows in a pass, several teams, and teams of one block.
    @Test(arguments: [(1, 2), (2, 3), (3, 2), (4, 3), (5, 2), (6, 3), (7, 2), (8, 3), (9, 3), (17, 3)])
    func anyNumberOfSessions(sessions: Int, multiprocessors: Int) throws {
        let stages = try Self.load(multiprocessors: multiprocessors, seed: UInt32(sessions))
        let plan = try #require(stages.predictorPlan)
        #expect(plan.teamRows == Int(MK_TEAM_ROWS) && plan.sessions >= 16)
        // Lengths beside the border of a page.
        let rows = { (place: Int) in place == 1 ? 63 : place == 2 ? 64 : 2 + place % 3 }
        let together = try Self.speak(stages, sessions: sessions, rows: rows, persistent: true)
        #expect(together == (try Self.speak(stages, sessions: sessions, rows: rows, persistent: false)))
        #expect(together.hidden.allSatisfy { $0.allSatisfy(\.isFinite) })
    }

    /// Tags begin again before they run out.
    @Test func tagsBeginAgain() throws {
        let stages = try Self.load(multiprocessors: 2)
        let talker = try #require(stages.talkerPlan), predictor = try #require(stages.predictorPlan)
        let expected = try Self.speak(stages, sessions: 2, rows: { 62 + $0 }, persistent: true)
        talker.tag = .max - 50
        predictor.tag = .max - 300
        #expect(try Self.speak(stages, sessions: 2, rows: { 62 + $0 }, persistent: true) == expected)
        #expect(talker.tag < 1000 && predictor.tag < 1000)
    }
}
