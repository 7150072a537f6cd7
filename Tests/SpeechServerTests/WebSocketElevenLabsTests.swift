import Foundation
import Qwen3TTS
import Testing

@testable import SpeechEngine
@testable import SpeechServer

@Suite(.serialized) struct WebSocketElevenLabsTests {
    private static func path(_ query: String, voice: String = "default", _ form: String = "multi-stream-input")
        -> String
    {
        "/v1/text-to-speech/\(voice)/\(form)?\(query)"
    }

    private static func request(_ text: String, layout: TextLayout?) -> SpeechRequest {
        var request = SpeechRequest(text: text)
        request.sampling.seed = 3
        request.sampling.maxNewTokens = 11
        request.layout = layout
        return request
    }

    /// Audio and finals by context until as many finals have come.
    private static func collect(
        _ client: inout WebSocketTestClient, finals: Int
    ) async throws -> (audio: [String: [UInt8]], finals: [String: JSONValue]) {
        var audio: [String: [UInt8]] = [:]
        var ends: [String: JSONValue] = [:]
        while ends.count < finals, let message = try await client.next() {
            guard let json = message.json else { continue }
            let context = json["contextId"]?.string ?? ""
            if let text = json["audio"]?.string { audio[context, default: []] += Data(base64Encoded: text) ?? Data() }
            if json["isFinal"]?.bool == true { ends[context] = json }
        }
        return (audio, ends)
    }

    /// By hand: frames 10 to 13 are 320 ms from 0.8 s on.
    @Test func alignmentCoversItsPacket() {
        func alignment(_ words: [SpokenWord]?) -> JSONValue {
            let packet = SpeechPacket(
                frames: 10..<14, codes: [], samples: [], pcm: [], words: words, times: PacketTimes())
            return WebSocketElevenLabs.alignment(packet, secondsPerFrame: 0.08)
        }
        func strings(_ values: [String]) -> JSONValue { .array(values.map { .string($0) }) }
        func integers(_ values: [Int]) -> JSONValue { .array(values.map { .integer($0) }) }
        let both = alignment([SpokenWord(word: "Tea", start: 0.88), SpokenWord(word: "for", start: 1.04)])
        #expect(both["chars"] == strings([" ", "T", "e", "a", " ", "f", "o", "r", " "]))
        #expect(both["charStartTimesMs"] == integers([0, 80, 120, 160, 200, 240, 260, 280, 300]))
        #expect(both["charDurationsMs"] == integers([80, 40, 40, 40, 40, 20, 20, 20, 20]))
        let none = alignment([])
        #expect(none["chars"] == strings([" "]))
        #expect(none["charDurationsMs"] == integers([320]))
        #expect(alignment(nil) == .null)
    }

    @Test func tokensMakeOneUtteranceAndSentencesOneEach() async throws {
        try await withSpeechServer { server, port in
            let text = "tea for two."
            let tokens = try await spokenAlone(Self.request(text, layout: .streaming), server.engine)
            let sentence = try await spokenAlone(Self.request(text, layout: nil), server.engine)
            try await WebSocketTestClient.connect(
                port: port, path: Self.path("output_format=pcm_24000&seed=3&max_new_tokens=11")
            ) {
                client in
                // As Pipecat does it: a blank to open, text with a blank behind it, flush, close.
                for piece in [" ", "tea ", "for ", "two. "] {
                    try await client.send(["text": .string(piece), "context_id": "a"])
                }
                try await client.send(["context_id": "a", "flush": true])
                try await client.send(["text": "", "context_id": "a"])
                try await client.send(["text": ""])
                try await client.send(["context_id": "a", "close_context": true])
                let (audio, finals) = try await Self.collect(&client, finals: 1)
                #expect(sha256(audio["a"] ?? []) == tokens.summary.fingerprint.pcm)
                #expect(finals["a"]?["pcm_sha256"]?.string == tokens.summary.fingerprint.pcm)
                // Closing what is not open is answered, too.
                try await client.send(["context_id": "b", "close_context": true])
                #expect(try await Self.collect(&client, finals: 1).finals["b"] != nil)
                try await client.send(["close_socket": true])
                #expect(try await client.next() == .close(1000, ""))
            }
            try await WebSocketTestClient.connect(
                port: port, path: Self.path("auto_mode=true&seed=3&max_new_tokens=11")
            ) { client in
                try await client.send(["text": " ", "context_id": "s"])
                try await client.send(["text": .string(text + " "), "context_id": "s"])
                try await client.send(["text": .string(text + " "), "context_id": "s"])
                try await client.send(["context_id": "s", "close_context": true])
                try await client.send(["close_socket": true])
                let (audio, _) = try await Self.collect(&client, finals: 1)
                #expect(sha256(audio["s"] ?? []) == sha256(sentence.pcm + sentence.pcm))
                #expect(try await client.next() == .close(1000, ""))
            }
        }
    }

    @Test func oneContextWithoutName() async throws {
        try await withSpeechServer { server, port in
            let alone = try await spokenAlone(Self.request("tea", layout: .streaming), server.engine)
            try await WebSocketTestClient.connect(
                port: port, path: Self.path("output_format=ulaw_8000&seed=3&max_new_tokens=11", "stream-input")
            ) { client in
                try await client.send(["text": " ", "voice_settings": .object(["stability": .number(0.5)])])
                try await client.send(["text": "tea "])
                try await client.send(["text": ""])
                let (audio, finals) = try await Self.collect(&client, finals: 1)
                #expect(audio[""]?.count == alone.pcm.count / 6)
                #expect(finals[""]?["frames"]?.int == alone.summary.frames)
                #expect(try await client.next() == .close(1000, ""))
            }
        }
    }

    @Test func whatIsNotOfferedIsSaid() async throws {
        try await withSpeechServer { _, port in
            for (path, word) in [
                (Self.path("", voice: "nobody"), "nobody"), (Self.path("output_format=mp3_44100_128"), "pcm_24000"),
                (Self.path("language_code=tlh"), "english"), (Self.path("seed=x"), "seed"),
            ] {
                try await WebSocketTestClient.connect(port: port, path: path) { client in
                    let error = try await client.next()?.json
                    #expect(error?["message"]?.string?.contains(word) == true, "\(path)")
                    guard case .close(1008, _) = try await client.next() else {
                        Issue.record("not closed: \(path)")
                        return
                    }
                }
            }
            try await WebSocketTestClient.connect(port: port, path: Self.path("language_code=en")) { client in
                try await client.send(text: "{")
                #expect(try await client.next()?.json?["error"]?.string == "invalid_json")
                try await client.send(["text": 7])
                #expect(try await client.next()?.json?["error"]?.string == "invalid_type")
                try await client.send(["text": "", "context_id": "a"])
                try await client.send(.ping, [9])
                #expect(try await client.next() == .pong([9]))
            }
        }
    }
}
