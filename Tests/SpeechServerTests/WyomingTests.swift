import Foundation
import NIOCore
import NIOPosix
import Qwen3TTS
import SpeechEngine
import Synchronization
import Testing

@testable import SpeechServer

@Suite struct WyomingEventTests {
    private static func events(_ bytes: [UInt8], pieces: Int) throws -> [WyomingEvent] {
        var decoder = WyomingEventDecoder()
        var buffer = ByteBuffer()
        var events: [WyomingEvent] = []
        var at = 0
        while at < bytes.count {
            let end = min(bytes.count, at + pieces)
            buffer.writeBytes(bytes[at..<end])
            at = end
            while let event = try decoder.next(&buffer) { events.append(event) }
        }
        return events
    }

    @Test func eventsInAnyPieces() throws {
        let text =
            #"{"type":"synthesize","data":{"text":"hé","voice":{"name":"x"}},"extra":1}"# + "\n"
            + #"{"type":"audio-chunk","data_length":12,"payload_length":3}"# + "\n" + #"{"text":"b"}"# + "abc"
            + #"{"type":"ping"}"# + "\n"
        for pieces in [1, 2, 7, 1_000] {
            let events = try Self.events(Array(text.utf8), pieces: pieces)
            #expect(events.map(\.type) == ["synthesize", "audio-chunk", "ping"])
            #expect(events[0].data.text == "hé")
            #expect(events[0].data.voice?.name == "x")
            #expect(events[1].data.text == "b")
            #expect(events[1].payload == Array("abc".utf8))
        }
    }

    @Test func badBytes() {
        for (text, error) in [
            ("hello\n", WyomingError.notJSON), ("[]\n", .notJSON), (#"{"type":7}"# + "\n", .notJSON),
            (
                #"{"type":"a","data_length":-1}"# + "\n",
                .badLength(field: "data_length", limit: WyomingEventDecoder.dataLimit)
            ),
            (
                #"{"type":"a","payload_length":99999999999}"# + "\n",
                .badLength(field: "payload_length", limit: WyomingEventDecoder.dataLimit)
            ), (#"{"type":"a","data_length":2}"# + "\nxx", .notJSON),
            (String(repeating: "a", count: 70_000), .lineTooLong(limit: WyomingEventDecoder.lineLimit)),
        ] {
            #expect(throws: error) { _ = try Self.events(Array(text.utf8), pieces: 1 << 20) }
        }
    }

    @Test func languages() {
        #expect(WyomingLanguage.name("en_US") == "english")
        #expect(WyomingLanguage.name("zh") == "chinese")
        #expect(WyomingLanguage.name("auto") == "auto")
        #expect(WyomingLanguage.code("german") == "de")
        #expect(WyomingLanguage.code("auto") == nil)
    }
}

@Suite(.serialized) struct WyomingServerTests {
    /// What a test reads: JSON header, data and payload of one event.
    private struct Received {
        let type: String
        let data: JSONValue
        let payload: [UInt8]
    }

    /// Sends lines, then reads until an event of each type in `ends` has come.
    private static func talk(_ port: Int, _ lines: [String], until end: String) async throws -> [Received] {
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connect(host: "127.0.0.1", port: port) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
                }
            }
        return try await channel.executeThenClose { inbound, outbound in
            for line in lines { try await outbound.write(ByteBuffer(string: line + "\n")) }
            var buffer = ByteBuffer()
            var events: [Received] = []
            for try await part in inbound {
                buffer.writeImmutableBuffer(part)
                while let event = try take(&buffer) {
                    events.append(event)
                    if event.type == end { return events }
                }
            }
            return events
        }
    }

    private static func take(_ buffer: inout ByteBuffer) throws -> Received? {
        let view = buffer.readableBytesView
        guard let newline = view.firstIndex(of: 10) else { return nil }
        let header = try JSONValue(parsing: view[..<newline])
        let data = header["data_length"]?.int ?? 0
        let payload = header["payload_length"]?.int ?? 0
        let line = newline - view.startIndex + 1
        guard buffer.readableBytes >= line + data + payload else { return nil }
        buffer.moveReaderIndex(forwardBy: line)
        return Received(
            type: header["type"]?.string ?? "", data: try JSONValue(parsing: buffer.readBytes(length: data) ?? []),
            payload: buffer.readBytes(length: payload) ?? [])
    }

