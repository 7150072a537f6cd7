import ArgumentParser
import Experiments
import SpeechEngine

/// `martlet stress`: what an engine has to stand.
struct StressCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stress", abstract: "Put an engine under stress and see that nothing changes.",
        subcommands: [Cancel.self])

    /// `martlet stress cancel`.
    struct Cancel: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Cancel utterances again and again, at every stage, while others speak on.",
            discussion: "Exits with 1 if another utterance's bytes change or something stays behind.")

        @OptionGroup var options: RunOptions

        @Option(help: "Rounds.")
        var rounds = 200

        @Flag(help: "Print JSON.")
        var json = false

        func run() async throws {
            let settings = try options.announcedSettings()
            let source = try await options.source(settings)
            let secondsPerFrame = source.model?.secondsPerFrame ?? RunOptions.secondsPerFrame
            let result = try await CancelStress.run(
                source, text: options.text(), sampling: options.sampling(settings, secondsPerFrame: secondsPerFrame),
                rounds: rounds, packet: settings.packetTokens)
            if json {
                try printJSON(result)
            } else {
                print(
                    "\(result.rounds) rounds: \(result.cancelled) cancelled, \(result.endedBefore) had ended before, "
                        + "\(result.otherEnds) ended otherwise; a cancel takes P50 \(decimal(result.cancelMs.p50, 1)) ms, "
                        + "P95 \(decimal(result.cancelMs.p95, 1)) ms"
                        + (result.neverBegun > 0 ? "; \(result.neverBegun) were gone before they began" : ""))
                print(
                    "\(result.witnesses) others spoke on, hash_unique \(result.witnessHashUnique); \(result.left) left; "
                        + "memory grew by \(decimal(Double(result.memoryGrowth) / 1e6, 1)) MB")
                print(result.pass ? "pass" : "FAILED")
            }
            if !result.pass { throw ExitCode(1) }
        }
    }
}
