public import Qwen3TTS
import Synchronization

import class Foundation.Thread

/// Speaks many utterances at once on one model: joins, steps, packets, cancels.
///
/// One thread of its own drives the model. Between two rounds it takes new utterances, text, cancels and departures.
/// The engine lives as long as someone holds it or one of its streams.
public final class SpeechEngine: Sendable {
    /// The model it speaks with.
    public let model: SpeechModel
    /// One line for the log about each option that cannot hold, and what holds instead.
    public let notes: [String]
    /// What it computes on.
    public let description: EngineDescription
    private let inbox: Inbox
    private let starters: StarterCache?
    private let keeper: (any UtteranceKeeper)?
    private let nextID = Atomic<UInt64>(1)

    /// Starts the engine's thread.
    public init(model: SpeechModel, options: EngineOptions = EngineOptions()) {
        self.model = model
        let (options, notes) = options.resolved()
        self.notes = notes
        description = options.description(of: model)
        let inbox = Inbox(maxQueued: options.maxQueued)
        self.inbox = inbox
        starters = options.starterCache.map(StarterCache.init)
        keeper = options.keeper
        let thread = Thread {
            var driver = Driver(model: model, options: options, inbox: inbox)
            driver.run()
        }
        thread.name = "martlet-engine"
        thread.stackSize = 8 << 20
        thread.start()
    }

    deinit { inbox.stop() }

    /// Starts an utterance.
    /// - Parameter name: with one, it is kept by the engine's keeper.
    /// - Throws: `request` for whatever is wrong with it, `busy` or `draining`; nothing has started then.
    public func speak(
        _ request: SpeechRequest, packets: PacketPolicy = .growing, name: UtteranceName? = nil
    ) throws(EngineError) -> SpeechStream {
        var request = request
        let keeper = name == nil ? nil : keeper
        keeper?.willSpeak(&request)
        let firstRequest: SpeechRequest, firstPart: PreparedRequest
        var script = Script(request, normalizer: model.configuration.textNormalizer)
        do throws(ModelError) {
            if case .fixed(let count) = packets, count < 1 {
                throw .badInput("the packet size is \(count), expected at least 1 frame")
            }
            try SpeechModel.checkText(request)
            guard let part = script.beginPart() else {
                throw .badInput("the text has no word in it: there is nothing to say")
            }
            (firstRequest, firstPart) = (part, try model.prepare(part))
        } catch {
            throw .request(error)
        }
        let id = nextID.wrappingAdd(1, ordering: .relaxed).oldValue
        let tag =
            switch name {
            case .tag(let tag): tag
            case .numbered(let kind): "\(kind)-\(id)"
            case nil: "speech-\(id)"
            }
        let record = keeper.map { UtteranceRecord(request, tag: tag, packets: packets, keeper: $0) }
        if !inbox.isDraining, let events = starters?.events(request, packets) {
            let stream = SpeechStream(id: id, tag: tag, wakeEngine: {}, record: record)
            for event in events { stream.deliver(event) }
            return stream
        }
        // The stream keeps the engine, so that what has been started can be read to its end.
        let stream = SpeechStream(
            id: id, tag: tag, wakeEngine: { self.inbox.wake() }, recorder: starters?.recorder(request, packets),
            record: record)
        try inbox.add(
            Arrival(
                request: firstRequest, firstPart: firstPart, script: script, isComplete: request.isComplete,
                stream: WeakStream(stream), packets: packets, submitted: ContinuousClock.now))
        return stream
    }

    /// Takes no new requests from now on; returns when all that were taken have ended.
    public func drain() async { await inbox.drain() }

    /// What the engine has done and does.
    public var statistics: EngineStatistics { inbox.statistics }
}
