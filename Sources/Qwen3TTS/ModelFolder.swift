#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Reads the small files of a model folder; links are followed, as download caches keep links to blobs.
enum ModelFolder {
    /// The whole file.
    ///
    /// - Parameter limit: bytes; a longer file is refused before it is read.
    static func read(_ file: String, in directory: String, limit: Int) throws(ModelError) -> [UInt8] {
        let path = directory.hasSuffix("/") ? directory + file : directory + "/" + file
        // Opening a named pipe would wait for a writer.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            if errno == ENOENT || errno == ENOTDIR { throw .missingFile(path: path) }
            throw .unreadable(path: path, reason: String(cString: strerror(errno)))
        }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else {
            throw .unreadable(path: path, reason: String(cString: strerror(errno)))
        }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw .unreadable(path: path, reason: "it is not a regular file")
        }
        guard status.st_size <= limit else {
            throw .unreadable(path: path, reason: "it has \(status.st_size) bytes, at most \(limit) make sense")
        }
        let size = Int(status.st_size)
        var failure: Int32 = 0
        let bytes = [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
            while count < size {
                let got = pread(descriptor, buffer.baseAddress! + count, size - count, off_t(count))
                if got < 0 && errno == EINTR { continue }
                if got <= 0 {
                    failure = got < 0 ? errno : 0
                    break
                }
                count += got
            }
        }
        guard bytes.count == size else {
            let reason = failure == 0 ? "it became shorter while it was read" : String(cString: strerror(failure))
            throw .unreadable(path: path, reason: reason)
        }
        return bytes
    }
}
