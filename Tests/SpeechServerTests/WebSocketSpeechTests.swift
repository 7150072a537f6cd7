import AsyncHTTPClient
import Qwen3TTS
import SpeechEngine
import Testing

@testable import SpeechServer

@Suite(.serialized) struct WebSocketSpeechTests {
    private static let path = "/v1/audio/speech/stream"
    private static let text = "tea for two, and two for tea"

    private static func start(_ context: String, frames: Int = 4, _ more: [String: JSONValue] = [:]) -> [String:
        JSONValue]
    {
        [
            "type": "start", "context": .string(context), "seed": 7, "max_new_tokens": .integer(frames + 1),
        ].merging(more) { $1 }
    }

    private static func request(_ text: String, frames: Int = 4, layout: TextLayout? = .streaming) -> SpeechRequest {
        var request = SpeechRequest(text: text)
        request.sampling.seed = 7
        request.sampling.maxNewTokens = frames + 1
        request.layout = layout
        return request
    }

    @Test func utterancesAreKeptUnderTheContextsTag() async throws {
        let keeper = TagKeeper()
        try await withSpeechServer(keeper: keeper) { _, port in
            try await WebSocketTestClient.connect(port: port, path: Self.path) { client in
                try await client.send(Self.start("a", ["tag": "mine", "input": "tea for"]))
                try await client.send(["type": "append", "context": "a", "text": " two"])
                try await client.send(["type": "flush", "context": "a"])
                try await client.send(["type": "append", "context": "a", "text": "one"])
                try await client.send(["type": "complete", "context": "a"])
                for tag in ["mine", "mine-2"] {
                    #expect(try await client.event("utterance", context: "a")?["tag"]?.string == tag)
                }
                #expect(keeper.texts == ["mine": "tea for two", "mine-2": "one"])
                try await client.send(Self.start("b", ["input": "tea", "complete": true]))
                let tag = try await client.event("utterance", context: "b")?["tag"]?.string
                #expect(tag?.hasPrefix("websocket-") == true && tag.flatMap { keeper.texts[$0] } == "tea")
            }
        }
    }

    @Test func textInPiecesEqualsTextAtOnce() async throws {
        try await withSpeechServer { server, port in
            let alone = try await spokenAlone(Self.request(Self.text), server.engine)
            let whole = try await spokenAlone(Self.request(Self.text, layout: nil), server.engine)
            try await WebSocketTestClient.connect(port: port, path: Self.path) { client in
                try await client.send(Self.start("pieces"))
                for letter in Self.text {
                    try await client.send(["type": "append", "context": "pieces", "text": .string(String(letter))])
                }
                try await client.send(["type": "complete", "context": "pieces"])
                var pcm: [UInt8] = []
                var end: JSONValue?
                while end == nil, let message = try await client.next() {
                    switch message {
                    case .binary(let bytes): pcm += bytes
                    case .json(let json):
                        #expect(json["type"]?.string != "error", "\(json)")
                        if json["type"]?.string == "end" { end = json }
                    default: Issue.record("\(message)")
                    }
                }
                #expect(end?["pcm_sha256"]?.string == alone.summary.fingerprint.pcm)
                #expect(end?["codes_sha256"]?.string == alone.summary.fingerprint.codes)
                #expect(end?["finish_reason"]?.string == alone.summary.finishReason.rawValue)
                #expect(sha256(pcm) == alone.summary.fingerprint.pcm)
                // A beginning at the start and the rest later.
                try await client.send(Self.start("halves", ["input": "tea for t"]))
                try await client.send(["type": "append", "context": "halves", "text": "wo, and two for tea"])
                try await client.send(["type": "complete", "context": "halves"])
                let halves = try await client.event("end", context: "halves")
                #expect(halves?["pcm_sha256"]?.string == alone.summary.fingerprint.pcm)
                // Complete at once: what POST /v1/audio/speech gives.
                try await client.send(
                    Self.start("whole", ["input": .string(Self.text), "complete": true, "audio": "base64"]))
                let audio = try await client.event("audio", context: "whole")
                #expect(audio?["audio"]?.string?.isEmpty == false)
                let end3 = try await client.event("end", context: "whole")
                #expect(end3?["pcm_sha256"]?.string == whole.summary.fingerprint.pcm)
                // As a file: the bytes of the same request over HTTP.
                try await client.send(
                    Self.start(
                        "file", ["input": .string(Self.text), "complete": true, "response_format": "flac"]))
                var file: [UInt8] = []
                while let message = try await client.next() {
                    if case .binary(let bytes) = message { file += bytes }
                    if case .json(let json) = message, json["type"]?.string == "end" { break }
                }
                let connection = try RawConnection(port: port)
                let body = #"{"input": "\#(Self.text)", "seed": 7, "max_new_tokens": 5, "response_format": "flac"}"#
                await connection.send("POST", "/v1/audio/speech", body: Array(body.utf8))
                #expect(await connection.response().body == file)
            }
        }
    }

