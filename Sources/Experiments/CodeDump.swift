public import Qwen3TTS
public import SpeechEngine

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Keeps the codes of an engine's utterances in a folder, as `martlet codes dump` does, and reads them back.
public struct CodeDump: UtteranceKeeper {
    /// What a client gets that asks for the codes of a request.
    public struct Document: Sendable, Codable {
        /// What is known of them.
        public let meta: CodeRecord.Meta
        /// Frame by frame.
        public let codes: [[Int32]]
        /// The likeliest choices of its steps, if they were recorded.
        public let choices: TopChoices?

        enum CodingKeys: String, CodingKey {
            case meta, codes
            case choices = "topk"
        }

        /// The same as a record.
        public func record() throws(ExperimentError) -> CodeRecord {
            guard meta.codebooks > 0, codes.allSatisfy({ $0.count == meta.codebooks }) else {
                throw .malformed(path: meta.tag, reason: "frames should have \(meta.codebooks) codes each")
            }
            return CodeRecord(tag: meta.tag, codes: codes.flatMap { $0 }, groups: meta.codebooks, meta: meta)
        }
    }

    let model: SpeechModel
    let folder: String
    let switches: [String: String]
    let choices: TopChoicesOptions?
    let failed: @Sendable (String) -> Void

    /// - Parameters:
    ///   - folder: gets the files; it is made.
    ///   - switches: what was set, for the meta files.
    ///   - choices: which steps' likeliest codes are kept; nil for none.
    ///   - failed: called with a line for a log if codes cannot be kept.
    public init(
        model: SpeechModel, folder: String, switches: [String: String], choices: TopChoicesOptions?,
        failed: @escaping @Sendable (String) -> Void
    ) {
        self.model = model
        self.folder = folder
        self.switches = switches
        self.choices = choices
        self.failed = failed
    }

    /// Lets its likeliest codes be recorded.
    public func willSpeak(_ request: inout SpeechRequest) {
        // A tap that only records cannot be refused.
        if let tap = try? logitTap(nil, choices, of: model) { request.logitTap = tap }
    }

    /// Writes the files.
    public func keep(_ utterance: SpokenUtterance) {
        let (tag, request) = (utterance.tag, utterance.request)
        var switches = switches
        switches["packet_tokens"] = utterance.packetFrames.map { "\($0)" } ?? "growing"
        let record = CodeRecord(
            tag: tag, utterance.codes, utterance.summary, of: model, identity: try? model.identity,
            text: ExperimentText(id: "", text: request.text), voice: Self.label(request.voice),
            packet: utterance.packetFrames ?? 1, switches: switches)
        do throws(ExperimentError) {
            try record.write(to: folder)
            if choices != nil, let tap = request.logitTap {
                try writeJSON(TopChoices(tag: tag, steps: tap.choices), to: "\(folder)/topk_\(tag).json")
            }
        } catch {
            failed("the codes of \(tag) cannot be kept: \(error.description)")
        }
    }

    /// The JSON of a ``Document``; nil if nothing was kept under the tag.
    public func read(_ tag: String) throws -> [UInt8]? {
        guard FileManager.default.fileExists(atPath: "\(folder)/meta_\(tag).json") else { return nil }
        let record = try CodeRecord.read(tag: tag, from: folder)
        guard let meta = record.meta else { return nil }
        let rows = stride(from: 0, to: record.codes.count, by: record.groups).map { start in
            Array(record.codes[start..<(start + record.groups)])
        }
        let topK = "\(folder)/topk_\(tag).json"
        let choices = FileManager.default.fileExists(atPath: topK) ? try TopChoices.read(from: topK) : nil
        return Array(try JSONEncoder().encode(Document(meta: meta, codes: rows, choices: choices)))
    }

    private static func label(_ voice: SpeechRequest.Voice) -> String {
        switch voice {
        case .named(let name): name
        case .standard: "standard"
        case .clone: "clone"
        }
    }
}
