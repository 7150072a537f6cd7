import Qwen3TTS
import Tensors

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Runs a model folder's reference outputs (`golden/`, as the test fixtures have them) through the GPU's stages.
public struct CUDASelfTest {
    /// One comparison.
    public struct Result: Sendable, CustomStringConvertible {
        /// What was compared.
        public let stage: String
        /// The largest error, or the number of differences.
        public let value: Double
        /// What is allowed.
        public let limit: Double
        /// Whether `value` is within `limit`.
        public var passed: Bool { value <= limit }
        /// One line.
        public var description: String { "\(passed ? "ok  " : "FAIL") \(stage): \(value) (limit \(limit))" }
    }

    private let directory: String
    private let configuration: Configuration
    private let device: Int
    private let wanted: [String]?
    private let frameLimit: Int
    private let report: (Result) -> Void
    private var results: [Result] = []
    private var width: Int { configuration.talker.shape.hidden }
    private var groups: Int { configuration.talker.codeGroups }

    /// Tests the stages on `cuda:device` with the goldens of a model folder.
    /// - Parameters:
    ///   - sessions: how many sessions run together in the batch tests.
    ///   - cases: names of the folder's cases to take; nil for all.
    ///   - frames: of each comparison of codes and samples, at most.
    ///   - driver: nil for the machine's.
    ///   - report: sees each result as it comes.
    public static func run(
        directory: String, device: Int = 0, sessions: Int = 9, cases: [String]? = nil, frames: Int = .max,
        driver: CUDADriver? = nil,
        report: @escaping (Result) -> Void = { _ in }
    ) throws -> [Result] {
        var test = CUDASelfTest(
            directory: directory, configuration: try Configuration.load(directory: directory), device: device,
            wanted: cases, frameLimit: frames, report: report)
        let stages = try CUDAStages(
            directory: directory, device: device, slots: max(16, sessions), precision: .exact, driver: driver)
        for name in try test.cases() {
            try test.talker(stages, name, persistent: false)
            try test.talker(stages, name, persistent: true)
            try test.predictor(stages, name)
            try test.freeRun(stages, name)
        }
        try test.sampler(stages)
        try test.batches(stages, sessions: sessions)
        // Tensor cores cut sums off where the CPU rounds.
        try test.codec(stages, limit: 1e-4)
        let half = try CUDAStages(
            directory: directory, device: device, slots: 4, precision: .half, driver: driver)
        try test.codec(half, limit: 0.05)
        return test.results
    }

    private mutating func note(_ stage: String, _ value: Double, limit: Double) {
        let result = Result(stage: stage, value: value.isNaN ? .infinity : value, limit: limit)
        results.append(result)
        report(result)
    }

