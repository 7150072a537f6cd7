import ArgumentParser
import Experiments
import Qwen3TTS

/// `martlet codes stream`: codes of a text, without a decoder.
struct CodesStreamCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stream", abstract: "Time the generation of codes alone, without decoding them.",
        discussion: """
            Codes are generated in this process. A server always decodes; one that was started with --dummy-decoder noop \
            comes closest, with 'martlet bench ttfa --server URL'.
            """)

    @OptionGroup var options: RunOptions

    @Option(help: "How often.")
    var count = 1

    @Flag(help: "Accepted for the runbook's sake: this command never decodes.")
    var noDecode = false

    @Option(name: [.short, .customLong("output"), .customLong("out")], help: "Also write the report as JSON.")
    var output: String?

    @Flag(help: "Print JSON.")
    var json = false

    func run() async throws {
        let settings = try options.announcedSettings()
        if let url = settings.text(.server) {
            throw CommandError(
                "codes stream generates in this process; for the server at \(url), start it with --dummy-decoder noop and "
                    + "run 'martlet bench ttfa'")
        }
        let model = try options.model.load(settings)
        let runs = try options.runs(settings, of: model, count: count, tag: nil, warmUp: 0)
        let request = try model.experimentRequest(
            runs.text, runs.voice, sampling: runs.sampling, rules: runs.rules)
        let engine = try settings.engineOptions(model, generates: true)
        var results: [CodesOnlyRun] = []
        for _ in 0..<max(1, count) {
            results.append(
                try await CodesOnlyRun.make(model, request, packet: settings.packetTokens, options: engine))
        }
        if let output { try ExperimentFiles.write(results, to: output) }
        if json {
            try printJSON(results)
            return
        }
        for result in results {
            print(
                "first packet \(decimal(result.firstPacketMs, 1)) ms, total \(decimal(result.totalMs, 0)) ms, "
                    + "\(result.frames) frames, \(decimal(result.frameMs.p50, 1)) ms a frame, "
                    + "\(result.hash.prefix(16)), \(result.finishReason)")
        }
        print("hash_unique \(Set(results.map(\.hash)).count)")
    }
}