    /// Text that comes after its utterance has ended at a limit is no utterance of its own.
    @Test func textThatComesTooLateChangesNothing() async throws {
        try await withSpeechServer { server, port in
            let alone = try await spokenAlone(Self.request(Self.text, frames: 1), server.engine)
            try await WebSocketTestClient.connect(port: port, path: Self.path) { client in
                try await client.send(Self.start("late", frames: 1, ["input": "tea for two, and two"]))
                #expect(try await client.event("utterance") != nil)
                try await client.send(["type": "append", "context": "late", "text": " for tea"])
                try await client.send(["type": "complete", "context": "late"])
                let end = try await client.event("end")
                #expect(end?["utterances"]?.int == 1)
                #expect(end?["pcm_sha256"]?.string == alone.summary.fingerprint.pcm)
            }
        }
    }

    @Test func cancelLeavesOthersUnharmed() async throws {
        try await withSpeechServer { server, port in
            let alone = try await spokenAlone(Self.request(Self.text, frames: 12), server.engine)
            try await WebSocketTestClient.connect(port: port, path: Self.path) { client in
                try await client.send(Self.start("kept", frames: 12, ["input": .string(Self.text)]))
                try await client.send(["type": "complete", "context": "kept"])
                try await client.send(Self.start("dropped", frames: 400, ["input": .string(Self.text)]))
                var ends: [String: JSONValue] = [:]
                var hasCancelled = false
                while ends.count < 2, let message = try await client.next() {
                    guard let json = message.json, let context = json["context"]?.string else { continue }
                    switch json["type"]?.string {
                    case "audio" where context == "dropped" && !hasCancelled:
                        hasCancelled = true
                        try await client.send(["type": "cancel", "context": "dropped"])
                    case "end": ends[context] = json
                    default: break
                    }
                }
                #expect(ends["dropped"]?["finish_reason"]?.string == "cancelled")
                #expect((ends["dropped"]?["frames"]?.int ?? 400) < 400)
                #expect(ends["kept"]?["pcm_sha256"]?.string == alone.summary.fingerprint.pcm)
                // The id is free again.
                try await client.send(Self.start("dropped", frames: 1, ["input": "tea", "complete": true]))
                #expect(try await client.event("end", context: "dropped") != nil)
            }
            // The end is on its way before the engine has counted it.
            #expect(try await waits { server.engine.statistics.active == 0 })
        }
    }

    @Test func aFlushEndsAnUtteranceAndTheContextGoesOn() async throws {
        try await withSpeechServer { server, port in
            let first = try await spokenAlone(Self.request("one and two.", frames: 3), server.engine)
            let second = try await spokenAlone(Self.request("three.", frames: 3), server.engine)
            try await WebSocketTestClient.connect(port: port, path: Self.path) { client in
                try await client.send(Self.start("c", frames: 3, ["input": "one and"]))
                try await client.send(["type": "append", "context": "c", "text": " two."])
                try await client.send(["type": "flush", "context": "c"])
                try await client.send(["type": "append", "context": "c", "text": "three."])
                try await client.send(["type": "complete", "context": "c"])
                let hashes = [
                    try await client.event("utterance")?["pcm_sha256"]?.string,
                    try await client.event("utterance")?["pcm_sha256"]?.string,
                ]
                #expect(hashes == [first.summary.fingerprint.pcm, second.summary.fingerprint.pcm])
                let end = try await client.event("end")
                #expect(end?["utterances"]?.int == 2)
                #expect(end?["frames"]?.int == first.summary.frames + second.summary.frames)
            }
        }
    }

