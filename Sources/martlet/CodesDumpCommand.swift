import ArgumentParser
import Experiments
import SpeechEngine

/// `martlet codes dump`: runs a text again and again and keeps the codes.
struct CodesDumpCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dump", abstract: "Speak a text a number of times and keep codes, hashes and times of each run.",
        discussion: """
            Writes codes_<tag>.safetensors and meta_<tag>.json for each run, and a manifest of all. With --inject-drift \
            one run is disturbed: 'martlet codes diff' must then name the frame and the codebook. A server has to keep \
            codes (--code-dump), and gives them by tag.
            """)

    @OptionGroup var options: RunOptions

    @Option(help: "How often.")
    var count = 1

    @Option(help: "Tags are this and the run's number; default: the text's id.")
    var tag: String?

    @Option(name: .shortAndLong, help: "The folder that gets the files; default: that of --code-dump-dir.")
    var output: String?

    @Option(help: "Where the manifest goes; default: manifest.json in the folder.")
    var manifest: String?

    @Flag(help: "Print the manifest as JSON.")
    var json = false

    func run() async throws {
        let settings = try options.announcedSettings()
        let source = try await options.source(settings)
        let runs = try options.runs(settings, of: source.model, count: count, tag: tag, warmUp: 0)
        let folder = output ?? settings.text(.codeDumpDirectory) ?? "codes"
        let progress = { (run: CodeRuns.Run) in
            guard !json else { return }
            print("\(run.tag)  \(run.frames) frames  \(run.hash.prefix(16))  \(decimal(run.totalMs, 0)) ms")
        }
        let report = try await runs.make(source, folder: folder, progress: progress)
        try report.write(to: manifest ?? folder + "/manifest.json")
        if json {
            try printJSON(report)
        } else {
            print("hash_unique \(report.hashUnique), fail_count \(report.failCount)")
        }
        if report.failCount > 0 { throw ExitCode(1) }
    }
}
