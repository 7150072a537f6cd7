import ArgumentParser
import Experiments
import SpeechEngine

/// `martlet bench ttfa`: the time to the first audio, run after run.
struct BenchTTFACommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ttfa",
        abstract: "Time the first audio of a text over many runs, and see whether all runs are equal.",
        discussion: """
            Runs after the first find what was read of their prompt before; --warm-up 0 --count 1 times a new prompt.
            """)

    @OptionGroup var options: RunOptions

    @Option(help: "Runs that count.")
    var count = 10

    @Option(help: "Runs before them that do not.")
    var warmUp = 1

    @Option(name: [.short, .customLong("output"), .customLong("out")], help: "Write the runs as JSON.")
    var output: String?

    @Option(help: "Also keep the codes of each run in this folder.")
    var dump: String?

    @Flag(help: "Print JSON.")
    var json = false

    func run() async throws {
        let settings = try options.announcedSettings()
        let source = try await options.source(settings)
        let runs = try options.runs(settings, of: source.model, count: count, tag: nil, warmUp: max(0, warmUp))
        let folder = dump ?? (settings.isOn(.codeDump) ? settings.text(.codeDumpDirectory) : nil)
        let progress = { (run: CodeRuns.Run) in
            guard !json else { return }
            let first = run.firstAudioMs.map { decimal($0, 1) } ?? "-"
            print(
                "\(run.tag)  ttfa \(first) ms  code \(decimal(run.codeMs, 0)) ms  first decode "
                    + "\(run.decodeFirstMs.map { decimal($0, 1) } ?? "-") ms  RTF \(decimal(run.realTimeFactor, 2))  "
                    + "\(run.hash.prefix(16))")
        }
        let report = try await runs.make(source, folder: folder, progress: progress)
        if let output { try report.write(to: output) }
        if json {
            try printJSON(report)
        } else {
            let first = report.firstAudio
            print(
                "TTFA P50 \(decimal(first.p50, 1)) ms, P95 \(decimal(first.p95, 1)), P99 \(decimal(first.p99, 1)); "
                    + "RTF P50 \(decimal(report.realTimeFactor.p50, 2)); hash_unique \(report.hashUnique), "
                    + "fail_count \(report.failCount)"
                    + (report.metaMissing.map { ", meta_missing \($0)" } ?? ""))
        }
        if report.failCount > 0 { throw ExitCode(1) }
    }
}
