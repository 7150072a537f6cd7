import Qwen3TTS
import SpeechEngine
import Tensors

/// The runs of one arm on one text, while they are made.
final class RunbookSeries {
    let arm: RunbookProcedure.Arm
    let text: ExperimentText
    /// Codes of each run, in order.
    private(set) var records: [CodeRecord] = []
    /// Where the logits of the first run and a later one part; nil where none were recorded.
    private(set) var logitDifference: TopChoices.Difference?
    /// What came of the samples; nil where that is not read.
    private(set) var samples: RunbookVerdict.SampleCount?
    /// Why it could not go on.
    private(set) var problem: String?

    private let procedure: RunbookProcedure
    private let runner: RunbookRunner
    private let model: SpeechModel
    private let setup: RunbookSetup
    private let tagPrefix: String
    private var engine: SpeechEngine?
    private var notes: [String]
    private var runs: [RunbookReport.Run] = []
    private var choices: [TopChoices] = []
    private var traces: [DecodeTrace] = []
    private var decodeTimes: [Double] = []
    private var frameTimes: [Double] = []
    /// What `replay` decodes.
    private var fixedCodes: CodeRecord?

    init(
        _ arm: RunbookProcedure.Arm, of procedure: RunbookProcedure, text: ExperimentText, runner: RunbookRunner,
        others: [CUDAHost], model: SpeechModel
    ) {
        self.arm = arm
        self.procedure = procedure
        self.text = text
        self.runner = runner
        self.model = model
        setup = RunbookSetup(arm.switches, base: runner.engine, others: others, model: model)
        notes = setup.notes
        let words = arm.name.lowercased().map { $0.isLetter || $0.isNumber ? String($0) : "-" }.joined()
        tagPrefix = [procedure.id, words, text.id].joined(separator: "_")
    }

    /// Codec frames of a packet.
    var packet: Int { setup.packet }

    /// Whether the last run is disturbed; a replay makes no codes.
    private var isDisturbed: Bool { runner.drift != nil && arm.work != .replay }

    /// Sets the switches on an engine of its own and warms up.
    private func prepare() async throws(ExperimentError) {
        let engine = SpeechEngine(model: model, options: setup.engine)
        self.engine = engine
        notes += engine.notes
        for _ in 0..<runner.warmUp where arm.work == .speak {
            _ = try await EngineRun.make(engine, request(), packet: packet)
        }
        if arm.work == .replay {
            let run = try await EngineRun.make(engine, request(), packet: packet)
            fixedCodes = CodeRecord(tag: "\(tagPrefix)_codes", codes: run.codes, groups: run.groups)
        }
    }

    /// Makes one run, the first one after a warm-up; the last one is disturbed if that is asked for. Does nothing after a
    /// failure, which is told in the report.
    func makeRun(_ index: Int, of count: Int, progress: (String) -> Void) async {
        guard problem == nil else { return }
        do throws(ExperimentError) {
            if engine == nil { try await prepare() }
            try await makeRun(index, isLast: index == count - 1, progress: progress)
        } catch {
            problem = error.description
        }
    }

    private func makeRun(_ index: Int, isLast: Bool, progress: (String) -> Void) async throws(ExperimentError) {
        let tag = "\(tagPrefix)_\(index + 1)"
        var request = try request()
        let tap = try logitTap(isLast && isDisturbed ? runner.drift : nil, setup.choices, of: model)
        request.logitTap = tap
        switch arm.work {
        case .speak: try await speak(tag, request)
        case .codesOnly: try await generate(tag, request)
        case .replay: try replay(tag)
        }
        if let tap, setup.choices != nil { compare(TopChoices(tag: tag, steps: tap.choices)) }
        if let run = runs.last {
            let first = run.firstAudioMs.map { "\(fixed($0, 1)) ms" } ?? "-"
            progress("\(tag)  ttfa \(first)  \(run.frames) frames  \(run.hash.prefix(16))")
        }
    }

    /// Lets the engine go.
    func close() { engine = nil }

    private func request() throws(ExperimentError) -> SpeechRequest {
        try model.experimentRequest(
            text, runner.voice, sampling: runner.sampling, rules: runner.rules)
    }

