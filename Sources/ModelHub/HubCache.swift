#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif
#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// One repository's part of the cache, in huggingface_hub's layout:
///
///     models--ORGANISATION--NAME/blobs/ETAG              the bytes
///                                blobs/ETAG.incomplete   the bytes so far
///                                refs/REVISION           the commit a branch or tag stood at
///                                snapshots/COMMIT/PATH   relative symbolic link to the blob
///     .locks/models--ORGANISATION--NAME/ETAG.lock        held while a blob is written
struct HubCache: Sendable {
    let folder: String
    let locks: String

    init(directory: String, repository: HubRepository) {
        folder = "\(directory)/\(repository.folderName)"
        locks = "\(directory)/.locks/\(repository.folderName)"
    }

    func blob(_ etag: String) -> String { "\(folder)/blobs/\(etag)" }
    func incomplete(_ etag: String) -> String { "\(folder)/blobs/\(etag).incomplete" }
    func lock(_ etag: String) -> String { "\(locks)/\(etag).lock" }
    func snapshot(_ commit: String) -> String { "\(folder)/snapshots/\(commit)" }

    /// The snapshot of a branch, tag or commit, if it is here and none of its links dangles.
    func locate(_ revision: HubRevision) -> String? {
        let commit: String
        if revision.isCommit {
            commit = revision.name
        } else {
            guard let data = FileManager.default.contents(atPath: "\(folder)/refs/\(revision.name)") else { return nil }
            commit = String(decoding: data, as: UTF8.self).trimmingCharacters { $0.isWhitespace }
            guard HubRevision.isCommit(commit) else { return nil }
        }
        let snapshot = snapshot(commit)
        guard let paths = try? FileManager.default.subpathsOfDirectory(atPath: snapshot), !paths.isEmpty else {
            return nil
        }
        return paths.allSatisfy { exists("\(snapshot)/\($0)") } ? snapshot : nil
    }

    /// Writes down where a branch or tag stands. A commit needs no such note.
    func setReference(_ revision: HubRevision, commit: String) throws(HubError) {
        guard !revision.isCommit else { return }
        let path = "\(folder)/refs/\(revision.name)"
        try makeParent(of: path)
        let temporary = "\(path).\(UInt64.random(in: 0...UInt64.max)).tmp"
        do {
            try Data(commit.utf8).write(to: URL(fileURLWithPath: temporary))
        } catch {
            _ = unlink(temporary)
            throw .cache(path: path, reason: systemErrorText(errno))
        }
        try replace(path, with: temporary)
    }

    /// Makes `snapshots/commit/path` a relative link to a blob.
    func link(_ path: String, commit: String, etag: String) throws(HubError) {
        let link = "\(snapshot(commit))/\(path)"
        try makeParent(of: link)
        let up = String(repeating: "../", count: path.split(separator: "/").count + 1)
        let temporary = "\(link).\(UInt64.random(in: 0...UInt64.max)).tmp"
        guard symlink("\(up)blobs/\(etag)", temporary) == 0 else {
            throw .cache(path: link, reason: systemErrorText(errno))
        }
        try replace(link, with: temporary)
    }

    private func replace(_ path: String, with temporary: String) throws(HubError) {
        guard rename(temporary, path) == 0 else {
            let code = errno
            _ = unlink(temporary)
            throw .cache(path: path, reason: systemErrorText(code))
        }
    }
}

/// Makes the folders that `path` lies in.
func makeParent(of path: String) throws(HubError) {
    let parent = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
    do {
        try FileManager.default.createDirectory(atPath: parent, withIntermediateDirectories: true)
    } catch {
        throw .cache(path: parent, reason: "the folder cannot be made (\(systemErrorText(errno)))")
    }
}

/// The size of a regular file, links followed; nil if there is none.
func fileSize(_ path: String) -> Int64? {
    var status = stat()
    guard stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return nil }
    return Int64(status.st_size)
}

/// Whether there is something at the end of a path's links.
private func exists(_ path: String) -> Bool {
    var status = stat()
    return stat(path, &status) == 0
}

/// Bytes that may still be written where `path` is or would be made.
func freeSpace(at path: String) -> Int64? {
    var path = Substring(path)
    while true {
        var status = statvfs()
        if statvfs(path.isEmpty ? "/" : String(path), &status) == 0 {
            return Int64(clamping: UInt64(status.f_bavail).multipliedReportingOverflow(by: UInt64(status.f_frsize)).0)
        }
        guard errno == ENOENT, let slash = path.lastIndex(of: "/") else { return nil }
        path = path[..<slash]
    }
}

/// The operating system's words for an error number.
func systemErrorText(_ code: Int32) -> String {
    guard let text = strerror(code) else { return "error \(code)" }
    return String(cString: text)
}
