import ArgumentParser
import Experiments
import Qwen3TTS

/// What an experiment speaks, again and again.
struct RunOptions: ParsableArguments {
    @OptionGroup var model: ModelOptions
    @OptionGroup var sampling: SamplingArguments

    @Option(help: "Id of the text.")
    var textId = "short_01"

    @Option(help: "A JSON list of texts with ids; default: the built-in texts_p0_base.")
    var texts: String?

    @Option(help: "A named voice of the model; default: its first.")
    var voice: String?

    @Option(help: "How to speak.")
    var instruct: String?

    @Option(help: "Codec frames of a packet.")
    var packet = 4

    @Option(help: "Disturb the last run at FRAME[:CODEBOOK][:tiny], to prove that the instruments see it.")
    var injectDrift: String?

    @Option(help: "The run to disturb instead, from 1.")
    var injectRun: Int?

    @Option(help: "Record the N likeliest choices of each code: topk_<tag>.json beside the codes.")
    var topkLog: Int?

    @Option(help: "The first and the last frame recorded, as FIRST-LAST.")
    var topkFrames = "0-100"

    func validate() throws {
        guard (1...1024).contains(packet) else {
            throw ValidationError("--packet is \(packet), expected 1 to 1024.")
        }
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

    /// A series of runs.
    func runs(of model: SpeechModel, count: Int, tag: String?, warmUp: Int) throws -> CodeRuns {
        var runs = CodeRuns(text: try text())
        runs.voice = ExperimentVoice(speaker: voice, instruct: instruct)
        runs.sampling = try sampling.options(secondsPerFrame: model.secondsPerFrame)
        runs.count = count
        runs.packet = packet
        runs.warmUp = warmUp
        if let tag { runs.tagPrefix = tag }
        runs.drift = try injectDrift.map(InjectedDrift.init)
        runs.driftRun = injectRun.map { $0 - 1 }
        if let topkLog {
            var options = TopChoicesOptions()
            options.count = topkLog
            options.frames = try frames()
            runs.choices = options
        }
        return runs
    }
}
