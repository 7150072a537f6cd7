public import Foundation
import Synchronization

/// The built program.
public enum Program {
    /// Beside the test bundle.
    public static let executable: URL = {
        let arguments = ProcessInfo.processInfo.arguments
        let bundle = arguments.first { $0.contains(".xctest") } ?? arguments[0]
        var url = URL(fileURLWithPath: bundle)
        while url.path.contains(".xctest") { url.deleteLastPathComponent() }
        return url.appendingPathComponent("martlet")
    }()

    /// Nothing that someone has set for Martlet.
    public static let environment = ProcessInfo.processInfo.environment.filter { name, _ in
        !name.hasPrefix("MARTLET_") && !name.hasPrefix("TTS_")
    }
}

/// `martlet serve` as a process of its own, which can be killed.
public final class ServerProgram: Sendable {
    /// Where it listens.
    public let port: Int
    /// The same as an address.
    public var url: String { "http://127.0.0.1:\(port)" }
    private let process: Process
    private let text: LogText

    /// Starts it and waits until it listens.
    /// - Parameters:
    ///   - arguments: of `serve`.
    ///   - port: 0 takes a free one.
    ///   - environment: variables besides those that the tests run with.
    ///   - shell: commands of a shell before it, such as limits.
    public init(
        _ arguments: [String], port: Int = 0, environment: [String: String] = [:], shell: String = ""
    ) async throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/sh")
        process.arguments =
            ["-c", "\(shell)\nexec \"$@\"", "sh", Program.executable.path, "serve", "--quiet", "--port", "\(port)"]
            + arguments
        process.environment = Program.environment.merging(environment) { _, new in new }
        process.standardOutput = FileHandle.nullDevice
        let errors = Pipe()
        process.standardError = errors
        let (lines, found) = AsyncStream<Int>.makeStream()
        let log = LogText()
        errors.fileHandleForReading.readabilityHandler = { handle in
            let data = handle.availableData
            if data.isEmpty {
                handle.readabilityHandler = nil
                found.finish()
                return
            }
            if let port = log.add(String(decoding: data, as: UTF8.self)) { found.yield(port) }
        }
        try process.run()
        self.process = process
        self.text = log
        var ports = lines.makeAsyncIterator()
        guard let port = await ports.next() else {
            process.waitUntilExit()
            throw DidNotStart(log: log.all)
        }
        self.port = port
    }

    /// It ended before it listened.
    public struct DidNotStart: Error {
        /// What it had to say.
        public let log: String
    }

    deinit { if process.isRunning { kill(process.processIdentifier, SIGKILL) } }

    /// Sends a signal and waits for the end; gives the exit status, or the signal's number below zero.
    public func end(_ signal: Int32) -> Int32 {
        kill(process.processIdentifier, signal)
        process.waitUntilExit()
        return process.terminationReason == .exit ? process.terminationStatus : -process.terminationStatus
    }

    /// Whether it runs.
    public var isRunning: Bool { process.isRunning }

    /// What it has logged.
    public var log: String { text.all }

    private final class LogText: Sendable {
        private let text = Mutex("")

        var all: String { text.withLock { $0 } }

        /// Adds a piece; gives the port if it is in the log now and was not before.
        func add(_ piece: String) -> Int? {
            text.withLock { text in
                let before = Self.port(text)
                text += piece
                return before == nil ? Self.port(text) : nil
            }
        }

        private static func port(_ text: String) -> Int? {
            guard let start = text.range(of: "listening on "),
                let line = text[start.upperBound...].split(separator: "\n", omittingEmptySubsequences: false).first,
                text[start.upperBound...].contains("\n")
            else { return nil }
            return line.split(separator: ":").last.flatMap { Int($0) }
        }
    }
}
