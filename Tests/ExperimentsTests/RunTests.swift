import Foundation
import Qwen3TTS
import SpeechEngine
import TestSupport
import Tensors
import Testing

@testable import Experiments

/// Experiments on a small model: what they report is what the engine did.
@Suite struct RunTests {
    private func model(_ fixture: Fixture = .customVoice) throws -> SpeechModel {
        try SpeechModel(directory: fixture.directory, compute: Compute(threads: 2))
    }

    private func sampling(frames: Int) -> SamplingOptions {
        var options = SamplingOptions()
        options.maxNewTokens = frames + 1
        return options
    }

    private func withFolder<Value>(_ body: (String) async throws -> Value) async throws -> Value {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString).path
        defer { try? FileManager.default.removeItem(atPath: folder) }
        return try await body(folder)
    }

    @Test func dumpsAreReadBackAndReplayed() async throws {
        let model = try model()
        try await withFolder { folder in
            var runs = CodeRuns(text: TextSet.builtInTexts[0])
            runs.sampling = sampling(frames: 9)
            runs.count = 3
            runs.packet = 2
            let report = try await runs.make(SpeechEngine(model: model), folder: folder)
            #expect(report.hashUnique == 1 && report.samplesHashUnique == 1)
            #expect(report.failCount == 0 && report.metaMissing == 0)
            try report.write(to: folder + "/manifest.json")
            #expect(try CodeRuns.Report.read(from: folder + "/manifest.json") == report)
            let records = try report.runs.map { try CodeRecord.read(tag: $0.tag, from: folder) }
            #expect(try CodesComparison(records, packet: 2).hashUnique == 1)
            let meta = try #require(records[0].meta)
            #expect(meta.codesHash == codesHash(records[0].codes))
            #expect(meta.outOfRange == 0 && meta.frames == records[0].frames)
            for (packet, mode) in [(1, DecoderMode.incremental), (4, .incremental), (3, .windowed(leftContext: 99))] {
                var options = EngineOptions()
                options.decoding = mode
                let (replay, _) = try CodesReplay.make(model, records[0], packet: packet, options: options)
                #expect(replay.isComplete && replay.zeroCalls == 0)
                #expect(replay.samplesHash == meta.samplesHash)
                #expect(replay.maxDifference == 0)
            }
        }
    }

    @Test func generationAloneGivesTheSameCodes() async throws {
        let model = try model()
        let request = try model.experimentRequest(
            TextSet.builtInTexts[0], ExperimentVoice(), sampling: sampling(frames: 8))
        let run = try await EngineRun.make(SpeechEngine(model: model), request, packet: 3)
        let alone = try await CodesOnlyRun.make(model, request, packet: 3)
        #expect(alone.hash == run.summary.fingerprint.codes)
        #expect(alone.frames == run.frames)
        #expect(run.packets.reduce(0, +) == run.frames)
        #expect(run.samples.count == run.frames * model.samplesPerFrame)
    }

    /// The instruments find a disturbance exactly where it was put.
    @Test(arguments: [(0, 0), (3, 0), (2, 1), (5, 15), (7, 8)])
    func injectedDriftIsFound(frame: Int, codebook: Int) async throws {
        let model = try model()
        try await withFolder { folder in
            var runs = CodeRuns(text: TextSet.builtInTexts[0])
            runs.sampling = sampling(frames: 9)
            runs.count = 2
            runs.choices = TopChoicesOptions()
            for suffix in ["", ":tiny"] {
                runs.drift = try InjectedDrift("\(frame):\(codebook)\(suffix)")
                let report = try await runs.make(SpeechEngine(model: model), folder: folder)
                let tags = report.runs.map(\.tag)
                let records = try tags.map { try CodeRecord.read(tag: $0, from: folder) }
                let codes = try CodesComparison(records, packet: 2)
                let choices = try tags.map { try TopChoices.read(from: "\(folder)/topk_\($0).json") }
                let difference = choices[0].difference(from: choices[1])
                #expect(difference.firstLogit?.frame == frame && difference.firstLogit?.codebook == codebook)
                if suffix.isEmpty {
                    #expect(codes.firstDiffFrame == frame && codes.firstDiffCodebook == codebook)
                } else {
                    #expect(codes.hashUnique == 1)
                }
            }
        }
    }

    @Test func regressionAgainstItself() async throws {
        let model = try model()
        try await withFolder { folder in
            var suite = RegressionSuite(texts: TextSet.builtInTexts, voices: TextSet.builtInVoices)
            suite.sampling = sampling(frames: 8)
            suite.gates.firstAudioMs = nil
            let engine = SpeechEngine(model: model)
            let (first, _) = try await suite.run(.engine(engine), root: folder, name: "one")
            #expect(first.pass, "\(first.cases.flatMap(\.failures))")
            suite.baseline = folder + "/latest"
            let (second, _) = try await suite.run(.engine(engine), root: folder, name: "two")
            #expect(second.pass && second.cases.allSatisfy { $0.isSameAsBaseline == true })
            suite.baseline = folder + "/one"
            suite.sampling.seed = 5
            let (third, _) = try await suite.run(.engine(engine), root: folder, name: "three")
            #expect(!third.pass)
            #expect(try FileManager.default.destinationOfSymbolicLink(atPath: folder + "/latest") == "three")
        }
    }

    @Test func cancelsLeaveNothing() async throws {
        let model = try model()
        let result = try await CancelStress.run(
            SpeechEngine(model: model), text: TextSet.builtInTexts[0], sampling: sampling(frames: 12), rounds: 15,
            packet: 1)
        #expect(result.pass)
        #expect(result.cancelled + result.endedBefore == 15)
        #expect(result.witnesses == 2)
    }

    @Test(arguments: [Fixture.customVoice, .base])
    func benchCountsWhatTheStagesRead(_ fixture: Fixture) throws {
        let model = try model(fixture)
        var options = BenchOptions()
        options.frames = 3
        options.warmUp = 1
        options.packet = 2
        options.firstAudioRuns = 1
        options.machine = MachineSpeed(bytesPerSecond: 1e10, multiplyAddsPerSecond: 1e11)
        let report = try StageBench.run(model, options: options)
        #expect(report.stages.map(\.name) == ["talker", "predictor", "decoder"])
        #expect(report.stages.allSatisfy { $0.ms > 0 && $0.floorMs > 0 })
        // The decoder knows its own weights and operations, but for the few of its depthwise convolutions; its panels
        // are padded to 16 outputs.
        let operations = Double(report.stages[2].operations) / Double(2 * model.decoder.multiplyAdds)
        #expect((1..<1.02).contains(operations), "\(operations)")
        #expect(report.stages[2].weightBytes * 2 <= model.decoder.weightBytes)
        #expect(report.prefillRows > 3)
    }

    @Test(arguments: [Fixture.customVoice, .base])
    func fixturesLackNothing(_ fixture: Fixture) throws {
        let inspection = try ModelInspection(folder: fixture.directory)
        #expect(inspection.isUsable, "\(inspection.problems) \(inspection.files.flatMap { $0.missing + $0.odd })")
        #expect(inspection.files.count == 2)
        // The reference's file has what only its training used: input projections and the codebooks beyond 16.
        for file in inspection.files { #expect(file.unused.allSatisfy { $0.contains("quantizer") }, "\(file.unused)") }
    }

    @Test func aTextIsFoundByItsId() throws {
        #expect(try TextSet.text("long_03", in: TextSet.texts(nil)).id == "long_03")
        #expect(throws: ExperimentError.self) { try TextSet.text("long_99", in: TextSet.texts(nil)) }
        #expect(Set(TextSet.builtInTexts.map(\.id)).count == TextSet.builtInTexts.count)
    }
}

