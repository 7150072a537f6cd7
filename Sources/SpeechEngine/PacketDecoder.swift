import AudioFiles
import Foundation
import Qwen3TTS

/// What one utterance has in a decode call: a packet, or a recording to be heard before the first one.
struct DecodeItem: Sendable {
    let memory: any DecoderMemory
    let sender: PacketSender
    /// Which frames of the utterance's present part; empty for a recording.
    let frames: Range<Int>
    let codes: [Int32]
    /// Tokens of the part's text; nil while more may come.
    let textTokens: Int?
    /// The words that begin in its frames; nil if that cannot be told.
    var words: [BegunWord]?
    var times: PacketTimes
}

/// What became of an item.
struct DecodedItem: Sendable {
    /// The end of the frames that were sent.
    let end: Int
    /// Whether the utterance should have ended there.
    let ranAway: Bool
    /// When the packet was sent.
    let time: ContinuousClock.Instant
    /// Why there is no packet.
    var failure: DecodingFailure?
}

/// Makes packets of samples and sends them to the utterance's reader.
///
/// `@unchecked Sendable`: belongs to the decode call that has an item of the utterance, and to the engine's thread while none
/// has.
final class PacketSender: @unchecked Sendable {
    private let stream: WeakStream
    private let groups: Int
    private let samplesPerFrame: Int
    private let secondsPerFrame: Double
    let submitted: ContinuousClock.Instant
    /// Frames of the parts that are done.
    var earlierFrames = 0
    /// Follows the present part.
    var detector: RunawayDetector?
    private var builder = FingerprintBuilder()
    private(set) var trace = DecodeTrace()
    /// All words that have begun.
    private(set) var words: [SpokenWord] = []

    init(_ arrival: Arrival, model: SpeechModel) {
        stream = arrival.stream
        submitted = arrival.submitted
        groups = model.codeGroups
        samplesPerFrame = model.samplesPerFrame
        secondsPerFrame = model.secondsPerFrame
    }

    var fingerprint: Fingerprint { builder.fingerprint }

    /// Sends the frames of an item, up to where a run-away ends the utterance.
    func send(_ item: DecodeItem, _ decoded: [Float]) -> DecodedItem {
        var codes = item.codes[...], samples = decoded[...]
        var count = item.frames.count
        var ranAway = false
        for frame in 0..<count where !ranAway {
            ranAway =
                detector?.add(
                    codes: codes.dropFirst(frame * groups).prefix(groups),
                    samples: samples.dropFirst(frame * samplesPerFrame).prefix(samplesPerFrame),
                    textTokens: item.textTokens) ?? false
            if ranAway { count = frame + 1 }
        }
        codes = codes.prefix(count * groups)
        samples = samples.prefix(count * samplesPerFrame)
        let first = earlierFrames + item.frames.lowerBound
        let begun = item.words?.filter { $0.frame < item.frames.lowerBound + count }
            .map { SpokenWord(word: $0.word, start: Double(earlierFrames + $0.frame) * secondsPerFrame) }
        words += begun ?? []
        let packet = SpeechPacket(
            frames: first..<(first + count), codes: Array(codes), samples: Array(samples),
            pcm: PCM16.bytes(samples), words: begun, times: item.times)
        builder.add(codes: packet.codes)
        builder.add(pcm: packet.pcm)
        trace.decodeCalls += 1
        trace.codesFramesMax = max(trace.codesFramesMax, item.frames.count)
        trace.pcmSamplesTotal += samples.count
        trace.pcmSamplesMax = max(trace.pcmSamplesMax, samples.count)
        let now = ContinuousClock.now
        stream.stream?.deliver(.packet(packet))
        return DecodedItem(end: item.frames.lowerBound + count, ranAway: ranAway, time: now)
    }
}

/// A decode call that is done.
struct DecodedCall: Sendable {
    let items: [DecodedItem]
    /// Frames decoded, recordings aside.
    let frames: Int
    let seconds: Double
}

/// Runs decode calls, one at a time: on the engine's thread or on one of its own, as the mode says.
///
/// | mode | codebooks, pre-transformer | upsampling, convolutions |
/// |---|---|---|
/// | sync | engine's thread | engine's thread |
/// | event, none | own thread | own thread |
/// | phase | own thread | engine's thread |
///
/// `@unchecked Sendable`: `state` is reached only under the condition's lock; a call is in one place at a time.
final class PacketDecoder: @unchecked Sendable {
    private enum State {
        case free
        case asked([DecodeItem])
        case running
        case half(HalfCall)
        case done(DecodedCall)
        case stopped
    }

