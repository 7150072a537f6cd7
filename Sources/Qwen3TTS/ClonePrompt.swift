import Tensors

/// What a Base model needs to speak with the voice of a recording. It is computed once by ``CloneEncoder`` and can be
/// kept in a file.
///
/// With codes and transcript the model goes on from the recording (in-context cloning); without them only the speaker
/// vector leads it.
public struct ClonePrompt: Hashable, Sendable {
    /// The vector of the speaker encoder, [talker's hidden size].
    public var speakerVector: [Float]
    /// Codes of the recording, [frames, codeGroups] frame by frame; empty for the speaker vector alone.
    public var codes: [Int32]
    /// Codes of one frame.
    public var codeGroups: Int
    /// What is said in the recording; nil for the speaker vector alone.
    public var referenceText: String?
    /// The model that made it (``ModelIdentity``); empty if it is not known.
    public var modelIdentity: String

    /// A prompt from its parts; ``check(_:)`` tells whether a model can use it.
    public init(
        speakerVector: [Float], codes: [Int32] = [], codeGroups: Int = 16, referenceText: String? = nil,
        modelIdentity: String = ""
    ) {
        self.speakerVector = speakerVector
        self.codes = codes
        self.codeGroups = codeGroups
        self.referenceText = referenceText
        self.modelIdentity = modelIdentity
    }

    /// Whether the model goes on from the recording, rather than from its speaker vector alone.
    public var isInContext: Bool { referenceText != nil && !codes.isEmpty }

    /// Checks that a model of this configuration can take the prompt: widths, code values, finite numbers.
    ///
    /// - Throws: ``ModelError/badInput(_:)`` or ``ModelError/unsupported(_:by:)``.
    public func check(_ configuration: Configuration) throws(ModelError) {
        guard configuration.kind == .base else { throw .unsupported("a saved voice", by: configuration.kind) }
        let width = configuration.talker.shape.hidden
        guard speakerVector.count == width else {
            throw .badInput(
                "the voice has a speaker vector of \(speakerVector.count) numbers, the model takes \(width): "
                    + "it was made for another model")
        }
        guard speakerVector.allSatisfy(\.isFinite) else {
            throw .badInput("the voice's speaker vector has numbers that are not finite: make the voice again")
        }
        guard !codes.isEmpty else { return }
        let groups = configuration.talker.codeGroups
        guard codeGroups == groups, codes.count % groups == 0 else {
            throw .badInput(
                "the voice has \(codes.count) codes in frames of \(codeGroups), the model's frames have \(groups): "
                    + "it was made for another model")
        }
        for (index, code) in codes.enumerated() {
            let limit =
                index % groups == 0 ? configuration.talker.speakableCodes : configuration.codePredictor.vocabularySize
            guard code >= 0, code < limit else {
                throw .badInput(
                    "code \(index % groups) of the voice's frame \(index / groups) is \(code), the model has 0 to "
                        + "\(limit - 1)")
            }
        }
    }
}

extension ClonePrompt {
    /// Version of the file format that this build writes, and the only one it reads.
    static let formatVersion = "1"
    private static let formatName = "martlet.voice"
    /// Far above the codes of the longest recording that is taken.
    private static let fileLimit = 16 << 20

    /// Saves the voice as safetensors: `speaker_vector` F32 [H], for in-context cloning `codes` I32 [frames, groups],
    /// and the metadata `format`, `version`, `model` and `transcript`. The file appears whole or not at all.
    ///
    /// - Throws: ``ModelError/tensors(_:)`` if the file cannot be written, ``ModelError/badInput(_:)`` for a prompt
    ///   that makes no sense.
    public func save(to path: String) throws(ModelError) {
        guard codeGroups > 0, codes.count % codeGroups == 0 else {
            throw .badInput("\(codes.count) codes are no whole number of frames of \(codeGroups)")
        }
        var metadata = ["format": Self.formatName, "version": Self.formatVersion, "model": modelIdentity]
        if isInContext { metadata["transcript"] = referenceText }
        var writer = SafetensorsWriter(metadata: metadata)
        writer.add("speaker_vector", speakerVector, shape: [speakerVector.count])
        if isInContext { writer.add("codes", codes, shape: [codes.count / codeGroups, codeGroups]) }
        do { try writer.write(to: path) } catch { throw .tensors(error) }
    }

    /// Loads a voice that ``save(to:)`` wrote.
    ///
    /// - Parameters:
    ///   - path: the file.
    ///   - expectedIdentity: the model it is for (``SpeechModel/identity``); nil takes the voice of any model.
    /// - Throws: ``ModelError/tensors(_:)`` if the file cannot be read or is damaged, ``ModelError/badInput(_:)`` if it
    ///   is no voice, of another version, or made for another model.
    public static func load(from path: String, expectedIdentity: String?) throws(ModelError) -> ClonePrompt {
        let file: SafetensorsFile
        do { file = try SafetensorsFile(path: path) } catch { throw .tensors(error) }
        guard file.metadata["format"] == formatName else {
            throw .badInput("\(path) is no voice: 'martlet clone' makes one from a recording")
        }
        let version = file.metadata["version"] ?? ""
        guard version == formatVersion else {
            throw .badInput(
                "\(path) has version \(ModelError.quoted(version)) of the voice format, this build reads version "
                    + "\(formatVersion): make the voice again with 'martlet clone'")
        }
        let identity = file.metadata["model"] ?? ""
        if let expectedIdentity, identity != expectedIdentity {
            throw .badInput(
                "\(path) was made for the model \(ModelError.quoted(identity)), this one is "
                    + "\(ModelError.quoted(expectedIdentity)): use that model, or make the voice again with "
                    + "'martlet clone'")
        }
        func malformed(_ reason: String) -> ModelError { .tensors(.malformed(path: path, reason: reason)) }
        guard file.byteCount <= fileLimit else {
            throw malformed("it has \(file.byteCount) bytes, a voice at most \(fileLimit)")
        }
        do throws(TensorError) {
            guard let view = file["speaker_vector"] else { throw .missing(name: "speaker_vector", path: path) }
            guard view.type == .float32, view.shape.count == 1, view.count > 0 else {
                throw .mismatch(name: "speaker_vector", expected: "F32 [hidden size]", found: view.summary)
            }
            var prompt = ClonePrompt(
                speakerVector: try file.floats("speaker_vector", shape: view.shape).array, modelIdentity: identity)
            prompt.referenceText = file.metadata["transcript"]
            if let view = file["codes"] {
                guard view.type == .int32, view.shape.count == 2, view.count > 0 else {
                    throw .mismatch(name: "codes", expected: "I32 [frames, groups]", found: view.summary)
                }
                prompt.codes = try file.integers("codes").values.map { Int32($0) }
                prompt.codeGroups = view.shape[1]
            }
            guard prompt.codes.isEmpty == (prompt.referenceText == nil) else {
                throw .malformed(path: path, reason: "it has a transcript or codes, but not both")
            }
            guard prompt.speakerVector.allSatisfy(\.isFinite) else {
                throw .malformed(path: path, reason: "its speaker vector has numbers that are not finite")
            }
            return prompt
        } catch {
            throw .tensors(error)
        }
    }
}
