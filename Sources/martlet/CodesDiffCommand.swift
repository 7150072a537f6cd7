import ArgumentParser
import Experiments

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// `martlet codes diff`: whether runs are equal, and where they part.
struct CodesDiffCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "diff", abstract: "Compare the codes of runs: are they equal, and where do they part?",
        discussion: "Exits with 1 if they are not equal.")

    @Argument(help: "Tags in the folder, or paths of codes_*.safetensors files; two at least.")
    var tags: [String] = []

    @Option(
        name: [.customLong("runs"), .customLong("runs-json")], help: "Take the tags of a manifest or a file of runs.")
    var runs: String?

    @Option(name: .shortAndLong, help: "The folder with the dumps.")
    var folder = "codes"

    @Option(
        name: [.customLong("packet-tokens"), .customLong("packet")],
        help: "Codec frames of a packet; default: those of the file of runs, else 4.")
    var packet: Int?

    @Option(help: "Also draw where runs differ: a file that ends in .svg.")
    var picture: String?

    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        if let picture, !picture.hasSuffix(".svg") {
            throw ValidationError("--picture is \(picture), expected a name that ends in .svg.")
        }
    }

    func run() throws {
        let report = try runs.map { try CodeRuns.Report.read(from: $0) }
        let all = tags + (report?.runs.map(\.tag) ?? [])
        guard all.count >= 2 else { throw ValidationError("Give two tags or more, or --runs FILE.") }
        let records = try all.map { tag in
            tag.hasSuffix(".safetensors")
                ? try CodeRecord.read(file: tag, tag: tag) : try CodeRecord.read(tag: tag, from: folder)
        }
        let comparison = try CodesComparison(records, packet: packet ?? report?.packet ?? 4)
        if let picture { try ExperimentFiles.write(text: CodesComparison.svg(records), to: picture) }
        if json {
            try printJSON(comparison)
        } else {
            print("full_hash_unique          \(comparison.hashUnique)")
            print("first_packet_hash_unique  \(comparison.firstPacketHashUnique)")
            let place = comparison.firstDiffCodebook >= 0 ? ", codebook \(comparison.firstDiffCodebook)" : ""
            print("first_diff_frame          \(comparison.firstDiffFrame)\(place)")
            print()
            for line in CodesComparison.picture(records) { print(line) }
            print()
            print("· equal to the first run   0…f first codebook that differs   + - frames more or less")
        }
        if comparison.hashUnique > 1 { throw ExitCode(1) }
    }
}
