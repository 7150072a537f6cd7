public import Qwen3TTS
public import SpeechEngine
import Tensors

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// The codes of one run with all that is known of it: `codes_<tag>.safetensors` and `meta_<tag>.json`.
public struct CodeRecord: Sendable {
    /// `meta_<tag>.json`.
    public struct Meta: Sendable, Codable, Equatable {
        /// Names the run.
        public var tag: String
        /// Id of the text, the text, the voice.
        public var textID: String?, text: String?, voice: String?
        /// Identity of the model.
        public var model: String?
        /// SHA-256 of all codes, and of those of the first packet.
        public var codesHash: String, firstPacketHash: String
        /// SHA-256 of the samples; nil where none were made.
        public var samplesHash: String?
        /// Frames and codes of a frame.
        public var frames: Int, codebooks: Int
        /// The smallest and the largest code.
        public var minCode: Int, maxCode: Int
        /// Codes that the codec does not have.
        public var outOfRange: Int
        /// Why the run ended.
        public var finishReason: String?
        /// Seed of its random numbers.
        public var seed: UInt64?
        /// Milliseconds: `ttfa`, `code`, `talker`, `predictor`, `decode`, `total`.
        public var times: [String: Double]
        /// Computing time by speaking time.
        public var realTimeFactor: Double?
        /// What was set: packet, weights, threads and so on.
        public var switches: [String: String]
        /// What decoding did: `queue_wait_ms`, `decode_calls`, `codes_frames_max`, `pcm_samples_total`,
        /// `pcm_samples_max`.
        public var trace: [String: Double]?

        enum CodingKeys: String, CodingKey {
            case tag, text, voice, model, frames, codebooks, seed, switches, trace
            case textID = "text_id"
            case codesHash = "codes_sha256"
            case firstPacketHash = "first_packet_sha256"
            case samplesHash = "pcm_sha256"
            case minCode = "min_code"
            case maxCode = "max_code"
            case outOfRange = "out_of_range"
            case finishReason = "finish_reason"
            case times = "times_ms"
            case realTimeFactor = "rtf"
        }
    }

    /// The codes, [frames, groups].
    public let codes: [Int32]
    /// Codes of a frame.
    public let groups: Int
    /// What is known of them; nil where no meta file was found.
    public let meta: Meta?
    /// Names the run.
    public let tag: String

    /// Frames.
    public var frames: Int { codes.count / groups }

    /// A record of codes.
    public init(tag: String, codes: [Int32], groups: Int, meta: Meta? = nil) {
        self.tag = tag
        self.codes = codes
        self.groups = groups
        self.meta = meta
    }

    /// A record of a run.
    public init(
        tag: String, _ run: EngineRun, of model: SpeechModel, identity: String?, text: ExperimentText,
        voice: ExperimentVoice, packet: Int, switches: [String: String]
    ) {
        self.init(
            tag: tag, run.codes, run.summary, of: model, identity: identity, text: text, voice: voice.label,
            packet: packet, switches: switches)
    }

    /// A record of what an engine made of a request.
    public init(
        tag: String, _ codes: [Int32], _ summary: SpeechSummary, of model: SpeechModel, identity: String?,
        text: ExperimentText, voice: String?, packet: Int, switches: [String: String]
    ) {
        let (stages, groups) = (summary.stages, model.codeGroups)
        var times = [
            "total": 1000 * summary.elapsed, "talker": 1000 * stages.talker,
            "predictor": 1000 * stages.codePredictor, "decode": 1000 * stages.decoder,
            "code": 1000 * (stages.talker + stages.codePredictor),
        ]
        times["ttfa"] = summary.firstAudio.map { 1000 * $0 }
        let trace = [
            "queue_wait_ms": 1000 * summary.trace.queueWait, "decode_calls": Double(summary.trace.decodeCalls),
            "codes_frames_max": Double(summary.trace.codesFramesMax),
            "pcm_samples_total": Double(summary.trace.pcmSamplesTotal),
            "pcm_samples_max": Double(summary.trace.pcmSamplesMax),
        ]
        let size = Int32(model.configuration.codec.decoder.codebookSize)
        self.init(
            tag: tag, codes: codes, groups: groups,
            meta: Meta(
                tag: tag, textID: text.id, text: text.text, voice: voice, model: identity,
                codesHash: summary.fingerprint.codes,
                firstPacketHash: Experiments.codesHash(codes.prefix(packet * groups)),
                samplesHash: summary.fingerprint.pcm, frames: codes.count / groups, codebooks: groups,
                minCode: Int(codes.min() ?? -1), maxCode: Int(codes.max() ?? -1),
                outOfRange: codes.count { $0 < 0 || $0 >= size },
                finishReason: summary.finishReason.rawValue, seed: summary.seed, times: times,
                realTimeFactor: summary.realTimeFactor, switches: switches, trace: trace))
    }

    /// Writes both files into a folder, which is made.
    public func write(to folder: String) throws(ExperimentError) {
        try ExperimentError.wrap(folder) {
            try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
            try writeCodes(to: "\(folder)/codes_\(tag).safetensors")
        }
        if let meta { try writeJSON(meta, to: "\(folder)/meta_\(tag).json") }
    }

    /// Writes the codes as a safetensors file, whole or not at all.
    public func writeCodes(to path: String) throws {
        var metadata = ["format": "martlet.codes", "version": "1"]
        if !tag.isEmpty { metadata["tag"] = tag }
        var writer = SafetensorsWriter(metadata: metadata)
        writer.add("codes", codes, shape: [frames, groups])
        try writer.write(to: path)
    }

    /// Reads the record of a tag in a folder.
    public static func read(tag: String, from folder: String) throws(ExperimentError) -> CodeRecord {
        var record = try read(file: "\(folder)/codes_\(tag).safetensors", tag: tag)
        let path = "\(folder)/meta_\(tag).json"
        if FileManager.default.fileExists(atPath: path) {
            record = CodeRecord(
                tag: tag, codes: record.codes, groups: record.groups, meta: try readJSON(Meta.self, path))
        }
        return record
    }

    /// Bytes of the largest file that is read: hours of speech.
    public static let sizeLimit = 64 << 20

    /// Reads the codes of a safetensors file.
    public static func read(file path: String, tag: String) throws(ExperimentError) -> CodeRecord {
        do {
            let file = try SafetensorsFile(path: path)
            let (values, shape) = try file.integers("codes")
            guard file.byteCount <= sizeLimit, shape.count == 2, shape[1] > 0 else {
                throw ExperimentError.malformed(
                    path: path, reason: "the tensor 'codes' has the shape \(shape), not [frames, codes of a frame]")
            }
            let codes = try values.map { value in
                guard let code = Int32(exactly: value) else {
                    throw ExperimentError.malformed(path: path, reason: "it has the code \(value), which no codec has")
                }
                return code
            }
            return CodeRecord(tag: tag, codes: codes, groups: shape[1])
        } catch let error as ExperimentError { throw error } catch let error as TensorError {
            throw .tensors(error)
        } catch {
            throw .file(path: path, reason: "\(error)")
        }
    }
}

/// Writes JSON with its keys in order, whole or not at all.
func writeJSON(_ value: some Encodable, to path: String) throws(ExperimentError) {
    try ExperimentError.wrap(path) {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        try encoder.encode(value).write(to: URL(fileURLWithPath: path), options: .atomic)
    }
}
