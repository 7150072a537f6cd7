import Foundation
import TestSupport
import Testing

/// What happens to a server from outside: a full disk, files that are gone, a sudden end.
@Suite(.serialized) struct FaultTests {
    private static let speech = #"{"input": "a", "max_new_tokens": 5, "seed": 1, "response_format": "pcm"}"#
    private static let hash = "x-martlet-pcm-sha256"

    private func withFolder(_ body: (String) async throws -> Void) async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("martlet-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try await body(folder)
    }

    private func upload(_ server: ServerProgram, name: String) async throws -> RawResponse {
        try await server.request(
            "POST", "/v1/audio/voices", headers: ["Content-Type": "multipart/form-data; boundary=xYz"],
            body: VoiceTests.form([("name", Array(name.utf8)), ("audio_sample", VoiceTests.recording)]))
    }

    private func files(_ folder: String) -> [String] {
        FileManager.default.enumerator(atPath: folder)?.compactMap { $0 as? String }
            .filter { $0.contains(".") && !$0.hasSuffix("/") }.sorted() ?? []
    }

    /// A file that cannot be written to its end, as on a full disk: the limit on the size of files stands for it.
    @Test func aVoiceThatCannotBeWrittenIsNotThere() async throws {
        try await withFolder { folder in
            let server = try await ServerProgram.ready(
                model: Fixture.base.directory, ["--voices-dir", folder], shell: "ulimit -f 16")
            let refused = try await upload(server, name: "anna")
            #expect(refused.status == 507, "\(refused.text)")
            #expect(try refused.error("message")?.contains(folder) == false, "\(refused.text)")
            #expect(files(folder) == [])
            #expect(try await server.request("GET", "/v1/audio/voices").json()["voices"] as? [String] == [])
            // The server lives on.
            let reference = "data:audio/wav;base64," + Data(VoiceTests.recording).base64EncodedString()
            let body = Self.speech.replacing(#""seed""#, with: #""ref_audio": "\#(reference)", "seed""#)
            #expect(try await server.speak(body).status == 200)
            #expect(server.end(SIGTERM) == 0)
        }
    }

    @Test func aCheckpointThatIsRemovedIsServedOn() async throws {
        try await withFolder { folder in
            let copy = folder + "/model"
            try FileManager.default.copyItem(atPath: Fixture.base.directory, toPath: copy)
            let server = try await ServerProgram.ready(model: copy, ["--voices-dir", folder + "/voices"])
            #expect(try await upload(server, name: "anna").status == 200)
            let body = Self.speech.replacing(#""seed""#, with: #""voice": "anna", "seed""#)
            let before = try await server.speak(body)
            #expect(before.status == 200)
            try FileManager.default.removeItem(atPath: copy)
            let after = try await server.speak(body)
            #expect(after.status == 200)
            #expect(after.trailers[Self.hash] == before.trailers[Self.hash])
            #expect(after.body == before.body)
            #expect(try await server.request("GET", "/ready").status == 200)
            #expect(server.end(SIGTERM) == 0)
        }
    }

    /// The clone encoder is read when the first recording comes: by then its files may be gone.
    @Test func whatMustReadARemovedCheckpointSaysSo() async throws {
        try await withFolder { folder in
            let copy = folder + "/model"
            try FileManager.default.copyItem(atPath: Fixture.base.directory, toPath: copy)
            let server = try await ServerProgram.ready(model: copy, ["--voices-dir", folder + "/voices"])
            try FileManager.default.removeItem(atPath: copy)
            for _ in 0..<2 {
                let refused = try await upload(server, name: "anna")
                #expect(refused.status == 500, "\(refused.text)")
                #expect(try refused.error("type") == "server_error")
                // Clients learn what is wrong, the operator where.
                #expect(try refused.error("message")?.contains("model") == true, "\(refused.text)")
                #expect(try refused.error("message")?.contains(copy) == false, "\(refused.text)")
            }
            #expect(server.log.contains(copy))
            #expect(server.isRunning)
            #expect(server.end(SIGTERM) == 0)
        }
    }

    @Test func afterAKillEverythingThatWasSavedIsThere() async throws {
        try await withFolder { folder in
            let body = Self.speech.replacing(#""seed""#, with: #""voice": "anna", "seed""#)
            let long = body.replacing(#""max_new_tokens": 5"#, with: #""max_new_tokens": 4000"#)
            let first = try await ServerProgram.ready(model: Fixture.base.directory, ["--voices-dir", folder])
            #expect(try await upload(first, name: "anna").status == 200)
            let before = try await first.speak(body)
            let listener = try RawConnection(port: first.port)
            await listener.send("POST", "/v1/audio/speech", body: Array(long.utf8))
            #expect(await listener.readSome() > 0)
            #expect(first.end(SIGKILL) == -SIGKILL)
            #expect(await listener.response().isComplete == false)
            // As an end in the middle of an upload leaves it: a voice of which only the beginning is there, and one that
            // never got its name.
            let saved = try #require(files(folder).first { $0.hasSuffix("anna.voice") })
            let bytes = try Data(contentsOf: URL(fileURLWithPath: folder + "/" + saved))
            let place = (folder + "/" + saved).replacing("anna.voice", with: "")
            try bytes.prefix(bytes.count / 2).write(to: URL(fileURLWithPath: place + "half.voice"))
            try bytes.prefix(100).write(to: URL(fileURLWithPath: place + ".dat.nosync1234"))

            let second = try await ServerProgram.ready(
                model: Fixture.base.directory, ["--voices-dir", folder], port: first.port)
            #expect(second.port == first.port)
            #expect(try await second.request("GET", "/v1/audio/voices").json()["voices"] as? [String] == ["anna"])
            #expect(second.log.contains("half.voice"))
            let after = try await second.speak(body)
            #expect(after.body == before.body)
            #expect(after.trailers[Self.hash] == before.trailers[Self.hash])
            #expect(second.end(SIGTERM) == 0)
        }
    }
}
