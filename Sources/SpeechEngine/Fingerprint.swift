import Crypto

/// What a request produced, in two hashes: equal fingerprints mean equal codes and equal samples, bit for bit.
public struct Fingerprint: Sendable, Equatable, Codable {
    /// SHA-256 of all codes as little-endian int32, frame by frame, hexadecimal.
    public let codes: String
    /// SHA-256 of the PCM as 16-bit little-endian samples, hexadecimal.
    public let pcm: String
}

/// Hashes a stream as it is made.
public struct FingerprintBuilder: Sendable {
    private var codes = SHA256()
    private var pcm = SHA256()

    /// Nothing hashed yet.
    public init() {}

    /// Adds frames of codes.
    public mutating func add(codes values: [Int32]) {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(values.count * 4)
        for value in values { withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) } }
        codes.update(data: bytes)
    }

    /// Adds samples, as the bytes that clients get.
    public mutating func add(pcm bytes: [UInt8]) { pcm.update(data: bytes) }

    /// The hashes of everything added so far.
    public var fingerprint: Fingerprint {
        func hex(_ hash: SHA256) -> String {
            hash.finalize().map { byte in
                let digits = Array("0123456789abcdef")
                return String([digits[Int(byte >> 4)], digits[Int(byte & 15)]])
            }.joined()
        }
        return Fingerprint(codes: hex(codes), pcm: hex(pcm))
    }
}
