import Foundation
import TestSupport

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
        program: URL = Program.executable, in place: String? = nil
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
        process.environment = Program.environment.merging(environment) { _, new in new }
        try await process.runToEnd()
        status = process.terminationStatus
        output = try Data(contentsOf: folder.appendingPathComponent("out"))
        errors = String(decoding: try Data(contentsOf: folder.appendingPathComponent("err")), as: UTF8.self)
    }
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

struct TemporaryFolder: ~Copyable {
    let path: String
    init() throws {
        let url = FileManager.default.temporaryDirectory.appendingPathComponent("martlet-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        path = url.path
    }
    deinit { try? FileManager.default.removeItem(atPath: path) }
}
