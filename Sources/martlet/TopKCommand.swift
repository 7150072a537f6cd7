import ArgumentParser
import Experiments

/// `martlet topk`: the likeliest choices of recorded runs.
struct TopKCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "topk", abstract: "Compare the likeliest choices that runs recorded.", subcommands: [Diff.self])

    /// `martlet topk diff`.
    struct Diff: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Find the first step at which two runs' choices differ, and the first at which any logit does.",
            discussion: """
                The files are topk_<tag>.json, written by 'martlet codes dump --topk-log N'. Exits with 1 if anything \
                differs.
                """)

        @Argument(help: "The first run: a file, or a tag in the folder.")
        var first: String

        @Argument(help: "The second run.")
        var second: String

        @Option(name: .shortAndLong, help: "The folder with the dumps.")
        var folder = "codes"

        @Flag(help: "Print JSON.")
        var json = false

        func run() throws {
            func read(_ name: String) throws -> TopChoices {
                try TopChoices.read(from: name.hasSuffix(".json") ? name : "\(folder)/topk_\(name).json")
            }
            let difference = try read(first).difference(from: read(second))
            if json {
                try printJSON(difference)
            } else {
                print("\(difference.compared) choices compared")
                show("first choice that differs", difference.firstChoice)
                show("first logit that differs ", difference.firstLogit)
            }
            if difference.firstLogit != nil { throw ExitCode(1) }
        }

        private func show(_ name: String, _ place: TopChoices.Place?) {
            guard let place else {
                print("\(name): none")
                return
            }
            print("\(name): frame \(place.frame), codebook \(place.codebook)")
            for step in [place.first, place.second] {
                let choices = zip(step.ids, step.logits).map { "\($0) (\($1))" }
                print("    \(choices.joined(separator: ", "))")
            }
        }
    }
}
