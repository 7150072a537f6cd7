#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// What is set, and where it came from: flags go before `MARTLET_…`, these before the old stack's variables, these
/// before the configuration file, that before the defaults.
public struct Settings: Sendable {
    /// Where a value came from.
    public enum Source: Sendable, Equatable {
        case flag, standard
        /// A variable of the environment; an old one if it is not `MARTLET_…`.
        case variable(String)
        /// A configuration file.
        case file(String)

        /// As `martlet config` has it.
        public var label: String {
            switch self {
            case .flag: "flag"
            case .standard: "default"
            case .variable(let name): name
            case .file(let path): path
            }
        }
    }

    /// One setting's value.
    public struct Value: Sendable, Equatable {
        /// Which.
        public let setting: Setting
        /// In the one way of writing it; nil if nothing is set and the command decides.
        public let text: String?
        /// Where it came from.
        public let source: Source
    }

    /// All settings, in the table's order.
    public let values: [Value]
    /// What a person should read once: settings that are accepted and do nothing, names that are unknown.
    public let notes: [String]

    /// The file that is read if none is named, where it is there.
    public static let standardFile = "martlet.json"

    /// Reads everything.
    /// - Parameters:
    ///   - flags: what the command line says, setting by setting.
    ///   - environment: all variables.
    ///   - file: the configuration file that the command line names; else `MARTLET_CONFIG`, else `martlet.json` if there
    ///     is one.
    public init(
        flags: [(setting: Setting, text: String)] = [], environment: [String: String], file: String? = nil
    ) throws(SettingsError) {
        let named = file ?? environment["MARTLET_CONFIG"].flatMap { $0.isEmpty ? nil : $0 }
        let path = named ?? Self.standardFile
        let isThere = FileManager.default.fileExists(atPath: path)
        let members = named != nil || isThere ? try ConfigurationFile.read(path) : [:]
        if let unknown = members.keys.sorted().first(where: { key in !Setting.all.contains { $0.name == key } }) {
            throw .unknown(name: unknown, place: path, nearest: Self.nearest(unknown, Setting.all.map(\.name)))
        }
        var values: [Value] = []
        var notes: [String] = []
        var gpuNotes: [String] = []
        for setting in Setting.all {
            let (text, source) = Self.find(setting, flags, environment, members, path)
            guard let text else {
                values.append(Value(setting: setting, text: setting.standard, source: .standard))
                continue
            }
            let name = source == .flag ? setting.flag : source.label
            guard let value = setting.canonical(text) else {
                throw .badValue(name: name, value: text, expected: setting.values, place: setting.name)
            }
            switch setting.effect {
            case .acts: break
            case .none(let instead): notes.append("\(name): accepted, has no effect: \(instead)")
            case .onGPU(let instead): gpuNotes.append("\(name): accepted, has no effect: \(instead)")
            }
            values.append(Value(setting: setting, text: value, source: source))
        }
        self.values = values
        let device = values.first { $0.setting == .device }?.text
        if device == nil || device == "cpu" { notes += gpuNotes }
        self.notes = notes + Self.unknownVariables(environment)
    }

    private static func find(
        _ setting: Setting, _ flags: [(setting: Setting, text: String)], _ environment: [String: String],
        _ members: [String: String], _ path: String
    ) -> (String?, Source) {
        if let flag = flags.first(where: { $0.setting == setting }) { return (flag.text, .flag) }
        for name in [setting.variable] + setting.aliases {
            if let text = environment[name], !text.isEmpty { return (text, .variable(name)) }
        }
        if let text = members[setting.name] { return (text, .file(path)) }
        return (nil, .standard)
    }

    private static func unknownVariables(_ environment: [String: String]) -> [String] {
        let known = Setting.all.flatMap { [$0.variable] + $0.aliases }
        return environment.keys.sorted().compactMap { name in
            guard name.hasPrefix("MARTLET_") || name.hasPrefix("TTS_"), !known.contains(name),
                !Setting.otherVariables.contains(name), environment[name] != ""
            else { return nil }
            let nearest = nearest(name, known).map { "; did you mean \($0)?" } ?? ""
            return "\(name): unknown, ignored\(nearest)"
        }
    }

    /// The known name that is fewest edits away, if these are few.
    static func nearest(_ name: String, _ known: [String]) -> String? {
        let best = known.map { (name: $0, distance: distance(Array(name.utf8), Array($0.utf8))) }
            .min { $0.distance < $1.distance }
        return best.flatMap { $0.distance <= max(1, name.utf8.count / 5) ? $0.name : nil }
    }

    private static func distance(_ a: [UInt8], _ b: [UInt8]) -> Int {
        var row = Array(0...b.count)
        for (i, x) in a.enumerated() {
            var corner = row[0]
            row[0] = i + 1
            for (j, y) in b.enumerated() {
                let above = row[j + 1]
                row[j + 1] = min(row[j] + 1, above + 1, corner + (x == y ? 0 : 1))
                corner = above
            }
        }
        return row[b.count]
    }

    // MARK: Values

    /// The value of a setting.
    public func value(_ setting: Setting) -> Value {
        values.first { $0.setting == setting } ?? Value(setting: setting, text: setting.standard, source: .standard)
    }

    /// Whether somebody set it.
    public func isSet(_ setting: Setting) -> Bool { value(setting).source != .standard }

    /// As it is written; nil if nothing is set and the command decides.
    public func text(_ setting: Setting) -> String? { value(setting).text }

    /// A toggle.
    public func isOn(_ setting: Setting) -> Bool { text(setting) == "1" }

    /// A whole number.
    public func integer(_ setting: Setting) -> Int? { text(setting).flatMap { Int($0) } }

    /// A whole number without sign.
    public func unsigned(_ setting: Setting) -> UInt64? { text(setting).flatMap { UInt64($0) } }

    /// A number.
    public func number(_ setting: Setting) -> Double? { text(setting).flatMap { Double($0) } }

    /// Texts.
    public func list(_ setting: Setting) -> [String] { text(setting)?.split(separator: "|").map(String.init) ?? [] }
}
