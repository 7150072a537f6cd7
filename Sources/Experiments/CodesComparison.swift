/// Whether runs that should be equal are, and where they part.
public struct CodesComparison: Sendable, Codable, Equatable {
    /// One run beside the first.
    public struct Run: Sendable, Codable, Equatable {
        /// Names the run.
        public let tag: String
        /// Frames it has.
        public let frames: Int
        /// SHA-256 of all codes and of the first packet's.
        public let hash: String, firstPacketHash: String
        /// The first frame that differs from the first run; -1 if none does. A run that ends early differs where it
        /// ends.
        public let firstDiffFrame: Int
        /// The first codebook that differs in that frame; -1 if none does, or one of the runs has no such frame.
        public let firstDiffCodebook: Int
        /// Frames that differ.
        public let differingFrames: Int

        enum CodingKeys: String, CodingKey {
            case tag, frames, hash
            case firstPacketHash = "first_packet_hash"
            case firstDiffFrame = "first_diff_frame"
            case firstDiffCodebook = "first_diff_codebook"
            case differingFrames = "differing_frames"
        }
    }

    /// Codec frames of a packet.
    public let packet: Int
    /// Different hashes of all codes: 1 if all runs are equal.
    public let hashUnique: Int
    /// Different hashes of the first packet.
    public let firstPacketHashUnique: Int
    /// The earliest frame at which any run differs from the first; -1 if none does.
    public let firstDiffFrame: Int
    /// The codebook there; -1 if none.
    public let firstDiffCodebook: Int
    /// All runs, the first one too.
    public let runs: [Run]

    enum CodingKeys: String, CodingKey {
        case runs
        case packet = "packet_tokens"
        case hashUnique = "full_hash_unique"
        case firstPacketHashUnique = "first_packet_hash_unique"
        case firstDiffFrame = "first_diff_frame"
        case firstDiffCodebook = "first_diff_codebook"
    }

    /// Compares runs with the first of them.
    public init(_ records: [CodeRecord], packet: Int) throws(ExperimentError) {
        guard let first = records.first else { throw .badSetting("there are no runs to compare") }
        guard packet >= 1 else { throw .badSetting("a packet has at least one frame") }
        if let odd = records.first(where: { $0.groups != first.groups }) {
            throw .badSetting("\(odd.tag) has frames of \(odd.groups) codes, \(first.tag) of \(first.groups)")
        }
        self.packet = packet
        runs = records.map { record in
            let frames = Self.differingFrames(first, record)
            let codebook = frames.first.flatMap { Self.differingCodebook(first, record, frame: $0) }
            return Run(
                tag: record.tag, frames: record.frames, hash: codesHash(record.codes),
                firstPacketHash: codesHash(record.codes.prefix(packet * record.groups)),
                firstDiffFrame: frames.first ?? -1, firstDiffCodebook: codebook ?? -1, differingFrames: frames.count)
        }
        hashUnique = Set(runs.map(\.hash)).count
        firstPacketHashUnique = Set(runs.map(\.firstPacketHash)).count
        let parting = runs.filter { $0.firstDiffFrame >= 0 }.min { $0.firstDiffFrame < $1.firstDiffFrame }
        firstDiffFrame = parting?.firstDiffFrame ?? -1
        firstDiffCodebook = parting?.firstDiffCodebook ?? -1
    }

    private static func differingFrames(_ a: CodeRecord, _ b: CodeRecord) -> [Int] {
        (0..<max(a.frames, b.frames)).filter { frame in
            frame >= a.frames || frame >= b.frames || differingCodebook(a, b, frame: frame) != nil
        }
    }

    private static func differingCodebook(_ a: CodeRecord, _ b: CodeRecord, frame: Int) -> Int? {
        guard frame < a.frames, frame < b.frames else { return nil }
        return (0..<a.groups).first { a.codes[frame * a.groups + $0] != b.codes[frame * a.groups + $0] }
    }

    /// One line a run, one letter a frame: `·` equal to the first run, `0`…`f` the first codebook that differs, `+` or
    /// `-` a frame more or less than the first run has.
    public static func picture(_ records: [CodeRecord], width: Int = 100) -> [String] {
        guard let first = records.first else { return [] }
        let label = records.map(\.tag.count).max() ?? 0
        return records.map { record in
            let shown = min(max(first.frames, record.frames), width)
            var line = record.tag + String(repeating: " ", count: label - record.tag.count + 2)
            for frame in 0..<shown {
                if frame >= record.frames {
                    line += "-"
                } else if frame >= first.frames {
                    line += "+"
                } else if let codebook = differingCodebook(first, record, frame: frame) {
                    line += codebook < 16 ? String(codebook, radix: 16) : "*"
                } else {
                    line += "·"
                }
            }
            return line + (max(first.frames, record.frames) > width ? "…" : "")
        }
    }
}
