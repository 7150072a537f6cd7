import Tensors

/// A loaded Qwen3-TTS 12 Hz model: configuration, tokenizer and the CPU stages, as far as they are wanted.
///
/// `Synthesis.swift` holds one whole frame in reading order.
///
/// `@unchecked Sendable`: everything is immutable but the stages' work memory. That of talker and code predictor belongs to
/// the one thread that generates, that of the decoder to the one that decodes; they may be two. See the stages' own notes.
public final class SpeechModel: @unchecked Sendable {
    /// What the folder's configuration files say.
    public let configuration: Configuration
    /// Text to ids.
    public let tokenizer: Tokenizer
    /// The folder it came from.
    public let directory: String
    /// How the talker's and code predictor's weights are stored.
    public let weightFormat: WeightFormat
    /// Kernels and threads of all stages.
    public let compute: Compute
    /// Those that are loaded.
    public let stages: Stages
    /// Stages of a model that run on the CPU.
    public struct Stages: OptionSet, Sendable {
        /// A bit for each stage.
        public let rawValue: Int
        /// From a set's bits.
        public init(rawValue: Int) { self.rawValue = rawValue }
        /// Text to codes: talker and code predictor.
        public static let generation = Stages(rawValue: 1)
        /// Codes to samples.
        public static let decoding = Stages(rawValue: 2)
        /// Everything.
        public static let all: Stages = [.generation, .decoding]
    }

    private struct Generation {
        let weights: Weights
        let talker: Talker
        let codePredictor: CodePredictor
        let textEmbedding: TextEmbedding
    }

    private let generation: Generation?
    private let loadedDecoder: CodecDecoder?

    /// Codes to samples.
    public var decoder: CodecDecoder { Self.loaded(loadedDecoder, "decoder") }
    var talker: Talker { Self.loaded(generation?.talker, "talker") }
    var codePredictor: CodePredictor { Self.loaded(generation?.codePredictor, "code predictor") }
    var textEmbedding: TextEmbedding { Self.loaded(generation?.textEmbedding, "text embedding") }

    private static func loaded<Stage>(_ stage: Stage?, _ name: String) -> Stage {
        guard let stage else { preconditionFailure("this model was loaded without its \(name)") }
        return stage
    }

    /// Talker input rows of a step; belongs to the thread that generates.
    var rows = Scratch()
    /// Belongs to the thread that generates.
    let prefixes = PrefixCache()
    /// Belongs to the thread that decodes.
    let references = ReferenceCache()

    /// Loads a model folder in the released layout.
    /// - Parameters:
    ///   - directory: holds config.json, model.safetensors, the tokenizer's files and speech_tokenizer/.
    ///   - format: storage of the talker's and code predictor's weights; quantised ones are made once and cached.
    ///   - compute: kernels and threads.
    ///   - stages: those that run here; others run in another process or on another device.
    public init(
        directory: String, weights format: WeightFormat = .bf16, compute: Compute = Compute(), stages: Stages = .all
    ) throws(ModelError) {
        self.directory = directory
        self.compute = compute
        self.stages = stages
        weightFormat = format
        configuration = try Configuration.load(directory: directory)
        tokenizer = try Tokenizer(directory: directory)
        guard tokenizer.idLimit <= configuration.talker.textVocabularySize else {
            throw .badTokenizer(
                file: "vocab.json",
                problem: "it has ids up to \(tokenizer.idLimit - 1), the text embedding "
                    + "\(configuration.talker.textVocabularySize) rows")
        }
        do throws(TensorError) {
            generation =
                stages.contains(.generation)
                ? try Self.loadGeneration(directory, configuration, format: format, compute: compute) : nil
            loadedDecoder =
                stages.contains(.decoding)
                ? try CodecDecoder(
                    SafetensorsFile(path: directory + "/speech_tokenizer/model.safetensors"),
                    configuration: configuration.codec, compute: compute) : nil
        } catch {
            throw .tensors(error)
        }
    }

    private static func loadGeneration(
        _ directory: String, _ configuration: Configuration, format: WeightFormat, compute: Compute
    ) throws(TensorError) -> Generation {
        let file = try SafetensorsFile(path: directory + "/model.safetensors")
        let weights = Weights(
            file: file, format: format,
            quantized: format == .bf16
                ? nil : try QuantizedWeights.open(for: file, format: format, pool: compute.pool))
        let talker = try Talker(
            weights, configuration: configuration.talker, alignmentHead: configuration.alignmentHead, compute: compute)
        return Generation(
            weights: weights, talker: talker,
            codePredictor: try CodePredictor(
                weights, configuration: configuration, codecEmbedding: talker.codecEmbedding, compute: compute),
            textEmbedding: try TextEmbedding(
                file, configuration: configuration.talker,
                pinned: [configuration.textPad, configuration.textBOS, configuration.textEOS], compute: compute))
    }

    /// Codes of one codec frame.
    public var codeGroups: Int { configuration.talker.codeGroups }
    /// Samples per second.
    public var sampleRate: Int { configuration.codec.sampleRate }
    /// Samples of one codec frame.
    public var samplesPerFrame: Int { configuration.codec.samplesPerFrame }
    /// Seconds of one codec frame.
    public var secondsPerFrame: Double { Double(samplesPerFrame) / Double(sampleRate) }
}
