/// What is wrong with a setting.
public enum SettingsError: Error, Sendable, Equatable, CustomStringConvertible {
    /// A value that the setting does not have.
    case badValue(name: String, value: String, expected: String, place: String)
    /// A name that is no setting.
    case unknown(name: String, place: String, nearest: String?)
    /// The configuration file cannot be read.
    case file(path: String, reason: String)

    /// One line for a person.
    public var description: String {
        switch self {
        case .badValue(let name, let value, let expected, let place):
            let setting = name.hasPrefix("--") || name.hasPrefix("MARTLET_") ? "" : " (\(place))"
            return "\(name)\(setting) is \(value.debugDescription), expected \(expected)"
        case .unknown(let name, let place, let nearest):
            let hint = nearest.map { "did you mean \($0)?" } ?? "'martlet config' lists what can be set"
            return "\(place): there is no setting \(name.debugDescription); \(hint)"
        case .file(let path, let reason): return "\(path): \(reason)"
        }
    }
}
