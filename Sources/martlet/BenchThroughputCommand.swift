import ArgumentParser
import Experiments

/// `martlet bench throughput`: what several listeners at a time get out of a machine.
struct BenchThroughputCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "throughput", abstract: "Measure how much more is said when several speak at a time.",
        discussion: """
            A round gives each utterance one frame of 80 ms. Its floor is the time that reading every weight once, \
            whatever the number of utterances, and computing all of them take at the least, from the memory bandwidth \
            and the arithmetic rate that are measured in the same run.
            """)

    @OptionGroup var model: ModelOptions

    @Option(help: "Numbers of utterances that speak together, each a run of its own; gains are over the first.")
    var sessions = "1,8"

    @Option(help: "Frames of each utterance that are timed.")
    var frames = 24

    @Option(help: "Codec frames of a packet.")
    var packet = 1

    @Flag(help: "Print JSON.")
    var json = false

    private var counts: [Int] { sessions.split(separator: ",").compactMap { Int($0) } }

    func validate() throws {
        guard !counts.isEmpty, counts.count == sessions.split(separator: ",").count,
            counts.allSatisfy({ (1...256).contains($0) })
        else { throw ValidationError("--sessions is \(sessions), expected numbers from 1 to 256 such as 1,8.") }
        guard (1...100_000).contains(frames) else {
            throw ValidationError("--frames is \(frames), expected 1 to 100000.")
        }
        guard (1...64).contains(packet) else { throw ValidationError("--packet is \(packet), expected 1 to 64.") }
    }

    func run() async throws {
        let report = try await ThroughputBench.run(
            try model.load(), sessions: counts, frames: frames, packet: packet)
        if json { try printJSON(report) } else { show(report) }
        if !report.levels.allSatisfy(\.isSame) {
            printError("the bytes of an utterance depend on how many speak")
            throw ExitCode(1)
        }
    }

    private func show(_ report: ThroughputBench) {
        print(
            "\(report.model): \(report.weights), \(report.threads) threads, packets of \(report.packet)")
        print(
            "machine: reads \(decimal(report.machine.bytesPerSecond / 1e9, 1)) GB/s, computes "
                + "\(decimal(report.machine.multiplyAddsPerSecond * 2 / 1e9, 0)) GFLOP/s; load average "
                + decimal(report.load, 2))
        if report.load > 0.5 {
            printError("warning: other work runs on this machine; these figures, floors too, are worthless")
        }
        print()
        let head = [
            "speakers", "round ms", "floor ms", "ratio", "talker", "predictor", "decoder", "audio s/s", "gain",
            "at floor",
        ]
        print(head.map { $0.aligned(to: 10) }.joined())
        for level in report.levels {
            let cells = [
                "\(level.sessions)", decimal(level.roundMs, 1), decimal(level.floorMs, 1), decimal(level.ratio, 2),
                decimal(level.talkerMs, 1), decimal(level.predictorMs, 1), decimal(level.decoderMs, 1),
                decimal(level.throughput, 3), decimal(level.gain, 2), decimal(level.floorGain, 2),
            ]
            print(cells.map { $0.aligned(to: 10) }.joined())
        }
        print()
        print("an utterance's bytes are the same at every level: \(report.levels.allSatisfy(\.isSame) ? "yes" : "NO")")
    }
}