    /// A call after its first half.
    private struct HalfCall {
        var items: [DecodeItem]
        let finish: SecondHalf
        let seconds: Double
    }

    private let decoder: any SampleDecoder
    private let mode: SyncMode
    private let condition = NSCondition()
    private var state = State.free

    /// - Parameter whenDone: called on the own thread when a call needs the engine's again.
    init(_ decoder: any SampleDecoder, mode: SyncMode, whenDone: @escaping @Sendable () -> Void) {
        self.decoder = decoder
        self.mode = mode
        guard mode != .sync else { return }
        let thread = Thread { self.run(whenDone) }
        thread.name = "martlet-decoder"
        thread.stackSize = 8 << 20
        thread.start()
    }

    /// Ends the thread.
    func stop() { set(.stopped) }

    /// Whether no call is under way.
    var isFree: Bool { condition.withLock { if case .free = state { true } else { false } } }

    /// Starts a call. None may be under way.
    func start(_ items: [DecodeItem]) {
        if mode == .sync { set(.done(finish(begin(items)))) } else { set(.asked(items)) }
    }

    /// The result of the call that is under way, if it is there by now; nil if there is none.
    /// - Parameter waiting: whether to wait for it.
    func take(waiting: Bool) -> DecodedCall? {
        switch takeResult(waiting: waiting) {
        case .half(let half): finish(half)
        case .done(let call): call
        default: nil
        }
    }

    private func takeResult(waiting: Bool) -> State {
        condition.lock()
        defer { condition.unlock() }
        while true {
            switch state {
            case .half, .done:
                defer { state = .free }
                return state
            case .asked where waiting, .running where waiting: condition.wait()
            default: return state
            }
        }
    }

    private func set(_ new: State) {
        condition.withLock {
            state = new
            condition.broadcast()
        }
    }

    private func run(_ whenDone: () -> Void) {
        while let items = next() {
            let half = begin(items)
            let result = mode == .phase ? State.half(half) : .done(finish(half))
            condition.withLock {
                if case .running = state { state = result }
                condition.broadcast()
            }
            whenDone()
        }
    }

    /// The next call; nil when there will be none.
    private func next() -> [DecodeItem]? {
        condition.lock()
        defer { condition.unlock() }
        while true {
            switch state {
            case .asked(let items):
                state = .running
                return items
            case .stopped: return nil
            default: condition.wait()
            }
        }
    }

    private func begin(_ items: [DecodeItem]) -> HalfCall {
        let start = ContinuousClock.now
        let packets = items.filter { !$0.frames.isEmpty }.map { (memory: $0.memory, codes: $0.codes) }
        let secondHalf = decoder.begin(packets)
        let end = ContinuousClock.now
        var timed = items
        for i in items.indices {
            timed[i].times.decodeStart = (start - items[i].sender.submitted) / .seconds(1)
            timed[i].times.preTransformerEnd = (end - items[i].sender.submitted) / .seconds(1)
        }
        return HalfCall(items: timed, finish: secondHalf, seconds: (end - start) / .seconds(1))
    }

    private func finish(_ half: HalfCall) -> DecodedCall {
        let start = ContinuousClock.now
        for item in half.items where item.frames.isEmpty { decoder.hearReference(item.memory) }
        var packets = half.finish()[...]
        let end = ContinuousClock.now
        let items = half.items.map { item in
            guard !item.frames.isEmpty else { return DecodedItem(end: 0, ranAway: false, time: end) }
            var item = item
            item.times.convolutionsStart = (start - item.sender.submitted) / .seconds(1)
            item.times.decodeEnd = (end - item.sender.submitted) / .seconds(1)
            switch packets.removeFirst() {
            case .success(let samples): return item.sender.send(item, samples)
            case .failure(let failure):
                return DecodedItem(end: item.frames.lowerBound, ranAway: false, time: end, failure: failure)
            }
        }
        return DecodedCall(
            items: items, frames: half.items.reduce(0) { $0 + $1.frames.count },
            seconds: half.seconds + (end - start) / .seconds(1))
    }
}
