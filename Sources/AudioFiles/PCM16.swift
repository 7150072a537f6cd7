/// Float samples as signed 16-bit PCM. These bytes are what a request's PCM fingerprint is taken of.
public enum PCM16 {
    /// One sample: clamped to -1...1, multiplied by 32767 in float32, rounded to the nearest integer with ties to even.
    /// NaN gives 0. The result lies in -32767...32767.
    public static func convert(_ sample: Float) -> Int16 {
        guard sample == sample else { return 0 }
        return Int16((max(-1, min(1, sample)) * 32767).rounded(.toNearestOrEven))
    }

    /// The samples as little-endian bytes, two a sample.
    public static func bytes(_ samples: some Collection<Float>) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(samples.count * 2)
        append(samples, to: &bytes)
        return bytes
    }

    /// Appends the samples to `bytes` as little-endian bytes, two a sample.
    public static func append(_ samples: some Collection<Float>, to bytes: inout [UInt8]) {
        for sample in samples {
            let value = UInt16(bitPattern: convert(sample))
            bytes.append(UInt8(truncatingIfNeeded: value))
            bytes.append(UInt8(truncatingIfNeeded: value >> 8))
        }
    }
}
