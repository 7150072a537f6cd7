#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

extension SpeechModel {
    /// The model's identity, see ``ModelIdentity``. It is read from the folder at each use: ask once.
    public var identity: String {
        get throws(ModelError) { try ModelIdentity.of(directory: directory, configuration: configuration) }
    }
}

/// A short stable name of a model, such as `base-0b6-1024x28-1f0c…`: kind, size, talker width × layers, and a 64-bit
/// digest. Saved voices carry it, as a speaker vector or codes of one model mean nothing to another.
///
/// The digest (FNV-1a) covers the bytes of `config.json` and `speech_tokenizer/config.json`, and of each of the two
/// `model.safetensors` the length, the header with the table of tensors, and 256 samples of 64 bytes spread evenly over
/// the rest: any training or conversion shows, a change of a few weights may not. It does not cover the tokenizer,
/// `generation_config.json`, or where the folder lies. It tells models apart; it is no protection against forgery.
public enum ModelIdentity {
    /// Reads the identity of a model folder: about a megabyte, whatever the model's size.
    ///
    /// - Parameter configuration: what `directory`'s configuration files say.
    /// - Throws: ``ModelError/missingFile(path:)`` or ``ModelError/unreadable(path:reason:)``.
    public static func of(directory: String, configuration: Configuration) throws(ModelError) -> String {
        var digest = FNV1a()
        for file in ["config.json", "speech_tokenizer/config.json"] {
            let bytes = try ModelFolder.read(file, in: directory, limit: 4 << 20)
            digest.add(UInt64(bytes.count))
            digest.add(bytes)
        }
        for file in ["model.safetensors", "speech_tokenizer/model.safetensors"] {
            try addWeights(path: directory + "/" + file, to: &digest)
        }
        let talker = configuration.talker.shape
        let size = String(configuration.size.filter { $0.isASCII && ($0.isLetter || $0.isNumber) })
        return "\(configuration.kind.rawValue)-\(size)-\(talker.hidden)x\(talker.layers)-\(digest.hexadecimal)"
    }

    /// Samples of a weights file, and bytes of each.
    private static let samples = 256, sampleLength = 64

    private static func addWeights(path: String, to digest: inout FNV1a) throws(ModelError) {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            if errno == ENOENT || errno == ENOTDIR { throw .missingFile(path: path) }
            throw .unreadable(path: path, reason: String(cString: strerror(errno)))
        }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            throw .unreadable(path: path, reason: "it is not a regular file")
        }
        let size = Int(status.st_size)
        digest.add(UInt64(size))
        let declared = try read(descriptor, path, at: 0, count: min(8, size))
        let length = declared.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        let header = Int(min(length, UInt64(max(0, size - 8)), UInt64(headerLimit)))
        digest.add(try read(descriptor, path, at: declared.count, count: header))
        let start = declared.count + header
        for index in 0..<samples {
            let offset = start + (size - start) / samples * index
            digest.add(try read(descriptor, path, at: offset, count: min(sampleLength, size - offset)))
        }
    }

    /// Bytes of header that are looked at; the released models have 60 KB.
    private static let headerLimit = 16 << 20

    private static func read(
        _ descriptor: Int32, _ path: String, at offset: Int, count: Int
    ) throws(ModelError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var done = 0
        while done < count {
            let got = bytes.withUnsafeMutableBytes { buffer in
                pread(descriptor, buffer.baseAddress.unsafelyUnwrapped + done, count - done, off_t(offset + done))
            }
            if got < 0 && errno == EINTR { continue }
            guard got > 0 else {
                let reason = got < 0 ? String(cString: strerror(errno)) : "it became shorter while it was read"
                throw .unreadable(path: path, reason: reason)
            }
            done += got
        }
        return bytes
    }
}
