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

    @Option(help: "One of the folder's cases; repeat it for more. Without it, all are tested.")
    var `case`: [String] = []

    @Option(help: "Frames of speech to compare in each test, at most.")
    var frames = Int.max

    func run() throws {
        guard try passes({ print($0) }) else { throw ExitCode(1) }
    }

    /// Runs the comparisons and writes a line for each, and one that counts them.
    /// - Parameter driver: nil for the machine's.
    /// - Returns: whether there are any and all hold.
    func passes(driver: CUDADriver? = nil, _ write: @escaping (String) -> Void) throws -> Bool {
        guard let index = try? Devices.index(device) else {
            throw ValidationError("--device is \(device), expected cuda:0, cuda:1, …")
        }
        guard frames > 0 else { throw ValidationError("--frames is \(frames), expected at least 1") }
        let results = try CUDASelfTest.run(
            directory: directory, device: index, cases: `case`.isEmpty ? nil : `case`, frames: frames, driver: driver
        ) { write("\($0)") }
        let failed = results.count { !$0.passed }
        write("\(results.count) comparisons, \(failed) failed")
        return failed == 0 && !results.isEmpty
    }
}
