import ArgumentParser
import Experiments

/// `martlet inspect`: what a model folder holds.
struct InspectCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "Show what a model is, and which of its tensors are missing or odd.")

    @Argument(help: "A model folder, or the name of a pulled model.")
    var model: String

    @Flag(help: "List all tensors that nothing uses.")
    var unused = false

    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
        let found = try ModelInspection(folder: ModelLocation.directory(of: model))
        if json { try printJSON(found) } else { show(found) }
        if !found.isUsable { throw ExitCode(1) }
    }

    private func show(_ found: ModelInspection) {
        func line(_ name: String, _ text: String) { print(name.padded(to: 12) + text) }
        line("folder", found.folder)
        line("kind", "\(found.kind), \(found.size)")
        if let identity = found.identity { line("identity", identity) }
        line("voices", found.voices.isEmpty ? "none by name" : found.voices.joined(separator: ", "))
        line("languages", found.languages.joined(separator: ", "))
        line(
            "audio",
            "\(found.sampleRate) Hz, \(decimal(found.secondsPerFrame * 1000, 0)) ms a frame of \(found.codeGroups) "
                + "codes")
        line(
            "talker",
            "\(found.maxPositions) positions, \(found.cacheBytesPerFrame / 1024) KiB of keys and values a frame")
        if let tokens = found.tokens { line("tokenizer", "\(tokens) ids") }
        let formats = ["bf16", "q8", "q4"].compactMap { name in
            found.weightBytesPerFrame[name].map { "\(name) \(decimal(Double($0) / 1e6, 1)) MB" }
        }
        line("a frame", "reads weights of " + formats.joined(separator: ", "))
        for file in found.files {
            let types = file.types.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }.joined(separator: ", ")
            print()
            print(
                "\(file.file): \(decimal(Double(file.bytes) / 1e6, 1)) MB, "
                    + "\(decimal(Double(file.parameters) / 1e6, 1)) M numbers, \(file.tensors) tensors (\(types))")
            for name in file.missing { print("  missing: \(name)") }
            for problem in file.odd { print("  odd: \(problem)") }
            if unused {
                for name in file.unused { print("  unused: \(name)") }
            } else if !file.unused.isEmpty {
                print("  \(file.unused.count) tensors that nothing uses (--unused lists them)")
            }
        }
        for problem in found.problems { print("problem: \(problem)") }
        print()
        print(found.isUsable ? "Nothing is missing." : "This model cannot speak as it is.")
    }
}
