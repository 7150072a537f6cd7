import ArgumentParser
import SpeechEngine
import SpeechServer

/// `martlet replay`: speaks recorded requests again and compares.
struct ReplayCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "replay", abstract: "Speak recorded requests again and compare them to the bit.",
        discussion: "'martlet serve --record-dir DIR' writes a record of every speech request.")

    @Argument(help: "Records of requests.")
    var records: [String]

    @OptionGroup var model: ModelOptions
    @OptionGroup var device: DeviceOptions

    @Option(help: "Where the server's uploaded voices are kept.")
    var voicesDir: String?

    func run() async throws {
        let engine = try device.engine(model.load(device))
        var options = ServerOptions()
        options.voicesDirectory = voicesDir
        var differing = 0
        for path in records {
            let replay = try await RequestRecord(path: path).replay(engine: engine, options: options)
            if !replay.isSame { differing += 1 }
            let frames = "\(replay.summary.frames) frames, \(replay.summary.finishReason.rawValue)"
            print("\(path): \(replay.isSame ? "the same" : "DIFFERENT"), \(frames)")
            if !replay.isSame {
                print("  codes \(replay.codes) → \(replay.summary.fingerprint.codes)")
                print("  PCM   \(replay.pcm) → \(replay.summary.fingerprint.pcm)")
            }
        }
        if differing > 0 { throw ExitCode.failure }
    }
}
