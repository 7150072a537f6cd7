import Logging
import NIOCore
import NIOWebSocket
import ServiceLifecycle
import Synchronization

/// Bounds on what one WebSocket connection may ask for.
struct WebSocketLimits: Sendable {
    /// Bytes of one message, in one frame or in fragments.
    var messageBytes = 1 << 20
    /// Contexts that a connection may have open at a time.
    var contexts = 32
    /// Bytes of text of one utterance.
    var utteranceBytes = 1 << 16
    /// Utterances of one context that wait for those before them.
    var waitingUtterances = 64
    /// Seconds without a message and without a context, after which the connection is closed.
    var idleTimeout = 300.0
    /// Seconds of silence from the client after which it is asked for a sign of life, and again so many until it is
    /// taken for gone.
    var pingInterval = 20.0
    /// Seconds that a client may leave written bytes unread.
    var writeTimeout = 60.0
    /// Seconds that a client gets to answer a close frame.
    var closeTimeout = 5.0

    /// The defaults.
    init() {}

    /// What a server's options say.
    init(_ options: ServerOptions) {
        messageBytes = options.maxBody
        utteranceBytes = options.maxText
        writeTimeout = options.writeTimeout
        pingInterval = options.pingInterval
    }
}

/// Why a connection is closed.
struct WebSocketClose: Error, Sendable {
    let code: WebSocketErrorCode
    /// A line for a person; the protocol allows 123 bytes.
    let reason: String

    init(_ code: WebSocketErrorCode, _ reason: String = "") {
        self.code = code
        self.reason = reason
    }
}

/// A message of a client, its fragments put together.
enum WebSocketMessage: Sendable, Equatable {
    case text(String)
    case binary([UInt8])
}

/// One WebSocket connection: sends messages, answers pings, notices dead, slow and idle clients.
final class WebSocketConnection: Sendable {
    let limits: WebSocketLimits
    let logger: Logger
    private let channel: any Channel
    private let writer: NIOAsyncChannelOutboundWriter<WebSocketFrame>
    private let state: Mutex<State>

    private struct State {
        var lastRead = ContinuousClock.now
        var lastMessage = ContinuousClock.now
        var pinged: ContinuousClock.Instant?
        var pendingWrites = 0
        /// When the oldest pending write began, or the last one before it ended.
        var stalledSince = ContinuousClock.now
        var closeSent: ContinuousClock.Instant?
        /// Contexts that are open; with any, the connection is not idle.
        var contexts = 0
        /// The last message that was told.
        var telling: Task<Void, any Error>?
        /// Set when the connection shall be closed once no context is open.
        var farewell: WebSocketClose?
    }

    private init(
        _ channel: any Channel, _ writer: NIOAsyncChannelOutboundWriter<WebSocketFrame>, limits: WebSocketLimits,
        logger: Logger
    ) {
        self.channel = channel
        self.writer = writer
        self.limits = limits
        self.logger = logger
        state = Mutex(State())
    }

    /// Serves one connection until it ends.
    static func serve(
        _ channel: NIOAsyncChannel<WebSocketFrame, WebSocketFrame>, limits: WebSocketLimits, logger: Logger,
        handler: @escaping WebSocketHandler
    ) async {
        do {
            try await channel.executeThenClose { inbound, outbound in
                let connection = WebSocketConnection(channel.channel, outbound, limits: limits, logger: logger)
                await withGracefulShutdownHandler {
                    await withTaskGroup(of: Void.self) { group in
                        group.addTask { await connection.watch() }
                        var messages = WebSocketMessages(connection, inbound)
                        do {
                            await connection.close(try await handler(connection, &messages))
                            // What the client sent before it saw the close frame is read, for a clean end of TCP.
                            while try await messages.next() != nil {}
                        } catch let close as WebSocketClose {
                            await connection.close(close)
                        } catch {
                            logger.trace("WebSocket ended: \(error)")
                        }
                        group.cancelAll()
                    }
                } onGracefulShutdown: {
                    connection.closeWhenDone(WebSocketClose(.goingAway, "the server is shutting down"))
                }
            }
        } catch {
            logger.trace("WebSocket ended: \(error)")
        }
    }

    // MARK: Sending

    /// Sends a text message. Waits while the client is behind.
    func send(_ text: String) async throws { try await write([frame(.text, Array(text.utf8))]) }

    /// Sends a text message and a binary one right behind it, with no other message between them.
    func send(_ text: String, followedBy bytes: [UInt8]) async throws {
        try await write([frame(.text, Array(text.utf8)), frame(.binary, bytes)])
    }

    /// Sends a text message behind all others that were told so, whoever told them: errors come in the order in which they
    /// were found. The caller waits for the task, so that what a client does not read does not pile up.
    func tell(_ text: String) -> Task<Void, any Error> {
        state.withLock { state in
            let former = state.telling
            let task = Task {
                _ = await former?.result
                try await send(text)
            }
            state.telling = task
            return task
        }
    }

    /// Sends a close frame, once.
    func close(_ close: WebSocketClose) async {
        let isFirst = state.withLock { state in
            guard state.closeSent == nil else { return false }
            state.closeSent = .now
            return true
        }
        guard isFirst else { return }
        var data = ByteBuffer()
        data.write(webSocketErrorCode: close.code)
        var reason = close.reason
        while reason.utf8.count > 123 { reason.removeLast() }
        data.writeString(reason)
        try? await writer.write(WebSocketFrame(fin: true, opcode: .connectionClose, data: data))
    }

    private func frame(_ opcode: WebSocketOpcode, _ bytes: [UInt8]) -> WebSocketFrame {
        WebSocketFrame(fin: true, opcode: opcode, data: ByteBuffer(bytes: bytes))
    }

