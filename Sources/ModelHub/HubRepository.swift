/// The checked name of a model repository: `NAME` or `ORGANISATION/NAME`.
///
/// Each part has 1 to 96 letters, digits, `.`, `_` and `-`, does not begin or end with `.` or `-`, and has no `--` or
/// `..` inside: the hub's own rule, which also keeps the name from leaving the cache folder.
public struct HubRepository: Equatable, Sendable, CustomStringConvertible {
    /// The name as given.
    public let name: String

    /// Checks `name`.
    public init(_ name: String) throws(HubError) {
        let parts = name.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count <= 2, parts.allSatisfy({ Self.isValid($0) }) else {
            throw .invalidRepository(name)
        }
        self.name = name
    }

    /// The name.
    public var description: String { name }

    /// The repository's folder in the cache.
    var folderName: String { "models--" + name.split(separator: "/").joined(separator: "--") }

    private static func isValid(_ part: Substring) -> Bool {
        func isAllowed(_ byte: UInt8) -> Bool {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"):
                true
            default: false
            }
        }
        guard let first = part.first, let last = part.last, part.utf8.count <= 96 else { return false }
        return part.utf8.allSatisfy(isAllowed) && !".-".contains(first) && !".-".contains(last)
            && !part.contains("--") && !part.contains("..")
    }
}
