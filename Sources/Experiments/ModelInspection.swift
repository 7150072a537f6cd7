import Qwen3TTS
import Tensors

/// What a model folder holds, and what is missing or odd in it.
public struct ModelInspection: Sendable, Codable, Equatable {
    /// One weights file.
    public struct WeightsFile: Sendable, Codable, Equatable {
        /// Path in the folder.
        public let file: String
        /// Bytes.
        public let bytes: Int
        /// Tensors in it.
        public let tensors: Int
        /// Numbers in it.
        public let parameters: Int
        /// How many tensors there are of each type.
        public let types: [String: Int]
        /// Tensors that the configuration asks for and the file lacks.
        public var missing: [String] = []
        /// Tensors of another shape or type than expected, each with what was expected.
        public var odd: [String] = []
        /// Tensors that nothing uses.
        public var unused: [String] = []
    }

    /// The folder.
    public let folder: String
    /// `custom_voice`, `base` or `voice_design`.
    public let kind: String
    /// `0b6`, `1b7`.
    public let size: String
    /// The model's identity, which saved voices carry; nil if a file is missing.
    public let identity: String?
    /// Named voices.
    public let voices: [String]
    /// Languages, with `auto`.
    public let languages: [String]
    /// Samples per second.
    public let sampleRate: Int
    /// Seconds of a codec frame.
    public let secondsPerFrame: Double
    /// Codes of a frame.
    public let codeGroups: Int
    /// Positions the talker was made for.
    public let maxPositions: Int
    /// Ids of the tokenizer; nil if it cannot be read.
    public let tokens: Int?
    /// Bytes of keys and values that a frame adds to a session.
    public let cacheBytesPerFrame: Int
    /// Bytes of weights that a frame reads, by storage format.
    public let weightBytesPerFrame: [String: Int]
    /// The weights files that could be read.
    public var files: [WeightsFile]
    /// Anything else that is wrong.
    public var problems: [String]

    /// Whether the model can speak.
    public var isUsable: Bool { problems.isEmpty && files.allSatisfy { $0.missing.isEmpty && $0.odd.isEmpty } }

    /// Looks at a folder. Only headers are read, whatever the model's size.
    /// - Throws: if the configuration files are missing or describe another architecture.
    public init(folder: String) throws(ExperimentError) {
        let configuration: Configuration
        do { configuration = try Configuration.load(directory: folder) } catch { throw .model(error) }
        let schema = try CheckpointSchema(folder: folder, configuration)
        self.folder = folder
        kind = configuration.kind.rawValue
        size = configuration.size
        voices = configuration.voices
        languages = configuration.languages
        sampleRate = configuration.codec.sampleRate
        secondsPerFrame = Double(configuration.codec.samplesPerFrame) / Double(configuration.codec.sampleRate)
        codeGroups = configuration.talker.codeGroups
        maxPositions = configuration.talker.maxPositions
        identity = try? ModelIdentity.of(directory: folder, configuration: configuration)
        problems = []
        files = []
        var tokens: Int?
        do {
            let count = try Tokenizer(directory: folder).idLimit
            tokens = count
            let rows = configuration.talker.textVocabularySize
            if count > rows { problems.append("the tokenizer has \(count) ids, the text embedding only \(rows) rows") }
        } catch {
            problems.append(error.description)
        }
        self.tokens = tokens
        var bytesPerFrame: [String: Int] = [:]
        let expected = [("model.safetensors", schema.main), ("speech_tokenizer/model.safetensors", schema.codec)]
        for (name, tensors) in expected {
            do {
                let file = try SafetensorsFile(path: folder + "/" + name)
                files.append(Self.compare(file, name: name, with: tensors))
                guard name == "model.safetensors" else { continue }
                for format in WeightFormat.allCases {
                    let talker = StageCost.talker(file, format: format)
                    let predictor = StageCost.codePredictor(file, format: format, groups: codeGroups)
                    bytesPerFrame[format.rawValue] = talker.weightBytes + predictor.weightBytes
                }
            } catch {
                problems.append(error.description)
            }
        }
        weightBytesPerFrame = bytesPerFrame
        // Keys and values in float32.
        cacheBytesPerFrame = schema.main.reduce(0) { sum, tensor in
            let isKeys = tensor.name.hasPrefix("talker.model.layers.") && tensor.name.hasSuffix("k_proj.weight")
            return sum + (isKeys ? 2 * 4 * tensor.shape[0] : 0)
        }
    }

    private static func compare(
        _ file: SafetensorsFile, name: String, with expected: [CheckpointSchema.Tensor]
    ) -> WeightsFile {
        var (parameters, types): (Int, [String: Int]) = (0, [:])
        for tensor in file.names {
            guard let view = file[tensor] else { continue }
            parameters += view.count
            types[view.type.rawValue, default: 0] += 1
        }
        var report = WeightsFile(
            file: name, bytes: file.byteCount, tensors: file.names.count, parameters: parameters, types: types)
        let usable: Set<DataType> = [.bfloat16, .float16, .float32, .float64]
        for tensor in expected {
            guard let view = file[tensor.name] else {
                report.missing.append(tensor.name)
                continue
            }
            if view.shape != tensor.shape {
                report.odd.append("\(tensor.name) is \(view.summary), expected the shape \(tensor.shape)")
            } else if !usable.contains(view.type) {
                report.odd.append("\(tensor.name) is \(view.summary), expected floating point")
            }
        }
        let known = Set(expected.map(\.name))
        report.unused = file.names.filter { !known.contains($0) }
        return report
    }
}