/// What a model needs, before it is loaded.
@Suite struct MemoryNeedTests {
    @Test func weightsAndSessionsAreCounted() throws {
        let folder = Fixture.customVoice.directory
        let all = try MemoryNeed(folder: folder, format: .bf16, stages: .all, sessions: 3)
        let codes = try MemoryNeed(folder: folder, format: .bf16, stages: .generation, sessions: 3)
        let small = try MemoryNeed(folder: folder, format: .q8, stages: .generation, sessions: 3)
        let inspection = try ModelInspection(folder: folder)
        #expect(codes.weights == inspection.weightBytesPerFrame["bf16"])
        #expect(small.weights == inspection.weightBytesPerFrame["q8"])
        #expect(all.weights > codes.weights)
        #expect(all.bytesPerSession == 250 * inspection.cacheBytesPerFrame)
        #expect(all.total == all.weights + 3 * all.bytesPerSession)
    }

    @Test func tooLittleIsRefusedWithBothFigures() {
        let need = MemoryNeed(weights: 3_000_000_000, sessions: 2, bytesPerSession: 250_000_000)
        #expect(need.problem(free: 3_500_000_000) == nil)
        #expect(need.problem(free: nil) == nil)
        let problem = need.problem(free: 3_499_999_999) ?? ""
        #expect(problem.contains("3.50 GB of memory are needed") && problem.contains("3.50 GB are free"))
        #expect(problem.contains("--force"))
    }
}
