import Foundation
import Synchronization

/// `martlet serve` as a child process on a free port.
final class BenchLoadServer: Sendable {
    private let process: Process
    /// Where it listens.
    let url: String

    /// Starts it and waits until it listens; what it logs after that is left out, warnings and errors aside.
    /// - Parameter arguments: those of `serve` apart from the address.
    init(_ arguments: [String]) async throws {
        let process = Process()
        process.executableURL = URL(filePath: Bundle.main.executablePath ?? CommandLine.arguments[0])
        process.arguments = ["serve", "--host", "127.0.0.1", "--port", "0", "--quiet"] + arguments
        let log = Pipe()
        process.standardError = log
        process.standardOutput = FileHandle.nullDevice
        let (addresses, found) = AsyncStream<String>.makeStream()
        let unfinished = Mutex("")
        log.fileHandleForReading.readabilityHandler = { handle in
            let data = handle.availableData
            if data.isEmpty {
                handle.readabilityHandler = nil
                found.finish()
                return
            }
            unfinished.withLock { text in
                text += String(decoding: data, as: UTF8.self)
                while let end = text.firstIndex(of: "\n") {
                    let line = text[..<end]
                    if let range = line.range(of: "listening on ") {
                        found.yield("http://" + line[range.upperBound...])
                    } else if !line.contains(" info ") {
                        printError(String(line))
                    }
                    text = String(text[text.index(after: end)...])
                }
            }
        }
        try process.run()
        self.process = process
        var lines = addresses.makeAsyncIterator()
        guard let url = await lines.next() else { throw CommandError("the server has ended before it listened") }
        self.url = url
    }

    /// Whether it still runs.
    var isAlive: Bool { process.isRunning }

    /// Lets it finish what it has, and waits for its end.
    func stop() {
        if process.isRunning { process.terminate() }
        process.waitUntilExit()
    }
}
