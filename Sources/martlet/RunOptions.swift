import ArgumentParser
import Experiments
import Qwen3TTS
import Settings
import SpeechEngine

/// What an experiment speaks, again and again.
struct RunOptions: ParsableArguments {
    @OptionGroup var model: ModelOptions
    @OptionGroup var sampling: SamplingArguments
    @OptionGroup var target: ServerTargetOptions
    @OptionGroup(title: "Settings", visibility: .hidden) var options: SettingOptions

    @Option(help: "Id of the text.")
    var textId = "short_01"

    @Option(help: "A JSON list of texts with ids; default: the built-in texts_p0_base.")
    var texts: String?

    @Option(help: "A named voice of the model; default: its first.")
    var voice: String?

    @Option(help: "How to speak.")
    var instruct: String?

    @Option(help: "Disturb the last run at FRAME[:CODEBOOK][:tiny], to prove that the instruments see it.")
    var injectDrift: String?

    @Option(help: "The run to disturb instead, from 1.")
    var injectRun: Int?

    @Option(help: "Record the N likeliest choices of each code: topk_<tag>.json beside the codes.")
    var topkLog: Int?

    @Option(help: "The first and the last frame recorded, as FIRST-LAST.")
    var topkFrames = "0-100"

    func validate() throws {
        _ = try settings()
        if let topkLog, !(1...100).contains(topkLog) {
            throw ValidationError("--topk-log is \(topkLog), expected 1 to 100.")
        }
        _ = try frames()
    }

    private func frames() throws -> ClosedRange<Int> {
        let parts = topkFrames.split(separator: "-").map { Int($0) }
        guard parts.count == 2, let first = parts[0], let last = parts[1], 0 <= first, first <= last else {
            throw ValidationError("--topk-frames is \(topkFrames), expected two frames such as 0-100.")
        }
        return first...last
    }

    /// The text named.
    func text() throws -> ExperimentText { try TextSet.text(textId, in: TextSet.texts(texts)) }

    private var flags: [(Setting, String?)] {
        model.flags + target.flags + [(.policy, sampling.greedy ? "greedy" : nil)]
    }

    /// What is set.
    func settings() throws -> Settings { try options.settings(flags) }

    /// What is set, after its notes were printed.
    func announcedSettings() throws -> Settings { try options.announced(flags) }

    /// Of the 12 Hz models, where no model is loaded.
    static let secondsPerFrame = 0.08

    /// How codes are chosen.
    func sampling(_ settings: Settings, secondsPerFrame: Double) throws -> SamplingOptions {
        var options = try sampling.options(secondsPerFrame: secondsPerFrame, seed: settings.unsigned(.seed) ?? 0)
        options.greedy = settings.text(.policy) == "greedy"
        return options
    }

    /// What speaks.
    func source(_ settings: Settings) async throws -> SpeechSource { try await target.source(settings, model) }

    /// A series of runs.
    /// - Parameter model: what speaks; nil if a server does.
    func runs(
        _ settings: Settings, of model: SpeechModel?, count: Int, tag: String?, warmUp: Int
    ) throws -> CodeRuns {
        var runs = CodeRuns(text: try text())
        runs.voice = ExperimentVoice(speaker: voice, instruct: instruct)
        runs.sampling = try sampling(settings, secondsPerFrame: model?.secondsPerFrame ?? Self.secondsPerFrame)
        runs.rules = settings.rules
        runs.settings = settings.switches
        runs.count = count
        runs.packet = settings.packetTokens
        runs.warmUp = warmUp
        if let tag { runs.tagPrefix = tag }
        runs.drift = try injectDrift.map(InjectedDrift.init)
        runs.driftRun = injectRun.map { $0 - 1 }
        if let topkLog {
            var options = TopChoicesOptions()
            options.count = topkLog
            options.frames = try frames()
            runs.choices = options
        } else {
            runs.choices = try settings.topChoices()
        }
        return runs
    }
}
