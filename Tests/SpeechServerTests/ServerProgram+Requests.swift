import Foundation
import Synchronization

/// `martlet serve` as a process of its own, which can be killed.
final class ServerProcess: Sendable {
    let port: Int
    private let process: Process
    private let text: LogText

    /// Starts it and waits until it is ready.
    /// - Parameters:
    ///   - arguments: of `serve`, after the model.
    ///   - shell: commands of a shell before it, such as limits.
    init(model: String, _ arguments: [String] = [], port: Int = 0, shell: String = "") async throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/sh")
        process.arguments =
            ["-c", "\(shell)\nexec \"$@\"", "sh", Self.executable.path, "serve", "--model", model, "--quiet"]
            + ["--port", "\(port)", "--threads", "2"] + arguments
        process.environment = ProcessInfo.processInfo.environment.filter { !$0.key.hasPrefix("MARTLET_") }
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
        while try await request("GET", "/ready").status != 200 { try await Task.sleep(for: .milliseconds(20)) }
    }

    struct DidNotStart: Error {
        let log: String
    }

    deinit { if process.isRunning { kill(process.processIdentifier, SIGKILL) } }

    /// Sends a signal and waits for the end; gives the exit status, or the signal's number below zero.
    func end(_ signal: Int32) -> Int32 {
        kill(process.processIdentifier, signal)
        process.waitUntilExit()
        return process.terminationReason == .exit ? process.terminationStatus : -process.terminationStatus
    }

    var isRunning: Bool { process.isRunning }

    func request(
        _ method: String, _ path: String, headers: [String: String] = [:], body: [UInt8]? = nil
    ) async throws -> RawResponse {
        let connection = try RawConnection(port: port)
        await connection.send(method, path, headers: headers, body: body)
        return await connection.response()
    }

    func speak(_ json: String) async throws -> RawResponse {
        try await request("POST", "/v1/audio/speech", body: Array(json.utf8))
    }

    /// What it has logged.
    var log: String { text.all }

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

    /// Beside the test bundle.
    private static let executable: URL = {
        let arguments = ProcessInfo.processInfo.arguments
        let bundle = arguments.first { $0.contains(".xctest") } ?? arguments[0]
        var url = URL(fileURLWithPath: bundle)
        while url.path.contains(".xctest") { url.deleteLastPathComponent() }
        return url.appendingPathComponent("martlet")
    }()
}
