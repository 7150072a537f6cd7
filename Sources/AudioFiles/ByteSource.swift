#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// Bytes that can be read at any place, with a length known before anything is trusted.
protocol ByteSource: ~Copyable {
    /// How many bytes there are.
    var count: UInt64 { get }
    /// The `length` bytes from `offset`. The caller has checked that they lie inside.
    func read(at offset: UInt64, length: Int) throws(AudioFileError) -> [UInt8]
}

/// Bytes in memory.
struct MemorySource: ByteSource {
    let bytes: [UInt8]

    var count: UInt64 { UInt64(bytes.count) }

    func read(at offset: UInt64, length: Int) throws(AudioFileError) -> [UInt8] {
        Array(bytes[Int(offset)..<Int(offset) + length])
    }
}

/// A regular file, read piece by piece.
struct FileSource: ByteSource, ~Copyable {
    let descriptor: Int32
    let count: UInt64
    let path: String

    deinit { _ = close(descriptor) }

    func read(at offset: UInt64, length: Int) throws(AudioFileError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: length)
        var done = 0
        while done < length {
            let got = bytes.withUnsafeMutableBytes { buffer in
                pread(descriptor, buffer.baseAddress! + done, length - done, off_t(offset) + off_t(done))
            }
            if got < 0 && errno == EINTR { continue }
            guard got > 0 else {
                throw AudioFileError(
                    path: path, .unreadable(got < 0 ? systemErrorText(errno) : "it became shorter while it was read"))
            }
            done += got
        }
        return bytes
    }
}

/// The operating system's words for an error number.
func systemErrorText(_ code: Int32) -> String {
    guard let text = strerror(code) else { return "error \(code)" }
    return String(cString: text)
}

/// Everything that comes out of a pipe or a device, at most `limit` bytes.
func readToEnd(_ descriptor: Int32, path: String, limit: Int) throws(AudioFileError) -> [UInt8] {
    var bytes: [UInt8] = []
    var block = [UInt8](repeating: 0, count: 1 << 16)
    while true {
        let got = block.withUnsafeMutableBytes { read(descriptor, $0.baseAddress!, $0.count) }
        if got < 0 && errno == EINTR { continue }
        guard got >= 0 else { throw AudioFileError(path: path, .unreadable(systemErrorText(errno))) }
        if got == 0 { return bytes }
        guard bytes.count + got <= limit else {
            throw AudioFileError(path: path, .unreadable("more than \(limit) bytes came out of it"))
        }
        bytes.append(contentsOf: block[..<got])
    }
}
