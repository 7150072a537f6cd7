import Foundation
import Qwen3TTS
import SpeechEngine
import TestSupport
import Tensors
import Testing

@testable import Experiments

/// The runbook's procedures on a small model: they pass, and they name a disturbance exactly where it was put.
@Suite struct RunbookTests {
    private func runner(frames: Int, count: Int) -> RunbookRunner {
        var runner = RunbookRunner()
        runner.sampling.maxNewTokens = frames + 1
        runner.count = count
        runner.warmUp = 0
        runner.textID = "short_01"
        return runner
    }

    private func run(_ id: String, _ runner: RunbookRunner) async throws -> RunbookReport.Procedure {
        let model = try SpeechModel(directory: Fixture.customVoice.directory, compute: Compute(threads: 2))
        return try await runner.run(#require(RunbookProcedure.named([id]).first), on: model)
    }

    @Test(arguments: ["q31", "q32", "q35", "q37", "q37.1", "q39", "q39b", "q40", "q41", "q42", "q43"])
    func procedurePasses(id: String) async throws {
        let result = try await run(id, runner(frames: 5, count: 2))
        #expect(result.outcome == .pass, "\(result.findings)")
        #expect(result.arms.allSatisfy { $0.runs.count == 2 && $0.hashUnique == 1 && $0.firstDiffFrame == -1 })
        #expect(result.pictures.isEmpty)
        #expect(Set(result.matrix.map(\.whole)).count == 1)
    }

    /// On a card the arms decode with the precision that they name, and codes are the same.
    @Test func precisionArmsOnACard() async throws {
        let model = try SpeechModel(
            directory: Fixture.customVoice.directory, compute: Compute(threads: 1), stages: .decoding)
        let host = try CUDAHost(
            directory: model.directory, device: EmulatedCard(multiprocessors: 2).index, slots: 2, precision: .exact,
            driver: EmulatedCard.driver)
        var runner = runner(frames: 2, count: 1)
        (runner.engine.generationGPU, runner.engine.decodingGPU) = (host, host)
        let arms = try await runner.run(#require(RunbookProcedure.named(["q35"]).first), on: model).arms
        #expect(arms.count == 4 && arms.allSatisfy { $0.problem == nil && $0.hashUnique == 1 })
        #expect(Set(arms.flatMap(\.runs).map(\.hash)).count == 1)
        let samples = arms.map { $0.runs.first?.samplesHash }
        #expect(samples[0] == samples[1] && samples[2] == samples[3] && samples[0] != samples[2])
        let notes = arms.map { $0.notes.joined(separator: "\n") }
        #expect(notes[0].contains("DECODER_FP32=0: decoding on \(host.name) has float16 weights"))
        #expect(notes[2].contains("DECODER_FP32=1: decoding on \(host.name) has weights and activations of two"))
        #expect(notes[1].contains("CODEGEN_FP32=1 has no effect on this engine: generation on \(host.name) has bf16"))
    }

    @Test(arguments: [(0, 0), (2, 5), (3, 15)])
    func injectedDriftFailsAndIsNamed(frame: Int, codebook: Int) async throws {
        var runner = runner(frames: 5, count: 2)
        runner.drift = try InjectedDrift("\(frame):\(codebook)")
        let result = try await run("accept", runner)
        #expect(result.outcome == .fail)
        for arm in result.arms {
            #expect(arm.hashUnique == 2 && arm.firstDiffFrame == frame && arm.firstDiffCodebook == codebook)
        }
        let reasons = result.findings.filter { $0.outcome == .fail }.map(\.reason)
        #expect(reasons.contains { $0.contains("drift from frame \(frame), codebook \(codebook)") }, "\(reasons)")
        let picture = try #require(result.pictures.first)
        #expect(picture.firstFrame == frame && picture.firstCodebook == codebook)
        #expect(picture.rows.first?.frame == frame && picture.rows.first?.codebooks.first == codebook)
    }

    @Test(arguments: [(1, 0), (4, 9)])
    func tinyDriftIsSeenInTheLogits(frame: Int, codebook: Int) async throws {
        var runner = runner(frames: 5, count: 2)
        runner.drift = try InjectedDrift("\(frame):\(codebook):tiny")
        let result = try await run("q36", runner)
        #expect(result.outcome == .fail)
        #expect(result.arms.allSatisfy { $0.hashUnique == 1 })
        let reasons = result.findings.filter { $0.outcome == .fail }.map(\.reason)
        #expect(
            reasons.contains { $0.contains("logits part at frame \(frame), codebook \(codebook); no choice") },
            "\(reasons)")
    }

    @Test func driftBehindTheEndIsNotFoundAndSaysSo() async throws {
        var runner = runner(frames: 4, count: 2)
        runner.drift = try InjectedDrift("9:0")
        let result = try await run("q31", runner)
        #expect(result.findings.contains { $0.reason.contains("lies behind the end") })
    }

    /// Tags that are open when the text ends, or where it is not well-formed; a page has no element without its end.
    private func misnesting(_ html: String) -> [String] {
        var open: [String] = []
        for part in html.split(separator: "<").dropFirst() {
            guard let end = part.firstIndex(of: ">") else { return ["<\(part)"] }
            let tag = part[..<end]
            let name = String(tag.prefix { !" /".contains($0) })
            if tag.hasPrefix("!") || tag.hasSuffix("/") { continue }
            if tag.hasPrefix("/") {
                guard open.popLast() == String(tag.dropFirst()) else { return ["</\(tag.dropFirst())> in \(open)"] }
            } else {
                open.append(name)
            }
        }
        return open
    }

    @Test func reportIsWholeAndNeedsNothingElse() async throws {
        var runner = runner(frames: 4, count: 3)
        runner.drift = try InjectedDrift("1:3")
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString).path
        defer { try? FileManager.default.removeItem(atPath: folder) }
        runner.folder = folder + "/codes"
        let model = try SpeechModel(directory: Fixture.customVoice.directory, compute: Compute(threads: 2))
        var report = RunbookReport(machine: RunbookRunner.machine(model), injectedDrift: "1:3 <&\">")
        for id in ["q43", "phase"] {
            report.procedures.append(try await run(id, runner))
        }
        try report.write(to: folder, firstAudioLimit: 350)
        #expect(try RunbookReport.read(from: folder + "/runbook.json") == report)
        let html = try String(contentsOfFile: folder + "/report.html", encoding: .utf8)
        #expect(html.hasPrefix("<!DOCTYPE html>"))
        #expect(misnesting(html).isEmpty, "\(misnesting(html))")
        #expect(html.contains("1:3 &lt;&amp;&quot;&gt;"))
        for reference in ["http:", "https:", "<script", "<link", "<img", "@import", "url(", "src=", "//"] {
            #expect(!html.contains(reference), "\(reference)")
        }
        #expect(html.components(separatedBy: "<svg").count > 4)
        #expect(html.contains("prefers-color-scheme: dark") && html.contains("width=device-width"))
        #expect(html.contains("first: frame 1, codebook 3"))
        let dumped = try FileManager.default.contentsOfDirectory(atPath: folder + "/codes")
        #expect(dumped.count { $0.hasSuffix(".safetensors") } == 6)
    }
}

