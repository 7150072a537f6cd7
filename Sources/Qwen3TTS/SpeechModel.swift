import Tensors

/// A loaded Qwen3-TTS 12 Hz model: configuration, tokenizer and the CPU stages.
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
    /// Codes to samples.
    public var decoder: CodecDecoder {
        guard let loadedDecoder else { preconditionFailure("this model was loaded without its decoder") }
        return loadedDecoder
    }

    private let loadedDecoder: CodecDecoder?
    let talker: Talker
    let codePredictor: CodePredictor
    let textEmbedding: TextEmbedding
    /// Talker input rows of a step; belongs to the thread that generates.
    var rows = Scratch()
    let weights: Weights
    /// Belongs to the thread that generates.
    let prefixes = PrefixCache()
    /// Belongs to the thread that decodes.
    let references = ReferenceCache()

    /// Loads a model folder in the released layout.
    /// - Parameters:
    ///   - directory: holds config.json, model.safetensors, the tokenizer's files and speech_tokenizer/.
    ///   - format: storage of the talker's and code predictor's weights; quantised ones are made once and cached.
    ///   - compute: kernels and threads.
    ///   - decodes: false leaves out the decoder, for a process that only generates codes.
    public init(
        directory: String, weights format: WeightFormat = .bf16, compute: Compute = Compute(), decodes: Bool = true
    ) throws(ModelError) {
        self.directory = directory
        self.compute = compute
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
            let file = try SafetensorsFile(path: directory + "/model.safetensors")
            weights = Weights(
                file: file, format: format,
                quantized: format == .bf16
                    ? nil : try QuantizedWeights.open(for: file, format: format, pool: compute.pool))
            talker = try Talker(weights, configuration: configuration.talker, compute: compute)
            codePredictor = try CodePredictor(
                weights, configuration: configuration, codecEmbedding: talker.codecEmbedding, compute: compute)
            textEmbedding = try TextEmbedding(
                file, configuration: configuration.talker,
                pinned: [configuration.textPad, configuration.textBOS, configuration.textEOS], compute: compute)
            loadedDecoder =
                decodes
                ? try CodecDecoder(
                    SafetensorsFile(path: directory + "/speech_tokenizer/model.safetensors"),
                    configuration: configuration.codec, compute: compute)
                : nil
        } catch {
            throw .tensors(error)
        }
    }

    /// Samples per second.
    public var sampleRate: Int { configuration.codec.sampleRate }
    /// Samples of one codec frame.
    public var samplesPerFrame: Int { configuration.codec.samplesPerFrame }
    /// Seconds of one codec frame.
    public var secondsPerFrame: Double { Double(samplesPerFrame) / Double(sampleRate) }
}
