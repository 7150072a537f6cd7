import Foundation
import TestSupport
import Testing

/// A language model's answer spoken while it comes.
@Suite struct BridgeTests {
    private struct Report: Decodable {
        let pieces, characters: Int
        let stopped: Bool
        let finish_reason: String
        let llm_first_ms, first_audio_ms: Double?
    }

    private func report(_ errors: String) throws -> Report {
        let line = errors.split(separator: "\n").last { $0.hasPrefix("{") }
        return try JSONDecoder().decode(Report.self, from: Data((line ?? "").utf8))
    }

    @Test func theAnswerIsSpokenAsAWholeTextWouldBe() async throws {
        let server = try await ServerProgram(SayTests.model)
        let chat = try FakeChatServer(["Tea", " for two", ", and", " two for", " tea."])
        let folder = try TemporaryFolder()
        let wav = folder.path + "/answer.wav"
        let bridge = try await Martlet(
            ["bridge", "--llm", chat.url, "--tts", server.url, "--prompt", "Tea?", "--system", "Be brief.", "-o", wav]
                + SayTests.short + ["--json"])
        #expect(bridge.status == 0, "\(bridge.errors)")
        let whole = try await Martlet(
            ["say", "Tea for two, and two for tea.", "--layout", "streaming", "-o", "-"] + SayTests.model
                + SayTests.short)
        #expect(try Data(contentsOf: URL(fileURLWithPath: wav)).dropFirst(44) == whole.output)
        let report = try report(bridge.errors)
        #expect(report.characters == 29)
        // "Tea for", … : a starter, marks, and 8 to 12 characters.
        #expect(report.pieces >= 3)
        #expect(!report.stopped && report.finish_reason == "length")
        #expect(report.llm_first_ms ?? -1 >= 0 && report.first_audio_ms ?? -1 > 0)
        let request = chat.requests.withLock { $0.first ?? "" }
        for word in ["\"fake-1\"", "\"stream\":true", "Be brief.", "Tea?"] {
            #expect(request.contains(word), "\(request)")
        }
    }

    @Test func aCheckNamesBothSides() async throws {
        let server = try await ServerProgram(SayTests.model)
        let chat = try FakeChatServer(["Yes", ", I am", "."])
        let check = ["bridge", "--check", "--tts", server.url] + SayTests.short
        let whole = try await Martlet(check + ["--llm", chat.url])
        #expect(whole.status == 0 && whole.output.isEmpty, "\(whole.errors)")
        #expect(whole.errors.contains("language model fake-1: first text "))
        #expect(whole.errors.contains("10 characters in 3 pieces") && whole.errors.contains("first audio "))
        let silent = try FakeChatServer([])
        let failing = try await Martlet(check + ["--llm", silent.url])
        #expect(failing.status == 1)
        #expect(failing.errors.contains("gave no text"), "\(failing.errors)")
    }

    @Test func stopCutsTheAnswer() async throws {
        let server = try await ServerProgram(SayTests.model)
        let chat = try FakeChatServer(["Tea for two, ", "and two for tea; "], endless: true)
        let folder = try TemporaryFolder()
        let (pcm, log) = (folder.path + "/pcm", folder.path + "/err")
        for path in [pcm, log] { try Data().write(to: URL(fileURLWithPath: path)) }
        let process = Process()
        process.executableURL = Program.executable
        process.arguments = ["bridge", "--llm", chat.url, "--tts", server.url, "--json"]
        process.environment = Program.environment
        let input = Pipe()
        process.standardInput = input
        process.standardOutput = try FileHandle(forWritingTo: URL(fileURLWithPath: pcm))
        process.standardError = try FileHandle(forWritingTo: URL(fileURLWithPath: log))
        try process.run()
        try input.fileHandleForWriting.write(contentsOf: Data("Tea?\n".utf8))
        while process.isRunning, try Data(contentsOf: URL(fileURLWithPath: pcm)).isEmpty {
            try await Task.sleep(for: .milliseconds(20))
        }
        try input.fileHandleForWriting.write(contentsOf: Data("stop\n".utf8))
        try input.fileHandleForWriting.close()
        while process.isRunning { try await Task.sleep(for: .milliseconds(20)) }
        let errors = try String(contentsOfFile: log, encoding: .utf8)
        #expect(process.terminationStatus == 0, "\(errors)")
        #expect(try report(errors).stopped)
        // The language model is cut off, too.
        while chat.broken.load(ordering: .relaxed) == 0 {
            try await Task.sleep(for: .milliseconds(20))
        }
    }

    @Test func whatCannotBeReachedIsNamed() async throws {
        let bridge = try await Martlet(
            ["bridge", "--llm", "http://127.0.0.1:1", "--tts", "http://127.0.0.1:1", "--prompt", "x", "--wait", "0"])
        #expect(bridge.status == 1)
        #expect(bridge.errors.contains("connection refused"), "\(bridge.errors)")
        let server = try await ServerProgram(SayTests.model)
        let silent = try await Martlet(
            ["bridge", "--llm", "http://127.0.0.1:1", "--tts", server.url, "--prompt", "x", "--llm-model", "m"])
        #expect(silent.status == 1)
        #expect(silent.errors.contains("language model"), "\(silent.errors)")
    }
}