    private func speak(_ tag: String, _ request: SpeechRequest) async throws(ExperimentError) {
        guard let engine else { return }
        let run = try await EngineRun.make(engine, request, packet: packet)
        let record = CodeRecord(
            tag: tag, run, of: model, identity: try? model.identity, text: text, voice: runner.voice, packet: packet,
            switches: switches)
        if let folder = runner.folder { try record.write(to: folder) }
        records.append(record)
        let summary = run.summary
        traces.append(summary.trace)
        count(
            total: run.samples.count, expected: run.frames * model.samplesPerFrame,
            badLengths: zip(run.packets, run.sampleCounts).count { $0 * model.samplesPerFrame != $1 })
        runs.append(
            RunbookReport.Run(
                tag: tag, isGood: run.isGood, firstAudioMs: run.firstAudioMs, totalMs: 1000 * summary.elapsed,
                codeMs: run.codeMs, decodeFirstMs: run.decodeFirstMs, realTimeFactor: summary.realTimeFactor,
                frames: run.frames, hash: summary.fingerprint.codes, firstPacketHash: run.firstPacketHash(packet),
                samplesHash: summary.fingerprint.pcm,
                packets: run.packets.indices.map { index in
                    let times = run.times[index]
                    return RunbookReport.Packet(
                        frames: run.packets[index],
                        generation: [1000 * times.generationStart, 1000 * times.generationEnd],
                        decoding: [1000 * times.decodeStart, 1000 * times.decodeEnd],
                        convolutions: 1000 * times.convolutionsStart,
                        convolvesAlone: setup.engine.syncMode == .phase, arrival: 1000 * run.arrivals[index])
                }))
    }

    private func generate(_ tag: String, _ request: SpeechRequest) async throws(ExperimentError) {
        let (run, codes) = try await CodesOnlyRun.generate(model, request, packet: packet, options: setup.engine)
        records.append(CodeRecord(tag: tag, codes: codes, groups: model.codeGroups))
        frameTimes.append(run.frameMs.p50)
        runs.append(
            RunbookReport.Run(
                tag: tag, isGood: run.frames > 0, firstAudioMs: run.firstPacketMs, totalMs: run.totalMs,
                codeMs: run.totalMs, decodeFirstMs: nil,
                realTimeFactor: run.totalMs / 1000 / (Double(max(run.frames, 1)) * model.secondsPerFrame),
                frames: run.frames, hash: run.hash,
                firstPacketHash: codesHash(codes.prefix(packet * model.codeGroups)), samplesHash: nil,
                packets: []))
    }

    private func replay(_ tag: String) throws(ExperimentError) {
        guard let fixedCodes else { return }
        let (run, _) = try CodesReplay.make(model, fixedCodes, packet: packet, options: setup.engine)
        records.append(CodeRecord(tag: tag, codes: fixedCodes.codes, groups: fixedCodes.groups))
        decodeTimes.append(run.decodeMs.p50)
        count(
            total: run.samplesTotal, expected: run.samplesExpected, badLengths: run.badLengthCalls,
            zeros: run.zeroCalls)
        let total = run.decodeMs.p50 * Double(run.calls)
        runs.append(
            RunbookReport.Run(
                tag: tag, isGood: run.isComplete, firstAudioMs: nil, totalMs: total, codeMs: nil, decodeFirstMs: nil,
                realTimeFactor: nil, frames: fixedCodes.frames, hash: codesHash(fixedCodes.codes),
                firstPacketHash: codesHash(fixedCodes.codes.prefix(packet * fixedCodes.groups)),
                samplesHash: run.samplesHash, packets: []))
    }

    private func count(total: Int, expected: Int, badLengths: Int, zeros: Int = 0) {
        var sum = samples ?? RunbookVerdict.SampleCount()
        sum.total += total
        sum.expected += expected
        sum.badLengthCalls += badLengths
        sum.zeroCalls += zeros
        samples = sum
    }

    /// Keeps the earliest difference from the first run.
    private func compare(_ next: TopChoices) {
        choices.append(next)
        guard choices.count > 1 else { return }
        let difference = choices[0].difference(from: next)
        if logitDifference?.firstLogit == nil { logitDifference = difference }
    }

    private var switches: [String: String] {
        arm.switches.reduce(into: [:]) { all, one in
            all[one.name] = one.value
            if case .windowed = one { all["TTS_DEEP_STREAM_DECODE_MODE"] = "windowed" }
        }
    }

    // MARK: What is read

    func report() -> RunbookReport.Arm {
        let comparison = try? CodesComparison(records, packet: packet)
        return RunbookReport.Arm(
            name: arm.name, work: arm.work.rawValue, textID: text.id, packet: packet, switches: switches, notes: notes,
            problem: problem, isDisturbed: isDisturbed, runs: runs,
            firstAudio: distribution(runs.compactMap(\.firstAudioMs)),
            realTimeFactor: distribution(runs.compactMap(\.realTimeFactor)),
            hashUnique: Set(runs.map(\.hash)).count, firstPacketHashUnique: Set(runs.map(\.firstPacketHash)).count,
            samplesHashUnique: Set(runs.compactMap(\.samplesHash)).count,
            firstDiffFrame: comparison?.firstDiffFrame ?? -1, firstDiffCodebook: comparison?.firstDiffCodebook ?? -1,
            failCount: runs.count { !$0.isGood }, readings: procedure.reads.flatMap { readings($0) },
            before: arm.before)
    }

