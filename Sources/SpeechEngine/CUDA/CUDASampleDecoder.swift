import CUDABackend
import Qwen3TTS

/// What a GPU remembers of an utterance's audio.
///
/// `@unchecked Sendable`: belongs to one utterance, whose packets are decoded one after the other.
final class CUDAMemory: DecoderMemory, @unchecked Sendable {
    fileprivate var place: CUDAHost.Place?
    /// For in-context cloning, the codes of the recording that have not been heard.
    fileprivate var reference: ArraySlice<Int32>
    fileprivate var window: DecoderWindow
    fileprivate var failure: DecodingFailure?
    private let host: CUDAHost

    fileprivate init(_ reference: [Int32], mode: DecoderMode, host: CUDAHost) {
        self.reference = mode == .incremental ? reference[...] : []
        window = DecoderWindow(mode, reference: reference)
        self.host = host
    }

    deinit {
        if let place { host.leaveDecoder(place) }
    }

    var hasUnheardReference: Bool { !reference.isEmpty }
}

/// The decoder on a GPU, on its own stream.
final class CUDASampleDecoder: SampleDecoder {
    private struct Half: Sendable {
        let packets: CUDADecoder.HalfDecoded
        /// Samples of context before each packet.
        let skipped: [Int]
        let generation: Int
    }

    private let host: CUDAHost
    private let mode: DecoderMode
    private let stages: DecoderStages
    private let groups: Int
    private let samplesPerFrame: Int
    /// Whether the first half of a call is to be over when it returns.
    private let waitsBetween: Bool
    /// Whether nobody else has the card's model loaded again.
    private let restores: Bool

    init(
        _ host: CUDAHost, configuration: Configuration, mode: DecoderMode, stages: DecoderStages, waitsBetween: Bool,
        restores: Bool
    ) {
        self.host = host
        self.mode = mode
        self.stages = stages
        self.waitsBetween = waitsBetween
        self.restores = restores
        groups = configuration.talker.codeGroups
        samplesPerFrame = configuration.codec.samplesPerFrame
    }

    func makeMemory(reference: [Int32]) -> any DecoderMemory { CUDAMemory(reference, mode: mode, host: host) }

    /// Frames of a recording that one call hears.
    private static let referenceFramesPerCall = 32

    func hearReference(_ memory: any DecoderMemory) {
        guard let memory = memory as? CUDAMemory else { return }
        let codes = memory.reference.prefix(Self.referenceFramesPerCall * groups)
        memory.reference = memory.reference.dropFirst(codes.count)
        if case .failure(let failure) = begin([(memory, Array(codes))])()[0] { memory.failure = failure }
    }

    func begin(_ packets: [(memory: any DecoderMemory, codes: [Int32])]) -> SecondHalf {
        let packets = packets.compactMap { packet in
            (packet.memory as? CUDAMemory).map { (memory: $0, codes: packet.codes) }
        }
        let memories = packets.map(\.memory)
        if stages == .none {
            let silence = packets.map { Array(repeating: Float(0), count: $0.codes.count / groups * samplesPerFrame) }
            return { silence.map { .success($0) } }
        }
        let half = Result { () throws(DecodingFailure) in
            try onCard { loaded, decoder throws(CUDAError) in try begin(packets, loaded, decoder) }
        }
        return { [self] in finish(half, memories) }
    }

    private func begin(
        _ packets: [(memory: CUDAMemory, codes: [Int32])], _ loaded: CUDAHost.Loaded, _ decoder: CUDADecoder
    ) throws(CUDAError) -> Half {
        for slot in host.takeLeftSlots(loaded) { decoder.closeSlot(slot) }
        var calls: [(slot: Int, codes: [Int32])] = []
        var skipped: [Int] = []
        for (memory, codes) in packets where memory.failure == nil {
            guard let slot = try slot(of: memory, decoder, loaded) else { continue }
            let window = memory.window.take(codes, codeGroups: groups)
            if window != nil { try decoder.reset(slot) }
            calls.append((slot, window?.codes ?? codes))
            skipped.append((window?.context ?? 0) * samplesPerFrame)
        }
        return Half(
            packets: try decoder.begin(calls, stages: stages, waits: waitsBetween), skipped: skipped,
            generation: loaded.generation)
    }

    private func finish(
        _ half: Result<Half, DecodingFailure>, _ memories: [CUDAMemory]
    ) -> [Result<[Float], DecodingFailure>] {
        do throws(DecodingFailure) {
            let half = try half.get()
            var samples = try onCard { loaded, decoder throws(CUDAError) in
                guard loaded.generation == half.generation else { throw .unsupportedModel("the card was started anew") }
                return zip(try decoder.finish(half.packets), half.skipped).map { Array($0.dropFirst($1)) }
            }[...]
            return memories.map { $0.failure.map { .failure($0) } ?? .success(samples.removeFirst()) }
        } catch {
            return memories.map { .failure($0.failure ?? error) }
        }
    }

    /// Does something with the decoder on the card as it is loaded.
    private func onCard<Value>(
        _ body: (CUDAHost.Loaded, CUDADecoder) throws(CUDAError) -> Value
    ) throws(DecodingFailure) -> Value {
        do throws(DeviceLoss) {
            let loaded = restores ? try host.restored() : try host.loaded()
            return try host.run(on: loaded) { () throws(CUDAError) in
                guard let decoder = loaded.model.decoder else {
                    throw .unsupportedModel("it was loaded without its decoder")
                }
                return try body(loaded, decoder)
            }
        } catch {
            throw DecodingFailure(description: "the GPU could not decode this speech: \(error.description)")
        }
    }

    /// Its slot; nil, with the reason left in it, if it has lost it or there is none.
    private func slot(
        of memory: CUDAMemory, _ decoder: CUDADecoder, _ loaded: CUDAHost.Loaded
    ) throws(CUDAError) -> Int? {
        if let place = memory.place {
            if place.generation == loaded.generation { return place.slot }
            memory.failure = DecodingFailure(description: "the GPU that decoded this speech was started anew")
        } else if let slot = try decoder.openSlot() {
            memory.place = .init(slot: slot, generation: loaded.generation)
            return slot
        } else {
            memory.failure = DecodingFailure(
                description: "the GPU decodes \(host.slots) utterances, and has room for no more")
        }
        return nil
    }
}
