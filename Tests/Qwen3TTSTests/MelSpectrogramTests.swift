import Foundation
import Tensors
import TestSupport
import Testing

@testable import Qwen3TTS

/// The mel spectrogram against the Python reference, and its transform against sums written out.
@Suite struct MelSpectrogramTests {
    let compute = Compute(threads: 2)

    @Test func matchesReference() throws {
        let golden = try Fixture.base.golden("encoder.safetensors")
        let wav = try golden.array("wav")
        let mel = MelSpectrogram()
        let values = mel.run(wav, compute: compute)
        let frames = wav.count / 256
        #expect(mel.frames(samples: wav.count) == frames)
        let bandFirst = (0..<values.count).map { values[$0 % frames * 128 + $0 / frames] }
        let expected = try golden.array("mel")
        #expect(maxDifference(bandFirst, expected) < 1e-4)
    }

    /// The definition, one sum a bin: what the fast transform must equal.
    @Test func matchesTheDefinition() {
        let random = Philox(seed: 3)
        let samples = (0..<1500).map { 2 * random.uniform(frame: $0, codebook: 0) - 1 }
        let mel = MelSpectrogram(bands: 40, sampleRate: 16_000)
        let values = mel.run(samples, compute: compute)
        #expect(values.count == 5 * 40)
        for frame in 0..<5 {
            let windowed = (0..<1024).map { i -> Double in
                var at = abs(frame * 256 + i - 384)
                if at >= 1500 { at = 2998 - at }
                return Double(samples[at]) * pow(sin(.pi * Double(i) / 1024), 2)
            }
            let magnitudes = (0...512).map { bin -> Double in
                var (re, im) = (0.0, 0.0)
                for (i, x) in windowed.enumerated() {
                    let angle = 2 * Double.pi * Double(bin * i % 1024) / 1024
                    (re, im) = (re + x * cos(angle), im - x * sin(angle))
                }
                return sqrt(re * re + im * im + 1e-9)
            }
            for band in 0..<40 {
                let center = slaneyHertz(Double(band + 1)), low = slaneyHertz(Double(band))
                let high = slaneyHertz(Double(band + 2))
                var sum = 0.0
                for (bin, magnitude) in magnitudes.enumerated() {
                    let hertz = Double(bin) * 16_000 / 1024
                    if hertz > low && hertz <= center { sum += magnitude * (hertz - low) / (center - low) }
                    if hertz > center && hertz < high { sum += magnitude * (high - hertz) / (high - center) }
                }
                let expected = log(max(sum * 2 / (high - low), 1e-5))
                #expect(abs(Double(values[frame * 40 + band]) - expected) < 1e-5, "frame \(frame), band \(band)")
            }
        }
    }

    /// Edge `index` of 40 bands up to 8 kHz. Slaney's Auditory Toolbox: 200/3 Hz a step below 1 kHz, 27 steps for a
    /// factor of 6.4 above.
    private func slaneyHertz(_ index: Double) -> Double {
        let step = index * (15 + 27 * log(8.0) / log(6.4)) / 41
        return step <= 15 ? step * 200 / 3 : 1000 * pow(6.4, (step - 15) / 27)
    }

    @Test func silenceIsTheFloor() {
        // sqrt(1e-9) in every bin, times the filters' sums, is above the floor of 1e-5 nowhere.
        let values = MelSpectrogram().run([Float](repeating: 0, count: 2560), compute: compute)
        #expect(values.count == 10 * 128)
        #expect(values.allSatisfy { $0 == Float(log(1e-5)) })
    }

    @Test(arguments: [(0, 0), (384, 0), (385, 1), (511, 1), (512, 2), (24_000, 93)])
    func framesOfSamples(samples: Int, frames: Int) {
        let mel = MelSpectrogram()
        #expect(mel.frames(samples: samples) == frames)
        #expect(mel.run([Float](repeating: 0.1, count: samples), compute: compute).count == frames * 128)
    }

    @Test func everyThreadCountGivesTheSameBits() throws {
        let wav = try Fixture.base.golden("encoder.safetensors").array("wav")
        let one = MelSpectrogram().run(wav, compute: Compute(threads: 1))
        #expect(MelSpectrogram().run(wav, compute: Compute(threads: 3)) == one)
    }
}
