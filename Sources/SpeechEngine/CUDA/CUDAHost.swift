public import CUDABackend
import Synchronization

import func Foundation.usleep

/// A model on an NVIDIA GPU, for one engine: its stages, loaded anew after the card has lost them.
public final class CUDAHost: Sendable {
    /// Stages, and a number that no others have: what was begun on earlier ones is lost.
    struct Loaded {
        let stages: CUDAStages
        let generation: Int
    }

    /// A slot of stages that may have been given up since.
    struct Place {
        let slot: Int
        let generation: Int
    }

    private struct State {
        var stages: CUDAStages?
        var generation = 0
        /// The stages that were given up, until nobody uses them any more.
        weak var former: CUDAStages?
        /// Why there are none.
        var failure = ""
        var lastAttempt: ContinuousClock.Instant?
        /// Decoder slots whose utterances are over.
        var leftSlots: [Place] = []
    }

    /// The card: number, name, architecture, memory, driver.
    public let info: CUDADeviceInfo
    /// Utterances at a time.
    public let slots: Int
    /// Of the codec decoder.
    public let precision: CodecPrecision
    /// Loads it with a precision of the decoder.
    private let load: @Sendable (CodecPrecision) throws -> CUDAStages
    private let state: Mutex<State>

    /// Loads a model folder in the released layout.
    /// - Parameters:
    ///   - device: position in the driver's list, as in `cuda:0`.
    ///   - slots: utterances at a time.
    ///   - precision: of the codec decoder.
    ///   - decoderGraphs: whether the decoder's launches are recorded as CUDA graphs; no sample depends on it.
    ///   - driver: nil for the machine's.
    /// - Throws: `CUDAError`, or what is wrong with the folder.
    public convenience init(
        directory: String, device: Int = 0, slots: Int = 64, precision: CodecPrecision = .half,
        decoderGraphs: Bool = true, driver: CUDADriver? = nil
    ) throws {
        try self.init(precision) { precision in
            let stages = try CUDAStages(
                directory: directory, device: device, slots: slots, precision: precision, driver: driver)
            if !decoderGraphs { stages.decoder?.stopRecordingGraphs() }
            return stages
        }
    }

    private init(
        _ precision: CodecPrecision, _ load: @escaping @Sendable (CodecPrecision) throws -> CUDAStages
    ) throws {
        self.precision = precision
        self.load = load
        let stages = try load(precision)
        info = stages.info
        slots = stages.slots
        state = Mutex(State(stages: stages))
    }

    /// `cuda:0`.
    public var name: String { "cuda:\(info.index)" }

    /// The same model on the same card, once more, with another precision of the decoder.
    public func loaded(with precision: CodecPrecision) throws -> CUDAHost { try CUDAHost(precision, load) }

    /// What is launched for a step and a frame, and for a packet; nil while there are no stages.
    var launches: (generation: String, decoding: String)? { state.withLock { $0.stages?.launches } }

    /// Bytes of device memory that the model and its utterances hold.
    public var memoryBytes: Int { state.withLock { $0.stages?.memoryBytes ?? 0 } }

    /// How often the stages have been loaded again.
    var restarts: Int { state.withLock { $0.generation } }

    /// The stages, or why there are none.
    func loaded() throws(DeviceLoss) -> Loaded {
        try state.withLock { state throws(DeviceLoss) in
            guard let stages = state.stages else { throw DeviceLoss(description: state.failure) }
            return Loaded(stages: stages, generation: state.generation)
        }
    }

    /// Says that an utterance has left the decoder.
    func leaveDecoder(_ place: Place) { state.withLock { $0.leftSlots.append(place) } }

    /// The decoder slots that have been left since the last time.
    func takeLeftSlots(_ loaded: Loaded) -> [Int] {
        state.withLock { state in
            defer { state.leftSlots = [] }
            return state.leftSlots.filter { $0.generation == loaded.generation }.map(\.slot)
        }
    }

    /// Does something on the card with the calling thread, and gives stages up whose context is lost by it.
    func run<Value>(
        on loaded: Loaded, _ body: () throws(CUDAError) -> Value
    ) throws(DeviceLoss) -> Value {
        do throws(CUDAError) {
            try loaded.stages.use()
            return try body()
        } catch {
            if error.isSticky { giveUp(loaded, error) }
            throw DeviceLoss(description: error.description)
        }
    }

    private func giveUp(_ lost: Loaded, _ error: CUDAError) {
        state.withLock { state in
            guard state.generation == lost.generation, state.stages != nil else { return }
            state.former = state.stages
            state.stages = nil
            state.failure = error.description
            state.lastAttempt = nil
        }
    }

    /// The stages, loaded again if they were given up. Belongs to the thread that generates.
    func restored() throws(DeviceLoss) -> Loaded {
        if let loaded = try? loaded() { return loaded }
        // Their context ends with them, and the next one must not begin before.
        for _ in 0..<5000 where state.withLock({ $0.former != nil }) { usleep(1000) }
        let now = ContinuousClock.now
        let isDue = state.withLock { state in
            guard state.lastAttempt.map({ now - $0 > .seconds(2) }) ?? true else { return false }
            state.lastAttempt = now
            return true
        }
        if isDue {
            let result = Result { try load(precision) }
            state.withLock { state in
                switch result {
                case .success(let stages):
                    state.stages = stages
                    state.generation += 1
                case .failure(let error): state.failure = "\(error)"
                }
            }
        }
        return try loaded()
    }
}

/// Why an utterance has no GPU any more.
struct DeviceLoss: Error {
    let description: String
}
