import AudioFiles
import Qwen3TTS

/// One request in the engine, on the driver's thread: its parts one after the other, packets, playback lead.
final class Session {
    private(set) var utterance: Utterance
    /// Set when the last event is out.
    private(set) var finishReason: FinishReason?
    /// Frames of the audio so far that came too late, by playback.
    private(set) var underruns = 0
    private(set) var underrunSeconds = 0.0
    var times = StageTimes()

    private let arrival: Arrival
    private let model: SpeechModel
    private let options: EngineOptions
    private var script: Script
    /// Frames of the parts that are done.
    private var earlierFrames = 0
    /// Frames of this part that have been decoded.
    private var decodedFrames = 0
    private var packetFrames: Int
    private var fingerprint = FingerprintBuilder()
    private var detector: RunawayDetector?
    private var firstAudio: ContinuousClock.Instant?
    /// When the listener, who starts at the first audio and never skips, would have started without underruns.
    private var playbackStart: ContinuousClock.Instant?
    private var lastProgress = ContinuousClock.now
    private var lastReads = 0

    init(_ arrival: Arrival, model: SpeechModel, options: EngineOptions) {
        self.arrival = arrival
        self.model = model
        self.options = options
        script = arrival.script
        utterance = model.makeUtterance(arrival.firstPart)
        if case .fixed(let count) = arrival.packets { packetFrames = count } else { packetFrames = 1 }
        detector = makeDetector()
    }

    private func makeDetector() -> RunawayDetector? {
        options.runaway.map { RunawayDetector($0, groups: model.decoder.codeGroups) }
    }

    /// Whether the listener has heard nothing yet.
    var isSilent: Bool { firstAudio == nil }

    /// Takes text and cancels, and looks after time limits.
    func takeMessages(_ now: ContinuousClock.Instant) {
        guard let stream = arrival.stream.stream, !stream.isCancelled else {
            abandon(.cancelled)
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
        utterance.truncate(frames: decodedFrames, reason)
    }

    /// Whether a step could yield something.
    var canStep: Bool {
        utterance.finishReason == nil && !utterance.isWaitingForText
            && (arrival.stream.stream?.unreadFrames ?? 0) < options.maxUnreadFrames
    }

    /// Seconds of audio the listener has in hand; below zero before the first, the less the longer it waits.
    func lead(_ now: ContinuousClock.Instant) -> Double {
        guard let playbackStart else { return -1 - (now - arrival.submitted) / .seconds(1) }
        return Double(earlierFrames + decodedFrames) * model.secondsPerFrame - (now - playbackStart) / .seconds(1)
    }

    /// After a step: the limit on frames counts over all parts.
    func checkLength() {
        guard earlierFrames > 0, earlierFrames + utterance.frames >= arrival.firstPart.maxFrames else { return }
        utterance.finish(.length)
    }

    /// Whether a whole packet is there, or the last part of one.
    var hasPacketDue: Bool {
        let pending = utterance.frames - decodedFrames
        return pending >= packetFrames || (pending > 0 && (utterance.finishReason != nil || utterance.isWaitingForText))
    }

    /// Frames of the utterance to decode next.
    var nextPacket: Range<Int> { decodedFrames..<min(utterance.frames, decodedFrames + packetFrames) }

    /// Sends the decoded frames, up to where a run-away ends the utterance.
    func deliver(_ frames: Range<Int>, _ samples: [Float], _ now: ContinuousClock.Instant) {
        let groups = model.decoder.codeGroups, perFrame = model.samplesPerFrame
        var codes = utterance.codes[(frames.lowerBound * groups)..<(frames.upperBound * groups)]
        var samples = samples[...]
        var end = frames.upperBound
        if detector != nil {
            for frame in 0..<frames.count {
                let ranAway = detector?.add(
                    codes: codes.dropFirst(frame * groups).prefix(groups),
                    samples: samples.dropFirst(frame * perFrame).prefix(perFrame), textTokens: utterance.textTokens)
                if ranAway == true {
                    end = frames.lowerBound + frame + 1
                    codes = codes.prefix((frame + 1) * groups)
                    samples = samples.prefix((frame + 1) * perFrame)
                    utterance.truncate(frames: end, .runaway)
                    break
                }
            }
        }
        let first = earlierFrames + frames.lowerBound
        let packet = SpeechPacket(
            frames: first..<(earlierFrames + end), codes: Array(codes), samples: Array(samples),
            pcm: PCM16.bytes(samples), times: PacketTimes())
        fingerprint.add(codes: packet.codes)
        fingerprint.add(pcm: packet.pcm)
        countUnderrun(now)
        decodedFrames = end
        if arrival.packets == .growing, lead(now) > Double(2 * packetFrames) * model.secondsPerFrame {
            packetFrames = min(8, packetFrames * 2)
        }
        arrival.stream.stream?.deliver(.packet(packet))
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

    /// After all audio of this part is out: goes on to the next part, or ends.
    func finishPart() {
        guard let reason = utterance.finishReason, utterance.frames == decodedFrames else { return }
        // A plain text is one part: if the model ends before it is complete, that is the end.
        guard reason == .stop, script.hasParts, !script.isExhausted else { return end(reason) }
        guard !script.isPartOpen, let next = script.beginPart() else { return }
        guard let prepared = try? model.prepare(next) else { return end(.cancelled) }
        earlierFrames += utterance.frames
        decodedFrames = 0
        utterance = model.makeUtterance(prepared)
        detector = makeDetector()
    }

    private func end(_ reason: FinishReason) {
        finishReason = reason
        let now = ContinuousClock.now
        let frames = earlierFrames + utterance.frames
        arrival.stream.stream?.deliver(
            .end(
                SpeechSummary(
                    finishReason: reason, frames: frames, seconds: Double(frames) * model.secondsPerFrame,
                    seed: arrival.firstPart.seed, fingerprint: fingerprint.fingerprint,
                    firstAudio: firstAudio.map { ($0 - arrival.submitted) / .seconds(1) },
                    elapsed: (now - arrival.submitted) / .seconds(1), stages: times,
                    underruns: underruns, trace: DecodeTrace(), warnings: utterance.warnings)))
    }
}
