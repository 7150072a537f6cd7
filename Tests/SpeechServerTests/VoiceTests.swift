import AudioFiles
import Foundation
import NIOCore
import Qwen3TTS
import SpeechEngine
import TestSupport
import Testing

@testable import SpeechServer

@Suite(.serialized) struct VoiceTests {
    /// Half a second of a rising tone as a WAV file.
    static let recording: [UInt8] = {
        var samples: [Float] = []
        for index in 0..<12_000 {
            let phase = index * (index / 400 + 40) % 1000
            samples.append(Float(phase) / 1000 - 0.5)
        }
        return WAVWriter.header(sampleRate: 24_000, sampleCount: samples.count) + PCM16.bytes(samples)
    }()

    static func form(_ fields: [(name: String, bytes: [UInt8])], boundary: String = "xYz") -> [UInt8] {
        var body: [UInt8] = []
        for (name, bytes) in fields {
            body += Array("--\(boundary)\r\nContent-Disposition: form-data; name=\"\(name)\"\r\n\r\n".utf8) + bytes
            body += [13, 10]
        }
        return body + Array("--\(boundary)--\r\n".utf8)
    }

    private func upload(_ server: TestServer, name: String, audio: [UInt8]) async throws -> RawResponse {
        try await server.request(
            "POST", "/v1/audio/voices", headers: ["Content-Type": "multipart/form-data; boundary=xYz"],
            body: Self.form([("name", Array(name.utf8)), ("audio_sample", audio)]))
    }

    @Test func voicesAreKeptAcrossRestarts() async throws {
        let folder = NSTemporaryDirectory() + "martlet-voices-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let body = #"{"input": "a", "max_new_tokens": 3, "response_format": "pcm", "voice": "Anna-1"}"#
        let first = try await TestServer(.base) { $0.voicesDirectory = folder }
        #expect(try await first.speak(body).error("code") == "voice_not_found")
        let saved = try await upload(first, name: "Anna-1", audio: Self.recording)
        #expect(saved.status == 200)
        #expect(try saved.json()["id"] as? String == "anna-1")
        let spoken = try await first.speak(body)
        #expect(spoken.status == 200)
        // A name of OpenAI's stands for a saved voice.
        #expect(try await first.speak(body.replacing("Anna-1", with: "alloy")).body == spoken.body)
        // The same recording in the request.
        let reference = "data:audio/wav;base64," + Data(Self.recording).base64EncodedString()
        let direct = body.replacing(#""voice": "Anna-1""#, with: #""ref_audio": "\#(reference)""#)
        #expect(try await first.speak(direct).body == spoken.body)
        try await first.stop()

        let second = try await TestServer(.base) { $0.voicesDirectory = folder }
        #expect(try await second.request("GET", "/v1/audio/voices").json()["voices"] as? [String] == ["anna-1"])
        #expect(try await second.speak(body).body == spoken.body)

        for name in ["../evil", "a/b", "", "..", ".hidden", "a\\b", "alloy", String(repeating: "a", count: 65), "ä"] {
            let refused = try await upload(second, name: name, audio: Self.recording)
            #expect(refused.status == 400, "\(name)")
            #expect(try refused.error("param") == "name", "\(name)")
        }
        for audio in [[], Array("not a WAV".utf8), Array(Self.recording.prefix(30))] {
            let refused = try await upload(second, name: "b", audio: audio)
            #expect(refused.status == 400)
            #expect(try refused.error("param") == "audio_sample")
        }
        #expect(try await second.request("DELETE", "/v1/audio/voices/..%2Fanna-1").status == 404)
        #expect(try await second.request("DELETE", "/v1/audio/voices/anna-1").status == 200)
        #expect(try await second.request("DELETE", "/v1/audio/voices/anna-1").status == 404)
        let files = FileManager.default.enumerator(atPath: folder)?.compactMap { $0 as? String } ?? []
        #expect(!files.contains { $0.hasSuffix(".voice") || $0.hasSuffix(".wav") })
        try await second.stop()
    }

    @Test func aFolderThatCannotBeWrittenIsTheServersFault() async throws {
        let server = try await TestServer(.base) { $0.voicesDirectory = "/proc/none" }
        let response = try await upload(server, name: "anna", audio: Self.recording)
        #expect(response.status == 500)
        #expect(try response.error("type") == "server_error")
        #expect(try await server.request("GET", "/v1/audio/voices").json()["voices"] as? [String] == [])
        try await server.stop()
    }

    @Test func recordingsAreFetchedOnlyWhereThatIsAllowed() async throws {
        let server = try await TestServer(.base)
        let body = #"{"input": "a", "ref_audio": "http://127.0.0.1:1/a.wav"}"#
        #expect(try await server.speak(body).error("code") == "unsupported_value")
        try await server.stop()
        let open = try await TestServer(.base) { $0.allowsAudioURLs = true }
        for host in [
            "127.0.0.1:1", "localhost", "[::1]", "10.0.0.1", "0x7f.1", "[::ffff:192.168.0.1]", "169.254.169.254",
        ] {
            let response = try await open.speak(#"{"input": "a", "ref_audio": "http://\#(host)/a.wav"}"#)
            #expect(response.status == 400, "\(host)")
            #expect(try response.error("param") == "ref_audio")
        }
        try await open.stop()
    }

    @Test func privateAddressesAreKnown() throws {
        let notPublic = [
            "127.0.0.1", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "100.64.0.1",
            "0.0.0.0", "224.0.0.1", "255.255.255.255", "198.18.0.1", "::1", "::", "fe80::1", "fc00::1", "fd12::1",
            "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:db8::1", "ff02::1",
        ]
        for address in notPublic {
            #expect(!AudioFetcher.isPublic(try SocketAddress(ipAddress: address, port: 80)), "\(address)")
        }
        for address in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8"] {
            #expect(AudioFetcher.isPublic(try SocketAddress(ipAddress: address, port: 80)), "\(address)")
        }
    }

    @Test func damagedFormsAreRefused() throws {
        let body = Self.form([("name", Array("a".utf8)), ("audio_sample", [0, 13, 10, 45, 45, 120, 1])])
        let type = "multipart/form-data; boundary=\"xYz\""
        let whole = try MultipartForm(body: body, contentType: type)
        #expect(whole.text("name") == "a")
        #expect(whole["audio_sample"] == [0, 13, 10, 45, 45, 120, 1])
        for length in 0..<(body.count - 4) {
            #expect(throws: APIError.self) {
                _ = try MultipartForm(body: Array(body.prefix(length)), contentType: type)
            }
        }
        #expect(throws: APIError.self) { _ = try MultipartForm(body: body, contentType: "text/plain") }
        #expect(throws: APIError.self) { _ = try MultipartForm(body: body, contentType: "multipart/form-data") }
    }
}
