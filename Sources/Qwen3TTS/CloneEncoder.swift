import Synchronization
import Tensors

/// Makes a ``ClonePrompt`` from a recording: speaker encoder, and codec encoder for in-context cloning
/// (`create_voice_clone_prompt`).
///
/// Their weights (36 MB and 225 MB in the released models, as float32) are loaded when they are first needed.
///
/// One recording is encoded at a time; calls from other threads wait. A call computes for about as long as a tenth of
/// the recording on two cores, so it does not belong into an async function.
///
/// `@unchecked Sendable`: the stages are reached only under `stages`' lock.
public final class CloneEncoder: @unchecked Sendable {
    /// The model's identity, which its prompts carry.
    public let modelIdentity: String
    /// Samples per second of the recordings.
    public let sampleRate: Int
    /// Samples of one codec frame.
    public let samplesPerFrame: Int
    /// The longest recording it takes, in seconds.
    public static let longestSeconds = CodecEncoder.longestSeconds

    private struct Stages {
        var speaker: SpeakerEncoder?
        var codec: CodecEncoder?
    }

    private let directory: String
    private let configuration: Configuration
    private let compute: Compute
    private let stages = Mutex(Stages())

    /// - Parameters:
    ///   - directory: the folder of a Base model.
    ///   - compute: kernels and threads; share a model's own only if its speech may pause meanwhile.
    /// - Throws: ``ModelError/badInput(_:)`` if the model is no Base model; what ``Configuration/load(directory:)``
    ///   throws.
    public convenience init(directory: String, compute: Compute) throws(ModelError) {
        try self.init(
            directory: directory, configuration: Configuration.load(directory: directory), compute: compute)
    }

    /// An encoder for a loaded model, with the model's threads.
    public convenience init(_ model: SpeechModel) throws(ModelError) {
        try self.init(directory: model.directory, configuration: model.configuration, compute: model.compute)
    }

    private init(directory: String, configuration: Configuration, compute: Compute) throws(ModelError) {
        guard configuration.kind == .base, configuration.speakerEncoder != nil else {
            throw .badInput(
                "\(directory) holds a \(configuration.kind.rawValue) model, which has no speaker encoder: "
                    + "cloning needs a Base model, such as Qwen/Qwen3-TTS-12Hz-0.6B-Base")
        }
        self.directory = directory
        self.configuration = configuration
        self.compute = compute
        modelIdentity = try ModelIdentity.of(directory: directory, configuration: configuration)
        sampleRate = configuration.codec.sampleRate
        samplesPerFrame = configuration.codec.samplesPerFrame
    }

    /// Encodes a recording.
    /// - Parameters:
    ///   - samples: mono float32 at `sampleRate`, in -1…1.
    ///   - referenceText: what is said in it, word for word, for in-context cloning; nil for the speaker vector alone.
    /// - Throws: ``ModelError/badInput(_:)`` for a recording that is empty, too short or too long and for an empty
    ///   transcript; ``ModelError/tensors(_:)`` if the folder's weights are damaged or without encoder.
    public func encode(_ samples: [Float], referenceText: String?) throws(ModelError) -> ClonePrompt {
        if let referenceText { try Self.checkTranscript(referenceText) }
        return try stages.withLock { stages throws(ModelError) in
            let vector = try speakerEncoder(&stages).encode(samples)
            guard vector.allSatisfy(\.isFinite) else {
                throw .badInput("the speaker encoder gives no finite numbers: are the model's weights damaged?")
            }
            var prompt = ClonePrompt(
                speakerVector: vector, codeGroups: configuration.talker.codeGroups, modelIdentity: modelIdentity)
            if let referenceText {
                prompt.codes = try codecEncoder(&stages).encode(samples)
                prompt.referenceText = referenceText
            }
            return prompt
        }
    }

    private static func checkTranscript(_ text: String) throws(ModelError) {
        guard text.unicodeScalars.contains(where: { !$0.properties.isWhitespace }) else {
            throw .badInput(
                "the transcript of the recording is empty: give what is said in it, or none to use the speaker vector "
                    + "alone")
        }
        guard text.utf8.count <= SpeechModel.textLimit else {
            throw .badInput("the transcript has \(text.utf8.count) bytes, at most \(SpeechModel.textLimit) make sense")
        }
    }

    private func speakerEncoder(_ stages: inout Stages) throws(ModelError) -> SpeakerEncoder {
        if let loaded = stages.speaker { return loaded }
        guard let part = configuration.speakerEncoder else { throw .unsupported("a recording", by: configuration.kind) }
        do throws(TensorError) {
            let file = try SafetensorsFile(path: directory + "/model.safetensors")
            let encoder = try SpeakerEncoder(file, configuration: part, compute: compute)
            stages.speaker = encoder
            return encoder
        } catch {
            throw .tensors(error)
        }
    }

    private func codecEncoder(_ stages: inout Stages) throws(ModelError) -> CodecEncoder {
        if let loaded = stages.codec { return loaded }
        do throws(TensorError) {
            let file = try SafetensorsFile(path: directory + "/speech_tokenizer/model.safetensors")
            let encoder = try CodecEncoder(file, configuration: configuration.codec, compute: compute)
            stages.codec = encoder
            return encoder
        } catch {
            throw .tensors(error)
        }
    }
}
