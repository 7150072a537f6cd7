import SpeechEngine

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// One line on a terminal that tells how far the speech is; silent when piped.
final class SpeechProgressLine {
    private let isShown = isatty(STDERR_FILENO) != 0
    private let start = ContinuousClock.now
    private var firstAudio: Double?

    func show(seconds: Double) {
        let elapsed = (ContinuousClock.now - start) / .seconds(1)
        if firstAudio == nil { firstAudio = elapsed }
        if isShown { writeError("\r\(decimal(seconds, 1)) s spoken · RTF \(decimal(elapsed / seconds, 2))  ") }
    }

    func finish(_ summary: SpeechSummary) {
        guard isShown else { return }
        let first = summary.firstAudio.map { "first audio \(decimal($0 * 1000, 0)) ms · " } ?? ""
        writeError(
            "\r\(decimal(summary.seconds, 2)) s spoken · \(first)RTF \(decimal(summary.realTimeFactor, 2)) · "
                + "\(summary.finishReason.rawValue)\n")
    }
}
