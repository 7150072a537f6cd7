import NIOCore
import Qwen3TTS
import SpeechEngine
import Synchronization

/// One Wyoming connection: reads events, speaks what they ask for, one after another.
final class WyomingSession: Sendable {
    private let server: ServerContext
    private let wyoming: WyomingServer
    private let channel: any Channel
    private let outbound: NIOAsyncChannelOutboundWriter<WyomingReply>
    private let jobs: AsyncStream<Job>
    private let jobsEnd: AsyncStream<Job>.Continuation
    private let state = Mutex(State())

    private struct Job: Sendable {
        let context: SpeechContext
        /// Asked for by `synthesize-start`: its end is told by `synthesize-stopped`.
        let isStreaming: Bool
    }

    private struct State {
        /// The context that `synthesize-chunk` adds to.
        var open: SpeechContext?
        var unfinished = 0
        var isClosing = false
        var lastEvent = ContinuousClock.now
        var writingSince: ContinuousClock.Instant?
    }

    private struct AudioFormat: Encodable {
        let rate: Int
        let width = 2
        let channels = 1
        /// Milliseconds from the beginning.
        let timestamp: Int
    }

    private struct Timestamp: Encodable { let timestamp: Int }

    private struct Failure: Encodable {
        let text: String
        let code: String
    }

    init(
        wyoming: WyomingServer, channel: any Channel, outbound: NIOAsyncChannelOutboundWriter<WyomingReply>
    ) {
        self.wyoming = wyoming
        server = wyoming.server
        self.channel = channel
        self.outbound = outbound
        (jobs, jobsEnd) = AsyncStream.makeStream()
    }