    @Test func mistakesAreToldAndHurtNoOtherContext() async throws {
        try await withSpeechServer { server, port in
            let alone = try await spokenAlone(Self.request("tea", frames: 6), server.engine)
            try await WebSocketTestClient.connect(port: port, path: Self.path) { client in
                try await client.send(Self.start("good", frames: 6, ["input": "tea"]))
                #expect(try await client.event("started")?["sample_rate"]?.int == 24_000)
                let wrong: [(String, parameter: String?, code: String)] = [
                    ("{", nil, "invalid_json"),
                    ("[1]", nil, "invalid_type"),
                    (#"{"type":"sing"}"#, "type", "invalid_value"),
                    (#"{"context":"good"}"#, "type", "invalid_value"),
                    (#"{"type":"append","context":"nobody","text":"x"}"#, "context", "context_not_found"),
                    (#"{"type":"append","context":"good","text":7}"#, "text", "invalid_type"),
                    (#"{"type":"start","context":"good"}"#, "context", "context_exists"),
                    (#"{"type":"start","context":"v","voice":"nobody"}"#, "voice", "voice_not_found"),
                    (#"{"type":"start","context":"l","language":"klingon"}"#, "language", "invalid_value"),
                    (#"{"type":"start","context":"f","response_format":"mp9"}"#, "response_format", "invalid_value"),
                    (#"{"type":"start","context":"t","temperature":-1}"#, "temperature", "invalid_value"),
                    (#"{"type":"start","context":7}"#, "context", "invalid_type"),
                ]
                for (message, parameter, code) in wrong {
                    try await client.send(text: message)
                    let error = try await client.event("error")?["error"]
                    #expect(error?["param"]?.string == parameter, "\(message)")
                    #expect(error?["code"]?.string == code, "\(message)")
                    #expect(error?["message"]?.string?.isEmpty == false, "\(message)")
                }
                try await client.send(.binary, [1, 2, 3])
                #expect(try await client.event("error")?["error"]?["code"]?.string == "invalid_type")
                try await client.send(["type": "ping"])
                #expect(try await client.event("pong") != nil)
                try await client.send(["type": "complete", "context": "good"])
                let end = try await client.event("end", context: "good")
                #expect(end?["pcm_sha256"]?.string == alone.summary.fingerprint.pcm)
            }
        }
    }

    /// What a context is refused for is told before what came of its end, though one is found while it speaks and the other
    /// by who reads messages.
    @Test(arguments: [false, true]) func errorsComeInTheOrderOfTheirCauses(isElevenLabs: Bool) async throws {
        var engine = EngineOptions()
        (engine.maxActive, engine.maxQueued, engine.textTimeout) = (1, 0, 3600)
        let server = try await TestServer(engine: engine)
        // It waits for its text as long as the test takes.
        var open = SpeechRequest(text: "")
        open.isComplete = false
        let busy = try server.engine.speak(open)
        #expect(try await waits { server.engine.statistics.active == 1 })
        let path = isElevenLabs ? "/v1/text-to-speech/default/multi-stream-input" : Self.path
        try await WebSocketTestClient.connect(port: server.port, path: path) { client in
            // Contexts that are refused while text for them comes in.
            for round in 0..<5 {
                let ids = (0..<30).map { "\(round)-\($0)" }
                var messages: [[String: JSONValue]] = []
                if !isElevenLabs {
                    messages = ids.map { ["type": "start", "context": .string($0), "input": "a"] }
                }
                for id in Array(repeating: ids, count: 6).joined() {
                    messages.append(
                        isElevenLabs
                            ? ["context_id": .string(id), "text": "b "]
                            : ["type": "append", "context": .string(id), "text": "b "])
                }
                try await client.send(all: messages)
                var first: [String: String] = [:]
                while first.count < ids.count, let message = try await client.next() {
                    guard let json = message.json, let id = json[isElevenLabs ? "contextId" : "context"]?.string,
                        let error = isElevenLabs ? json["error"]?.string : json["error"]?["code"]?.string,
                        ids.contains(id), first[id] == nil
                    else { continue }
                    first[id] = error
                }
                let others = first.filter { $0.value != "server_busy" }
                #expect(first.count == ids.count && others.isEmpty, "\(others)")
                // Contexts are over a little after their errors.
                try await client.send(.ping, [])
                while let message = try await client.next(), message != .pong([]) {}
            }
        }
        busy.cancel()
        try await server.stop()
    }

    @Test func limits() async throws {
        try await withSpeechServer { options in
            options.maxText = 100
            options.maxBody = 2_000
        } _: { _, port in
            try await WebSocketTestClient.connect(port: port, path: Self.path) { client in
                try await client.send(Self.start("a"))
                try await client.send([
                    "type": "append", "context": "a", "text": .string(String(repeating: "a", count: 101)),
                ])
                #expect(try await client.event("error")?["error"]?["code"]?.string == "string_above_max_length")
                let limit = WebSocketLimits().contexts
                for index in 1..<limit { try await client.send(Self.start("c\(index)")) }
                try await client.send(Self.start("one too many"))
                #expect(try await client.event("error")?["error"]?["code"]?.string == "too_many_contexts")
                try await client.send(["type": "cancel"])
                for _ in 0..<limit { #expect(try await client.event("end")?["finish_reason"]?.string == "cancelled") }
            }
        }
    }

    @Test func theProtocolItself() async throws {
        try await withSpeechServer {
            $0.maxBody = 1_000
        } _: { _, port in
            typealias Client = WebSocketTestClient
            try await Client.connect(port: port, path: Self.path) { client in
                try await client.send(.ping, [1, 2])
                #expect(try await client.next() == .pong([1, 2]))
                // A message in fragments, with a ping between them.
                try await client.send(.text, Array(#"{"type":"#.utf8), fin: false)
                try await client.send(.ping, [])
                try await client.send(.continuation, Array(#""ping"}"#.utf8))
                #expect(try await client.next() == .pong([]))
                #expect(try await client.next()?.json?["type"]?.string == "pong")
                try await client.send(.connectionClose, [3, 232])
                #expect(try await client.next() == .close(1000, ""))
                #expect(try await client.next() == nil)
            }
            // What breaks the protocol ends the connection with its code.
            let broken: [(UInt16, @Sendable (Client) async throws -> Void)] = [
                (1007, { try await $0.send(.text, [0xff, 0xfe]) }),
                (1002, { try await $0.send(.text, Array("{}".utf8), isMasked: false) }),
                (1002, { try await $0.send(.continuation, [1]) }),
                (1009, { try await $0.send(.text, [UInt8](repeating: 32, count: 1_001)) }),
                (
                    1009,
                    {
                        for _ in 0..<3 { try await $0.send(.text, [UInt8](repeating: 32, count: 600), fin: false) }
                    }
                ),
            ]
            for (index, (code, send)) in broken.enumerated() {
                try await Client.connect(port: port, path: Self.path) { client in
                    // The server may have closed before the last frame is out.
                    try? await send(client)
                    var found: UInt16?
                    while let message = try? await client.next() {
                        if case .close(let code, _) = message { found = code }
                    }
                    if index == 4 {
                        // A message inside a message comes before its size.
                        #expect(found == 1002)
                    } else {
                        #expect(found == code, "case \(index)")
                    }
                }
            }
        }
    }

    @Test func whoMayConnect() async throws {
        try await withSpeechServer {
            $0.apiKeys = ["secret"]
        } _: { _, port in
            let key = ["Authorization": "Bearer secret"]
            let own = ["Origin": "http://127.0.0.1:\(port)"]
            let foreign = ["Origin": "http://evil.example"]
            let cases: [(headers: [String: String], path: String, connects: Bool)] = [
                (key, Self.path, true), (["xi-api-key": "secret"], Self.path, true), ([:], Self.path, false),
                (["Authorization": "Bearer Secret"], Self.path, false),
                // A page of this server may, another one may not.
                (key.merging(own) { $1 }, Self.path, true), (key.merging(foreign) { $1 }, Self.path, false),
                (key, Self.path + "s", false),
            ]
            for (headers, path, connects) in cases {
                var isConnected = true
                do {
                    try await WebSocketTestClient.connect(port: port, path: path, headers: headers) { _ in }
                } catch is UpgradeRefused {
                    isConnected = false
                }
                #expect(isConnected == connects, "\(headers) \(path)")
            }
        }
    }

    /// An upgrade that is not made is answered by HTTP.
    @Test func refusedUpgradesAreAnswered() async throws {
        try await withSpeechServer {
            $0.apiKeys = ["secret"]
        } _: { _, port in
            let handshake = WebSocketTestClient.handshake
            let key = ["Authorization": "Bearer secret"]
            let cases: [(headers: [String: String], path: String, status: Int)] = [
                (handshake, Self.path, 401),
                (handshake.merging(key) { $1 }.merging(["Origin": "http://evil.example"]) { $1 }, Self.path, 403),
                (handshake.merging(key) { $1 }.merging(["Sec-WebSocket-Version": "8"]) { $1 }, Self.path, 426),
                (key, Self.path, 426), (key, "/v1/text-to-speech/default/stream-input", 426),
                (["Connection": "Upgrade", "Upgrade": "h2c"], "/health", 200),
                (handshake, "/health", 200),
            ]
            for (headers, path, status) in cases {
                var request = HTTPClientRequest(url: "http://127.0.0.1:\(port)\(path)")
                for (name, value) in headers { request.headers.add(name: name, value: value) }
                let response = try await HTTPClient.shared.execute(request, timeout: .minutes(15))
                #expect(Int(response.status.code) == status, "\(headers) \(path)")
            }
        }
    }

    /// A client that keeps its connection may ask for an upgrade with any request.
    @Test func laterUpgradesOfAConnectionAreAnswered() async throws {
        try await withSpeechServer { _, port in
            for fields in [["Connection": "Upgrade", "Upgrade": "h2c"], WebSocketTestClient.handshake] {
                let connection = try RawConnection(port: port)
                defer { connection.close() }
                await connection.send("GET", "/health", headers: ["Connection": "keep-alive"])
                #expect(await connection.response().headers["connection"] != "close")
                await connection.send("GET", "/health", headers: fields)
                let answer = await connection.response()
                // Nothing after it would be read.
                #expect(answer.status == 200 && answer.headers["connection"] == "close" && answer.isComplete)
                #expect(await connection.read(1) == nil)
            }
        }
    }

    @Test func aClosedConnectionEndsItsContexts() async throws {
        try await withSpeechServer { server, port in
            try await WebSocketTestClient.connect(port: port, path: Self.path) { client in
                try await client.send(Self.start("long", frames: 400, ["input": .string(Self.text)]))
                _ = try await client.event("audio")
            }
            #expect(try await waits { server.engine.statistics.active == 0 })
            #expect(server.engine.statistics.finished[.cancelled] == 1)
        }
    }
}

extension JSONValue: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByBooleanLiteral {
    /// A message's member as a literal.
    public init(stringLiteral value: String) { self = .string(value) }
    /// A message's member as a literal.
    public init(integerLiteral value: Int) { self = .integer(value) }
    /// A message's member as a literal.
    public init(booleanLiteral value: Bool) { self = .bool(value) }
}
