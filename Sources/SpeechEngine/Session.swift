import Qwen3TTS

/// One request in the engine, on the driver's thread: its parts one after the other, packets, playback lead.
final class Session {
    private(set) var utterance: any CodeStream
    /// Set when the last event is out.
    private(set) var finishReason: FinishReason?
    /// Frames of the audio so far that came too late, by playback.
    private(set) var underruns = 0
    private(set) var underrunSeconds = 0.0
    var times = StageTimes()

    private let arrival: Arrival
    private let model: SpeechModel
    private let options: EngineOptions
    private let generator: any CodeGenerator
    private let decoder: any SampleDecoder
    private var script: Script
    /// The decoder's side of this part.
    private var memory: any DecoderMemory
    /// What went wrong on the way, for the reader.
    private var failures: [String] = []
    private let sender: PacketSender
    private var clock: WordClock
    /// Whether a decode call has an item of this session.
    private var isDecoding = false
    /// Whether no frame may be generated until that call is done.
    private var waitsForPacket = false
    /// Whether the recording of a cloned voice must be heard before speech begins.
    private var isHearing: Bool
    /// Frames of this part whose packets have been sent.
    private var decodedFrames = 0
    /// The same with those that are being decoded.
    private var claimedFrames = 0
    /// The steps of the frames that wait to be decoded, in seconds since submission.
    private var frameTimes: [(start: Double, end: Double)] = []
    /// Begin of the steps for a frame that is not there yet, and of the very first step.
    private var stepStart: Double?
    private var queueWait: Double?
    private var firstAudio: ContinuousClock.Instant?
    /// When the listener, who starts at the first audio and never skips, would have started without underruns.
    private var playbackStart: ContinuousClock.Instant?
    private var lastProgress = ContinuousClock.now
    private var lastReads = 0

    init(
        _ arrival: Arrival, model: SpeechModel, options: EngineOptions, generator: any CodeGenerator,
        decoder: any SampleDecoder
    ) {
        self.arrival = arrival
        self.model = model
        self.options = options
        self.generator = generator
        self.decoder = decoder
        script = arrival.script
        utterance = generator.begin(arrival.request, arrival.firstPart)
        memory = decoder.makeMemory(reference: arrival.firstPart.referenceCodes)
        isHearing = memory.hasUnheardReference
        sender = PacketSender(arrival, model: model)
        clock = WordClock(model.tokenizer)
        sender.detector = makeDetector()
    }

    private func makeDetector() -> RunawayDetector? {
        guard var limits = options.runaway else { return nil }
        // Silence that was asked for says nothing about the model.
        if options.decoderStages != .all { limits.silentFrames = .max }
        return RunawayDetector(limits, groups: model.codeGroups)
    }

    /// Whether the listener has heard nothing yet.
    var isSilent: Bool { firstAudio == nil }

    /// Whether frames of it are still to be made, from text that is there, for a reader who takes them.
    var isGenerating: Bool {
        utterance.finishReason == nil && !utterance.isWaitingForText
            && (arrival.stream.stream?.unreadFrames ?? 0) < options.maxUnreadFrames
    }

    /// Takes text and cancels, and looks after time limits.
    func takeMessages(_ now: ContinuousClock.Instant) {
        guard let stream = arrival.stream.stream else {
            abandon(.cancelled)
            return
        }
        if let reason = stream.cancelled {
            abandon(reason)
            return
        }
        let (pieces, isComplete) = stream.takeText()
        for piece in pieces { script.append(piece) }
        if isComplete { script.complete() }
        if script.byteCount > SpeechModel.textLimit { abandon(.length) }
        feed()
        let reads = stream.readCount
        let isHeldUp = stream.unreadFrames >= options.maxUnreadFrames
        if reads != lastReads || !pieces.isEmpty || !(isHeldUp || isWaitingForText) { lastProgress = now }
        lastReads = reads
        let waited = (now - lastProgress) / .seconds(1)
        if isHeldUp, waited > options.readerTimeout { abandon(.timeout) }
        if isWaitingForText, waited > options.textTimeout { abandon(.timeout) }
    }

    /// Hands the text that has come to the part that is being spoken.
    private func feed() {
        guard script.isPartOpen else { return }
        let text = script.takeText()
        // The model may have said all it has to say before its text was complete.
        guard utterance.finishReason == nil else { return }
        do throws(ModelError) {
            if !text.isEmpty { try utterance.append(text) }
            if !script.isPartOpen { try utterance.completeText() }
        } catch {
            abandon(.cancelled)
        }
    }

    /// Whether nothing can be done before more text comes.
    private var isWaitingForText: Bool {
        guard let reason = utterance.finishReason else { return utterance.isWaitingForText }
        return reason == .stop && script.hasParts && !script.isExhausted
    }

    /// Ends it now; audio that nobody waits for is not decoded.
    func abandon(_ reason: FinishReason) {
        utterance.truncate(frames: claimedFrames, reason)
    }

    // MARK: Generation

    /// Whether a step could yield something, and should.
    var canStep: Bool {
        utterance.finishReason == nil && !utterance.isWaitingForText && !isHearing
            && !waitsForPacket
            && utterance.frames - claimedFrames < max(Self.framesAhead, 2 * mostFrames)
            && (arrival.stream.stream?.unreadFrames ?? 0) < options.maxUnreadFrames
    }

    /// Frames that generation may be ahead of decoding.
    private static let framesAhead = 8

