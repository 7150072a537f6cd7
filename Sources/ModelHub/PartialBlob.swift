#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// The `.incomplete` file of a blob and the running hash of what is in it.
struct PartialBlob: ~Copyable {
    /// Bytes that are there.
    private(set) var count: Int64 = 0
    /// Whether some of them were there before this pull.
    private(set) var isResumed = false

    private let path: String
    private let descriptor: Int32
    private let size: Int64
    private let emptyHash: BlobHash?
    private var hash: BlobHash?

    /// Opens or makes the file and takes in what an earlier pull left.
    static func opened(path: String, size: Int64, hash: BlobHash?) async throws -> PartialBlob {
        try makeParent(of: path)
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o666)
        guard descriptor >= 0 else { throw HubError.cache(path: path, reason: systemErrorText(errno)) }
        var blob = PartialBlob(path: path, descriptor: descriptor, size: size, hash: hash)
        try await blob.takeIn()
        return blob
    }

    private init(path: String, descriptor: Int32, size: Int64, hash: BlobHash?) {
        self.path = path
        self.descriptor = descriptor
        self.size = size
        emptyHash = hash
        self.hash = hash
    }

    deinit { _ = close(descriptor) }

    private mutating func takeIn() async throws {
        let present = Int64(lseek(descriptor, 0, SEEK_END))
        guard present > 0, present <= size, lseek(descriptor, 0, SEEK_SET) == 0 else { return try restart() }
        var block = [UInt8](repeating: 0, count: 1 << 20)
        while count < present {
            let got = block.withUnsafeMutableBytes { read(descriptor, $0.baseAddress!, $0.count) }
            if got < 0 && errno == EINTR { continue }
            guard got > 0 else { return try restart() }
            block.withUnsafeBytes { hash?.update(UnsafeRawBufferPointer(rebasing: $0[..<got])) }
            count += Int64(got)
            // Gigabytes may have to be read again; others may run in between, and a cancel is seen.
            try Task.checkCancellation()
            await Task.yield()
        }
        isResumed = true
    }

    /// Begins anew with nothing.
    mutating func restart() throws(HubError) {
        guard ftruncate(descriptor, 0) == 0, lseek(descriptor, 0, SEEK_SET) == 0 else {
            throw .cache(path: path, reason: systemErrorText(errno))
        }
        count = 0
        isResumed = false
        hash = emptyHash
    }

    /// Appends bytes. The caller has checked that they fit the size.
    mutating func append(_ bytes: UnsafeRawBufferPointer) throws(HubError) {
        var done = 0
        while done < bytes.count {
            let written = write(descriptor, bytes.baseAddress! + done, bytes.count - done)
            if written < 0 && errno == EINTR { continue }
            guard written >= 0 else {
                let reason = errno == ENOSPC ? "the disk is full" : systemErrorText(errno)
                throw .cache(path: path, reason: reason)
            }
            done += written
        }
        hash?.update(bytes)
        count += Int64(bytes.count)
    }

    /// The hash of what is there where it is not the expected one.
    func wrongHash() -> (expected: String, actual: String)? {
        guard let hash, hash.value != hash.expected else { return nil }
        return (hash.expected, hash.value)
    }

    /// Removes the file.
    func discard() { _ = unlink(path) }

    /// Gives the file its final name.
    func publish(as blob: String) throws(HubError) {
        guard fsync(descriptor) == 0, rename(path, blob) == 0 else {
            throw .cache(path: blob, reason: errno == ENOSPC ? "the disk is full" : systemErrorText(errno))
        }
    }
}
