#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Builds WAV files byte by byte, right or wrong.
struct WAVBytes {
    var bytes: [UInt8] = []

    /// The bytes `RIFF`, a size and `WAVE`.
    init(magic: String = "RIFF", size: UInt32? = nil, chunks: [[UInt8]]) {
        let body = chunks.flatMap { $0 }
        bytes = Array(magic.utf8) + little(size ?? UInt32(body.count + 4)) + Array("WAVE".utf8) + body
    }

    /// A chunk, padded to an even length unless told otherwise.
    static func chunk(_ name: String, size: UInt32? = nil, _ body: [UInt8], pad: Bool = true) -> [UInt8] {
        Array(name.utf8) + little(size ?? UInt32(body.count)) + body
            + (pad && body.count % 2 == 1 ? [0] : [])
    }

    /// A 16-byte `fmt ` chunk.
    static func format(
        tag: UInt16 = 1, channels: UInt16 = 1, rate: UInt32 = 24_000, bits: UInt16 = 16, blockAlign: UInt16? = nil
    ) -> [UInt8] {
        let align = blockAlign ?? channels &* (bits / 8)
        return chunk(
            "fmt ",
            little(tag) + little(channels) + little(rate) + little(rate &* UInt32(align)) + little(align)
                + little(bits))
    }

    /// Samples as the body of a `data` chunk.
    static func samples(_ values: [Int16]) -> [UInt8] { values.flatMap { little(UInt16(bitPattern: $0)) } }
}

/// The bytes of an integer, lowest first.
func little<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
    (0..<Value.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
}

/// The folder of the golden files.
let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Fixtures")

/// A golden file of little-endian float32.
func goldenFloats(_ name: String) throws -> [Float] {
    let data = [UInt8](try Data(contentsOf: fixtures.appendingPathComponent(name)))
    return stride(from: 0, to: data.count, by: 4).map { offset in
        Float(bitPattern: (0..<4).reduce(0) { $0 | UInt32(data[offset + $1]) << (8 * $1) })
    }
}

/// Runs `body` with a fresh folder and removes it.
func withTemporaryFolder(_ body: (String) throws -> Void) throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    try body(folder.path)
}

/// A small seeded generator (SplitMix64).
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
