import Crypto
import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOWebSocket
import Qwen3TTS
import SpeechEngine
import TestSupport
import Tensors

@testable import SpeechServer

/// A server on a free port of the loopback address, with the small CustomVoice model, while `body` runs.
/// - Parameter frames: ends every utterance after so many frames, as a run-away; nil leaves the defaults.
func withSpeechServer<Value: Sendable>(
    frames: Int? = nil, _ change: (inout ServerOptions) -> Void = { _ in },
    _ body: @escaping @Sendable (ServerContext, _ port: Int) async throws -> Value
) async throws -> Value {
    var options = ServerOptions()
    options.port = 0
    change(&options)
    let model = try SpeechModel(directory: Fixture.customVoice.directory, compute: Compute(threads: 2))
    var engineOptions = EngineOptions()
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
    fileprivate let outbound: NIOAsyncChannelOutboundWriter<WebSocketFrame>
    fileprivate var frames: NIOAsyncChannelInboundStream<WebSocketFrame>.AsyncIterator

    /// Connects, runs `body`, disconnects.
    /// - Throws: ``UpgradeRefused`` if the server answers otherwise.
    static func connect<Value: Sendable>(
        port: Int, path: String, headers: [String: String] = [:],
        _ body: (inout WebSocketTestClient) async throws -> Value
    ) async throws -> Value {
        typealias Frames = NIOAsyncChannel<WebSocketFrame, WebSocketFrame>
        let upgrade = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connect(host: "127.0.0.1", port: port) { channel in
                channel.eventLoop.makeCompletedFuture {
                    let upgrader = NIOTypedWebSocketClientUpgrader<Frames?>(
                        maxFrameSize: 1 << 20,
                        upgradePipelineHandler: { channel, _ in
                            channel.eventLoop.makeCompletedFuture {
                                try NIOAsyncChannel(wrappingChannelSynchronously: channel)
                            }
                        })
                    var fields = HTTPHeaders([("Host", "127.0.0.1:\(port)"), ("Content-Length", "0")])
                    for (name, value) in headers { fields.add(name: name, value: value) }
                    let configuration = NIOUpgradableHTTPClientPipelineConfiguration(
                        upgradeConfiguration: NIOTypedHTTPClientUpgradeConfiguration(
                            upgradeRequestHead: HTTPRequestHead(
                                version: .http1_1, method: .GET, uri: path, headers: fields),
                            upgraders: [upgrader],
                            notUpgradingCompletionHandler: { channel in
                                channel.eventLoop.makeCompletedFuture { nil }
                            }))
                    return try channel.pipeline.syncOperations.configureUpgradableHTTPClientPipeline(
                        configuration: configuration)
                }
            }
        guard let channel = try? await upgrade.get() else { throw UpgradeRefused() }
        return try await channel.executeThenClose { inbound, outbound in
            var client = WebSocketTestClient(outbound: outbound, frames: inbound.makeAsyncIterator())
            return try await body(&client)
        }
    }

    func send(_ members: [String: JSONValue]) async throws { try await send(text: JSONValue.object(members).text) }

    func send(text: String) async throws { try await send(.text, Array(text.utf8)) }

    func send(_ opcode: WebSocketOpcode, _ bytes: [UInt8], fin: Bool = true, isMasked: Bool = true) async throws {
        try await outbound.write(
            WebSocketFrame(
                fin: fin, opcode: opcode, maskKey: isMasked ? .random() : nil, data: ByteBuffer(bytes: bytes)))
    }

    /// The next message; nil at the end of the connection.
    mutating func next() async throws -> ReceivedMessage? {
        while let frame = try await frames.next() {
            var data = frame.data
            switch frame.opcode {
            case .text: return .json(try JSONValue(parsing: data.readableBytesView))
            case .binary: return .binary(Array(data.readableBytesView))
            case .pong: return .pong(Array(data.readableBytesView))
            case .connectionClose:
                let code: UInt16 = data.readInteger() ?? 0
                return .close(code, String(buffer: data))
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
