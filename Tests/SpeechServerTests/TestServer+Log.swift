import Logging
import Synchronization

/// Lines of an access log.
final class LogLines: Sendable {
    private let lines = Mutex<[String]>([])

    func add(_ line: String) { lines.withLock { $0.append(line) } }

    var all: [String] { lines.withLock { $0 } }
}

extension TestServer {
    /// Says nothing.
    static var silentLogger: Logger { Logger(label: "tests", factory: { _ in SwiftLogNoOpLogHandler() }) }
}
