/// A checked branch, tag or commit. It names a file below `refs/`, so it must not leave that folder.
struct HubRevision: Equatable, Sendable {
    let name: String

    /// Checks `name`.
    init(_ name: String) throws(HubError) {
        guard isSafeRelativePath(name), name.utf8.count <= 200 else { throw .invalidRevision(name) }
        self.name = name
    }

    /// Whether this is a whole commit id, whose files never change.
    var isCommit: Bool { Self.isCommit(name) }

    /// Whether `text` is a whole commit id: 40 lower-case hexadecimal digits.
    static func isCommit(_ text: String) -> Bool {
        text.utf8.count == 40 && text.utf8.allSatisfy { 48...57 ~= $0 || 97...102 ~= $0 }
    }
}

/// Whether `path` stays inside the folder it is appended to: relative, with no empty, `.` or `..` part, no backslash and
/// no control characters.
func isSafeRelativePath(_ path: String) -> Bool {
    let parts = path.split(separator: "/", omittingEmptySubsequences: false)
    return path.utf8.count <= 1024
        && parts.allSatisfy { !$0.isEmpty && $0 != "." && $0 != ".." && $0.utf8.count <= 200 }
        && path.unicodeScalars.allSatisfy { $0.value >= 32 && $0.value != 127 && $0 != "\\" }
}
