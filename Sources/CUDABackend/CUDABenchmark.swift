import Qwen3TTS
import Tensors

/// Times the stages on a GPU with made-up weights of a model's sizes, or with its own.
public struct CUDABenchmark {
    /// One measurement.
    public struct Result: Sendable, CustomStringConvertible {
        /// What was measured.
        public let name: String
        /// Median, milliseconds.
        public let milliseconds: Double
        /// Bytes of weights read, if that is what it is about.
        public let bytes: Int?
        /// What the card copies, bytes read and written, in a second.
        public let ceiling: Double
        /// A remark.
        public let note: String

        /// One line: time, bytes, bandwidth and its part of the measured ceiling.
        public var description: String {
            var line = "\(name): \(rounded(milliseconds, 3)) ms"
            if let bytes {
                let rate = Double(bytes) / milliseconds * 1e3
                line +=
                    ", \(rounded(Double(bytes) / 1e6, 1)) MB, \(rounded(rate / 1e12, 2)) TB/s, "
                    + "\(rounded(100 * rate / ceiling, 0)) % of the copy ceiling"
            }
            return line + (note.isEmpty ? "" : ", \(note)")
        }

        private func rounded(_ value: Double, _ digits: Int) -> String {
            var scale = 1.0
            for _ in 0..<digits { scale *= 10 }
            let number = (value * scale).rounded() / scale
            return digits == 0 ? "\(Int(number))" : "\(number)"
        }
    }

    /// Measures every stage.
    /// - Parameters:
    ///   - directory: a folder with configuration files; weights are made up.
    ///   - batches: numbers of sessions to run together.
    ///   - report: sees each result as it comes.
    ///   - remark: sees lines of text: microseconds of every form of the products.
    public static func run(
        directory: String, device index: Int = 0, batches: [Int] = [1, 8, 64], frames: Int = 40,
        report: (Result) -> Void, remark: (String) -> Void = { _ in }
    ) throws {
        let device = try CUDADevice(index: index)
        let configuration = try Configuration.load(directory: directory)
        let ceiling = try copyRate(device)
        report(
            Result(name: "copy", milliseconds: 1e3 * 2e9 / ceiling, bytes: 2_000_000_000, ceiling: ceiling, note: ""))
        let start = ContinuousClock.now
        let stages = try CUDAStages(
            device: device, configuration: configuration, slots: batches.max() ?? 1, file: nil,
            decoder: CUDADecoder(
                device, configuration: configuration, slots: batches.max() ?? 1, precision: .half, file: nil))
        try device.wait()
        report(
            Result(
                name: "model made", milliseconds: (ContinuousClock.now - start) / .milliseconds(1), bytes: nil,
                ceiling: ceiling, note: "\(stages.memoryBytes >> 20) MiB"))
        var rules = configuration.generation
        rules.talker.samples = true
        func entry(_ slot: Int, _ frame: Int) -> CUDAStages.Entry {
            .init(
                slot: slot, frame: frame, sampled: frame, text: configuration.textPad, seed: UInt64(slot), rules: rules)
        }
        func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }
        /// Milliseconds on the device, and how long the host took to issue it.
        func timed(_ repetitions: Int, on device: CUDADevice, _ body: () throws(CUDAError) -> Void) throws -> (
            median: Double, issue: String
        ) {
            _ = try device.time(repetitions: 2, body)
            var host: [Double] = []
            let times = try device.time(repetitions: repetitions) { () throws(CUDAError) in
                let start = ContinuousClock.now
                try body()
                host.append((ContinuousClock.now - start) / .milliseconds(1))
            }
            return (median(times), "issued in \((median(host) * 1000).rounded() / 1000) ms")
        }
        let prompt = (0..<40).map { CUDAStages.PromptRow(text: Int32($0 * 7 % 1000), codes: [Int32($0)]) }

        // Kernels of this form first, for each number of sessions.
        for batch in batches {
            let slots = try (0..<batch).compactMap { _ in try stages.openSlot() }
            for slot in slots { try stages.prefill(slot, prompt, isLast: true) }
            let entries = slots.map { entry($0, 1) }
            for (name, plan, body) in [
                ("talker step", stages.talkerPlan, { () throws(CUDAError) in try stages.step(entries) }),
                ("predictor frame", stages.predictorPlan, { () throws(CUDAError) in try stages.launchFrame(entries) }),
            ] {
                func measured(_ kind: String) throws -> Double {
                    let time = try timed(15, on: device, body)
                    report(
                        Result(
                            name: "\(name), \(batch) sessions\(kind)", milliseconds: time.median,
                            bytes: plan?.weightBytes, ceiling: ceiling, note: time.issue))
                    return time.median
                }
                stages.usesPersistentKernels = false
                _ = try measured(", one kernel an operation")
                stages.usesPersistentKernels = true
                let time = try measured("")
                guard let plan else { continue }
                plan.isTraced = true
                try body()
                let times = try plan.times()
                // Blocks run side by side: one after the other are the operations.
                let all = times.reduce(0) { $0 + Double($1.count) * ($1.wait + $1.work + $1.finish) }
                for t in times {
                    let cycles = [t.wait, t.work, t.finish].map { "\(Int($0))" }.joined(separator: " + ")
                    report(
                        Result(
                            name: "    \(t.name)",
                            milliseconds: time * Double(t.count) * (t.wait + t.work + t.finish) / all, bytes: nil,
                            ceiling: ceiling,
                            note: "\(t.count) times in \(Int(t.blocks)) blocks, wait + sums + rest \(cycles) cycles"))
                }
            }
            for slot in slots { stages.closeSlot(slot) }
        }
        stages.usesPersistentKernels = nil

