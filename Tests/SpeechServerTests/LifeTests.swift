import Foundation
import Qwen3TTS
import SpeechEngine
import TestSupport
import Testing

@testable import SpeechServer

/// Clients that leave, that do not read, and a server that is told to go.
@Suite(.serialized) struct LifeTests {
    private static let long = #"{"input": "a long one", "max_new_tokens": 4000, "seed": 1, "response_format": "pcm"}"#
    private static let short = #"{"input": "a", "max_new_tokens": 3, "seed": 1, "response_format": "pcm"}"#

    /// No run-away guard: what the small checkpoints speak is noise.
    private var unguarded: EngineOptions {
        var options = EngineOptions()
        options.runaway = nil
        return options
    }

    /// It is not ready before a warm-up has spoken, and tries again when its worker process dies of it.
    @Test func aWarmUpOutlivesAWorker() async throws {
        let script = FileManager.default.temporaryDirectory.appending(path: "martlet-dies-once-\(UUID()).sh")
        let lines = [
            "#!/bin/sh", "if [ -e \"$0.died\" ]; then exec '\(Program.executable.path)' \"$@\"; fi", ": > \"$0.died\"",
            "exit 1", "",
        ]
        try lines.joined(separator: "\n").write(to: script, atomically: true, encoding: .utf8)
        defer { for end in ["", ".died"] { try? FileManager.default.removeItem(atPath: script.path + end) } }
        try FileManager.default.setAttributes([.posixPermissions: 0o700], ofItemAtPath: script.path)
        var engine = unguarded
        (engine.workerProcess, engine.workerExecutable) = (true, script.path)
        let server = try await TestServer(engine: engine)
        #expect(server.engine.statistics.finished[.workerLost] == 1)
        #expect(try await server.speak(Self.short).status == 200)
        try await server.stop()
    }

    @Test func aClientThatLeavesCancelsItsSpeech() async throws {
        let server = try await TestServer(engine: unguarded)
        let alone = try await server.speak(Self.short).body
        let connection = try RawConnection(port: server.port)
        await connection.send("POST", "/v1/audio/speech", body: Array(Self.long.utf8))
        #expect(await connection.readSome() > 0)
        let before = server.engine.statistics.frames
        connection.close()
        #expect(try await waits { server.engine.statistics.finished[.cancelled, default: 0] == 1 })
        #expect(server.engine.statistics.frames < before + 200)
        #expect(server.engine.statistics.active == 0)
        #expect(try await server.speak(Self.short).body == alone)
        try await server.stop()
    }

    @Test func aClientThatDoesNotReadIsLeftBehindAndDropped() async throws {
        var engine = unguarded
        engine.maxUnreadFrames = 10
        let server = try await TestServer(engine: engine) { $0.writeTimeout = 1 }
        let connection = try RawConnection(port: server.port, receiveBuffer: 4096)
        await connection.send("POST", "/v1/audio/speech", body: Array(Self.long.utf8))
        // Others are served meanwhile.
        #expect(try await server.speak(Self.short).status == 200)
        #expect(try await waits { server.engine.statistics.finished[.cancelled, default: 0] == 1 })
        // What lies in the buffers of both sides and of the engine, not the whole.
        #expect(server.engine.statistics.frames < 1000)
        let response = await connection.response()
        #expect(!response.isComplete)
        try await server.stop()
    }

    @Test func shutdownLetsRunningStreamsFinish() async throws {
        let server = try await TestServer(engine: unguarded)
        let body = #"{"input": "a", "max_new_tokens": 60, "seed": 1, "response_format": "pcm"}"#
        let alone = try await server.speak(body)
        let running = try RawConnection(port: server.port)
        await running.send("POST", "/v1/audio/speech", body: Array(body.utf8))
        #expect(await running.readSome() > 0)
        // Connected before, so that it is served still.
        let late = try RawConnection(port: server.port)
        await server.group.triggerGracefulShutdown()
        #expect(try await waits { server.server.context.isDraining })
        await late.send("POST", "/v1/audio/speech", body: Array(Self.short.utf8))
        let refused = await late.response()
        #expect(refused.status == 503)
        #expect(refused.headers["retry-after"] != nil)
        #expect(try refused.error("code") == "server_draining")
        let response = await running.response()
        #expect(response.isComplete)
        #expect(response.trailers["x-martlet-pcm-sha256"] == alone.trailers["x-martlet-pcm-sha256"])
        try await server.running.value
    }

    @Test func whatIsNoHTTPIsToldSoAndSilenceIsNotKept() async throws {
        let server = try await TestServer { $0.readTimeout = 2 }
        let greeting: [UInt8] = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3] + [UInt8](repeating: 0, count: 200)
        let nonsense = [
            greeting, Array("GET / HTTP/1.1\r\nX-A: \(String(repeating: "a", count: 100_000))\r\n\r\n".utf8),
            Array("POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Length: banana\r\n\r\n".utf8),
        ]
        for bytes in nonsense {
            let connection = try RawConnection(port: server.port)
            await connection.send(bytes)
            let response = await connection.response()
            #expect(response.status == 400)
            #expect(try response.error("code") == "invalid_http")
            #expect(await connection.read(1) == nil)
        }
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        let unfinished = [
            "", "GET /health HTTP/1.1\r\nHost:",
            "GET /v1/audio/speech/stream HTTP/1.1\r\n\(upgrade)Sec-WebSocket-Version: 13\r\nContent-Length: 9\r\n\r\n",
        ]
        for text in unfinished {
            let connection = try RawConnection(port: server.port)
            await connection.send(Array(text.utf8))
            #expect(await connection.read(1) == nil)
            #expect(!connection.gaveUp, "\(text)")
        }
        // One that leaves before its request is whole is no fault of the server's.
        let leaver = try RawConnection(port: server.port)
        await leaver.send(Array("POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{".utf8))
        leaver.close()
        #expect(try await waits { server.log.all.contains { $0.contains("is not whole") } })
        #expect(server.log.all.allSatisfy { !$0.contains("internal error") })
        #expect(try await server.speak(Self.short).status == 200)
        try await server.stop()
    }

    @Test func aFullQueueIsAnsweredAtOnce() async throws {
        var engine = unguarded
        engine.maxActive = 1
        engine.maxQueued = 0
        let server = try await TestServer(engine: engine)
        let connection = try RawConnection(port: server.port)
        await connection.send("POST", "/v1/audio/speech", body: Array(Self.long.utf8))
        #expect(await connection.readSome() > 0)
        #expect(try await waits { server.engine.statistics.active == 1 })
        let refused = try await server.speak(Self.short)
        #expect(refused.status == 503)
        #expect(try refused.error("code") == "server_busy")
        #expect(Int(refused.headers["retry-after"] ?? "") ?? 0 >= 1)
        connection.close()
        #expect(try await waits { server.engine.statistics.active == 0 })
        try await server.stop()
    }

    @Test func aRequestMayTakeOnlySoLong() async throws {
        let server = try await TestServer(engine: unguarded) { $0.requestTimeout = 1 }
        let response = try await server.speak(Self.long)
        #expect(response.status == 200 || response.status == 503)
        if response.status == 200 { #expect(response.trailers["x-martlet-finish-reason"] == "timeout") }
        // The metrics count it as what it was.
        #expect(try await waits { server.engine.statistics.finished[.timeout] == 1 })
        #expect(server.engine.statistics.finished[.cancelled, default: 0] == 0)
        try await server.stop()
    }
}
