import Tensors

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// The mel spectrogram that the speaker encoder hears (specification, section 6.2; `mel_spectrogram`).
///
/// Frames of 1024 samples under a periodic Hann window, 256 apart, of the recording with 384 mirrored samples on each
/// side; magnitudes sqrt(re² + im² + 1e-9); mel bands of Slaney's scale and area normalisation from 0 Hz to Nyquist;
/// natural logarithm of max(·, 1e-5). All in double: a frame costs about as much as one column of the network's
/// first layer.
public struct MelSpectrogram: Sendable {
    /// Samples from one frame to the next.
    public static let hop = 256
    /// Samples of a frame.
    public static let length = 1024
    /// Mirrored samples on each side.
    static let padding = (length - hop) / 2

    /// Values of a frame.
    public let bands: Int

    private let transform = RealTransform(length: length)
    private let window: [Double]
    private let filters: [Filter]

    /// A band: weights of the bins from `first` on.
    private struct Filter: Sendable {
        let first: Int
        let weights: [Double]
    }

    /// - Parameters:
    ///   - bands: mel bands.
    ///   - sampleRate: samples per second.
    public init(bands: Int = 128, sampleRate: Int = 24_000) {
        self.bands = bands
        window = (0..<Self.length).map { 0.5 - 0.5 * cos(2 * .pi * Double($0) / Double(Self.length)) }
        let binWidth = Double(sampleRate) / Double(Self.length)
        let top = Self.mel(Double(sampleRate) / 2)
        let edges = (0..<(bands + 2)).map { Self.hertz(top * Double($0) / Double(bands + 1)) }
        filters = (0..<bands).map { band in
            let (low, center, high) = (edges[band], edges[band + 1], edges[band + 2])
            let weights = (0...(Self.length / 2)).map { bin in
                let frequency = Double(bin) * binWidth
                let slope = min((frequency - low) / (center - low), (high - frequency) / (high - center))
                return max(0, slope) * 2 / (high - low)
            }
            let first = weights.firstIndex { $0 > 0 } ?? 0
            let last = weights.lastIndex { $0 > 0 } ?? -1
            return Filter(first: first, weights: last < first ? [] : Array(weights[first...last]))
        }
    }

    /// Slaney's scale: linear below 1 kHz, logarithmic above.
    private static func mel(_ hertz: Double) -> Double {
        hertz < 1000 ? hertz * 3 / 200 : 15 + log(hertz / 1000) * 27 / log(6.4)
    }

    private static func hertz(_ mel: Double) -> Double {
        mel < 15 ? mel * 200 / 3 : 1000 * exp((mel - 15) * log(6.4) / 27)
    }

    /// The least number of samples that can be mirrored.
    static let shortest = padding + 1

    /// Frames of that many samples.
    public func frames(samples: Int) -> Int { samples < Self.shortest ? 0 : samples / Self.hop }

    /// The spectrogram of a recording: log mel values [frames, bands].
    ///
    /// - Parameter samples: mono float32, at least 385 of them; fewer have no frame.
    public func run(_ samples: [Float], compute: Compute) -> [Float] {
        let out = FloatBuffer(count: frames(samples: samples.count) * bands)
        samples.withUnsafeBufferPointer { run($0, into: out.pointer, compute: compute) }
        return out.array
    }

    /// Writes the spectrogram to `out` [frames, bands].
    func run(_ samples: UnsafeBufferPointer<Float>, into out: UnsafeMutablePointer<Float>, compute: Compute) {
        let count = samples.count
        compute.forRows(frames(samples: count), cost: 16 * Self.length) { range in
            // The transform's input and output, and the magnitudes.
            withUnsafeTemporaryAllocation(of: Double.self, capacity: Self.length + Self.length / 2 + 1) { memory in
                let frame = memory.baseAddress.unsafelyUnwrapped
                let magnitudes = frame + Self.length
                for index in range {
                    for i in 0..<Self.length {
                        var position = index * Self.hop + i - Self.padding
                        if position < 0 { position = -position }
                        if position >= count { position = 2 * (count - 1) - position }
                        frame[i] = Double(samples[position]) * window[i]
                    }
                    transform.magnitudes(of: frame, into: magnitudes)
                    for (band, filter) in filters.enumerated() {
                        var sum = 0.0
                        for (i, weight) in filter.weights.enumerated() { sum += weight * magnitudes[filter.first + i] }
                        out[index * bands + band] = Float(log(max(sum, 1e-5)))
                    }
                }
            }
        }
    }
}

/// The discrete Fourier transform of a real frame whose length is a power of two, by a complex transform of half the
/// length (even samples as real parts, odd ones as imaginary parts).
private struct RealTransform: Sendable {
    private let half: Int
    /// cos and -sin of 2π·k / length.
    private let cosines: [Double]
    private let sines: [Double]
    /// Where each input of the complex transform goes: its index with the bits reversed.
    private let order: [Int]

    init(length: Int) {
        precondition(length >= 4 && length & (length - 1) == 0)
        half = length / 2
        let angles = (0..<half).map { 2 * Double.pi * Double($0) / Double(length) }
        cosines = angles.map { cos($0) }
        sines = angles.map { -sin($0) }
        let (count, bits) = (half, half.trailingZeroBitCount)
        order = (0..<count).map { index in
            (0..<bits).reduce(0) { $0 | (index >> $1 & 1) << (bits - 1 - $1) }
        }
    }

    /// sqrt(re² + im² + 1e-9) of bins 0...length/2. `x` [length] is overwritten.
    func magnitudes(of x: UnsafeMutablePointer<Double>, into out: UnsafeMutablePointer<Double>) {
        // Complex numbers lie side by side in x.
        for index in 0..<half where order[index] > index {
            swap(&x[2 * index], &x[2 * order[index]])
            swap(&x[2 * index + 1], &x[2 * order[index] + 1])
        }
        var span = 1
        while span < half {
            for k in 0..<span {
                let (wr, wi) = (cosines[k * half / span], sines[k * half / span])
                var top = k
                while top < half {
                    let bottom = top + span
                    let (br, bi) = (x[2 * bottom], x[2 * bottom + 1])
                    let (tr, ti) = (br * wr - bi * wi, br * wi + bi * wr)
                    let (ar, ai) = (x[2 * top], x[2 * top + 1])
                    (x[2 * top], x[2 * top + 1]) = (ar + tr, ai + ti)
                    (x[2 * bottom], x[2 * bottom + 1]) = (ar - tr, ai - ti)
                    top += 2 * span
                }
            }
            span *= 2
        }
        // Bin k of the real frame: E + w^k·O, from Z[k] and Z[half - k].
        for k in 0...half {
            let (zr, zi) = (x[2 * (k % half)], x[2 * (k % half) + 1])
            let mirror = (half - k) % half
            let (mr, mi) = (x[2 * mirror], -x[2 * mirror + 1])
            let (er, ei) = ((zr + mr) / 2, (zi + mi) / 2)
            let (or, oi) = ((zi - mi) / 2, (mr - zr) / 2)
            let (wr, wi) = k == half ? (-1, 0) : (cosines[k], sines[k])
            let (re, im) = (er + or * wr - oi * wi, ei + or * wi + oi * wr)
            out[k] = (re * re + im * im + 1e-9).squareRoot()
        }
    }
}
