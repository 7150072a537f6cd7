import Crypto
import Foundation
import Qwen3TTS
import SpeechEngine
import TestSupport
import Testing

@testable import SpeechServer

@Suite(.serialized) struct SpeechRouteTests {
    private static let hi = #""input": "hi", "max_new_tokens": 5, "seed": 7"#

    private func sha256(_ bytes: [UInt8]) -> String {
        SHA256.hash(data: bytes).map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
    }

    @Test func audioComesInChunksWithItsFingerprintBehind() async throws {
        let server = try await TestServer.shared.value
        let response = try await server.speak(
            "{\(Self.hi), \"response_format\": \"pcm\"}", headers: ["X-Request-Id": "a1"])
        #expect(response.status == 200)
        #expect(response.isComplete)
        #expect(response.headers["content-type"]?.hasPrefix("audio/pcm") == true)
        #expect(response.headers["x-request-id"] == "a1")
        // Four frames in packets of 1, 2 and what is left.
        #expect(response.chunks.count >= 2)
        #expect(response.chunks[0].count == 2 * server.engine.model.samplesPerFrame)
        #expect(response.trailers["x-martlet-frames"] == "4")
        #expect(response.trailers["x-martlet-seed"] == "7")
        #expect(response.trailers["x-martlet-finish-reason"] == "length")
        #expect(response.trailers["x-martlet-codes-sha256"]?.count == 64)
        #expect(response.trailers["x-martlet-pcm-sha256"] == sha256(response.body))
        let line = try #require(server.log.all.last { $0.contains("\"request_id\":\"a1\"") })
        let entry = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
        #expect(entry?["status"] as? Int == 200)
        #expect(entry?["bytes"] as? Int == response.body.count)
        #expect((entry?["speech"] as? [String: Any])?["frames"] as? Int == 4)
    }

    @Test func togetherAsAlone() async throws {
        let server = try await TestServer.shared.value
        func pcm(_ seed: Int) async throws -> String? {
            let body = #"{"input": "ab", "max_new_tokens": 4, "seed": \#(seed), "response_format": "pcm"}"#
            return try await server.speak(body).trailers["x-martlet-pcm-sha256"]
        }
        let alone = [try await pcm(1), try await pcm(2), try await pcm(3)]
        #expect(Set(alone).count == 3)
        async let one = pcm(1)
        async let two = pcm(2)
        async let three = pcm(3)
        #expect(try await [one, two, three] == alone)
    }

