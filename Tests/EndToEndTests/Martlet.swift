import Foundation

/// The built program, run as a user runs it.
struct Martlet {
    let status: Int32
    let output: Data
    let errors: String

    /// Runs `martlet` with arguments and waits for its end.
    /// - Parameters:
    ///   - environment: variables besides those that the tests run with.
    ///   - program: another copy of the program.
    ///   - place: the folder it runs in; nil for that of the tests.
    init(
        _ arguments: [String], input: Data = Data(), environment: [String: String] = [:],
        program: URL = Self.executable, in place: String? = nil
    ) async throws {
        let process = Process()
        process.executableURL = program
        process.arguments = arguments
        if let place { process.currentDirectoryURL = URL(fileURLWithPath: place) }
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        // Files, not pipes: neither side can block the other.
        func file(_ name: String, _ data: Data = Data()) throws -> FileHandle {
            let url = folder.appendingPathComponent(name)
            try data.write(to: url)
            return try FileHandle(forUpdating: url)
        }
        process.standardInput = try file("in", input)
        process.standardOutput = try file("out")
        process.standardError = try file("err")
        process.environment = Self.environment.merging(environment) { _, new in new }
        try await process.runToEnd()
        status = process.terminationStatus
        output = try Data(contentsOf: folder.appendingPathComponent("out"))
        errors = String(decoding: try Data(contentsOf: folder.appendingPathComponent("err")), as: UTF8.self)
    }

    /// Nothing that someone has set for Martlet.
    static let environment = ProcessInfo.processInfo.environment.filter { name, _ in
        !name.hasPrefix("MARTLET_") && !name.hasPrefix("TTS_")
    }

    /// Beside the test bundle.
    static let executable: URL = {
        let arguments = ProcessInfo.processInfo.arguments
        let bundle = arguments.first { $0.contains(".xctest") } ?? arguments[0]
        var url = URL(fileURLWithPath: bundle)
        while url.path.contains(".xctest") { url.deleteLastPathComponent() }
        return url.appendingPathComponent("martlet")
    }()
}

extension Process {
    /// Runs it and waits, without a thread that others need: tests of servers run beside this.
    func runToEnd() async throws {
        let (ends, continuation) = AsyncStream<Void>.makeStream()
        terminationHandler = { _ in continuation.finish() }
        try run()
        for await _ in ends {}
    }
}

/// `martlet serve` on a free port, until it is let go.
final class MartletServer {
    let url: String
    private let process = Process()
    private let folder: URL

    init(_ arguments: [String], environment: [String: String] = [:]) async throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let log = folder.appendingPathComponent("err")
        try Data().write(to: log)
        process.executableURL = Martlet.executable
        process.arguments = ["serve", "--port", "0", "--quiet"] + arguments
        process.standardOutput = FileHandle.nullDevice
        process.standardError = try FileHandle(forWritingTo: log)
        process.environment = Martlet.environment.merging(environment) { _, new in new }
        try process.run()
        var address: String?
        while address == nil, process.isRunning {
            let text = String(decoding: try Data(contentsOf: log), as: UTF8.self)
            if let range = text.range(of: "listening on "), let end = text[range.upperBound...].firstIndex(of: "\n") {
                address = String(text[range.upperBound..<end])
            }
            try await Task.sleep(for: .milliseconds(20))
        }
        guard let address else {
            throw CocoaError(.executableLoad, userInfo: [NSDebugDescriptionErrorKey: "the server has ended"])
        }
        url = "http://" + address
    }

    /// Everything that it has logged.
    var log: String { (try? String(contentsOf: folder.appendingPathComponent("err"), encoding: .utf8)) ?? "" }

    deinit {
        if process.isRunning { process.terminate() }
        process.waitUntilExit()
        try? FileManager.default.removeItem(at: folder)
    }
}

struct TemporaryFolder: ~Copyable {
    let path: String
    init() throws {
        let url = FileManager.default.temporaryDirectory.appendingPathComponent("martlet-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        path = url.path
    }
    deinit { try? FileManager.default.removeItem(atPath: path) }
}
