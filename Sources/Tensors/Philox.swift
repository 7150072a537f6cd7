/// Counter-based random numbers: Philox 4×32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
///
/// A draw is a function of (seed, frame, codebook) alone, so it is the same on every back end, in any batch and in any
/// order.
public struct Philox: Sendable {
    /// The 64-bit key.
    public let seed: UInt64

    /// A generator for one request.
    public init(seed: UInt64) { self.seed = seed }

    /// The four 32-bit words at a 128-bit counter.
    public func words(_ counter: SIMD4<UInt32>) -> SIMD4<UInt32> {
        var c = counter
        var k0 = UInt32(truncatingIfNeeded: seed)
        var k1 = UInt32(truncatingIfNeeded: seed >> 32)
        for round in 0..<10 {
            if round > 0 {
                k0 &+= 0x9E37_79B9
                k1 &+= 0xBB67_AE85
            }
            let p0 = UInt64(0xD251_1F53) * UInt64(c[0])
            let p1 = UInt64(0xCD9E_8D57) * UInt64(c[2])
            c = SIMD4(
                UInt32(truncatingIfNeeded: p1 >> 32) ^ c[1] ^ k0, UInt32(truncatingIfNeeded: p1),
                UInt32(truncatingIfNeeded: p0 >> 32) ^ c[3] ^ k1, UInt32(truncatingIfNeeded: p0))
        }
        return c
    }

    /// A uniform number in [0, 1) with 24 bits for the draw of one code.
    /// - Parameters:
    ///   - frame: index of the codec frame, from 0.
    ///   - codebook: 0 for the talker's code, 1…15 for the code predictor's.
    public func uniform(frame: Int, codebook: Int) -> Float {
        let word = words(SIMD4(UInt32(truncatingIfNeeded: frame), UInt32(truncatingIfNeeded: codebook), 0, 0))[0]
        return Float(word >> 8) * 0x1p-24
    }
}
