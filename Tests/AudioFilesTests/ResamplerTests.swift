import AudioFiles
import Testing

#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// Sums of sines have an exact value at any rate, so they judge the resampler without another resampler.
@Suite struct ResamplerTests {
    /// Σ sin(2π f t + index) / count at `rate`.
    private func tones(_ frequencies: [Double], rate: Int, count: Int) -> [Double] {
        (0..<count).map { sample in
            var sum = 0.0
            for (index, frequency) in frequencies.enumerated() {
                sum += sin(2 * Double.pi * frequency * Double(sample) / Double(rate) + Double(index))
            }
            return sum / Double(frequencies.count)
        }
    }

    private func power(_ values: some Collection<Double>) -> Double {
        values.reduce(0) { $0 + $1 * $1 } / Double(values.count)
    }

    @Test(arguments: [
        (8_000, 24_000), (11_025, 24_000), (16_000, 24_000), (22_050, 24_000), (23_999, 24_000), (44_100, 24_000),
        (48_000, 24_000), (96_000, 24_000), (192_000, 24_000), (767_999, 24_000), (24_000, 16_000), (24_000, 48_000),
    ])
    func passesWhatFits(_ from: Int, _ to: Int) throws {
        let nyquist = Double(min(from, to)) / 2
        let frequencies = (0..<12).map { nyquist * (0.01 + 0.0814 * Double($0)) }
        #expect(frequencies.max()! < 0.913 * nyquist)
        let margin = 110 * max(1, to / from + 1)
        let count = (4 * margin + 400) * from / to
        let output = try Resampler(from: from, to: to).resample(
            tones(frequencies, rate: from, count: count).map { Float($0) })
        let truth = tones(frequencies, rate: to, count: output.count)
        let inside = margin..<output.count - margin
        let error = inside.map { Double(output[$0]) - truth[$0] }
        let decibels = 10 * log10(power(truth[inside]) / power(error))
        #expect(decibels > 130, "\(decibels) dB")
    }

    @Test(arguments: [(44_100, 24_000), (48_000, 24_000), (96_000, 24_000), (767_999, 24_000), (24_000, 16_000)])
    func stopsWhatDoesNotFit(_ from: Int, _ to: Int) throws {
        let (low, high) = (Double(to) / 2 * 1.001, Double(from) / 2 * 0.99)
        let frequencies = (0..<12).map { low + (high - low) * Double($0) / 11 }
        let count = 1_000 * from / to
        let input = tones(frequencies, rate: from, count: count)
        let output = try Resampler(from: from, to: to).resample(input.map { Float($0) })
        let inside = output[220..<output.count - 220].map { Double($0) }
        let decibels = 10 * log10(power(inside) / power(input))
        #expect(decibels < -125, "\(decibels) dB")
    }

    @Test func lengths() throws {
        for (from, to, count, expected) in [
            (44_100, 24_000, 1, 1), (44_100, 24_000, 44_100, 24_000), (44_100, 24_000, 147, 80),
            (44_100, 24_000, 148, 81), (8_000, 24_000, 5, 15), (48_000, 24_000, 3, 2), (48_000, 24_000, 0, 0),
        ] {
            let resampler = try Resampler(from: from, to: to)
            #expect(resampler.outputCount(count) == expected)
            #expect(resampler.resample([Float](repeating: 0, count: count)).count == expected)
        }
    }

    /// An impulse comes out symmetric around its own place: no delay, linear phase.
    @Test func noDelay() throws {
        var input = [Float](repeating: 0, count: 801)
        input[400] = 1
        let output = try Resampler(from: 8_000, to: 24_000).resample(input)
        #expect(output.indices.max { output[$0] < output[$1] } == 1200)
        #expect((1...1000).allSatisfy { output[1200 - $0] == output[1200 + $0] })
    }

    @Test func constantStaysConstant() throws {
        for from in [8_000, 44_100, 48_000, 96_001] {
            let output = try Resampler(from: from, to: 24_000).resample([Float](repeating: 0.75, count: from / 10))
            let inside = output[1_000..<output.count - 1_000]
            #expect(inside.allSatisfy { abs($0 - 0.75) < 1e-6 })
        }
    }

    @Test func equalRatesChangeNothing() throws {
        let clip = AudioClip(samples: [0.1, -3, 0.2], sampleRate: 24_000)
        #expect(try clip.resampled(to: 24_000) == clip)
    }

    @Test func absurdRatesAreRefused() {
        for rate in [Int.min, -1, 0, 999, 768_001, Int.max] {
            #expect(throws: AudioFileError.self) { try Resampler(from: rate, to: 24_000) }
            #expect(throws: AudioFileError.self) { try Resampler(from: 24_000, to: rate) }
        }
    }
}
