/// One thing that can be set: as a flag, in the environment, in a configuration file.
///
/// The rows are in `Setting+Table.swift`; flags, variables, `martlet config` and the old names all follow from them.
public struct Setting: Sendable, Equatable {
    /// What its values look like.
    public enum Kind: Sendable, Equatable {
        /// `1`, `true`, `yes`, `on` or the opposite.
        case toggle
        /// A whole number within bounds.
        case integer(ClosedRange<Int>)
        /// A whole number from 0 to 2⁶⁴ - 1.
        case unsigned
        /// A number within bounds.
        case number(ClosedRange<Double>)
        /// One of some words.
        case choice([String])
        /// `cpu`, `cuda:0`, `cuda:1`, …
        case device
        /// Any text.
        case text
        /// Texts, in one value parted by `|`.
        case list
    }

    /// What becomes of a value that is set.
    public enum Effect: Sendable, Equatable {
        /// It acts.
        case acts
        /// It is accepted, since others have it, and does nothing: this holds instead.
        case none(String)
        /// It acts on a GPU; on the CPU this holds instead.
        case onGPU(String)
    }

    /// Its name in configuration files; its flag and its variable are made of it.
    public let name: String
    /// What its values look like.
    public let kind: Kind
    /// What holds where nothing is set; nil leaves it to the command.
    public let standard: String?
    /// Variables of the old stack that mean the same, whole; the first goes first.
    public let aliases: [String]
    /// What it is for, in a line.
    public let meaning: String
    /// Whether it acts on this engine.
    public let effect: Effect

    init(
        _ name: String, _ kind: Kind, standard: String? = nil, aliases: [String] = [], _ meaning: String,
        instead: String? = nil, insteadOnCPU: String? = nil
    ) {
        self.name = name
        self.kind = kind
        self.standard = standard
        self.aliases = aliases
        self.meaning = meaning
        effect = instead.map { .none($0) } ?? insteadOnCPU.map { .onGPU($0) } ?? .acts
    }

    /// `--packet-tokens`.
    public var flag: String { "--" + name }

    /// `MARTLET_PACKET_TOKENS`.
    public var variable: String { "MARTLET_" + name.uppercased().map { $0 == "-" ? "_" : String($0) }.joined() }

    /// What may be written.
    public var values: String {
        switch kind {
        case .toggle: return "0 or 1"
        case .integer(let range):
            return range.upperBound == .max
                ? "a whole number from \(range.lowerBound)"
                : "a whole number from \(range.lowerBound) to \(range.upperBound)"
        case .unsigned: return "a whole number from 0"
        case .number(let range):
            return range.upperBound == .greatestFiniteMagnitude
                ? "a number from \(range.lowerBound)" : "a number from \(range.lowerBound) to \(range.upperBound)"
        case .choice(let words): return words.joined(separator: ", ")
        case .device: return "cpu, cuda:0, cuda:1, …"
        case .text: return "a text"
        case .list: return "texts parted by |"
        }
    }

    /// The one way of writing a value; nil if it is none of this setting's.
    public func canonical(_ text: String) -> String? {
        switch kind {
        case .toggle:
            switch text.lowercased() {
            case "1", "true", "yes", "on": return "1"
            case "0", "false", "no", "off": return "0"
            default: return nil
            }
        case .integer(let range): return Int(text).flatMap { range.contains($0) ? "\($0)" : nil }
        case .unsigned: return UInt64(text).map { "\($0)" }
        case .number(let range): return Double(text).flatMap { range.contains($0) ? "\($0)" : nil }
        case .choice(let words): return words.first { $0.lowercased() == text.lowercased() }
        case .device:
            if text == "cpu" { return text }
            if text == "cuda" { return "cuda:0" }
            guard text.hasPrefix("cuda:"), let index = Int(text.dropFirst(5)), (0..<64).contains(index) else {
                return nil
            }
            return "cuda:\(index)"
        case .text: return text
        case .list:
            let parts = text.split(separator: "|").map { $0.split(separator: " ").joined(separator: " ") }
            return parts.filter { !$0.isEmpty }.joined(separator: "|")
        }
    }
}
