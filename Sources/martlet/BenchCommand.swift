import ArgumentParser
import CUDABackend
import Experiments
import Qwen3TTS

/// `martlet bench`: how fast a model is here, beside what the machine could do at best.
struct BenchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench", abstract: "Measure how fast a model is on this machine.",
        subcommands: [
            Stages.self, BenchTTFACommand.self, BenchThroughputCommand.self, BenchLoadCommand.self,
        ], defaultSubcommand: Stages.self)

    /// `martlet bench stages`.
    struct Stages: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Measure each stage beside its floor.",
            discussion: """
                The floor is the time that reading the weights and computing take at the least, from the memory \
                bandwidth and the arithmetic rate that are measured in the same run. On a GPU the weights are made up, \
                so that the configuration files of the model folder suffice, and the ceiling is the rate of a copy.
                """)

        @OptionGroup var model: ModelOptions
        @OptionGroup var device: DeviceOptions

        @Option(help: "Codec frames of a packet, on the CPU.")
        var packet = 1

        @Option(help: "On a GPU, numbers of utterances that speak together.")
        var sessions = "1,8,64"

        @Option(help: "Frames that are timed.")
        var frames = 32

        @Flag(help: "Print JSON.")
        var json = false

        func validate() throws {
            guard (1...64).contains(packet) else {
                throw ValidationError("--packet is \(packet), expected 1 to 64.")
            }
            guard (1...100_000).contains(frames) else {
                throw ValidationError("--frames is \(frames), expected 1 to 100000.")
            }
            guard !counts.isEmpty, counts.count == sessions.split(separator: ",").count,
                counts.allSatisfy({ (1...1024).contains($0) })
            else { throw ValidationError("--sessions is \(sessions), expected numbers from 1 to 1024 such as 1,8.") }
        }

        private var counts: [Int] { sessions.split(separator: ",").compactMap { Int($0) } }

        func run() throws {
            if let index = try device.devices().decoding {
                try CUDABenchmark.run(directory: model.directory(), device: index, batches: counts, frames: frames) {
                    print($0)
                } remark: {
                    print($0)
                }
                return
            }
            var options = BenchOptions()
            options.packet = packet
            options.frames = frames
            let report = try StageBench.run(try model.load(), options: options)
            if json { try printJSON(report) } else { show(report) }
        }

        private func show(_ report: BenchReport) {
            print(
                "\(report.model): \(report.weights), \(report.instructionSet), \(report.threads) threads, packets of "
                    + "\(report.packet), \(report.frames) frames")
            print(
                "machine: reads \(decimal(report.machine.bytesPerSecond / 1e9, 1)) GB/s, computes "
                    + "\(decimal(report.machine.multiplyAddsPerSecond * 2 / 1e9, 0)) GFLOP/s; load average "
                    + decimal(report.load, 2))
            if report.load > 0.5 {
                printError("warning: other work runs on this machine; these figures, floors too, are worthless")
            }
            print()
            let head = ["stage", "ms", "fastest", "MB", "GFLOP", "floor ms", "ratio"]
            print(head[0].padded(to: 18) + head.dropFirst().map { $0.aligned(to: 10) }.joined())
            for stage in report.stages + [report.prefill] {
                let name = stage.name == "prefill" ? "prefill, \(report.prefillRows) rows" : stage.name
                let cells = [
                    decimal(stage.ms, 2), decimal(stage.minMs, 2), decimal(Double(stage.weightBytes) / 1e6, 1),
                    decimal(Double(stage.operations) / 1e9, 2), decimal(stage.floorMs, 2), decimal(stage.ratio, 2),
                ]
                print(name.padded(to: 18) + cells.map { $0.aligned(to: 10) }.joined())
            }
            print()
            print(
                "frame \(decimal(report.frameMs, 1)) ms, floor \(decimal(report.floorMs, 1)) ms, real-time factor "
                    + "\(decimal(report.realTimeFactor, 2)); peak memory "
                    + "\(decimal(Double(report.peakMemoryBytes) / 1e6, 0)) MB")
            print(
                "first audio after \(decimal(report.firstAudioMs, 0)) ms, \(decimal(report.firstAudioKnownMs, 0)) ms "
                    + "where the prompt is known")
        }
    }
}
