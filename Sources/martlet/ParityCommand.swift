import ArgumentParser
import Experiments
import Qwen3TTS
import Tensors

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// `martlet parity`: a checkpoint against the goldens of the Python reference; `scripts/parity.sh` makes both.
struct ParityCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "parity",
        abstract: "Compare every stage with the reference's results in DIR/golden.",
        discussion: "For maintainers: scripts/parity.sh makes the checkpoint, runs this and prints a table.",
        shouldDisplay: false)

    @Argument(help: "A checkpoint's folder with a golden/ in it.")
    var folder: String

    @Option(help: "Threads; default: all processors.")
    var threads: Int?

    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
        let compute = Compute(threads: threads ?? ThreadPool.defaultThreadCount)
        let report = try ParityCheck.run(SpeechModel(directory: folder, compute: compute))
        if json {
            try printJSON(report)
        } else {
            let width = report.stages.map(\.name.count).max() ?? 0
            for stage in report.stages {
                let error = stage.maxAbs.map { "\(Float($0))" } ?? "-"
                let limit = "\(Float(stage.tolerance))"
                print(
                    stage.name.padded(to: width), error.padded(to: 14), "of", limit.padded(to: 14),
                    stage.pass ? "ok" : "MISS", stage.note ?? "")
            }
            print("\(report.stages.count) stages, \(report.pass ? "all agree" : "DISAGREE")")
        }
        if !report.pass { throw ExitCode(1) }
    }
}

extension String {
    /// The text with blanks after it up to a width.
    func padded(to width: Int) -> String { self + String(repeating: " ", count: max(0, width - count)) }

    /// The text with blanks before it up to a width.
    func aligned(to width: Int) -> String { String(repeating: " ", count: max(0, width - count)) + self }
}

/// Prints a report as JSON, keys in order.
func printJSON(_ value: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    print(String(decoding: try encoder.encode(value), as: UTF8.self))
}
