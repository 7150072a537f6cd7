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
        // Collections are walked ten times slower than memory where the compiler does not know which one it is.
        let done: Void? = samples.withContiguousStorageIfAvailable { append($0, to: &bytes) }
        if done == nil { Array(samples).withUnsafeBufferPointer { append($0, to: &bytes) } }
    }

    private static func append(_ samples: UnsafeBufferPointer<Float>, to bytes: inout [UInt8]) {
        let start = bytes.count
        bytes += repeatElement(0, count: 2 * samples.count)
        bytes.withUnsafeMutableBytes { memory in
            for (index, sample) in samples.enumerated() {
                memory.storeBytes(
                    of: convert(sample).littleEndian, toByteOffset: start + 2 * index, as: Int16.self)
            }
        }
    }
}
