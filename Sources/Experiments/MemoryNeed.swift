import Qwen3TTS
import Tensors

/// The memory that an engine on the CPU needs, as far as files and configuration tell it, before anything is loaded.
public struct MemoryNeed: Sendable, Codable, Equatable {
    /// Bytes of the weights that every frame reads.
    public let weights: Int
    /// Utterances at a time.
    public let sessions: Int
    /// Bytes of keys and values of each, after ``seconds``.
    public let bytesPerSession: Int

    /// Seconds of speech that a session is reckoned with.
    public static let seconds = 20.0

    /// All of it.
    public var total: Int { weights + sessions * bytesPerSession }

    init(weights: Int, sessions: Int, bytesPerSession: Int) {
        self.weights = weights
        self.sessions = sessions
        self.bytesPerSession = bytesPerSession
    }

    /// Reads the headers of a model folder.
    /// - Parameters:
    ///   - stages: those that the CPU does.
    ///   - sessions: utterances at a time.
    public init(
        folder: String, format: WeightFormat, stages: SpeechModel.Stages, sessions: Int
    ) throws(ExperimentError) {
        do {
            var weights = 0
            let configuration = try Configuration.load(directory: folder)
            let talker = configuration.talker.shape
            if stages.contains(.generation) {
                let file = try SafetensorsFile(path: folder + "/model.safetensors")
                weights += StageCost.talker(file, format: format).weightBytes
                let groups = configuration.talker.codeGroups
                weights += StageCost.codePredictor(file, format: format, groups: groups).weightBytes
            }
            if stages.contains(.decoding) {
                let file = try SafetensorsFile(path: folder + "/speech_tokenizer/model.safetensors")
                weights += StageCost.decoder(file, configuration.codec.decoder, frames: 1).weightBytes
            }
            let positions =
                Self.seconds * Double(configuration.codec.sampleRate)
                / Double(configuration.codec.samplesPerFrame)
            // Keys and values in float32.
            let bytes = talker.layers * talker.keyValueHeads * talker.headDimension * 2 * 4
            self.init(
                weights: weights, sessions: sessions,
                bytesPerSession: stages.contains(.generation) ? bytes * Int(positions) : 0)
        } catch let error as ModelError {
            throw .model(error)
        } catch let error as TensorError {
            throw .model(.tensors(error))
        } catch {
            throw .badSetting("\(error)")
        }
    }

    /// Why an engine should not be started here; nil if it can be.
    /// - Parameter free: bytes; nil where the system does not say.
    public func problem(free: Int?) -> String? {
        guard let free, total > free else { return nil }
        func gigabytes(_ bytes: Int) -> String { "\(fixed(Double(bytes) / 1e9, 2)) GB" }
        return
            "\(gigabytes(total)) of memory are needed: weights \(gigabytes(weights)), \(sessions) utterances of "
            + "\(fixed(Self.seconds, 0)) s \(gigabytes(sessions * bytesPerSession)); \(gigabytes(free)) are free. End what "
            + "holds it, another server perhaps, or take --weights q8, a smaller --max-batch or a smaller model; --force "
            + "starts all the same"
    }
}
