import Crypto

/// The hash that an ETag states: SHA-256 for files in large-file storage, git's SHA-1 of a blob for others.
struct BlobHash {
    private enum Hasher {
        case sha256(SHA256)
        case gitBlob(Insecure.SHA1)
    }

    /// The hash in hexadecimal that is expected.
    let expected: String
    private var hasher: Hasher

    /// The hash of `size` bytes that `etag` is, or nil where it is none (64 or 40 hexadecimal digits).
    init?(etag: String, size: Int64) {
        guard etag.utf8.allSatisfy({ 48...57 ~= $0 || 97...102 ~= $0 }) else { return nil }
        expected = etag
        switch etag.utf8.count {
        case 64: hasher = .sha256(SHA256())
        case 40:
            var sha1 = Insecure.SHA1()
            sha1.update(data: Array("blob \(size)\0".utf8))
            hasher = .gitBlob(sha1)
        default: return nil
        }
    }

    /// Takes in more bytes.
    mutating func update(_ bytes: UnsafeRawBufferPointer) {
        switch hasher {
        case .sha256(var sha256):
            sha256.update(bufferPointer: bytes)
            hasher = .sha256(sha256)
        case .gitBlob(var sha1):
            sha1.update(bufferPointer: bytes)
            hasher = .gitBlob(sha1)
        }
    }

    /// The hash in hexadecimal of what was taken in.
    var value: String {
        let digest: [UInt8] =
            switch hasher {
            case .sha256(let sha256): Array(sha256.finalize())
            case .gitBlob(let sha1): Array(sha1.finalize())
            }
        let digits = Array("0123456789abcdef")
        return String(digest.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] })
    }
}