    @Test func everyFormatIsAStreamOfItsKind() async throws {
        let server = try await TestServer.shared.value
        let pcm = try await server.speak("{\(Self.hi), \"response_format\": \"pcm\"}").body
        let magic: [AudioFormat: [UInt8]] = [
            .wav: Array("RIFF".utf8), .flac: Array("fLaC".utf8), .opus: Array("OggS".utf8), .mp3: [0xFF], .aac: [0xFF],
        ]
        for (format, start) in magic {
            let response = try await server.speak("{\(Self.hi), \"response_format\": \"\(format.rawValue)\"}")
            guard format.isAvailable else {
                #expect(response.status == 400)
                #expect(try response.error("code") == "encoder_missing")
                continue
            }
            #expect(response.status == 200)
            #expect(response.body.starts(with: start), "\(format)")
            #expect(response.trailers["x-martlet-pcm-sha256"] == sha256(pcm))
            if format == .wav { #expect(Array(response.body.dropFirst(44)) == pcm) }
        }
    }

    @Test func eventsCarryTheSameAudio() async throws {
        let server = try await TestServer.shared.value
        let response = try await server.speak(
            "{\(Self.hi), \"response_format\": \"pcm\", \"stream_format\": \"sse\"}")
        #expect(response.headers["content-type"] == "text/event-stream")
        var audio: [UInt8] = []
        var done: [String: Any]?
        for event in response.text.components(separatedBy: "\n\n") where !event.isEmpty {
            #expect(event.hasPrefix("data: "))
            let json = try JSONSerialization.jsonObject(with: Data(event.dropFirst(6).utf8)) as? [String: Any] ?? [:]
            switch json["type"] as? String {
            case "speech.audio.delta":
                audio += [UInt8](try #require(Data(base64Encoded: json["audio"] as? String ?? "")))
            case "speech.audio.done": done = json
            default: Issue.record("unknown event \(event)")
            }
        }
        let usage = try #require(done?["usage"] as? [String: Int])
        #expect(usage["output_tokens"] == 4)
        #expect(usage["total_tokens"] == (usage["input_tokens"] ?? 0) + 4)
        #expect((done?["martlet"] as? [String: Any])?["pcm_sha256"] as? String == sha256(audio))
    }

    @Test func speedChangesTheLengthAlone() async throws {
        let server = try await TestServer.shared.value
        let response = try await server.speak("{\(Self.hi), \"response_format\": \"pcm\", \"speed\": 2}")
        #expect(response.body.count == 4 * server.engine.model.samplesPerFrame)
        #expect(response.trailers["x-martlet-frames"] == "4")
    }

    @Test func wrongFieldsAreNamed() async throws {
        let server = try await TestServer.shared.value
        let cases: [(fields: String, parameter: String?, code: String)] = [
            (#""model": "tts-1""#, "input", "missing_parameter"),
            (#""input": 5"#, "input", "invalid_type"),
            (#""input": "  ""#, "input", "string_below_min_length"),
            (#""input": "hi", "voice": 3"#, "voice", "invalid_type"),
            (#""input": "hi", "voice": "nobody""#, "voice", "voice_not_found"),
            (#""input": "hi", "voice": {"name": "x"}"#, "voice", "invalid_type"),
            (#""input": "hi", "response_format": "mp5""#, "response_format", "invalid_value"),
            (#""input": "hi", "stream_format": "x""#, "stream_format", "invalid_value"),
            (#""input": "hi", "speed": 9"#, "speed", "invalid_value"),
            (#""input": "hi", "speed": "fast""#, "speed", "invalid_type"),
            (#""input": "hi", "language": "klingon""#, "language", "invalid_value"),
            (#""input": "hi", "seed": -1"#, "seed", "invalid_value"),
            (#""input": "hi", "seed": 1.5"#, "seed", "invalid_type"),
            (#""input": "hi", "temperature": -1"#, "temperature", "invalid_value"),
            (#""input": "hi", "top_p": 2"#, "top_p", "invalid_value"),
            (#""input": "hi", "top_k": -5"#, "top_k", "invalid_value"),
            (#""input": "hi", "max_new_tokens": 0"#, "max_new_tokens", "invalid_value"),
            (#""input": "hi", "task_type": "Base""#, "task_type", "unsupported_value"),
            (#""input": "hi", "task_type": "Song""#, "task_type", "invalid_value"),
            (#""input": "hi", "ref_audio": "UklGRg==""#, "ref_audio", "unsupported_value"),
        ]
        for (fields, parameter, code) in cases {
            let response = try await server.speak("{\(fields)}")
            #expect(response.status == 400, "\(fields)")
            #expect(try response.error("param") == parameter, "\(fields)")
            #expect(try response.error("code") == code, "\(fields)")
            #expect(try response.error("type") == "invalid_request_error")
        }
        for body in ["", "{", "[1]", "\"x\"", #"{"input": "a}"#, String(repeating: "[", count: 100_000)] {
            #expect(try await server.speak(body).status == 400, "\(body.prefix(20))")
        }
        let unknown = try await server.speak(#"{"input": "hi", "model": "whisper-1"}"#)
        #expect(unknown.status == 404)
        #expect(try unknown.error("code") == "model_not_found")
    }

    @Test func unknownFieldsAndNullsAreIgnored() async throws {
        let server = try await TestServer.shared.value
        let plain = try await server.speak("{\(Self.hi), \"response_format\": \"pcm\"}")
        let other = try await server.speak(
            "{\(Self.hi), \"response_format\": \"pcm\", \"user\": {\"a\": [1]}, \"voice\": null, \"model\": \"tts-1-hd\"}"
        )
        #expect(other.body == plain.body)
    }

    @Test func openAIsVoicesStandForTheModels() async throws {
        let server = try await TestServer.shared.value
        #expect(VoiceNames.all.count == 13)
        for voice in [#""alloy""#, #"{"id": "cedar"}"#] {
            let response = try await server.speak(
                #"{"input": "a", "max_new_tokens": 2, "response_format": "pcm", "voice": \#(voice)}"#)
            #expect(response.status == 200)
        }
        let list = try await server.request("GET", "/v1/audio/voices").json()
        #expect(list["voices"] as? [String] == server.engine.model.configuration.voices)
        #expect((list["aliases"] as? [String: String])?.count == 13)
    }

    @Test func limits() async throws {
        let server = try await TestServer { options in
            options.maxText = 20
            options.maxBody = 1000
            options.apiKeys = ["right", "other"]
            options.corsOrigins = ["https://a.example"]
        }
        let key = ["Authorization": "Bearer right"]
        let long = try await server.speak(#"{"input": "a text of more than twenty bytes"}"#, headers: key)
        #expect(long.status == 400)
        #expect(try long.error("code") == "string_above_max_length")
        let big = try await server.speak(#"{"input": "\#(String(repeating: "a", count: 2000))"}"#, headers: key)
        #expect(big.status == 413)

        let body = #"{"input": "a", "max_new_tokens": 2, "response_format": "pcm"}"#
        for headers in [[:], ["Authorization": "Bearer wrong"], ["Authorization": "right"], ["xi-api-key": "x"]] {
            let refused = try await server.speak(body, headers: headers)
            #expect(refused.status == 401)
            #expect(try refused.error("code") == "invalid_api_key")
        }
        for headers in [key, ["Authorization": "bearer other"], ["xi-api-key": "right"]] {
            #expect(try await server.speak(body, headers: headers).status == 200)
        }
        #expect(try await server.request("GET", "/health").status == 200)
        #expect(try await server.request("GET", "/metrics").status == 401)

        let preflight = ["Access-Control-Request-Method": "POST"]
        let allowed = try await server.request(
            "OPTIONS", "/v1/audio/speech", headers: preflight.merging(["Origin": "https://a.example"]) { $1 })
        #expect(allowed.headers["access-control-allow-origin"] == "https://a.example")
        let other = try await server.request(
            "OPTIONS", "/v1/audio/speech", headers: preflight.merging(["Origin": "https://b.example"]) { $1 })
        #expect(other.headers["access-control-allow-origin"] == nil)
        try await server.stop()
    }

    @Test func modelsAreListed() async throws {
        let server = try await TestServer.shared.value
        let list = try await server.request("GET", "/v1/models").json()
        let names = (list["data"] as? [[String: Any]])?.compactMap { $0["id"] as? String }
        #expect(names?.first == "martlet")
        #expect(names?.contains("tts-1") == true)
        #expect(try await server.request("GET", "/v1/models/tts-1").json()["id"] as? String == "tts-1")
        #expect(try await server.request("GET", "/v1/models/no").status == 404)
        let nowhere = try await server.request("GET", "/v1/nothing")
        #expect(nowhere.status == 404)
        #expect(try nowhere.error("code") == "unknown_url")
    }

    @Test func theOldStacksPaths() async throws {
        let server = try await TestServer.shared.value
        let voice = server.engine.model.configuration.voices[0]
        let body = Array(#"{"text": "hi", "speaker": "\#(voice)", "max_new_tokens": 4, "seed": 7}"#.utf8)
        let stream = try await server.request("POST", "/tts/stream", body: body)
        #expect(stream.status == 200)
        // 30 ms of 16-bit samples at 24 kHz, the last one shorter.
        #expect(stream.chunks.dropLast().allSatisfy { $0.count == 1440 })
        #expect(stream.headers["x-tts-decode-mode"] == "incremental")
        #expect(stream.headers["x-tts-request-tag"]?.hasPrefix("stream-") == true)
        #expect(Int(stream.headers["x-tts-model-first-packet-ms"] ?? "") != nil)
        #expect(Int(stream.headers["x-tts-server-first-audio-ms"] ?? "") != nil)
        let whole = try await server.request("POST", "/synthesize", body: body)
        #expect(whole.headers["content-length"] == "\(44 + stream.body.count)")
        #expect(Array(whole.body.dropFirst(44)) == stream.body)
        let wrong = try await server.request(
            "POST", "/tts/stream", body: Array(#"{"text": "a", "speaker": "no"}"#.utf8))
        #expect(wrong.status == 400)
        #expect(try wrong.error("param") == "speaker")
        #expect(try await server.request("POST", "/synthesize", body: Array("{}".utf8)).error("param") == "text")
    }

    @Test func metricsTellWhatWasDone() async throws {
        let server = try await TestServer.shared.value
        _ = try await server.speak("{\(Self.hi), \"response_format\": \"pcm\"}")
        let page = try await server.request("GET", "/metrics")
        #expect(page.headers["content-type"]?.hasPrefix("text/plain; version=0.0.4") == true)
        var values: [String: Double] = [:]
        for line in page.text.split(separator: "\n") where !line.hasPrefix("#") {
            let parts = line.split(separator: " ")
            #expect(parts.count == 2)
            values[String(parts[0])] = Double(String(parts[1]))
            #expect(values[String(parts[0])] != nil)
        }
        #expect(values["martlet_frames_total"] ?? 0 >= 4)
        #expect(values["martlet_finished_total{reason=\"length\"}"] ?? 0 >= 1)
        #expect(
            values["martlet_first_audio_seconds_bucket{le=\"+Inf\"}"] == values["martlet_first_audio_seconds_count"])
        #expect(values["martlet_ready"] == 1)
        #expect(values["process_resident_memory_bytes"] ?? 0 > 1_000_000)
        #expect(try await server.request("GET", "/ready").status == 200)
    }

    @Test func aRecordedRequestIsSpokenAgain() async throws {
        let folder = NSTemporaryDirectory() + "martlet-records-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let server = try await TestServer { $0.recordDirectory = folder }
        let response = try await server.speak("{\(Self.hi), \"response_format\": \"pcm\", \"temperature\": 0.7}")
        var files: [String] = []
        while files.isEmpty {
            try await Task.sleep(for: .milliseconds(20))
            files =
                (try? FileManager.default.contentsOfDirectory(atPath: folder))?.filter { $0.hasSuffix(".json") } ?? []
        }
        let record = try RequestRecord(path: folder + "/" + files[0])
        try await server.stop()
        let replay = try await record.replay(engine: SpeechEngine(model: server.engine.model))
        #expect(replay.isSame)
        #expect(replay.pcm == response.trailers["x-martlet-pcm-sha256"])
    }
}