/// What the procedures are, and how figures are judged.
@Suite struct RunbookVerdictTests {
    @Test func everyProcedureOfTheRunbookIsThere() throws {
        let ids = "q31 q32 q33 q34 q35 q36 q37 q37.1 q38 q39 q39b phase q40 q41 q42 q43 accept".split(separator: " ")
            .map(String.init)
        #expect(RunbookProcedure.all.map(\.id) == ids)
        #expect(try RunbookProcedure.named(["all"]).count == ids.count)
        #expect(try RunbookProcedure.named(["Q37.1", "q31"]).map(\.id) == ["q37.1", "q31"])
        #expect(throws: ExperimentError.self) { try RunbookProcedure.named(["q44"]) }
        for procedure in RunbookProcedure.all {
            #expect(Set(procedure.arms.map(\.name)).count == procedure.arms.count)
            for id in procedure.texts { _ = try TextSet.text(id, in: TextSet.builtInTexts) }
        }
    }

    @Test(arguments: ["english", "chinese"])
    func textsAndVoicesSpeak(_ language: String) {
        let texts = TextSet.builtInTexts.filter { $0.language == language }
        for length in ["short", "medium", "long"] { #expect(texts.contains { $0.id.hasPrefix(length) }) }
        #expect(TextSet.builtInVoices.contains { ($0.language ?? language) == language && $0.instruct != nil })
    }

    private func arm(_ name: String, _ times: [Double], notes: [String] = []) -> RunbookReport.Arm {
        let runs = times.enumerated().map { index, time in
            RunbookReport.Run(
                tag: "\(name)_\(index)", isGood: true, firstAudioMs: time, totalMs: time, codeMs: nil,
                decodeFirstMs: nil,
                realTimeFactor: 1, frames: 4, hash: "a", firstPacketHash: "b", samplesHash: "c", packets: [])
        }
        return RunbookReport.Arm(
            name: name, work: "speak", textID: "long_03", packet: 4, switches: [:], notes: notes, problem: nil,
            isDisturbed: false,
            runs: runs, firstAudio: CodeRuns.Distribution(times), realTimeFactor: nil, hashUnique: 1,
            firstPacketHashUnique: 1, samplesHashUnique: 1, firstDiffFrame: -1, firstDiffCodebook: -1, failCount: 0,
            readings: [], before: nil)
    }

    private func judge(
        _ criterion: RunbookProcedure.Criterion, _ arms: [RunbookReport.Arm], limit: Double? = nil
    ) -> [RunbookReport.Outcome] {
        let procedure = RunbookProcedure(
            id: "x", question: "", arms: arms.map { .init(name: $0.name, switches: []) }, criteria: [criterion])
        let verdict = RunbookVerdict(
            procedure: procedure, arms: arms, matrix: [], pictures: [], firstAudioLimit: limit, drift: nil,
            logitSteps: [:], samples: [:])
        return verdict.findings().map(\.outcome)
    }

    private static let comparison = RunbookProcedure.Criterion.firstAudio(of: "phase", before: "event")

    @Test func firstAudioIsComparedTurnByTurn() {
        let event = (0..<10).map { 300 + Double($0) }
        func phase(_ times: [Double], notes: [String] = []) -> [RunbookReport.Outcome] {
            judge(Self.comparison, [arm("event", event), arm("phase", times, notes: notes)])
        }
        #expect(phase(event.map { $0 - 20 }) == [.pass])
        #expect(phase(event.map { $0 + 20 }) == [.fail])
        #expect(phase(event.enumerated().map { $1 + ($0 % 3 == 0 ? 5 : -5) }) == [.notJudged])
        #expect(phase(event.map { $0 + 20 }, notes: ["phase sync disabled: two processes"]) == [.notJudged])
        #expect(judge(Self.comparison, [arm("event", [300, 301]), arm("phase", [200, 201])]) == [.notJudged])
    }

    /// Of ten fair coins, nine or ten equal ones come about twice in a hundred throws, eight about one in nine.
    @Test(arguments: [(5, 5, true), (6, 6, false), (9, 10, false), (8, 10, true), (1, 10, false), (5, 10, true)])
    func chance(wins: Int, count: Int, isChance: Bool) {
        #expect(RunbookVerdict.isChance(wins, of: count) == isChance)
    }

    @Test func firstAudioIsJudgedByTheLimitOnly() {
        #expect(judge(.firstAudioWithinLimit, [arm("a", [300, 340])], limit: 350) == [.pass])
        #expect(judge(.firstAudioWithinLimit, [arm("a", [400, 440])], limit: 350) == [.fail])
        #expect(judge(.firstAudioWithinLimit, [arm("a", [900]), arm("b", [100])], limit: 350) == [.pass])
        #expect(judge(.firstAudioWithinLimit, [arm("a", [400])]) == [.notJudged])
    }

    @Test func outcomesAdd() {
        #expect(RunbookReport.Outcome([.pass, .notJudged]) == .pass)
        #expect(RunbookReport.Outcome([.pass, .fail]) == .fail)
        #expect(RunbookReport.Outcome([.notJudged]) == .notJudged)
        #expect(RunbookReport.Outcome([]) == .notJudged)
    }
}
