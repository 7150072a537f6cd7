public import Qwen3TTS
public import SpeechEngine

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Keeps the codes of a server's requests in a folder, as `martlet codes dump` does, and reads them back.
public struct CodeDump: Sendable {
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

    /// - Parameters:
    ///   - folder: gets the files; it is made.
    ///   - switches: what was set, for the meta files.
    ///   - choices: which steps' likeliest codes are kept; nil for none.
    public init(model: SpeechModel, folder: String, switches: [String: String], choices: TopChoicesOptions?) {
        self.model = model
        self.folder = folder
        self.switches = switches
        self.choices = choices
    }

    /// Takes a finished utterance.
    public typealias Take =
        @Sendable (_ tag: String, _ codes: [Int32], _ packetFrames: Int?, _ summary: SpeechSummary) throws -> Void

    /// Before an utterance: lets its likeliest codes be recorded.
    public func begin(_ request: inout SpeechRequest) -> Take {
        // A tap that only records cannot be refused.
        let tap = try? logitTap(nil, choices, of: model)
        request.logitTap = tap
        let (text, voice) = (ExperimentText(id: "", text: request.text), Self.label(request.voice))
        return { tag, codes, packetFrames, summary in
            var switches = self.switches
            switches["packet_tokens"] = packetFrames.map { "\($0)" } ?? "growing"
            let record = CodeRecord(
                tag: tag, codes, summary, of: model, identity: try? model.identity, text: text, voice: voice,
                packet: packetFrames ?? 1, switches: switches)
            try record.write(to: folder)
            if let tap { try writeJSON(TopChoices(tag: tag, steps: tap.choices), to: "\(folder)/topk_\(tag).json") }
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
