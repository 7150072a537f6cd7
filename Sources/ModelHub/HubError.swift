/// What went wrong while a model was fetched from a hub or looked up in the cache.
public enum HubError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The name of a repository breaks the hub's rules.
    case invalidRepository(String)
    /// A branch, tag or commit that cannot be one.
    case invalidRevision(String)
    /// An environment variable or setting that cannot be used; its name and why.
    case invalidSetting(name: String, reason: String)
    /// The repository does not exist, or is private.
    case repositoryNotFound(repository: String, hasToken: Bool)
    /// The repository has no such branch, tag or commit.
    case revisionNotFound(repository: String, revision: String)
    /// A file that the listing names is not there.
    case fileNotFound(repository: String, path: String)
    /// The repository has no file that matches the patterns.
    case nothingToPull(repository: String, patterns: [String])
    /// The terms of a gated repository are not accepted, or no token says by whom.
    case gated(repository: String, page: String, hasToken: Bool)
    /// The hub refuses the token, or refuses access with it.
    case accessDenied(repository: String, reason: String, hasToken: Bool)
    /// No connection after every attempt.
    case unreachable(host: String, reason: String)
    /// An HTTP status that nothing else explains.
    case unexpectedStatus(host: String, status: Int, reason: String)
    /// An answer that breaks the protocol; what was wrong.
    case unexpectedAnswer(String)
    /// The listing names a file outside the repository.
    case unsafePath(String)
    /// A file has another size than the hub states; it was deleted.
    case sizeMismatch(path: String, expected: Int64, actual: Int64)
    /// A file has another hash than the hub states; it was deleted.
    case hashMismatch(path: String, expected: String, actual: String)
    /// Not enough room, in bytes.
    case diskSpace(path: String, needed: Int64, free: Int64)
    /// The cache cannot be read or written.
    case cache(path: String, reason: String)
    /// `HF_HUB_OFFLINE` is set and the repository is not in the cache.
    case offline(repository: String)
    /// The task was cancelled. What was fetched stays for the next pull.
    case cancelled

    /// One line for people: what was wrong, what was expected, what to do.
    public var description: String {
        switch self {
        case .invalidRepository(let name):
            "'\(name)' is not a repository name; ORGANISATION/NAME of letters, digits, '.', '_' and '-' is expected"
        case .invalidRevision(let revision): "'\(revision)' is not a branch, tag or commit"
        case .invalidSetting(let name, let reason): "\(name) cannot be used: \(reason)"
        case .repositoryNotFound(let repository, let hasToken):
            "\(repository) does not exist or is private; "
                + (hasToken ? "check the name and what the token may read" : "check the name, or set HF_TOKEN")
        case .revisionNotFound(let repository, let revision):
            "\(repository) has no branch, tag or commit '\(revision)'"
        case .fileNotFound(let repository, let path): "\(repository) lists '\(path)' but does not have it"
        case .nothingToPull(let repository, let patterns):
            "\(repository) has no file that matches \(patterns.joined(separator: ", "))"
        case .gated(let repository, let page, let hasToken):
            "\(repository) is gated: accept its terms at \(page)"
                + (hasToken ? " with the account of the token" : " and set HF_TOKEN")
        case .accessDenied(let repository, let reason, let hasToken):
            "access to \(repository) is denied (\(reason)); "
                + (hasToken ? "check the token in HF_TOKEN" : "set HF_TOKEN")
        case .unreachable(let host, let reason):
            "\(host) cannot be reached (\(reason)); check the network, HF_ENDPOINT and proxy settings"
        case .unexpectedStatus(let host, let status, let reason): "\(host) answered \(status) (\(reason))"
        case .unexpectedAnswer(let reason): "the hub's answer makes no sense: \(reason)"
        case .unsafePath(let path): "the repository lists '\(path)', which would lie outside its folder"
        case .sizeMismatch(let path, let expected, let actual):
            "\(path) has \(actual) bytes where the hub states \(expected); it was deleted, pull again"
        case .hashMismatch(let path, let expected, let actual):
            "\(path) is corrupted: its hash is \(actual), the hub states \(expected); it was deleted, pull again"
        case .diskSpace(let path, let needed, let free):
            "\(path) has \(free / 1_000_000) MB free, \(megabytes(needed)) MB are needed"
        case .cache(let path, let reason): "\(path): \(reason)"
        case .offline(let repository): "\(repository) is not in the cache and HF_HUB_OFFLINE is set"
        case .cancelled: "cancelled; what was fetched stays for the next pull"
        }
    }
}

/// Whole megabytes (10^6), rounded up.
private func megabytes(_ bytes: Int64) -> Int64 { bytes / 1_000_000 + (bytes % 1_000_000 > 0 ? 1 : 0) }
