import Qwen3TTS

/// The engine's loop: one round of the model, then one look around.
///
/// Lives on the engine's thread alone. Where decode calls run is ``PacketDecoder``'s matter.
struct Driver {
    private let model: SpeechModel
    private let options: EngineOptions
    private let inbox: Inbox
    private let generator: any CodeGenerator
    private let samples: any SampleDecoder
    private let decoder: PacketDecoder
    private var active: [Session] = []
    private var waiting: [Session] = []
    /// Those with an item in the decode call that is under way.
    private var decoding: [Session] = []
    /// The last step, if all that took part got a frame.
    private var lastStep: (count: Int, seconds: Double)?
    private var capacity = CapacityEstimate()
    private var statistics = EngineStatistics()

    init(model: SpeechModel, options: EngineOptions, inbox: Inbox) {
        self.model = model
        self.options = options
        self.inbox = inbox
        generator = options.makeGenerator(model)
        samples = options.makeSampleDecoder(model)
        decoder = PacketDecoder(samples, mode: options.syncMode, whenDone: { inbox.wake() })
    }

    /// Runs until the engine is gone.
    mutating func run() {
        var isIdle = true
        while let arrivals = inbox.take(sleeping: isIdle, hasSessions: !active.isEmpty || !waiting.isEmpty) {
            waiting += arrivals.map {
                Session($0, model: model, options: options, generator: generator, decoder: samples)
            }
            let now = ContinuousClock.now
            for session in active + waiting { session.takeMessages(now) }
            admit()
            // Before the first audio is out, so that whoever hears it finds its utterance counted.
            publish()
            isIdle = !round()
            retire()
            publish()
        }
        _ = takeDecoded(waiting: true)
        decoder.stop()
        for session in active + waiting { session.abandon(.cancelled) }
        active += waiting
        retire()
    }

    /// Lets utterances in, first come first served, as long as all can be kept from underrun.
    private mutating func admit() {
        waiting.removeAll { session in
            session.finishPart()
            guard let reason = session.finishReason else { return false }
            statistics.finished[reason, default: 0] += 1
            return true
        }
        while let next = waiting.first, active.count < options.maxActive, keepsUpWithOneMore(ContinuousClock.now),
            generator.makesRoom(for: next.utterance)
        {
            active.append(waiting.removeFirst())
        }
    }

    /// Seconds over which the audio that all listeners need is held against what the machine can make.
    private static let horizon = 8.0

    private func keepsUpWithOneMore(_ now: ContinuousClock.Instant) -> Bool {
        guard options.admitsByCapacity, !active.isEmpty else { return true }
        let batch = min(active.count + 1, options.batchLimit)
        guard let alone = capacity.roundSeconds(1), let round = capacity.roundSeconds(batch) else {
            return active.count < options.batchLimit
        }
        // On a machine that cannot keep even one utterance from underrun, more at a time only raise the throughput.
        let frame = model.secondsPerFrame
        if alone > frame { return active.count < options.batchLimit }
        let generating = active.filter(\.isGenerating).map { (lead: $0.lead(now), isSilent: $0.isSilent) }
        // Who is about to run dry says more than any estimate: of prompts, or of what else this machine does.
        let isPressed = generating.contains { !$0.isSilent && $0.lead < frame / 2 }
        let needed = generating.reduce(Self.horizon) { $0 + max(0, Self.horizon - ($1.isSilent ? 0 : $1.lead)) }
        return !isPressed && needed < 0.9 * Self.horizon * frame * Double(batch) / round
    }

    /// One step of the utterances that most need it, and the packets that are due; false if nothing could be done.
    private mutating func round() -> Bool {
        let batch = nextBatch(ContinuousClock.now)
        if !batch.isEmpty { step(batch) }
        // A call in two halves has its second one here, between two steps.
        let hasDecoded = takeDecoded(waiting: options.syncMode == .phase)
        let hasStarted = startDecoding()
        return !batch.isEmpty || hasDecoded || hasStarted
    }

    private mutating func step(_ batch: [Session]) {
        let start = ContinuousClock.now
        var times = StageTimes()
        let results = generator.step(batch.map(\.utterance), times: &times)
        let end = ContinuousClock.now
        for (session, result) in zip(batch, results) {
            session.stepped(result, start: start, end: end)
            session.times += times
        }
        statistics.frames += results.count { $0 == .frame }
        statistics.stages += times
        lastStep = results.allSatisfy { $0 == .frame } ? (batch.count, (end - start) / .seconds(1)) : nil
    }

    /// Decodes whatever is due, unless a call is under way.
    private mutating func startDecoding() -> Bool {
        guard decoder.isFree else { return false }
        let now = ContinuousClock.now
        decoding = active.filter { $0.hasDecodingDue(now) }
        guard !decoding.isEmpty else { return false }
        decoder.start(decoding.map { $0.takeDecodeItem() })
        if options.syncMode == .sync { _ = takeDecoded(waiting: true) }
        return true
    }

    /// Takes the results of a decode call; false if there are none.
    private mutating func takeDecoded(waiting: Bool) -> Bool {
        guard let call = decoder.take(waiting: waiting) else { return false }
        var times = StageTimes()
        times.decoder = call.seconds
        statistics.stages += times
        for (session, item) in zip(decoding, call.items) {
            session.decoded(item)
            session.times += times
        }
        if let (count, seconds) = lastStep, call.frames > 0 {
            capacity.record(count: count, seconds: seconds + call.seconds * Double(count) / Double(call.frames))
        }
        return true
    }

    /// Audio in hand, in seconds, with which an utterance can let a new one go first.
    private static let spareLead = 0.5

    private func nextBatch(_ now: ContinuousClock.Instant) -> [Session] {
        let ready = active.filter { $0.canStep }
        switch options.scheduling {
        case .arrival:
            return Array(ready.prefix(options.batchLimit))
        case .playbackLead:
            let byLead = ready.map { (session: $0, lead: $0.lead(now)) }.sorted { $0.lead < $1.lead }
            let hasNew = byLead.contains { $0.session.isSilent }
            return byLead.filter { !hasNew || $0.session.isSilent || $0.lead < Self.spareLead }
                .prefix(options.batchLimit).map(\.session)
        }
    }

    private mutating func retire() {
        for session in active { session.finishPart() }
        for session in active {
            guard let reason = session.finishReason else { continue }
            statistics.finished[reason, default: 0] += 1
            statistics.underruns += session.underruns
            statistics.underrunSeconds += session.underrunSeconds
        }
        active.removeAll { $0.finishReason != nil }
    }

    private mutating func publish() {
        let now = ContinuousClock.now
        statistics.active = active.count
        statistics.queued = waiting.count
        statistics.workerRestarts = generator.restarts
        statistics.smallestLead = active.filter { !$0.isSilent }.map { $0.lead(now) }.min()
        statistics.nextRoundSeconds = capacity.roundSeconds(min(active.count + 1, options.batchLimit))
        inbox.publish(statistics)
    }
}
