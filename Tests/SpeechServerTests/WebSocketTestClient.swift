import Crypto
import Foundation
import NIOWebSocket
import Qwen3TTS
import SpeechEngine
import TestSupport
import Synchronization
import Tensors

@testable import SpeechServer

/// A server on a free port of the loopback address, with the small CustomVoice model, while `body` runs.
/// - Parameter frames: ends every utterance after so many frames, as a run-away; nil leaves the defaults.
func withSpeechServer<Value: Sendable>(
    frames: Int? = nil, keeper: (any UtteranceKeeper)? = nil, _ change: (inout ServerOptions) -> Void = { _ in },
    _ body: @escaping @Sendable (ServerContext, _ port: Int) async throws -> Value
) async throws -> Value {
    var options = ServerOptions()
    options.port = 0
    options.patience(900)
    change(&options)
    let model = try SpeechModel(directory: Fixture.customVoice.directory, compute: Compute(threads: 2))
    var engineOptions = EngineOptions()
    engineOptions.keeper = keeper
    if let frames {
        engineOptions.runaway?.baseFrames = frames
        engineOptions.runaway?.framesPerToken = 0
    }
    let server = try SpeechServer(engine: SpeechEngine(model: model, options: engineOptions), options: options)
    return try await withThrowingTaskGroup(of: Value?.self) { group in
        group.addTask {
            try await server.run()
            return nil
        }
        group.addTask {
            while server.port == nil || !server.isReady { try await Task.sleep(for: .milliseconds(10)) }
            return try await body(server.context, server.port ?? 0)
        }
        defer { group.cancelAll() }
        while let value = try await group.next() { if let value { return value } }
        throw CancellationError()
    }
}

/// What a test's client gets from the server.
enum ReceivedMessage: Equatable {
    case json(JSONValue)
    case binary([UInt8])
    case pong([UInt8])
    case close(UInt16, String)

    var json: JSONValue? { if case .json(let value) = self { value } else { nil } }
}

/// The server did not turn the connection into a WebSocket.
struct UpgradeRefused: Error {}

/// A WebSocket client that sends any frame, right or wrong.
struct WebSocketTestClient {
    static let handshake = [
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    ]
    private let connection: RawConnection

    /// Connects, runs `body`, disconnects.
    /// - Throws: ``UpgradeRefused`` if the server answers otherwise.
    static func connect<Value: Sendable>(
        port: Int, path: String, headers: [String: String] = [:],
        _ body: (inout WebSocketTestClient) async throws -> Value
    ) async throws -> Value {
        let connection = try RawConnection(port: port)
        defer { connection.close() }
        await connection.send("GET", path, headers: handshake.merging(headers) { $1 })
        guard await connection.head()?.status == 101 else { throw UpgradeRefused() }
        var client = WebSocketTestClient(connection: connection)
        return try await body(&client)
    }

    func send(_ members: [String: JSONValue]) async throws { try await send(text: JSONValue.object(members).text) }

    /// Sends messages as one piece, so that the server may read them all at once.
    func send(all messages: [[String: JSONValue]]) async throws {
        await connection.send(messages.flatMap { frame(.text, Array(JSONValue.object($0).text.utf8)) })
    }

    func send(text: String) async throws { try await send(.text, Array(text.utf8)) }

    func send(_ opcode: WebSocketOpcode, _ bytes: [UInt8], fin: Bool = true, isMasked: Bool = true) async throws {
        await connection.send(frame(opcode, bytes, fin: fin, isMasked: isMasked))
    }

    private func frame(
        _ opcode: WebSocketOpcode, _ bytes: [UInt8], fin: Bool = true, isMasked: Bool = true
    ) -> [UInt8] {
        var frame = [(fin ? 0x80 : 0) | UInt8(webSocketOpcode: opcode)]
        let maskBit: UInt8 = isMasked ? 0x80 : 0
        switch bytes.count {
        case ..<126: frame.append(maskBit | UInt8(bytes.count))
        case ..<65_536: frame += [maskBit | 126, UInt8(bytes.count >> 8), UInt8(bytes.count & 0xff)]
        default:
            frame.append(maskBit | 127)
            frame += (0..<8).map { UInt8(truncatingIfNeeded: bytes.count >> (56 - 8 * $0)) }
        }
        if isMasked {
            let mask: [UInt8] = [0x5a, 0x01, 0xfe, 0x33]
            frame += mask + bytes.enumerated().map { $1 ^ mask[$0 % 4] }
        } else {
            frame += bytes
        }
        return frame
    }

    /// The next message; nil at the end of the connection.
    mutating func next() async throws -> ReceivedMessage? {
        while let start = await connection.read(2) {
            var length = Int(start[1])
            if length > 125 {
                guard let field = await connection.read(length == 126 ? 2 : 8) else { return nil }
                length = field.reduce(0) { $0 << 8 | Int($1) }
            }
            guard let data = await connection.read(length) else { return nil }
            switch WebSocketOpcode(encodedWebSocketOpcode: start[0] & 0x0f) {
            case .text: return .json(try JSONValue(parsing: data))
            case .binary: return .binary(data)
            case .pong: return .pong(data)
            case .ping: try await send(.pong, data)
            case .connectionClose:
                let code = data.prefix(2).reduce(0) { $0 << 8 | UInt16($1) }
                return .close(code, String(decoding: data.dropFirst(2), as: UTF8.self))
            default: continue
            }
        }
        return nil
    }

    /// Reads until an event of that type, of that context if one is given; nil if the connection ends before.
    mutating func event(_ type: String, context: String? = nil) async throws -> JSONValue? {
        while let message = try await next() {
            guard let json = message.json, json["type"]?.string == type else { continue }
            if context == nil || json["context"]?.string == context { return json }
        }
        return nil
    }
}

/// SHA-256 in hexadecimal.
func sha256(_ bytes: [UInt8]) -> String {
    SHA256.hash(data: bytes).map { byte in
        let text = String(byte, radix: 16)
        return text.count == 1 ? "0" + text : text
    }.joined()
}

/// The summary of a request spoken by an engine alone, with all its PCM.
func spokenAlone(_ request: SpeechRequest, _ engine: SpeechEngine) async throws -> (
    summary: SpeechSummary, pcm: [UInt8]
) {
    var pcm: [UInt8] = []
    for await event in try engine.speak(request) {
        switch event {
        case .packet(let packet): pcm += packet.pcm
        case .end(let summary): return (summary, pcm)
        }
    }
    throw CancellationError()
}

/// Keeps tags and texts of what is spoken.
final class TagKeeper: UtteranceKeeper {
    private let state = Mutex<[String: String]>([:])

    /// Texts by tag.
    var texts: [String: String] { state.withLock { $0 } }

    func willSpeak(_ request: inout SpeechRequest) {}

    func keep(_ utterance: SpokenUtterance) {
        state.withLock { $0[utterance.tag] = utterance.request.text }
    }
}