    private func write(_ frames: [WebSocketFrame]) async throws {
        let isOpen = state.withLock { state in
            guard state.closeSent == nil else { return false }
            if state.pendingWrites == 0 { state.stalledSince = .now }
            state.pendingWrites += 1
            return true
        }
        guard isOpen else { throw WebSocketClose(.normalClosure) }
        defer {
            state.withLock { state in
                state.pendingWrites -= 1
                state.stalledSince = .now
            }
        }
        try await writer.write(contentsOf: frames)
    }

    // MARK: Contexts

    /// Counts a context in.
    /// - Returns: false if there are as many as may be.
    func openContext() -> Bool {
        state.withLock { state in
            guard state.contexts < limits.contexts else { return false }
            state.contexts += 1
            return true
        }
    }

    /// Counts a context out; the last one closes a connection that waits for it.
    func contextEnded() async {
        let farewell = state.withLock { state in
            state.contexts -= 1
            state.lastMessage = .now
            return state.contexts == 0 ? state.farewell : nil
        }
        if let farewell { await close(farewell) }
    }

    /// Closes the connection as soon as no context is open.
    func closeWhenDone(_ close: WebSocketClose) {
        let isDone = state.withLock { state in
            state.farewell = close
            return state.contexts == 0
        }
        // A task of its own: the caller is no async function when the server shuts down.
        if isDone { Task { await self.close(close) } }
    }

    // MARK: Watching

    private enum Verdict {
        case fine
        case ping
        case close(WebSocketClose)
        case abort(String)
    }

    /// Once a second: is the client there, does it read, is the connection in use?
    private func watch() async {
        while !Task.isCancelled {
            try? await Task.sleep(for: .seconds(1))
            switch verdict() {
            case .fine: break
            case .ping:
                // Does not wait: a client that does not read must not keep the watch from seeing it.
                channel.writeAndFlush(frame(.ping, []), promise: nil)
            case .close(let close): await self.close(close)
            case .abort(let reason):
                logger.debug("WebSocket aborted: \(reason)")
                channel.close(promise: nil)
                return
            }
        }
    }

    private func verdict() -> Verdict {
        let now = ContinuousClock.now
        return state.withLock { state in
            if let closeSent = state.closeSent {
                return now - closeSent > .seconds(limits.closeTimeout) ? .abort("no answer to the close frame") : .fine
            }
            if state.pendingWrites > 0 && now - state.stalledSince > .seconds(limits.writeTimeout) {
                return .abort("the client does not read")
            }
            if state.contexts == 0 && now - state.lastMessage > .seconds(limits.idleTimeout) {
                return .close(WebSocketClose(.normalClosure, "idle for \(Int(limits.idleTimeout)) s"))
            }
            guard now - state.lastRead > .seconds(limits.pingInterval) else {
                state.pinged = nil
                return .fine
            }
            guard let pinged = state.pinged else {
                state.pinged = now
                return .ping
            }
            return now - pinged > .seconds(limits.pingInterval) ? .abort("no answer to a ping") : .fine
        }
    }

    // MARK: The reader's side

    fileprivate func noteFrame() { state.withLock { $0.lastRead = .now } }

    fileprivate func noteMessage() { state.withLock { $0.lastMessage = .now } }

    fileprivate func answerPing(_ data: ByteBuffer) async throws {
        guard state.withLock({ $0.closeSent == nil }) else { return }
        try await writer.write(WebSocketFrame(fin: true, opcode: .pong, data: data))
    }
}

/// The messages of one connection, in order.
struct WebSocketMessages {
    private let connection: WebSocketConnection
    private var frames: NIOAsyncChannelInboundStream<WebSocketFrame>.AsyncIterator

    fileprivate init(_ connection: WebSocketConnection, _ inbound: NIOAsyncChannelInboundStream<WebSocketFrame>) {
        self.connection = connection
        frames = inbound.makeAsyncIterator()
    }

    /// The next message; nil when the client has closed the connection. Pings are answered on the way.
    /// - Throws: the close that a violation of the protocol asks for.
    mutating func next() async throws -> WebSocketMessage? {
        var opcode: WebSocketOpcode?
        var payload: [UInt8] = []
        while let frame = try await frames.next() {
            connection.noteFrame()
            guard !frame.rsv1, !frame.rsv2, !frame.rsv3 else {
                throw WebSocketClose(.protocolError, "reserved bits are set, no extension was agreed on")
            }
            guard frame.maskKey != nil else { throw WebSocketClose(.protocolError, "a client's frame is not masked") }
            let data = frame.unmaskedData
            switch frame.opcode {
            case .connectionClose:
                await connection.close(WebSocketClose(.normalClosure))
                return nil
            case .ping:
                try await connection.answerPing(data)
                continue
            case .pong: continue
            case .text, .binary:
                guard opcode == nil else { throw WebSocketClose(.protocolError, "a message inside a message") }
                opcode = frame.opcode
            case .continuation:
                guard opcode != nil else { throw WebSocketClose(.protocolError, "a continuation of no message") }
            default: throw WebSocketClose(.protocolError, "an unknown opcode")
            }
            guard payload.count + data.readableBytes <= connection.limits.messageBytes else {
                throw WebSocketClose(
                    .messageTooLarge, "a message has more than \(connection.limits.messageBytes) bytes")
            }
            payload += data.readableBytesView
            guard frame.fin else { continue }
            connection.noteMessage()
            if opcode == .binary { return .binary(payload) }
            guard let text = String(validating: payload, as: UTF8.self) else {
                throw WebSocketClose(.dataInconsistentWithMessage, "a text message is not UTF-8")
            }
            return .text(text)
        }
        return nil
    }
}