    private func distribution(_ values: [Double]) -> CodeRuns.Distribution? {
        values.isEmpty ? nil : CodeRuns.Distribution(values)
    }

    private func readings(_ reading: RunbookProcedure.Reading) -> [RunbookReport.Reading] {
        func one(_ name: String, _ value: String) -> RunbookReport.Reading { .init(name: name, value: value) }
        switch reading {
        case .stages:
            return [
                one("code_ms", fixed(percentile(runs.compactMap(\.codeMs), 0.5), 1)),
                one("decode_first_ms", fixed(percentile(runs.compactMap(\.decodeFirstMs), 0.5), 1)),
            ]
        case .packetTrace:
            guard let last = traces.last else { return [] }
            return [
                one("queue_wait_ms", fixed(percentile(traces.map { 1000 * $0.queueWait }, 0.5), 2)),
                one("decode_calls", "\(last.decodeCalls)"), one("codes_frames_max", "\(last.codesFramesMax)"),
                one("pcm_samples_total", "\(last.pcmSamplesTotal)"), one("pcm_samples_max", "\(last.pcmSamplesMax)"),
            ]
        case .longestGap:
            let gaps = runs.flatMap { run in zip(run.packets, run.packets.dropFirst()).map { $1.arrival - $0.arrival } }
            return gaps.isEmpty
                ? []
                : [
                    one("packet_gap_ms_p50", fixed(percentile(gaps, 0.5), 1)),
                    one("packet_gap_ms_max", fixed(gaps.max() ?? 0, 1)),
                ]
        case .overlap:
            guard arm.work == .speak else { return [] }
            return [one("overlap_ms_p50", fixed(percentile(runs.map(\.overlapMs), 0.5), 1))]
        case .samples:
            guard let samples else { return [] }
            var all = [
                one("samples_total", "\(samples.total)"), one("samples_expected", "\(samples.expected)"),
                one("bad_len_calls", "\(samples.badLengthCalls)"),
            ]
            if arm.work == .replay {
                all.append(one("zero_calls", "\(samples.zeroCalls)"))
                all.append(one("decode_ms_p50", fixed(percentile(decodeTimes, 0.5), 2)))
            }
            return all
        case .generation:
            guard arm.work == .codesOnly else { return [] }
            return [
                one("first_packet_ms", fixed(percentile(runs.compactMap(\.firstAudioMs), 0.5), 1)),
                one("total_ms", fixed(percentile(runs.map(\.totalMs), 0.5), 1)),
                one("frame_ms_p50", fixed(percentile(frameTimes, 0.5), 2)),
            ]
        case .firstLogitStep:
            guard let logitDifference else { return [] }
            func place(_ place: TopChoices.Place?) -> String { place.map { "\($0.frame):\($0.codebook)" } ?? "-1" }
            return [
                one("steps_compared", "\(logitDifference.compared)"),
                one("first_choice_diff", place(logitDifference.firstChoice)),
                one("first_logit_diff", place(logitDifference.firstLogit)),
            ]
        case .backEnd:
            let machine = RunbookRunner.machine(model, engine: setup.engine)
            let engine = setup.engine.description(of: model)
            return [
                one("device", machine.device), one("processor", machine.processor),
                one("instruction_set", machine.instructionSet), one("threads", "\(machine.threads)"),
                one("weights", machine.weights), one("generation", engine.generation.arithmetic),
                one("decoding", engine.decoding.arithmetic), one("TF32", "none"),
                one("generation_launches", engine.generation.launches ?? "none: the CPU computes"),
                one("decoding_launches", engine.decoding.launches ?? "none: the CPU computes"),
            ]
        }
    }
}

extension RunbookReport.Run {
    /// Milliseconds in which codes were generated while packets were decoded.
    public var overlapMs: Double { packets.overlaps.reduce(0) { $0 + $1[1] - $1[0] } }
}

extension [RunbookReport.Packet] {
    /// Spans of milliseconds in which one packet was generated while another was decoded.
    var overlaps: [[Double]] {
        flatMap { packet -> [[Double]] in
            guard let decoding = packet.decoding else { return [] }
            let end = packet.convolvesAlone ? packet.convolutions ?? decoding[1] : decoding[1]
            return compactMap(\.generation).compactMap { generation in
                let span = [Swift.max(generation[0], decoding[0]), Swift.min(generation[1], end)]
                return span[0] < span[1] ? span : nil
            }
        }
    }
}
