import ArgumentParser
import Experiments
import Qwen3TTS
import Settings

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// `martlet runbook`: the runbook's questions, each answered by one command.
struct RunbookCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "runbook", abstract: "Answer the runbook's questions: q31 … q43, phase, accept, or all.",
        discussion: """
            A procedure sets its switches on an engine of its own, warms up, runs, and prints a table and a verdict. \
            The folder of --out gets runbook.json, report.html and the codes of every run. Exits with 1 if a verdict is \
            FAIL: accept does so if hash_unique is above 1, or the first audio comes too late where that can be judged.
            What an arm does not set holds as 'martlet config' shows it.

              martlet runbook accept --model DIR
              martlet runbook q36 --inject-drift 3:7:tiny --model DIR    # the instruments must name just that place
              martlet runbook --list
            """)

    @Argument(help: "Procedures, or all.")
    var procedures: [String] = []

    @OptionGroup var model: ModelOptions
    @OptionGroup var sampling: SamplingArguments
    @OptionGroup(title: "Settings", visibility: .hidden) var options: SettingOptions

    @Option(help: "Runs of each arm; default: each procedure's own number.")
    var count: Int?

    @Option(help: "Runs of each arm before those that count.")
    var warmUp = 1

    @Option(help: "Id of the text; default: each procedure's own.")
    var textId: String?

    @Option(help: "A JSON list of texts with ids; default: the built-in texts_p0_base.")
    var texts: String?

    @Option(help: "A named voice of the model; default: its first.")
    var voice: String?

    @Option(help: "How to speak.")
    var instruct: String?

    @Option(name: .shortAndLong, help: "The folder that gets the report.")
    var out = "runbook"

    @Option(help: "Disturb the last run of each arm at FRAME[:CODEBOOK][:tiny]: the instruments must see it.")
    var injectDrift: String?

    @Option(help: "The most milliseconds to the first audio; default: the runbook's 350 on a GPU, unjudged on a CPU.")
    var ttfaLimit: Double?

    @Flag(help: "Print the procedures and what they set, and run nothing.")
    var list = false

    @Flag(help: "Print the texts or voices as JSON, for files of your own, and run nothing.")
    var printed: BuiltInSet?

    @Flag(help: "Print the report as JSON.")
    var json = false

    /// What comes with Martlet.
    enum BuiltInSet: String, EnumerableFlag {
        case printTexts, printVoices
    }

    func validate() throws {
        if procedures.isEmpty && !list && printed == nil {
            throw ValidationError("Name a procedure, or all; --list prints them.")
        }
        _ = try options.settings(settingFlags)
        _ = try RunbookProcedure.named(procedures)
        _ = try injectDrift.map(InjectedDrift.init)
        if let count, !(1...10_000).contains(count) {
            throw ValidationError("--count is \(count), expected 1 to 10000.")
        }
        guard (0...1000).contains(warmUp) else {
            throw ValidationError("--warm-up is \(warmUp), expected 0 to 1000.")
        }
        if let ttfaLimit, !(ttfaLimit > 0) {
            throw ValidationError("--ttfa-limit is \(ttfaLimit), expected more than 0 milliseconds.")
        }
    }

    private var settingFlags: [(Setting, String?)] {
        model.flags + [(.policy, sampling.greedy ? "greedy" : nil)]
    }

    func run() async throws {
        if list { return Self.printList() }
        switch printed {
        case .printTexts: return try printJSON(TextSet.texts(texts))
        case .printVoices: return try printJSON(TextSet.builtInVoices)
        case nil: break
        }
        let settings = try options.announced(settingFlags)
        // One arm decodes on the CPU, whatever the device.
        let model = try model.load(settings, besides: .decoding)
        var runner = RunbookRunner()
        runner.texts = try TextSet.texts(texts)
        runner.voice = ExperimentVoice(speaker: voice, instruct: instruct)
        runner.sampling = try sampling.options(
            secondsPerFrame: model.secondsPerFrame, seed: settings.unsigned(.seed) ?? 0)
        runner.sampling.greedy = settings.text(.policy) == "greedy"
        runner.rules = settings.rules
        // Arms switch the worker process on and off.
        runner.engine = try settings.engineOptions(model, generates: true)
        runner.count = count
        runner.warmUp = warmUp
        runner.textID = textId
        runner.drift = try injectDrift.map(InjectedDrift.init)
        let machine = RunbookRunner.machine(model, engine: runner.engine)
        let limit = ttfaLimit ?? (machine.device == "cpu" ? nil : 350)
        runner.firstAudioLimit = limit
        runner.folder = out + "/codes"

        var held = settings.switches
        held["max_new_tokens"] = runner.sampling.maxNewTokens.map { "\($0)" }
        var report = RunbookReport(
            machine: machine, injectedDrift: runner.drift?.label, settings: held)
        for procedure in try RunbookProcedure.named(procedures) {
            let result = try await runner.run(procedure, on: model) { line in if !json { printError(line) } }
            report.procedures.append(result)
            // After each one, so that what has been measured is not lost with the rest.
            try report.write(to: out, firstAudioLimit: limit)
            if !json { Self.show(result) }
        }
        if json {
            try printJSON(report)
        } else {
            print("\(out)/report.html, \(out)/runbook.json")
        }
        if report.outcome == .fail { throw ExitCode(1) }
    }

    private static func show(_ result: RunbookReport.Procedure) {
        print("\(result.id): \(result.question)")
        print(RunbookTable(result).text)
        var told: Set<String> = []
        for note in result.arms.flatMap(\.notes) where told.insert(note).inserted { print("note: \(note)") }
        for finding in result.findings { print("  \(finding.outcome.word.padded(to: 10)) \(finding.reason)") }
        print("\(result.id) verdict: \(result.outcome.word)\n")
    }

    private static func printList() {
        for procedure in RunbookProcedure.all {
            print("\(procedure.id.padded(to: 7))\(procedure.question)")
            let runs = "\(procedure.runs) runs of \(procedure.texts.joined(separator: " and "))"
            print("       \(runs); \(procedure.criteria.map(\.words).joined(separator: "; "))")
            for arm in procedure.arms {
                let switches = arm.switches.map { "\($0.name.dropFirst(4))=\($0.value)" }.joined(separator: " ")
                print("       \(arm.name.padded(to: 24))\(switches)")
            }
        }
    }
}