        // Stage by stage, one session.
        guard let slot = try stages.openSlot() else { return }
        try stages.prefill(slot, prompt, isLast: true)
        let codes = try stages.frame([entry(slot, 1)])[0]
        stages.closeSlot(slot)
        if let decoder = stages.decoder {
            let codec = decoder.codec
            for (sessions, frames) in [(1, 1), (1, 4)] + batches.filter({ $0 > 1 }).map({ ($0, 1) }) {
                let voices = try (0..<sessions).compactMap { _ in try decoder.openSlot() }
                let all = Array((0..<(voices.count * frames)).map { _ in codes }.joined())
                let time = try timed(15, on: codec.device) { () throws(CUDAError) in
                    _ = try codec.decode(slots: voices, positions: voices.map { _ in 0 }, codes: all, frames: frames)
                }
                report(
                    Result(
                        name: "decoder, packet of \(frames)" + (sessions > 1 ? ", \(sessions) sessions" : ""),
                        milliseconds: time.median, bytes: codec.weightBytes, ceiling: ceiling, note: time.issue))
                for voice in voices { decoder.closeSlot(voice) }
            }
        }
        let prefill = try timed(15, on: device) { () throws(CUDAError) in
            guard let slot = try stages.openSlot() else { return }
            try stages.prefill(slot, prompt, isLast: true)
            stages.closeSlot(slot)
        }
        report(
            Result(
                name: "\(prompt.count) prompt rows", milliseconds: prefill.median,
                bytes: stages.talkerPlan?.weightBytes, ceiling: ceiling, note: prefill.issue))

        for line in try stages.productTimes(rows: [1, 8, 40, 64]) { remark(line) }

        // First audio.
        var first: [Double] = []
        for _ in 0..<8 {
            guard let slot = try stages.openSlot(), let decoder = stages.decoder, let voice = try decoder.openSlot()
            else { return }
            try device.wait()
            let start = ContinuousClock.now
            try stages.prefill(slot, prompt, isLast: true)
            let codes = try stages.frame([entry(slot, 0)])
            _ = try decoder.decode([(voice, codes[0])])
            first.append((ContinuousClock.now - start) / .milliseconds(1))
            stages.closeSlot(slot)
            decoder.closeSlot(voice)
        }
        report(
            Result(
                name: "40 prompt rows to first samples on the host", milliseconds: median(first), bytes: nil,
                ceiling: ceiling, note: "best \(first.min() ?? 0)"))

        // Whole frames, wall clock.
        for batch in batches {
            guard let decoder = stages.decoder else { return }
            var (slots, voices): ([Int], [Int]) = ([], [])
            for _ in 0..<batch {
                guard let slot = try stages.openSlot(), let voice = try decoder.openSlot() else { break }
                slots.append(slot)
                voices.append(voice)
            }
            for slot in slots { try stages.prefill(slot, prompt, isLast: true) }
            var times: [Double] = []
            var hash: UInt64 = 0xcbf2_9ce4_8422_2325
            for frame in 0..<frames {
                let entries = slots.map { entry($0, frame) }
                let start = ContinuousClock.now
                if frame > 0 { try stages.step(entries) }
                let codes = try stages.frame(entries)
                let pcm = try decoder.decode(zip(voices, codes).map { ($0, $1) })
                times.append((ContinuousClock.now - start) / .milliseconds(1))
                for code in codes[0] { hash = (hash ^ UInt64(UInt32(bitPattern: code))) &* 0x100_0000_01b3 }
                for sample in pcm[0] { hash = (hash ^ UInt64(sample.bitPattern)) &* 0x100_0000_01b3 }
            }
            for slot in slots { stages.closeSlot(slot) }
            for voice in voices { decoder.closeSlot(voice) }
            let time = median(Array(times.dropFirst(2)))
            let rate =
                Double(batch * configuration.codec.samplesPerFrame) / Double(configuration.codec.sampleRate) / time
                * 1e3
            report(
                Result(
                    name: "whole frame of \(batch) sessions, decode included", milliseconds: time, bytes: nil,
                    ceiling: ceiling,
                    note: "\(Int(rate)) s of audio a second, first session's hash \(String(hash, radix: 16))"))
        }
    }

    /// Bytes read and written in a second by a large copy.
    private static func copyRate(_ device: CUDADevice) throws(CUDAError) -> Double {
        let bytes = 1_000_000_000
        let a = try DeviceBuffer(device, bytes: bytes, "copy")
        let b = try DeviceBuffer(device, bytes: bytes, "copy")
        let times = try device.time(repetitions: 8) { () throws(CUDAError) in
            try device.copyDevice(b.address, a.address, bytes)
        }
        return 2 * Double(bytes) / (times.min() ?? 1) * 1e3
    }
}
