import Foundation
import Qwen3TTS
import ServiceLifecycle
import SpeechEngine
import Tensors
import TestSupport

@testable import SpeechServer

/// A server on a free port of the loopback, on a small checkpoint.
final class TestServer: ListeningServer, Sendable {
    let server: SpeechServer
    let engine: SpeechEngine
    let group: ServiceGroup
    let running: Task<Void, any Error>
    let log = LogLines()
    let port: Int

    /// One for all tests that leave it as it is.
    static let shared = Task { try await TestServer() }

    init(
        _ fixture: Fixture = .customVoice, engine engineOptions: EngineOptions = EngineOptions(),
        _ change: (inout ServerOptions) -> Void = { _ in }
    ) async throws {
        let model = try SpeechModel(directory: fixture.directory, compute: Compute(threads: 2))
        engine = SpeechEngine(model: model, options: engineOptions)
        let lines = log
        var options = ServerOptions()
        options.port = 0
        options.patience(900)
        options.accessLog = { lines.add($0) }
        change(&options)
        server = try SpeechServer(engine: engine, options: options, logger: Self.silentLogger)
        group = ServiceGroup(configuration: .init(services: [server], logger: Self.silentLogger))
        running = Task { [group] in try await group.run() }
        while server.port == nil { try await Task.sleep(for: .milliseconds(10)) }
        port = server.port ?? 0
        while !server.isReady { try await Task.sleep(for: .milliseconds(20)) }
    }

    func stop() async throws {
        await group.triggerGracefulShutdown()
        try await running.value
    }
}

/// A server that the tests talk to, in this process or as a program.
protocol ListeningServer {
    var port: Int { get }
}

extension ListeningServer {
    func request(
        _ method: String, _ path: String, headers: [String: String] = [:], body: [UInt8]? = nil
    ) async throws -> RawResponse {
        let connection = try RawConnection(port: port)
        await connection.send(method, path, headers: headers, body: body)
        return await connection.response()
    }

    /// `POST /v1/audio/speech`.
    func speak(_ json: String, headers: [String: String] = [:]) async throws -> RawResponse {
        try await request("POST", "/v1/audio/speech", headers: headers, body: Array(json.utf8))
    }
}

/// Whether a condition comes true within a quarter of an hour: tests that compute may hold all threads for minutes.
func waits(for condition: () -> Bool) async throws -> Bool {
    let end = ContinuousClock.now + .seconds(900)
    while ContinuousClock.now < end {
        if condition() { return true }
        try await Task.sleep(for: .milliseconds(10))
    }
    return condition()
}

extension ServerOptions {
    /// Sets all time limits for clients, who may wait for minutes for a thread.
    mutating func patience(_ seconds: Double) {
        readTimeout = seconds
        writeTimeout = seconds
        pingInterval = seconds
    }
}
