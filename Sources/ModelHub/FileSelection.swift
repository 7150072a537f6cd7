/// Which files of a repository are wanted, by patterns over the whole path: `*` stands for any characters, `/`
/// included, and `?` for one, as in huggingface_hub's `allow_patterns`.
public struct FileSelection: Equatable, Sendable {
    /// A file is wanted if it matches one of these.
    public var include: [String]
    /// And none of these.
    public var exclude: [String]

    /// Makes a selection.
    public init(include: [String], exclude: [String] = []) {
        self.include = include
        self.exclude = exclude
    }

    /// What a model needs: configurations, vocabularies and weights.
    public static let model = FileSelection(include: ["*.json", "*.txt", "*.safetensors"])

    /// Whether a path is wanted.
    public func contains(_ path: String) -> Bool {
        include.contains { Self.matches(path, $0) } && !exclude.contains { Self.matches(path, $0) }
    }

    /// Wildcard matching that goes back to the last `*` only, so its time is at most the product of the lengths.
    private static func matches(_ path: String, _ pattern: String) -> Bool {
        let (path, pattern) = (Array(path.unicodeScalars), Array(pattern.unicodeScalars))
        var (i, j) = (0, 0)
        var star: (pattern: Int, path: Int)?
        while i < path.count {
            if j < pattern.count && pattern[j] == "*" {
                star = (j, i)
                j += 1
            } else if j < pattern.count && (pattern[j] == "?" || pattern[j] == path[i]) {
                (i, j) = (i + 1, j + 1)
            } else if let last = star {
                star = (last.pattern, last.path + 1)
                (i, j) = (last.path + 1, last.pattern + 1)
            } else {
                return false
            }
        }
        return pattern[j...].allSatisfy { $0 == "*" }
    }
}