    /// After a step that took part of it.
    func stepped(_ result: StepResult, start: ContinuousClock.Instant, end: ContinuousClock.Instant) {
        guard result == .frame || result == .prefilled else { return }
        let begin = stepStart ?? seconds(start)
        if queueWait == nil { queueWait = begin }
        stepStart = begin
        guard result == .frame else { return }
        frameTimes.append((begin, seconds(end)))
        stepStart = nil
        // The limit on frames counts over all parts.
        if sender.earlierFrames > 0, sender.earlierFrames + utterance.frames >= arrival.firstPart.maxFrames {
            utterance.finish(.length)
        }
    }

    /// Since submission.
    private func seconds(_ time: ContinuousClock.Instant) -> Double { (time - arrival.submitted) / .seconds(1) }

    // MARK: Decoding

    /// Frames of a decode call at most.
    private var mostFrames: Int { arrival.packets.mostFrames * options.decodeEvery }

    /// Whether there is something to decode: a recording, a whole packet, or the last part of one.
    func hasDecodingDue(_ now: ContinuousClock.Instant) -> Bool {
        guard !isDecoding else { return false }
        if isHearing { return utterance.finishReason == nil }
        let pending = utterance.frames - decodedFrames
        let packet = arrival.packets.frames(lead: lead(now), secondsPerFrame: model.secondsPerFrame)
        if pending >= packet * options.decodeEvery { return true }
        return pending > 0 && (utterance.finishReason != nil || utterance.isWaitingForText)
    }

    /// What to decode next, for a call that begins now.
    func takeDecodeItem() -> DecodeItem {
        isDecoding = true
        waitsForPacket =
            options.syncMode == .event || (!isHearing && sender.trace.decodeCalls < options.prefillPackets)
        var times = PacketTimes()
        guard !isHearing else {
            return DecodeItem(memory: memory, sender: sender, frames: 0..<0, codes: [], textTokens: nil, times: times)
        }
        let frames = decodedFrames..<min(utterance.frames, decodedFrames + mostFrames)
        claimedFrames = frames.upperBound
        times.generationStart = frameTimes.first?.start ?? 0
        times.generationEnd = frameTimes.prefix(frames.count).last?.end ?? 0
        frameTimes.removeFirst(min(frames.count, frameTimes.count))
        let groups = model.codeGroups
        let places = utterance.places
        let words = places.isEmpty ? nil : clock.advance(frames, ids: utterance.textIDs, places: places)
        return DecodeItem(
            memory: memory, sender: sender, frames: frames,
            codes: Array(utterance.codes[(frames.lowerBound * groups)..<(frames.upperBound * groups)]),
            textTokens: utterance.textTokens, words: words, times: times)
    }

    /// After the call.
    func decoded(_ item: DecodedItem) {
        isDecoding = false
        waitsForPacket = false
        isHearing = memory.hasUnheardReference
        if let failure = item.failure {
            failures.append(failure.description)
            utterance.truncate(frames: decodedFrames, .deviceLost)
            claimedFrames = decodedFrames
        }
        guard item.end > decodedFrames else { return }
        countUnderrun(item.time)
        decodedFrames = item.end
        if item.ranAway {
            utterance.truncate(frames: item.end, .runaway)
            claimedFrames = item.end
        }
    }

    // MARK: Playback

    /// Seconds of audio the listener has in hand; below zero before the first, the less the longer it waits.
    func lead(_ now: ContinuousClock.Instant) -> Double {
        guard let playbackStart else { return -1 - seconds(now) }
        return Double(sender.earlierFrames + decodedFrames) * model.secondsPerFrame
            - (now - playbackStart) / .seconds(1)
    }

    private func countUnderrun(_ now: ContinuousClock.Instant) {
        guard playbackStart != nil else {
            firstAudio = now
            playbackStart = now
            return
        }
        let late = -lead(now)
        // A text that has not come is nobody's underrun; playback starts again after either.
        guard late > 0 else { return }
        playbackStart = playbackStart?.advanced(by: .seconds(late))
        if arrival.isComplete {
            underruns += 1
            underrunSeconds += late
        }
    }

    // MARK: The end

    /// After all audio of this part is out: goes on to the next part, or ends.
    func finishPart() {
        guard !isDecoding, let reason = utterance.finishReason, utterance.frames == decodedFrames else { return }
        // A plain text is one part: if the model ends before it is complete, that is the end.
        guard reason == .stop, script.hasParts, !script.isExhausted else { return end(reason) }
        guard !script.isPartOpen, let next = script.beginPart() else { return }
        guard let prepared = try? model.prepare(next) else { return end(.cancelled) }
        sender.earlierFrames += utterance.frames
        sender.detector = makeDetector()
        clock = WordClock(model.tokenizer)
        (decodedFrames, claimedFrames, frameTimes, stepStart) = (0, 0, [], nil)
        utterance = generator.begin(next, prepared)
        memory = decoder.makeMemory(reference: prepared.referenceCodes)
        isHearing = memory.hasUnheardReference
    }

    private func end(_ reason: FinishReason) {
        finishReason = reason
        let frames = sender.earlierFrames + utterance.frames
        var trace = sender.trace
        trace.queueWait = queueWait ?? seconds(.now)
        arrival.stream.stream?.deliver(
            .end(
                SpeechSummary(
                    finishReason: reason, frames: frames, seconds: Double(frames) * model.secondsPerFrame,
                    seed: arrival.firstPart.seed, fingerprint: sender.fingerprint,
                    firstAudio: firstAudio.map(seconds), elapsed: seconds(.now), stages: times,
                    underruns: underruns, trace: trace, words: sender.words,
                    warnings: utterance.warnings + failures)))
    }
}
