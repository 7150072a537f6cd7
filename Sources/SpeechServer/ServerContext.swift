import Logging
import NIOPosix
import Qwen3TTS
import SpeechEngine
import Synchronization

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// What all of a server's protocols share.
final class ServerContext: Sendable {
    let engine: SpeechEngine
    let options: ServerOptions
    let speaker: Speaker
    let authorization: Authorization
    let metrics: Metrics
    let logger: Logger
    /// Seconds since 1970.
    let startedAt = Int(Date().timeIntervalSince1970)
    private let state = Mutex(State())

    private struct State {
        var isWarm = false
        var isDraining = false
        var warmUpError: String?
        var port: Int?
    }

    init(engine: SpeechEngine, options: ServerOptions, logger: Logger) throws {
        self.engine = engine
        self.options = options
        self.logger = logger
        let voices = VoiceStore(
            directory: options.voicesDirectory, identity: try engine.model.identity, limit: options.maxVoices)
        for problem in voices.problems { logger.warning("a saved voice is left out: \(problem)") }
        speaker = Speaker(
            model: engine.model, voices: voices, cloner: Cloner(model: engine.model, options: options), options: options
        )
        authorization = Authorization(keys: options.apiKeys)
        metrics = Metrics()
    }

    var model: SpeechModel { engine.model }

    /// Starts an utterance, which ends at the limit on time; what the engine refuses comes as an API error.
    /// - Parameter name: nil if nobody has asked for it.
    func speak(
        _ request: SpeechRequest, packets: PacketPolicy? = nil, name: UtteranceName? = nil
    ) throws(APIError) -> SpeechStream {
        if isDraining { throw APIError(EngineError.draining) }
        do throws(EngineError) {
            let stream = try engine.speak(request, packets: packets ?? options.packets, name: name)
            if let limit = options.requestTimeout {
                MultiThreadedEventLoopGroup.singleton.any().scheduleTask(in: .milliseconds(Int64(limit * 1000))) {
                    [weak stream] in stream?.cancel(.timeout)
                }
            }
            return stream
        } catch {
            throw APIError(error)
        }
    }

    /// Counts an utterance that has ended, and logs what is to be logged of it.
    /// - Parameters:
    ///   - tag: its stream's.
    ///   - endpoint: what metrics call the way that it came by.
    func ended(_ summary: SpeechSummary, tag: String, endpoint: String, packets: [PacketTimes]) {
        metrics.ended(summary, endpoint: endpoint)
        for trace in RequestTrace.allCases where options.traces.contains(trace) {
            for line in trace.lines(tag: tag, summary, packets) { logger.info("\(line)") }
        }
    }

    // MARK: Life

    /// Whether the warm-up has spoken and the server is not shutting down.
    var isReady: Bool { state.withLock { $0.isWarm && !$0.isDraining } }

    /// Whether it is shutting down: nothing new is taken.
    var isDraining: Bool { state.withLock { $0.isDraining } }

    /// Why the warm-up failed.
    var warmUpError: String? { state.withLock { $0.warmUpError } }

    /// The port that it listens on, once it does.
    var port: Int? { state.withLock { $0.port } }

    func listens(on port: Int?) { state.withLock { $0.port = port } }

    func beginDraining() { state.withLock { $0.isDraining = true } }

    /// Speaks the openers, as a client that names nothing but a text would ask for them.
    private func speakStarters() async {
        for text in options.starterTexts {
            do {
                for await _ in try speak(try await speaker.request(text: text)) {}
            } catch {
                logger.warning("the opener \(text.debugDescription) cannot be kept ready: \(error)")
            }
        }
    }

    /// Seconds until a warm-up is tried again that a worker process or a GPU did not survive.
    private static let secondsToNextWarmUp = 2.0

    /// Speaks a few frames, so that weights are in memory and every stage has run once.
    func warmUp() async {
        var request = SpeechRequest(text: "Ready.")
        request.sampling.maxNewTokens = 5
        if let encoder = model.configuration.speakerEncoder {
            // A voice that needs no recording: it only has to reach every stage.
            request.voice = .clone(
                ClonePrompt(
                    speakerVector: [Float](repeating: 0, count: encoder.outputSize),
                    codeGroups: model.configuration.talker.codeGroups))
        }
        while !isDraining {
            var problem: String?, isFault = false
            do {
                for await event in try speak(request) {
                    guard case .end(let summary) = event, summary.finishReason.isFault else { continue }
                    (problem, isFault) = (summary.warnings.last ?? summary.finishReason.rawValue, true)
                }
            } catch {
                problem = "\(error)"
            }
            guard let problem else { break }
            state.withLock { $0.warmUpError = problem }
            logger.error("the warm-up failed: \(problem)")
            guard isFault else { return }
            try? await Task.sleep(for: .seconds(Self.secondsToNextWarmUp))
        }
        await speakStarters()
        state.withLock { $0.isWarm = true }
    }
}
