public import CUDABackend
public import Qwen3TTS
import Synchronization

import func Foundation.usleep

/// What a GPU has of a model.
final class CUDAModel: Sendable {
    /// Text to codes; nil if another process or device does it.
    let stages: CUDAStages?
    /// Codes to samples; likewise.
    let decoder: CUDADecoder?

    init(_ stages: CUDAStages?, _ decoder: CUDADecoder?) {
        self.stages = stages
        self.decoder = decoder
    }

    /// Makes the GPU's context current on the calling thread.
    func use() throws(CUDAError) {
        if let stages { try stages.use() } else { try decoder?.use() }
    }
}

/// A model on an NVIDIA GPU, for one engine, or a part of it: loaded anew after the card has lost it.
public final class CUDAHost: Sendable {
    /// The model, and a number that none before had: what was begun on earlier ones is lost.
    struct Loaded {
        let model: CUDAModel
        let generation: Int
    }

    /// A slot of stages that may have been given up since.
    struct Place {
        let slot: Int
        let generation: Int
    }

    private struct State {
        var model: CUDAModel?
        var generation = 0
        /// The model that was given up, until nobody uses it any more.
        weak var former: CUDAModel?
        /// Why there is none.
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
    private let load: @Sendable (CodecPrecision) throws -> CUDAModel
    private let state: Mutex<State>

    /// Loads a model folder in the released layout.
    /// - Parameters:
    ///   - device: position in the driver's list, as in `cuda:0`.
    ///   - slots: utterances at a time.
    ///   - parts: what the card does here. Without generation it stands for what a worker process does there.
    ///   - precision: of the codec decoder.
    ///   - decoderGraphs: whether the decoder's launches are recorded as CUDA graphs; no sample depends on it.
    ///   - driver: nil for the machine's.
    /// - Throws: `CUDAError`, or what is wrong with the folder.
    public convenience init(
        directory: String, device: Int = 0, slots: Int = 64, parts: SpeechModel.Stages = .all,
        precision: CodecPrecision = .half, decoderGraphs: Bool = true, driver: CUDADriver? = nil
    ) throws {
        let devices = try CUDADeviceInfo.all(driver)
        guard devices.indices.contains(device) else {
            throw CUDAError.noDevice(index: device, count: devices.count)
        }
        try self.init(devices[device], slots: slots, precision) { precision in
            let stages =
                parts.contains(.generation)
                ? try CUDAStages(
                    directory: directory, device: device, slots: slots, precision: precision,
                    decodes: parts.contains(.decoding), driver: driver) : nil
            let decoder =
                stages == nil && parts.contains(.decoding)
                ? try CUDADecoder(
                    directory: directory, device: device, slots: slots, precision: precision, driver: driver)
                : stages?.decoder
            if !decoderGraphs { decoder?.stopRecordingGraphs() }
            return CUDAModel(stages, decoder)
        }
    }

    private init(
        _ info: CUDADeviceInfo, slots: Int, _ precision: CodecPrecision,
        _ load: @escaping @Sendable (CodecPrecision) throws -> CUDAModel
    ) throws {
        self.info = info
        self.slots = slots
        self.precision = precision
        self.load = load
        state = Mutex(State(model: try load(precision)))
    }

    /// `cuda:0`.
    public var name: String { "cuda:\(info.index)" }

    /// The same model on the same card, once more, with another precision of the decoder.
    public func loaded(with precision: CodecPrecision) throws -> CUDAHost {
        try CUDAHost(info, slots: slots, precision, load)
    }

    /// What is launched for a step and a frame, and for a packet; nil where it is not loaded.
    var launches: (generation: String?, decoding: String?) {
        state.withLock { ($0.model?.stages?.launches, $0.model?.decoder?.launches) }
    }

    /// Bytes of device memory that the model and its utterances hold.
    public var memoryBytes: Int {
        state.withLock { $0.model?.stages?.memoryBytes ?? $0.model?.decoder?.memoryBytes ?? 0 }
    }

    /// How often the model has been loaded again.
    var restarts: Int { state.withLock { $0.generation } }

    /// The model, or why there is none.
    func loaded() throws(DeviceLoss) -> Loaded {
        try state.withLock { state throws(DeviceLoss) in
            guard let model = state.model else { throw DeviceLoss(description: state.failure) }
            return Loaded(model: model, generation: state.generation)
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

    /// Does something on the card with the calling thread, and gives a model up whose context is lost by it.
    func run<Value>(
        on loaded: Loaded, _ body: () throws(CUDAError) -> Value
    ) throws(DeviceLoss) -> Value {
        do throws(CUDAError) {
            try loaded.model.use()
            return try body()
        } catch {
            if error.isSticky { giveUp(loaded, error) }
            throw DeviceLoss(description: error.description)
        }
    }

    private func giveUp(_ lost: Loaded, _ error: CUDAError) {
        state.withLock { state in
            guard state.generation == lost.generation, state.model != nil else { return }
            state.former = state.model
            state.model = nil
            state.failure = error.description
            state.lastAttempt = nil
        }
    }

    /// The model, loaded again if it was given up. Belongs to the thread that generates here, or else to the one that
    /// decodes.
    func restored() throws(DeviceLoss) -> Loaded {
        if let loaded = try? loaded() { return loaded }
        // Its context ends with it, and the next one must not begin before.
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
                case .success(let model):
                    state.model = model
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
