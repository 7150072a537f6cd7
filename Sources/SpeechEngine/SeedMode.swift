import Crypto
public import Qwen3TTS

/// Where the seed of a request comes from that names none.
public enum SeedMode: String, Sendable, CaseIterable {
    /// It is a number that someone set.
    case fixed
    /// It is derived from that number and what the request says, so that different texts get different seeds.
    case content
}

extension SpeechRequest {
    /// The seed that follows from `seed` and the request's text, voice, language and instruction: the first eight bytes,
    /// little-endian, of the SHA-256 of all of them, each with its length before it. A cloned voice counts by its
    /// speaker vector.
    public func contentSeed(_ seed: UInt64) -> UInt64 {
        var hash = SHA256()
        func add(_ bytes: [UInt8]) {
            withUnsafeBytes(of: UInt64(bytes.count).littleEndian) { hash.update(bufferPointer: $0) }
            hash.update(data: bytes)
        }
        withUnsafeBytes(of: seed.littleEndian) { hash.update(bufferPointer: $0) }
        add(Array(text.utf8))
        switch voice {
        case .standard: add([0])
        case .named(let name): add([1] + Array(name.utf8))
        case .clone(let prompt):
            add(
                [2]
                    + prompt.speakerVector.flatMap { value in
                        withUnsafeBytes(of: value.bitPattern.littleEndian) { Array($0) }
                    })
        }
        add(Array(language.utf8))
        add(Array((instruction ?? "").utf8))
        return hash.finalize().prefix(8).reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
}