    /// Serves the connection until it ends.
    func run(_ inbound: NIOAsyncChannelInboundStream<WyomingEvent>) async {
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await self.watch() }
            group.addTask { await self.speakJobs() }
            do {
                for try await event in inbound { try await receive(event) }
            } catch let error as WyomingError {
                try? await fail("\(error)", code: "malformed")
            } catch {
                server.logger.trace("Wyoming connection ended: \(error)")
            }
            jobsEnd.finish()
            group.cancelAll()
        }
    }

    /// Closes the connection once everything that was asked for is spoken.
    func closeWhenDone() {
        let isDone = state.withLock { state in
            state.isClosing = true
            return state.unfinished == 0
        }
        if isDone { channel.close(promise: nil) }
    }

    // MARK: Events

    private func receive(_ event: WyomingEvent) async throws {
        state.withLock { $0.lastEvent = .now }
        switch event.type {
        case "describe":
            let info = WyomingInfo(
                voices: server.speaker.voiceNames, languages: server.model.configuration.languages,
                model: server.options.modelNames.first ?? "martlet", version: server.options.version)
            try await send(WyomingReply("info", data: info))
        case "ping": try await send(WyomingReply("pong", data: ["text": event.data.text ?? ""]))
        case "synthesize":
            // Clients that stream send it, too, for servers that cannot.
            guard state.withLock({ $0.open == nil }) else { return }
            guard let text = event.data.text else {
                try await fail("synthesize needs a text", code: "bad-request")
                return
            }
            guard let context = try await makeContext(event.data.voice, isStreaming: false) else { return }
            do throws(SpeechContextError) {
                try context.speak(whole: text)
                context.complete()
            } catch {
                context.cancel()
                try await fail("\(error)", code: "bad-request")
            }
        case "synthesize-start":
            // An earlier one without its stop is at its end.
            state.withLock { $0.open }?.complete()
            let context = try await makeContext(event.data.voice, isStreaming: true)
            state.withLock { $0.open = context }
        case "synthesize-chunk":
            guard let context = state.withLock({ $0.open }) else {
                try await fail("synthesize-chunk comes after a synthesize-start", code: "bad-request")
                return
            }
            do throws(SpeechContextError) {
                try context.append(event.data.text ?? "")
            } catch {
                context.cancel()
                state.withLock { $0.open = nil }
                try await fail("\(error)", code: "bad-request")
            }
        case "synthesize-stop":
            let context = state.withLock { state in
                defer { state.open = nil }
                return state.open
            }
            if let context {
                context.complete()
            } else {
                // The start was refused; the client still waits for the end.
                try await send(WyomingReply("synthesize-stopped"))
            }
        default:
            // The protocol lets a server drop what it does not know.
            break
        }
    }

    /// A context that is queued to be spoken; nil if it cannot be, which the client is told.
    private func makeContext(
        _ voice: WyomingEvent.Fields.Voice?, isStreaming: Bool
    ) async throws -> SpeechContext? {
        let limit = wyoming.limits.waitingRequests
        guard state.withLock({ $0.unfinished < limit }) else {
            try await fail("\(limit) requests of this connection wait already", code: "busy")
            return nil
        }
        var fields = SpeechFields()
        fields.voice = voice?.speaker ?? voice?.name
        // A language that the model does not have is left to the model to find out.
        fields.language = voice?.language.map(WyomingLanguage.name).flatMap {
            server.model.configuration.languages.contains($0) ? $0 : nil
        }
        let context = SpeechContext(
            server: server, fields: fields, endpoint: "wyoming", limits: WebSocketLimits(server.options))
        state.withLock { $0.unfinished += 1 }
        jobsEnd.yield(Job(context: context, isStreaming: isStreaming))
        return context
    }

    // MARK: Speaking

    private func speakJobs() async {
        for await job in jobs {
            do {
                try await speak(job)
            } catch let error as APIError {
                try? await fail("\(error)", code: error.code ?? "bad-request")
                if job.isStreaming { try? await send(WyomingReply("synthesize-stopped")) }
            } catch {
                server.logger.trace("Wyoming connection ended: \(error)")
            }
            let closes = state.withLock { state in
                state.unfinished -= 1
                state.lastEvent = .now
                return state.isClosing && state.unfinished == 0
            }
            if closes { channel.close(promise: nil) }
        }
    }

    private func speak(_ job: Job) async throws {
        defer { job.context.end() }
        let rate = server.model.sampleRate
        var samples = 0
        var hasBegun = false
        var milliseconds: Int { samples * 1000 / rate }
        func begin() async throws {
            guard !hasBegun else { return }
            hasBegun = true
            try await send(WyomingReply("audio-start", data: AudioFormat(rate: rate, timestamp: 0)))
        }
        try await job.context.run { event in
            switch event {
            case .ready: break
            case .began: try await begin()
            case .packet(let packet):
                try await send(
                    WyomingReply(
                        "audio-chunk", data: AudioFormat(rate: rate, timestamp: milliseconds), payload: packet.pcm))
                samples += packet.samples.count
            case .ended(_, _, let summary):
                for warning in summary.warnings { server.logger.debug("Wyoming: \(warning)") }
            }
        }
        // A text without a word is silence; the client waits for its end all the same.
        try await begin()
        try await send(WyomingReply("audio-stop", data: Timestamp(timestamp: milliseconds)))
        if job.isStreaming { try await send(WyomingReply("synthesize-stopped")) }
    }

    // MARK: Sending and watching

    private func send(_ reply: WyomingReply) async throws {
        state.withLock { $0.writingSince = .now }
        defer { state.withLock { $0.writingSince = nil } }
        try await outbound.write(reply)
    }

    private func fail(_ text: String, code: String) async throws {
        try await send(WyomingReply("error", data: Failure(text: text, code: code)))
    }

    /// Closes a connection whose client does not read, or has nothing to say.
    private func watch() async {
        while !Task.isCancelled {
            try? await Task.sleep(for: .seconds(1))
            let now = ContinuousClock.now
            let isDead = state.withLock { state in
                if let since = state.writingSince, now - since > .seconds(server.options.writeTimeout) {
                    return true
                }
                return state.unfinished == 0 && now - state.lastEvent > .seconds(wyoming.limits.idleTimeout)
            }
            if isDead {
                channel.close(promise: nil)
                return
            }
        }
    }
}
