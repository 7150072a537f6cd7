import Synchronization

/// How far a pull is.
public struct PullProgress: Equatable, Sendable {
    /// Files that are complete, those found in the cache included.
    public var filesDone = 0
    /// Files that are wanted.
    public var filesTotal = 0
    /// Bytes on disk, those found in the cache included.
    public var bytesDone: Int64 = 0
    /// Bytes of all wanted files.
    public var bytesTotal: Int64 = 0
    /// The file that moved last.
    public var path = ""
}

/// Adds up what the downloads of one pull report, and passes it on in order.
final class ProgressMeter: Sendable {
    private let state = Mutex(PullProgress())
    private let report: @Sendable (PullProgress) -> Void

    init(_ report: @escaping @Sendable (PullProgress) -> Void) {
        self.report = report
    }

    /// Changes the progress and reports it. The report runs under the lock, so that reports never overtake each other.
    func update(_ change: (inout PullProgress) -> Void) {
        state.withLock {
            change(&$0)
            report($0)
        }
    }
}
