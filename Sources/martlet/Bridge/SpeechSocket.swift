import Experiments
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOWebSocket

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// A speech server's WebSocket: text in pieces to it, samples from it.
struct SpeechSocket {
    /// What the server says.
    struct Event: Decodable {
        struct Problem: Decodable { let message: String }

        let type: String
        let finishReason: String?
        let frames: Frames?
        let sampleRate: Int?
        let codesHash: String?
        let error: Problem?

        /// A number of frames, or where an audio message begins and ends.
        enum Frames: Decodable {
            case count(Int), range([Int])

            init(from decoder: any Decoder) throws {
                let container = try decoder.singleValueContainer()
                if let count = try? container.decode(Int.self) {
                    self = .count(count)
                } else {
                    self = .range(try container.decode([Int].self))
                }
            }
        }

        enum CodingKeys: String, CodingKey {
            case type, frames, error
            case finishReason = "finish_reason"
            case sampleRate = "sample_rate"
            case codesHash = "codes_sha256"
        }
    }

    /// What comes from the server.
    enum Message {
        case event(Event)
        case audio([UInt8])
    }

    /// Sends messages.
    struct Writer: Sendable {
        fileprivate let outbound: NIOAsyncChannelOutboundWriter<WebSocketFrame>

        func send(_ message: some Encodable) async throws {
            let data = try JSONEncoder().encode(message)
            try await outbound.write(
                WebSocketFrame(fin: true, opcode: .text, maskKey: .random(), data: ByteBuffer(bytes: data)))
        }
    }

    private enum Upgrade {
        case socket(NIOAsyncChannel<WebSocketFrame, WebSocketFrame>)
        case refused
    }

    /// Opens a connection, and closes it when `body` returns.
    /// - Parameters:
    ///   - server: where it is.
    ///   - body: gets what sends, and what comes in until the server closes.
    static func with<Value: Sendable>(
        _ server: SpeechClient,
        _ body: @escaping @Sendable (Writer, AsyncThrowingStream<Message, any Error>) async throws -> Value
    ) async throws -> Value {
        var headers: HTTPHeaders = ["Host": "\(server.host):\(server.port)", "Content-Length": "0"]
        if let apiKey = server.apiKey { headers.add(name: "Authorization", value: "Bearer \(apiKey)") }
        let head = HTTPRequestHead(
            version: .http1_1, method: .GET, uri: "/v1/audio/speech/stream", headers: headers)
        let upgrade: EventLoopFuture<Upgrade>
        do {
            upgrade = try await ClientBootstrap(group: .singletonMultiThreadedEventLoopGroup)
                .connectTimeout(.seconds(10)).connect(host: server.host, port: server.port) { channel in
                    channel.eventLoop.makeCompletedFuture {
                        let upgrader = NIOTypedWebSocketClientUpgrader<Upgrade>(maxFrameSize: 1 << 24) { channel, _ in
                            channel.eventLoop.makeCompletedFuture {
                                .socket(
                                    try NIOAsyncChannel<WebSocketFrame, WebSocketFrame>(
                                        wrappingChannelSynchronously: channel))
                            }
                        }
                        let configuration = NIOTypedHTTPClientUpgradeConfiguration<Upgrade>(
                            upgradeRequestHead: head, upgraders: [upgrader]
                        ) { channel in
                            channel.eventLoop.makeSucceededFuture(.refused)
                        }
                        return try channel.pipeline.syncOperations.configureUpgradableHTTPClientPipeline(
                            configuration: .init(upgradeConfiguration: configuration))
                    }
                }
        } catch {
            throw CommandError("the speech server at \(server.url) cannot be reached; is it ready?")
        }
        guard case .socket(let channel) = try await upgrade.get() else {
            throw CommandError(
                "\(server.url) opens no /v1/audio/speech/stream: is it a Martlet server, and the key right?")
        }
        return try await channel.executeThenClose { inbound, outbound in
            let (messages, continuation) = AsyncThrowingStream<Message, any Error>.makeStream()
            return try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask {
                    do {
                        try await read(inbound, outbound, into: continuation)
                        continuation.finish()
                    } catch {
                        continuation.finish(throwing: error)
                    }
                }
                let value = try await body(Writer(outbound: outbound), messages)
                group.cancelAll()
                return value
            }
        }
    }

    private static func read(
        _ inbound: NIOAsyncChannelInboundStream<WebSocketFrame>,
        _ outbound: NIOAsyncChannelOutboundWriter<WebSocketFrame>,
        into messages: AsyncThrowingStream<Message, any Error>.Continuation
    ) async throws {
        var (kind, bytes): (WebSocketOpcode, [UInt8]) = (.binary, [])
        for try await frame in inbound {
            switch frame.opcode {
            case .ping:
                try await outbound.write(
                    WebSocketFrame(fin: true, opcode: .pong, maskKey: .random(), data: frame.unmaskedData))
            case .connectionClose: return
            case .text, .binary, .continuation:
                if frame.opcode != .continuation { (kind, bytes) = (frame.opcode, []) }
                bytes += frame.unmaskedData.readableBytesView
                guard frame.fin else { continue }
                messages.yield(
                    kind == .binary
                        ? .audio(bytes) : .event(try JSONDecoder().decode(Event.self, from: Data(bytes))))
            default: continue
            }
        }
    }
}
