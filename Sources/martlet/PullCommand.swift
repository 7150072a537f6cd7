import ArgumentParser
import ModelHub
import Synchronization

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// `martlet pull`: a model from the Hugging Face hub.
struct PullCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pull", abstract: "Download a model from the Hugging Face hub into its usual cache.",
        discussion: """
            Goes on where an earlier pull ended, checks sizes and SHA-256, and prints the model's folder. HF_HOME, \
            HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and the proxy variables hold as for the hub's own \
            tools, which find what this command pulled and the other way round.
            """)

    @Argument(help: "The repository, such as Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice.")
    var repository: String

    @Option(help: "A branch, tag or commit. Other commands find it as REPOSITORY@REVISION.")
    var revision = "main"

    func run() async throws {
        let line = isatty(STDERR_FILENO) != 0 ? ProgressLine() : nil
        print(try await pull(line))
    }

    /// Pulls and gives the folder; the line is left whether that works or not.
    private func pull(_ line: ProgressLine?) async throws -> String {
        defer { line?.end() }
        return try await HubClient().pull(repository: repository, revision: revision) { line?.draw($0) }.path
    }
}

/// The line on the terminal that says how far a pull is, drawn a few times a second.
private final class ProgressLine: Sendable {
    private struct State {
        var start: (time: ContinuousClock.Instant, bytes: Int64)?
        var drawn: ContinuousClock.Instant?
    }

    private let state = Mutex(State())
    private static let barWidth = 30

    func draw(_ progress: PullProgress) {
        let now = ContinuousClock.now
        let isComplete = progress.filesDone == progress.filesTotal
        state.withLock { state in
            let start = state.start ?? (now, progress.bytesDone)
            state.start = start
            if let drawn = state.drawn, now - drawn < .milliseconds(100), !isComplete { return }
            state.drawn = now
            let share = Double(progress.bytesDone) / Double(max(progress.bytesTotal, 1))
            let filled = Int(min(max(share, 0), 1) * Double(Self.barWidth))
            let bar = String(repeating: "█", count: filled) + String(repeating: "·", count: Self.barWidth - filled)
            let rate = Double(progress.bytesDone - start.bytes) / 1e6 / max((now - start.time) / .seconds(1), 1e-3)
            let megabytes = "\(progress.bytesDone / 1_000_000) of \(progress.bytesTotal / 1_000_000) MB"
            Self.show("\r\(bar) \(megabytes), \(decimal(max(rate, 0), 1)) MB/s  \(progress.path)\u{1B}[K")
        }
    }

    /// Leaves the line, if one was drawn.
    func end() {
        if state.withLock({ $0.drawn }) != nil { Self.show("\n") }
    }

    private static func show(_ text: String) {
        var text = text
        // A terminal that does not take it is no reason to end a download.
        text.withUTF8 { _ = write(STDERR_FILENO, $0.baseAddress, $0.count) }
    }
}
