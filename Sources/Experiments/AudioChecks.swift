import Qwen3TTS
import Tensors

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// What can be heard to be wrong with samples, without an ear.
enum AudioChecks {
    /// Signal by noise in decibels of `samples` against a reference, over the length that both have; infinite for equal
    /// samples, nil if there is nothing to compare.
    static func signalToNoise(_ samples: [Float], reference: [Float]) -> Double? {
        let count = min(samples.count, reference.count)
        guard count > 0 else { return nil }
        var (signal, noise) = (0.0, 0.0)
        for i in 0..<count {
            signal += Double(reference[i]) * Double(reference[i])
            let difference = Double(samples[i]) - Double(reference[i])
            noise += difference * difference
        }
        if noise == 0 { return .infinity }
        return signal == 0 ? -.infinity : 10 * log10(signal / noise)
    }

    /// Mean absolute difference of log mel values, over the frames that both have; nil if one has none.
    static func melDistance(_ samples: [Float], _ reference: [Float], sampleRate: Int, compute: Compute) -> Double? {
        let mel = MelSpectrogram(sampleRate: sampleRate)
        let (a, b) = (mel.run(samples, compute: compute), mel.run(reference, compute: compute))
        let count = min(a.count, b.count)
        guard count > 0 else { return nil }
        return zip(a, b).reduce(0.0) { $0 + Double(($1.0 - $1.1).magnitude) } / Double(count)
    }

    /// Borders of packets at which the signal jumps: the step from one sample to the next is more than four times the
    /// largest within 5 ms on either side, and more than -40 dB.
    static func clicks(_ samples: [Float], borders: [Int], sampleRate: Int) -> [Int] {
        let reach = sampleRate / 200
        return borders.filter { border in
            guard border > 1, border < samples.count - 1 else { return false }
            let jump = (samples[border] - samples[border - 1]).magnitude
            var usual: Float = 0
            for i in max(1, border - reach)..<min(samples.count, border + reach) where i != border {
                usual = max(usual, (samples[i] - samples[i - 1]).magnitude)
            }
            return jump > 0.01 && jump > 4 * usual
        }
    }

    /// Samples at or beyond full scale.
    static func clipped(_ samples: [Float]) -> Int { samples.count { $0.magnitude >= 1 } }

    /// Root of the mean square.
    static func level(_ samples: some Collection<Float>) -> Double {
        guard !samples.isEmpty else { return 0 }
        return (samples.reduce(0.0) { $0 + Double($1) * Double($1) } / Double(samples.count)).squareRoot()
    }

    /// The longest stretch of frames that comes again later with all its codes, as (first, second, frames); nil if none
    /// has `shortest` frames. Frames of one code throughout, which is what silence is made of, do not count.
    static func repeatedSegment(
        _ codes: [Int32], groups: Int, shortest: Int
    ) -> (first: Int, second: Int, frames: Int)? {
        let frames = codes.count / groups
        var ids: [[Int32]: Int] = [:]
        var names: [Int] = []
        for frame in 0..<frames {
            let row = Array(codes[(frame * groups)..<((frame + 1) * groups)])
            let id = ids[row] ?? ids.count
            ids[row] = id
            names.append(id)
        }
        var best: (first: Int, second: Int, frames: Int)?
        for lag in 1..<max(2, frames) {
            var length = 0
            for end in lag..<max(lag, frames) {
                length = names[end] == names[end - lag] ? length + 1 : 0
                let start = end - length + 1
                let isSteady = length > 0 && Set(names[start...end]).count == 1
                if length >= shortest, !isSteady, length > best?.frames ?? 0 { best = (start - lag, start, length) }
            }
        }
        return best
    }
}
