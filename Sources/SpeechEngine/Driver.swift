import Qwen3TTS

/// The engine's loop: one round of the model, then one look around.
///
/// Lives on the engine's thread alone.
struct Driver {
    private let model: SpeechModel
    private let options: EngineOptions
    private let inbox: Inbox
    private var active: [Session] = []
    private var waiting: [Session] = []
    private var capacity = CapacityEstimate()
    private var statistics = EngineStatistics()

    init(model: SpeechModel, options: EngineOptions, inbox: Inbox) {
        self.model = model
        self.options = options
        self.inbox = inbox
    }

    /// Runs until the engine is gone.
    mutating func run() {
        var isIdle = true
        while let arrivals = inbox.take(sleeping: isIdle, hasSessions: !active.isEmpty || !waiting.isEmpty) {
            waiting += arrivals.map { Session($0, model: model, options: options) }
            let now = ContinuousClock.now
            for session in active + waiting { session.takeMessages(now) }
            admit()
            // Before the first audio is out, so that whoever hears it finds its utterance counted.
            publish()
            isIdle = !round()
            retire()
            publish()
        }
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
        while !waiting.isEmpty, active.count < options.maxActive, keepsUp(active.count + 1) {
            active.append(waiting.removeFirst())
        }
    }

    private func keepsUp(_ count: Int) -> Bool {
        guard options.admitsByCapacity, count > 1 else { return true }
        guard let alone = capacity.roundSeconds(1), let full = capacity.roundSeconds(min(count, options.maxBatch))
        else {
            return count <= options.maxBatch
        }
        // On a machine that cannot keep even one utterance from underrun, more at a time only raise the throughput.
        if alone > model.secondsPerFrame { return count <= options.maxBatch }
        let rounds = Double((count + options.maxBatch - 1) / options.maxBatch)
        return full * rounds < 0.9 * model.secondsPerFrame
    }

    /// One step of the utterances that most need it, and the packets that are due; false if nothing could be done.
    private mutating func round() -> Bool {
        let start = ContinuousClock.now
        var times = StageTimes()
        let batch = nextBatch(start)
        var results: [StepResult] = []
        if !batch.isEmpty {
            results = model.step(batch.map(\.utterance), times: &times)
            for session in batch { session.checkLength() }
        }
        let stepEnd = ContinuousClock.now

        let due = active.filter { $0.hasPacketDue }
        if !due.isEmpty {
            let packets = due.map { (utterance: $0.utterance, frames: $0.nextPacket) }
            let samples = model.decode(packets, times: &times)
            let now = ContinuousClock.now
            for (session, (packet, samples)) in zip(due, zip(packets, samples)) {
                session.deliver(packet.frames, samples, now)
            }
            let decoded = packets.reduce(0) { $0 + $1.frames.count }
            if !batch.isEmpty, results.allSatisfy({ $0 == .frame }) {
                let decoding = (now - stepEnd) / .seconds(1) * Double(batch.count) / Double(decoded)
                capacity.record(count: batch.count, seconds: (stepEnd - start) / .seconds(1) + decoding)
            }
        }
        statistics.frames += results.count { $0 == .frame }
        statistics.stages += times
        for session in batch { session.times += times }
        return !batch.isEmpty || !due.isEmpty
    }

    /// Audio in hand, in seconds, with which an utterance can let a new one go first.
    private static let spareLead = 0.5

    private func nextBatch(_ now: ContinuousClock.Instant) -> [Session] {
        let ready = active.filter { $0.canStep }
        switch options.scheduling {
        case .arrival:
            return Array(ready.prefix(options.maxBatch))
        case .playbackLead:
            let byLead = ready.map { (session: $0, lead: $0.lead(now)) }.sorted { $0.lead < $1.lead }
            let hasNew = byLead.contains { $0.session.isSilent }
            return byLead.filter { !hasNew || $0.session.isSilent || $0.lead < Self.spareLead }
                .prefix(options.maxBatch).map(\.session)
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
        statistics.smallestLead = active.filter { !$0.isSilent }.map { $0.lead(now) }.min()
        statistics.nextRoundSeconds = capacity.roundSeconds(min(active.count + 1, options.maxBatch))
        inbox.publish(statistics)
    }
}
