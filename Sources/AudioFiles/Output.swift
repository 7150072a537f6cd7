#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// Where bytes go: a temporary file that replaces its target when published, or a pipe, device or open descriptor.
///
/// The temporary file is removed when the output goes away unpublished.
struct Output: ~Copyable, Sendable {
    /// What errors call it.
    let path: String

    private let descriptor: Int32
    private let ownsDescriptor: Bool
    private let temporaryPath: String?
    private let targetPath: String

    /// Whether this is a file that can be rewritten and published.
    var isFile: Bool { temporaryPath != nil }

    /// Wraps an open descriptor, which stays open.
    init(descriptor: Int32, name: String) {
        path = name
        self.descriptor = descriptor
        ownsDescriptor = false
        temporaryPath = nil
        targetPath = name
    }

    /// Opens what bytes for `path` go to: a temporary file beside it, or `path` itself if it is a pipe or a device.
    init(path: String) throws(AudioFileError) {
        let opened = try Self.open(path)
        self.path = path
        descriptor = opened.descriptor
        ownsDescriptor = true
        temporaryPath = opened.temporaryPath
        targetPath = opened.targetPath
    }

    deinit {
        if ownsDescriptor { _ = close(descriptor) }
        if let temporaryPath { _ = unlink(temporaryPath) }
    }

    /// Writes all of `bytes` after what was written before.
    func append(_ bytes: [UInt8]) throws(AudioFileError) {
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeBytes { write(descriptor, $0.baseAddress! + done, $0.count - done) }
            if count >= 0 {
                done += count
            } else if errno == EAGAIN {
                var waiting = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                _ = poll(&waiting, 1, -1)
            } else if errno != EINTR {
                throw writeError(errno, path)
            }
        }
    }

    /// Writes `bytes` over the start of a file.
    func rewrite(_ bytes: [UInt8]) throws(AudioFileError) {
        guard lseek(descriptor, 0, SEEK_SET) == 0 else { throw writeError(errno, path) }
        try append(bytes)
    }

    /// Puts a file in its place.
    consuming func publish() throws(AudioFileError) {
        guard let temporaryPath else { return }
        // Some file systems report a full disk only here.
        guard fsync(descriptor) == 0 || errno == EINVAL else { throw writeError(errno, path) }
        guard rename(temporaryPath, targetPath) == 0 else { throw writeError(errno, path) }
    }

    private static func open(
        _ path: String
    ) throws(AudioFileError) -> (descriptor: Int32, temporaryPath: String?, targetPath: String) {
        var status = stat()
        let exists = stat(path, &status) == 0
        let kind = status.st_mode & S_IFMT
        if exists && kind == S_IFDIR { throw AudioFileError(path: path, .unwritable(systemErrorText(EISDIR))) }
        if exists && kind != S_IFREG {
            let descriptor = openFile(path, O_WRONLY | O_CLOEXEC)
            guard descriptor >= 0 else { throw writeError(errno, path) }
            return (descriptor, nil, path)
        }
        // The file behind a symbolic link is replaced, not the link.
        let target = exists ? resolvedPath(path) : path
        let slash = target.lastIndex(of: "/").map { target.index(after: $0) } ?? target.startIndex
        let tag = String(UInt64.random(in: 0...UInt64.max), radix: 36)
        let temporary = "\(target[..<slash]).\(target[slash...].prefix(50)).\(tag).partial"
        let descriptor = openFile(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC)
        guard descriptor >= 0 else { throw writeError(errno, path) }
        if exists { _ = fchmod(descriptor, status.st_mode & 0o777) }
        return (descriptor, temporary, target)
    }
}

private func openFile(_ path: String, _ flags: Int32) -> Int32 { open(path, flags, 0o666) }

/// The path without symbolic links, or the path itself where that fails.
private func resolvedPath(_ path: String) -> String {
    guard let resolved = realpath(path, nil) else { return path }
    defer { free(resolved) }
    return String(cString: resolved)
}

private func writeError(_ code: Int32, _ path: String) -> AudioFileError {
    switch code {
    case ENOSPC, EDQUOT: AudioFileError(path: path, .diskFull)
    case EPIPE: AudioFileError(path: path, .closedPipe)
    default: AudioFileError(path: path, .unwritable(systemErrorText(code)))
    }
}