    private static func withWyoming(
        keeper: (any UtteranceKeeper)? = nil, _ body: @escaping @Sendable (ServerContext, Int) async throws -> Void
    ) async throws {
        try await withSpeechServer(frames: 8, keeper: keeper) { server, _ in
            let found = Mutex<Int?>(nil)
            let wyoming = WyomingServer(
                server: server, host: "127.0.0.1", port: 0,
                onRunning: { port in
                    found.withLock { $0 = port }
                })
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { try await wyoming.run() }
                while found.withLock({ $0 }) == nil { try await Task.sleep(for: .milliseconds(5)) }
                try await body(server, found.withLock { $0 } ?? 0)
                group.cancelAll()
            }
        }
    }

    @Test func describesItself() async throws {
        try await Self.withWyoming { server, port in
            let events = try await Self.talk(
                port, [#"{"type":"ping","data":{"text":"x"}}"#, #"{"type":"describe"}"#], until: "info")
            #expect(events.map(\.type) == ["pong", "info"])
            #expect(events[0].data["text"]?.string == "x")
            guard case .array(let programs)? = events[1].data["tts"], case .array(let voices)? = programs[0]["voices"]
            else {
                Issue.record("no programs")
                return
            }
            #expect(programs[0]["supports_synthesize_streaming"]?.bool == true)
            #expect(voices.compactMap { $0["name"]?.string } == server.speaker.voiceNames)
        }
    }

    @Test func wholeTextsAndPieces() async throws {
        let keeper = TagKeeper()
        try await Self.withWyoming(keeper: keeper) { server, port in
            var request = SpeechRequest(text: "tea for two")
            let whole = try await spokenAlone(request, server.engine)
            request.layout = .streaming
            let pieces = try await spokenAlone(request, server.engine)

            let events = try await Self.talk(
                port, [#"{"type":"synthesize","data":{"text":"tea for two"}}"#], until: "audio-stop")
            #expect(events.first?.type == "audio-start")
            #expect(events.first?.data["rate"]?.int == 24_000)
            #expect(sha256(events.flatMap(\.payload)) == whole.summary.fingerprint.pcm)

            let streamed = try await Self.talk(
                port,
                [
                    #"{"type":"synthesize-start","data":{"voice":{"language":"xx"}}}"#,
                    #"{"type":"synthesize-chunk","data":{"text":"tea f"}}"#,
                    #"{"type":"synthesize-chunk","data":{"text":"or two"}}"#,
                    #"{"type":"synthesize","data":{"text":"tea for two"}}"#, #"{"type":"synthesize-stop"}"#,
                ], until: "synthesize-stopped")
            #expect(streamed.filter { $0.type == "audio-start" }.count == 1)
            #expect(streamed.suffix(2).map(\.type) == ["audio-stop", "synthesize-stopped"])
            #expect(sha256(streamed.flatMap(\.payload)) == pieces.summary.fingerprint.pcm)
            #expect(keeper.texts.keys.allSatisfy { $0.hasPrefix("wyoming-") })
            #expect(Array(keeper.texts.values) == ["tea for two", "tea for two"])
        }
    }

    @Test func mistakes() async throws {
        try await Self.withWyoming { _, port in
            func error(_ lines: [String]) async throws -> String? {
                try await Self.talk(port, lines, until: "error").last?.data["text"]?.string
            }
            #expect(
                try await error([#"{"type":"synthesize","data":{"text":"a","voice":{"name":"nobody"}}}"#])?
                    .contains("nobody") == true)
            #expect(try await error([#"{"type":"synthesize"}"#])?.contains("text") == true)
            #expect(try await error([#"{"type":"synthesize-chunk","data":{"text":"a"}}"#])?.contains("start") == true)
            #expect(try await error(["nonsense"]) != nil)
            let refused = try await Self.talk(
                port,
                [
                    #"{"type":"unknown"}"#, #"{"type":"synthesize-start","data":{"voice":{"name":"nobody"}}}"#,
                    #"{"type":"synthesize-stop"}"#,
                ], until: "synthesize-stopped")
            #expect(refused.map(\.type) == ["error", "synthesize-stopped"])
            // Nothing to say is an end, too.
            let silent = try await Self.talk(
                port, [#"{"type":"synthesize-start"}"#, #"{"type":"synthesize-stop"}"#], until: "synthesize-stopped")
            #expect(silent.map(\.type) == ["audio-start", "audio-stop", "synthesize-stopped"])
        }
    }
}
