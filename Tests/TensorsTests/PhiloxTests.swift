import Tensors
import Testing

@Suite struct PhiloxTests {
    /// The known answers of philox4x32-10 that its authors publish (Random123, kat_vectors).
    @Test func publishedVectors() {
        let all = UInt32.max
        #expect(
            Philox(seed: 0).words(SIMD4(0, 0, 0, 0)) == SIMD4(0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8))
        #expect(
            Philox(seed: .max).words(SIMD4(all, all, all, all))
                == SIMD4(0x408F_276D, 0x41C8_3B0E, 0xA20B_C7C6, 0x6D54_51FD))
        #expect(
            Philox(seed: 0x299F_31D0_A409_3822).words(SIMD4(0x243F_6A88, 0x85A3_08D3, 0x1319_8A2E, 0x0370_7344))
                == SIMD4(0xD16C_FE09, 0x94FD_CCEB, 0x5001_E420, 0x2412_6EA1))
    }

    /// The first word's upper 24 bits at the counter (frame, codebook, 0, 0).
    @Test func uniformIsAFunctionOfSeedFrameAndCodebook() {
        #expect(Philox(seed: 0).uniform(frame: 0, codebook: 0) == Float(0x6627E8) * 0x1p-24)
        let generator = Philox(seed: 9)
        for (frame, codebook) in [(0, 0), (1, 0), (0, 1), (4000, 15)] {
            let word = generator.words(SIMD4(UInt32(frame), UInt32(codebook), 0, 0))[0]
            #expect(generator.uniform(frame: frame, codebook: codebook) == Float(word >> 8) * 0x1p-24)
        }
    }

    /// Mean and variance of a uniform distribution within five standard errors, all draws in [0, 1).
    @Test func uniformIsUniform() {
        let generator = Philox(seed: 123)
        let draws = (0..<4096).map { Double(generator.uniform(frame: $0 / 16, codebook: $0 % 16)) }
        let mean = draws.reduce(0, +) / 4096
        let variance = draws.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / 4096
        #expect(draws.min() ?? -1 >= 0 && draws.max() ?? 1 < 1)
        #expect(abs(mean - 0.5) < 5 * (1.0 / 12 / 4096).squareRoot())
        #expect(abs(variance - 1.0 / 12) < 5 * (1.0 / 180 / 4096).squareRoot())
        #expect(Set(draws).count > 4090)
    }
}
