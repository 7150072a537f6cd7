import ArgumentParser
import CUDABackend

/// `martlet selftest`: the stages of a GPU against the goldens of a checkpoint.
struct SelfTestCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "selftest", abstract: "Check a GPU's stages against a checkpoint's golden outputs.",
        discussion: """
            The folder is one with goldens, such as Tests/Fixtures/tiny-custom-voice:
              martlet selftest Tests/Fixtures/tiny-custom-voice --device cuda:0
            """)

    @Argument(help: "A model folder with a golden folder in it.")
    var directory: String

    @Option(help: "The card: cuda:0, cuda:1, …")
    var device = "cuda:0"

    func run() throws {
        guard device.hasPrefix("cuda:"), let index = Int(device.dropFirst(5)), index >= 0 else {
            throw ValidationError("--device is \(device), expected cuda:0, cuda:1, …")
        }
        var count = 0, failed = 0
        _ = try CUDASelfTest.run(directory: directory, device: index) { result in
            print(result)
            count += 1
            if !result.passed { failed += 1 }
        }
        print("\(count) comparisons, \(failed) failed")
        if failed > 0 { throw ExitCode(1) }
    }
}