    private func cases() throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: directory + "/golden")
            .filter { $0.hasPrefix("case_") && $0.hasSuffix(".safetensors") }.sorted()
            .map { String($0.dropFirst(5).dropLast(12)) }.filter { wanted?.contains($0) ?? true }
    }

    private func golden(_ name: String) throws -> SafetensorsFile {
        try SafetensorsFile(path: "\(directory)/golden/\(name).safetensors")
    }

    private func array(_ file: SafetensorsFile, _ name: String) throws -> [Float] {
        guard let view = file[name] else { throw TensorError.missing(name: name, path: file.path) }
        return try file.floats(name, shape: view.shape).array
    }

    private func difference(_ a: [Float], _ b: ArraySlice<Float>) -> Double {
        guard a.count == b.count else { return .infinity }
        var largest: Float = 0
        for (x, y) in zip(a, b) { largest = abs(x - y).isNaN ? .infinity : max(largest, abs(x - y)) }
        return Double(largest)
    }

    private var greedy: GenerationConfiguration {
        var rules = configuration.generation
        rules.talker.samples = false
        rules.codePredictor.samples = false
        rules.repetitionPenalty = 1
        return rules
    }

    private func entry(_ slot: Int, frame: Int = 0, seed: UInt64 = 0, _ rules: GenerationConfiguration)
        -> CUDAStages.Entry
    {
        .init(slot: slot, frame: frame, sampled: frame, text: configuration.textPad, seed: seed, rules: rules)
    }

    private func withSlot(_ stages: CUDAStages, _ body: (Int) throws -> Void) throws {
        guard let slot = try stages.openSlot() else { throw CUDAError.unsupportedModel("no slot is free") }
        defer { stages.closeSlot(slot) }
        try body(slot)
    }

    private func withDecoderSlot(_ decoder: CUDADecoder, _ body: (Int) throws -> Void) throws {
        guard let slot = try decoder.openSlot() else { throw CUDAError.unsupportedModel("no slot is free") }
        defer { decoder.closeSlot(slot) }
        try body(slot)
    }

    private mutating func talker(_ stages: CUDAStages, _ name: String, persistent: Bool) throws {
        let file = try golden("case_" + name)
        let prefill = try array(file, "prefill_embeds")
        let logits = try array(file, "talker_logits")
        let hidden = try array(file, "talker_hidden_rp1.00")
        let inputs = try array(file, "step_input_embeds")
        let vocabulary = configuration.talker.vocabularySize
        stages.usesPersistentKernels = persistent
        var (logitError, hiddenError) = (0.0, 0.0)
        try withSlot(stages) { slot in
            try stages.prefill(slot, values: prefill, isLast: true)
            for step in 0..<(logits.count / vocabulary) {
                if step > 0 {
                    try stages.step(
                        [entry(slot, greedy)], values: Array(inputs[((step - 1) * width)..<(step * width)]))
                }
                logitError = max(
                    logitError,
                    difference(
                        try stages.talkerLogits(slot), logits[(step * vocabulary)..<((step + 1) * vocabulary)]))
                hiddenError = max(
                    hiddenError,
                    difference(try stages.hiddenState(slot), hidden[(step * width)..<((step + 1) * width)]))
            }
        }
        let kind = persistent ? "talker, persistent" : "talker"
        note("\(kind) \(name): logits", logitError, limit: 3e-4)
        note("\(kind) \(name): hidden", hiddenError, limit: 1e-4)
    }

    private mutating func predictor(_ stages: CUDAStages, _ name: String) throws {
        let file = try golden("case_" + name)
        let expected = try array(file, "predictor_logits")
        let hidden = try array(file, "talker_hidden_rp1.00")
        let codes = try file.integers("codes_rp1.00").values.map { Int32($0) }
        let vocabulary = configuration.codePredictor.vocabularySize
        let frames = expected.count / (groups - 1) / vocabulary
        var together: [[Float]] = []
        var alone: [[Float]] = []
        for persistent in [false, true] {
            stages.usesPersistentKernels = persistent
            var slots: [Int] = []
            for frame in 0..<frames {
                guard let slot = try stages.openSlot() else { return }
                slots.append(slot)
                try stages.setHiddenState(slot, Array(hidden[(frame * width)..<((frame + 1) * width)]))
                try stages.setTalkerLogits(slot, Array(repeating: 0, count: configuration.talker.vocabularySize))
            }
            defer { for slot in slots { stages.closeSlot(slot) } }
            let batch = slots.map { entry($0, greedy) }
            if persistent {
                for frame in 0..<frames {
                    _ = try stages.frame(
                        [batch[frame]], forced: Array(codes[(frame * groups)..<((frame + 1) * groups)]))
                    alone += try stages.predictorLogits(batch: 1)
                }
            } else {
                _ = try stages.frame(batch, forced: Array(codes[..<(frames * groups)]))
                together = try stages.predictorLogits(batch: frames)
            }
        }
        var (error, aloneError, unequal) = (0.0, 0.0, 0)
        for frame in 0..<frames {
            for group in 0..<(groups - 1) {
                let at = (frame * (groups - 1) + group) * vocabulary
                let a = together[group * frames + frame]
                let b = alone[frame * (groups - 1) + group]
                error = max(error, difference(a, expected[at..<(at + vocabulary)]))
                aloneError = max(aloneError, difference(b, expected[at..<(at + vocabulary)]))
                if a != b { unequal += 1 }
            }
        }
        note("predictor \(name): logits", error, limit: 3e-4)
        note("predictor, persistent \(name): logits", aloneError, limit: 3e-4)
        note("predictor \(name): passes whose bits differ, batch and persistent", Double(unequal), limit: 0)
    }

    /// Greedy speech from the prompt, against the reference's codes where its margins are clear.
    private mutating func freeRun(_ stages: CUDAStages, _ name: String) throws {
        let file = try golden("case_" + name)
        guard try array(file, "trailing_text_hidden").count == width else { return }
        let prefill = try array(file, "prefill_embeds")
        for (penalty, run) in [(1.0, "rp1.00"), (1.05, "rp1.05")] {
            let expected = try file.integers("codes_\(run)").values.map { Int32($0) }
            var rules = greedy
            rules.repetitionPenalty = penalty
            for persistent in [false, true] {
                stages.usesPersistentKernels = persistent
                var codes: [Int32] = []
                try withSlot(stages) { slot in
                    try stages.prefill(slot, values: prefill, isLast: true)
                    for frame in 0..<min(frameLimit, expected.count / groups) {
                        if frame > 0 { try stages.step([entry(slot, frame: frame, rules)]) }
                        codes += try stages.frame([entry(slot, frame: frame, rules)])[0]
                    }
                }
                let wrong = zip(codes, expected).filter { $0 != $1 }.count
                note(
                    "greedy codes \(name) \(run)\(persistent ? ", persistent" : "")", Double(wrong),
                    limit: 0)
            }
        }
    }

    /// Draws of code 0 against the CPU's sampler, seed by seed.
    private mutating func sampler(_ stages: CUDAStages) throws {
        let file = try golden("sampler")
        let logits = try array(file, "logits.0")
        let c = configuration.talker
        var (draws, wrong) = (0, 0)
        for (topK, topP, temperature) in [(50, 1.0, 0.9), (0, 0.8, 1.0), (20, 0.9, 0.7), (0, 1.0, 1.3), (1, 1.0, 1.0)] {
            var rules = configuration.generation
            rules.repetitionPenalty = 1
            rules.talker.samples = true
            rules.talker.temperature = temperature
            rules.talker.topK = topK
            rules.talker.topP = topP
            for seed in 0..<24 {
                var scores = logits
                for id in c.speakableCodes..<scores.count where id != Int(c.control.eos) { scores[id] = -.infinity }
                let wanted = scores.withUnsafeMutableBufferPointer {
                    Sampler(seed: UInt64(seed) << 33 | 7).choose($0, rule: rules.talker, frame: 5 + seed, codebook: 0)
                }
                try withSlot(stages) { slot in
                    try stages.setTalkerLogits(slot, logits)
                    let code = try stages.chooseCode0(entry(slot, frame: 5 + seed, seed: UInt64(seed) << 33 | 7, rules))
                    draws += 1
                    if code != wanted { wrong += 1 }
                }
            }
        }
        note("sampler: draws that differ from the CPU's, of \(draws)", Double(wrong), limit: 1)
    }

    /// The same request alone and among others that come, go and take other sizes: the same codes and states.
    private mutating func batches(_ stages: CUDAStages, sessions: Int) throws {
        guard let name = try cases().first else { return }
        let prefill = try array(try golden("case_" + name), "prefill_embeds")
        let rows = prefill.count / width
        let frames = 6
        var rules = configuration.generation
        rules.talker.samples = true
        rules.codePredictor.samples = true
        func speak(_ others: Int, split: Int, persistent: Bool) throws -> (codes: [[Int32]], hidden: [Float]) {
            stages.usesPersistentKernels = persistent
            var slots: [Int] = []
            for _ in 0...others {
                guard let slot = try stages.openSlot() else { break }
                slots.append(slot)
            }
            defer { for slot in slots { stages.closeSlot(slot) } }
            for (index, slot) in slots.enumerated() {
                // The others' prompts are of other lengths.
                let kept = index == 0 ? rows : max(1, rows - index)
                var done = 0
                while done < kept {
                    let count = min(split, kept - done)
                    try stages.prefill(
                        slot, values: Array(prefill[(done * width)..<((done + count) * width)]),
                        isLast: done + count == kept)
                    done += count
                }
            }
            var codes: [[Int32]] = []
            for frame in 0..<frames {
                // The number of companions changes from frame to frame.
                let count = 1 + max(0, others - frame)
                let batch = slots.prefix(count).enumerated().map { index, slot in
                    entry(slot, frame: frame, seed: UInt64(11 + index), rules)
                }
                let rotated = frame % 2 == 0 ? batch : batch.reversed()
                if frame > 0 { try stages.step(rotated) }
                let all = try stages.frame(rotated)
                codes.append(all[frame % 2 == 0 ? 0 : all.count - 1])
            }
            return (codes, try stages.hiddenState(slots[0]))
        }
        let alone = try speak(0, split: rows, persistent: true)
        for (others, split, persistent) in [
            (0, rows, true), (0, 1, false), (0, 3, true), (sessions - 1, 7, false), (sessions - 1, rows, true),
        ] {
            let other = try speak(others, split: split, persistent: persistent)
            let wrong = zip(alone.codes, other.codes).filter { $0 != $1 }.count + (alone.hidden == other.hidden ? 0 : 1)
            note(
                "batch of \(others + 1), prompt in pieces of \(split)\(persistent ? ", persistent" : ""): differences",
                Double(wrong), limit: 0)
        }
    }

    private mutating func codec(_ stages: CUDAStages, limit: Double) throws {
        guard let decoder = stages.decoder else { return }
        let codec = decoder.codec
        let file = try golden("decoder")
        let all = try file.integers("codes").values.map { Int32($0) }
        let codes = Array(all[..<(min(frameLimit, all.count / groups) * groups)])
        let expected = try array(file, "pcm").prefix(codes.count / groups * codec.samplesPerFrame)
        let kind = "codec \(codec.precision.rawValue)"
        func stream(_ packets: [Int]) throws -> [Float] {
            var pcm: [Float] = []
            try withDecoderSlot(decoder) { slot in
                var (at, turn) = (0, 0)
                while at < codes.count / groups {
                    let count = min(packets[turn % packets.count], codes.count / groups - at)
                    pcm += try decoder.decode([(slot, Array(codes[(at * groups)..<((at + count) * groups)]))])[0]
                    (at, turn) = (at + count, turn + 1)
                }
            }
            return pcm
        }
        let whole = try stream([codes.count / groups])
        note("\(kind): samples", difference(whole, expected), limit: limit)
        for packets in [[1], [2, 5], [4]] {
            let wrong = zip(try stream(packets), whole).filter { $0 != $1 }.count
            note("\(kind): samples that differ in packets of \(packets)", Double(wrong), limit: 0)
        }
        // Three sessions together, out of step.
        var slots: [Int] = []
        for _ in 0..<3 { if let slot = try decoder.openSlot() { slots.append(slot) } }
        var pcm: [Int: [Float]] = [:]
        let total = codes.count / groups
        for turn in 0..<(total + 4) {
            let packets = slots.indices.compactMap { i -> (slot: Int, codes: [Int32])? in
                let frame = turn - 2 * i
                guard (0..<total).contains(frame) else { return nil }
                return (slots[i], Array(codes[(frame * groups)..<((frame + 1) * groups)]))
            }
            for (packet, samples) in zip(packets, try decoder.decode(packets)) {
                pcm[packet.slot, default: []] += samples
            }
        }
        for slot in slots { decoder.closeSlot(slot) }
        let wrong = slots.reduce(0) { $0 + zip(pcm[$1] ?? [], whole).filter { $0 != $1 }.count }
        note("\(kind): samples that differ among three sessions", Double(wrong), limit: 0)

        if codec.precision == .exact {
            let frames = 5  // as the file's stages have
            var worst = (error: 0.0, stage: "none")
            let compare = difference
            try withDecoderSlot(decoder) { slot in
                _ = try codec.decode(
                    slots: [slot], positions: [0], codes: Array(all[..<(frames * groups)]), frames: frames
                ) { stage, values, channels in
                    guard let view = file["stage.\(stage)"],
                        let expected = try? file.floats("stage.\(stage)", shape: view.shape).array
                    else { return }
                    let columns = values.count / channels
                    let channelFirst = (0..<values.count).map { values[$0 % columns * channels + $0 / columns] }
                    let scale = Double(max(1, expected.map { abs($0) }.max() ?? 1))
                    let error = compare(channelFirst, expected[...]) / scale
                    if error > worst.error { worst = (error, stage) }
                }
            }
            note("\(kind): worst stage (\(worst.stage))", worst.error, limit: 1e-4)
        }
    }
}
