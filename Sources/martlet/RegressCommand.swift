import ArgumentParser
import Experiments
import Qwen3TTS
import Settings
import SpeechEngine

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// `martlet regress`: does everything still sound as it did?
struct RegressCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "regress", abstract: "Speak texts with voices, streamed and at once, and judge what comes.",
        discussion: """
            Judges duration, equality of codes and samples, clicks at packet borders, repeated segments, clipping, empty \
            audio and the time to the first audio; against --baseline also signal by noise and mel distance. Writes \
            WAV files and summary.json into a new folder, which the link 'latest' names. Exits with 1 on a failure.
            """)

    @OptionGroup var model: ModelOptions
    @OptionGroup var sampling: SamplingArguments
    @OptionGroup var target: ServerTargetOptions
    @OptionGroup(title: "Settings", visibility: .hidden) var options: SettingOptions

    @Option(help: "A JSON list of texts with ids; default: the built-in texts_p0_base.")
    var texts: String?

    @Option(help: "A JSON list of voices: speaker, language, instruct; default: the built-in voices_base.")
    var voices: String?

    @Option(
        name: [.short, .customLong("output"), .customLong("out"), .customLong("out-root")],
        help: "The folder that gets a folder for each run.")
    var output = "regress"

    @Option(help: "fast takes two texts and one voice, full takes all.")
    var mode = RegressionSuite.Mode.fast

    @Option(help: "The folder of an earlier run to compare with.")
    var baseline: String?

    @Option(help: "The most milliseconds to the first audio; 0 judges no time.")
    var ttfaLimit = 350.0

    @Flag(help: "Print JSON.")
    var json = false

    private var flags: [(Setting, String?)] {
        model.flags + target.flags + [(.policy, sampling.greedy ? "greedy" : nil)]
    }

    func validate() throws { _ = try options.settings(flags) }

    func run() async throws {
        let settings = try options.announced(flags)
        let source = try await target.source(settings, model)
        var suite = RegressionSuite(texts: try TextSet.texts(texts), voices: try TextSet.voices(voices))
        suite.mode = mode
        suite.packet = settings.integer(.packetTokens) ?? 2
        suite.baseline = baseline
        suite.sampling = try sampling.options(
            secondsPerFrame: source.model?.secondsPerFrame ?? RunOptions.secondsPerFrame,
            seed: settings.unsigned(.seed) ?? 0)
        suite.sampling.greedy = settings.text(.policy) == "greedy"
        suite.rules = settings.rules
        suite.gates.firstAudioMs = ttfaLimit > 0 ? ttfaLimit : nil
        let name = "run-\(Int(Date().timeIntervalSince1970))"
        let (summary, folder) = try await suite.run(source, root: output, name: name) { one in
            guard !json else { return }
            let first = one.firstAudioMs.map { "\(decimal($0, 0)) ms" } ?? "-"
            print(
                "\(one.failures.isEmpty ? "ok  " : "FAIL") \(one.name.padded(to: 28)) "
                    + "\(decimal(one.streamSeconds, 2)) s, first audio \(first), RTF \(decimal(one.realTimeFactor, 2))"
                    + (one.signalToNoise.map { ", \(decimal($0, 1)) dB" } ?? "")
                    + (one.isSameAsBaseline == true ? ", equals the baseline" : ""))
            for failure in one.failures { print("       \(failure)") }
        }
        if json { try printJSON(summary) } else { print("\(folder): \(summary.pass ? "all pass" : "FAILED")") }
        if !summary.pass { throw ExitCode(1) }
    }
}

extension RegressionSuite.Mode: ExpressibleByArgument {}
