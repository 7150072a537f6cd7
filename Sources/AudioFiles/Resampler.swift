#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// Changes the sample rate by a rational ratio with a linear-phase low-pass filter.
///
/// The filter is a sinc under a Kaiser window, evaluated at the exact position of each output (polyphase). It passes up
/// to 0.913 of the lower rate's Nyquist frequency and stops from that Nyquist frequency on, by 130 dB by design: the
/// figures of soxr's high-quality setting, which the reference uses. Output sample `j` lies at input position
/// `j · from / to`, so nothing is delayed; outside the input there is silence. Sums are in double, in a fixed order.
public struct Resampler: Sendable {
    /// The rate of the input, in Hz.
    public let from: Int
    /// The rate of the output, in Hz.
    public let to: Int

    private let kernel: Kernel
    /// Outputs per period, and inputs per period: `to` and `from` without their common divisor.
    private let phases: Int
    private let stride: Int
    /// Input samples on each side of an output that count.
    private let reach: Int
    /// Weights `[phases, 2 · reach]`, or empty where there would be too many to keep.
    private let weights: [Double]

    /// The most weights that are kept: 16 MiB. Beyond that each output computes its own.
    private static let maximumWeights = 1 << 21

    /// Prepares the change from `from` Hz to `to` Hz, both 1 000...768 000.
    public init(from: Int, to: Int) throws(AudioFileError) {
        for rate in [from, to] where !(AudioLimits.sampleRates ~= rate) {
            throw AudioFileError(.malformed("a sample rate of \(rate) Hz, 1000 to 768000 are read"))
        }
        self.from = from
        self.to = to
        let divisor = greatestCommonDivisor(from, to)
        phases = to / divisor
        stride = from / divisor
        kernel = Kernel(scale: min(1, Double(to) / Double(from)))
        reach = Int(kernel.reach.rounded(.up))
        var weights: [Double] = []
        if from != to && phases * 2 * reach <= Self.maximumWeights {
            weights.reserveCapacity(phases * 2 * reach)
            for phase in 0..<phases {
                kernel.append(fraction: Double(phase) / Double(phases), reach: reach, to: &weights)
            }
        }
        self.weights = weights
    }

    /// How many samples come out of `count`: `ceil(count · to / from)`.
    public func outputCount(_ count: Int) -> Int { (count * phases + stride - 1) / stride }

    /// The audio `[T]` (float32) at the new rate, `[outputCount(T)]`. Equal rates give the input back.
    public func resample(_ input: [Float]) -> [Float] {
        guard from != to else { return input }
        var padded = [Double](repeating: 0, count: input.count + 2 * reach)
        for (index, sample) in input.enumerated() { padded[index + reach] = Double(sample) }
        var row: [Double] = []
        return (0..<outputCount(input.count)).map { output in
            let (position, phase) = (output * stride).quotientAndRemainder(dividingBy: phases)
            // Padding moves input `position - reach + 1`, the first that counts, to `position + 1`.
            guard weights.isEmpty else {
                return Float(dotProduct(padded, position + 1, weights, phase * 2 * reach, 2 * reach))
            }
            row.removeAll(keepingCapacity: true)
            kernel.append(fraction: Double(phase) / Double(phases), reach: reach, to: &row)
            return Float(dotProduct(padded, position + 1, row, 0, 2 * reach))
        }
    }

    /// Σ a[i + k] · b[j + k] over `count` terms: four sums, of every fourth term each, then a tail of at most three.
    private func dotProduct(_ a: [Double], _ i: Int, _ b: [Double], _ j: Int, _ count: Int) -> Double {
        a.withUnsafeBufferPointer { a in
            b.withUnsafeBufferPointer { b in
                var sums = SIMD4<Double>()
                var k = 0
                while k + 4 <= count {
                    let left = SIMD4<Double>(a[i + k], a[i + k + 1], a[i + k + 2], a[i + k + 3])
                    let right = SIMD4<Double>(b[j + k], b[j + k + 1], b[j + k + 2], b[j + k + 3])
                    sums += left * right
                    k += 4
                }
                var rest = 0.0
                while k < count {
                    rest += a[i + k] * b[j + k]
                    k += 1
                }
                return (sums[0] + sums[2]) + (sums[1] + sums[3]) + rest
            }
        }
    }
}

/// The windowed sinc as a table, read by cubic interpolation.
private struct Kernel: Sendable {
    /// Input samples from the centre to the end of the window.
    let reach: Double
    /// Input samples to table steps.
    private let stepsPerInput: Double
    private let table: [Double]

    /// Samples of the lower rate from the centre to the end of the window.
    private static let halfWidth = 100.0
    /// Table entries per sample of the lower rate; cubic interpolation then errs by less than 1e-10.
    private static let density = 512.0

    /// The kernel for an output rate of `scale` times the input rate where that is lower, else `scale` 1.
    init(scale: Double) {
        let (halfWidth, density) = (Self.halfWidth, Self.density)
        reach = halfWidth / scale
        stepsPerInput = density * scale
        // Kaiser: beta for 130 dB; the transition of ±0.0435 · Nyquist around 0.9565 follows from the half width.
        let beta = 0.1102 * (130 - 8.7)
        let cutoff = 0.9565
        let norm = besselI0(beta)
        // Two entries of margin on the left (the mirror image) and on the right (zeros) for the interpolation.
        table = (-2...Int(halfWidth * density) + 2).map { index in
            let time = Double(index) / density
            let place = time / halfWidth
            guard place * place < 1 else { return 0 }
            let angle = Double.pi * cutoff * time
            let sinc = index == 0 ? 1 : sin(angle) / angle
            return sinc * besselI0(beta * (1 - place * place).squareRoot()) / norm
        }
    }

    /// Appends the weights of the inputs `-reach + 1 ... reach` around an output at `fraction`; their sum is 1.
    func append(fraction: Double, reach: Int, to weights: inout [Double]) {
        let first = weights.count
        var sum = 0.0
        for offset in 1 - reach...reach {
            let weight = value(abs(Double(offset) - fraction))
            weights.append(weight)
            sum += weight
        }
        for index in first..<weights.count { weights[index] /= sum }
    }

    /// The kernel `distance` input samples from its centre.
    private func value(_ distance: Double) -> Double {
        let steps = distance * stepsPerInput
        let index = Int(steps)
        guard index + 4 < table.count else { return 0 }
        let t = steps - Double(index)
        // Lagrange through the entries at -1, 0, 1, 2.
        let (a, b, c, d) = (table[index + 1], table[index + 2], table[index + 3], table[index + 4])
        let left = (b * (1 - t * t) * (2 - t) + c * t * (1 + t) * (2 - t)) / 2
        let right = (d * t * (t * t - 1) - a * t * (1 - t) * (2 - t)) / 6
        return left + right
    }
}

/// The modified Bessel function of the first kind, order 0, by its power series.
private func besselI0(_ x: Double) -> Double {
    let quarter = x * x / 4
    var (sum, term, k) = (1.0, 1.0, 1.0)
    while term > sum * 1e-17 {
        term *= quarter / (k * k)
        sum += term
        k += 1
    }
    return sum
}

private func greatestCommonDivisor(_ a: Int, _ b: Int) -> Int { b == 0 ? a : greatestCommonDivisor(b, a % b) }
