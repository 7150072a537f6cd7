import CKernels
import Testing

@Suite struct QuantizationTests {
    private func roundTrip(_ format: mk_format, _ w: [Float], outputs: Int, k: Int) -> [Float] {
        let bytes = Guarded<UInt16>(count: mk_quantized_size(format, outputs, k) / 2, filledWith: 0xAAAA)
        mk_quantize(format, w, k, outputs, k, 0, outputs, bytes.pointer)
        return (0..<outputs).flatMap { row in
            let out = Guarded(unset: k)
            mk_dequantize_row(format, bytes.pointer, outputs, k, row, out.pointer)
            return out.array
        }
    }

    /// Each weight is off by half a step at most, or, at the ends of the range, by what the rounding of the scale to
    /// 8 bits and the choice of a smaller scale cost; a group of 32 has the steps -127…127 or -8…7 of one scale.
    @Test(arguments: [(MK_Q8.rawValue, 0.5 / 126 + 0x1p-8, 0.006), (MK_Q4.rawValue, 1.0 / 6, 0.11)])
    func errorIsBounded(format: UInt32, largest: Double, rms: Double) {
        for k in [5, 32, 33, 128, 300] {
            var numbers = TestNumbers(seed: UInt64(k))
            let w = numbers.normals(4 * k)
            let restored = roundTrip(mk_format(rawValue: format), w, outputs: 4, k: k)
            var (squares, errors) = (0.0, 0.0)
            for row in 0..<4 {
                for i in 0..<k {
                    let first = row * k + i / 32 * 32
                    let group = w[first..<min(first + 32, (row + 1) * k)]
                    let peak = Double(group.map(abs).max().unsafelyUnwrapped)
                    let error = abs(Double(restored[row * k + i]) - Double(w[row * k + i]))
                    #expect(error <= largest * peak, "k \(k), row \(row), \(i)")
                    errors += error * error
                    squares += Double(w[row * k + i]) * Double(w[row * k + i])
                }
            }
            #expect((errors / squares).squareRoot() < rms)
        }
    }

    /// Whole multiples of a power of two come back exactly.
    @Test func exactWhereItCanBe() {
        // The largest magnitude must be the code -8, and 127 (or -127).
        let nibbles: [Float] = (0..<64).map { i in Float(i * 37 % 16 - 8) * 0.25 }
        #expect(roundTrip(MK_Q4, nibbles, outputs: 1, k: 64) == nibbles)
        let bytes: [Float] = (0..<64).map { i in Float(i % 32 == 0 ? 127 : i * 91 % 255 - 127) * 0x1p-9 }
        #expect(roundTrip(MK_Q8, bytes, outputs: 1, k: 64) == bytes)
        let zeros = [Float](repeating: 0, count: 40)
        for format in [MK_Q8, MK_Q4] {
            #expect(roundTrip(format, zeros, outputs: 1, k: 40) == zeros)
        }
    }

    @Test(arguments: [MK_Q8.rawValue, MK_Q4.rawValue])
    func partsMakeTheWhole(format: UInt32) {
        let format = mk_format(rawValue: format)
        let (outputs, k) = (7, 70)
        var numbers = TestNumbers(seed: 1)
        let w = numbers.normals(outputs * k)
        let size = mk_quantized_size(format, outputs, k)
        let whole = Guarded<UInt8>(count: size, filledWith: 1)
        mk_quantize(format, w, k, outputs, k, 0, outputs, whole.pointer)
        let parts = Guarded<UInt8>(count: size, filledWith: 2)
        for (first, last) in [(5, 7), (0, 1), (1, 5)] {
            let rows = Guarded(Array(w[(first * k)..<(last * k)]))
            mk_quantize(format, rows.pointer, k, outputs, k, first, last, parts.pointer)
        }
        #expect(parts.array == whole.array)
    }

    /// A checkpoint's numbers are not trusted: whatever they are, codes and scales are written and nothing traps.
    @Test(arguments: [MK_Q8.rawValue, MK_Q4.rawValue])
    func anyNumberIsTaken(format: UInt32) {
        let odd: [Float] = [.nan, .infinity, -.infinity, 3e38, -3e38, .leastNonzeroMagnitude, 0, -0.0, 1]
        for value in odd {
            var w = [Float](repeating: 0.5, count: 64)
            w[3] = value
            let restored = roundTrip(mk_format(rawValue: format), w, outputs: 1, k: 64)
            // The other group is none the worse.
            let worst = restored[32...].map { abs($0 - 0.5) }.max() ?? .nan
            #expect(worst < 0.04, "\(value)")
        }
    }

    /// 8 and 4 bits a weight and 16 for each group of 32, k rounded up to 128 and scales to 64 bytes.
    @Test func sizes() {
        #expect(mk_quantized_size(MK_Q8, 10, 1024) == 10 * (1024 + 64))
        #expect(mk_quantized_size(MK_Q4, 10, 1024) == 10 * (512 + 64))
        #expect(mk_quantized_size(MK_Q8, 3, 1) == 3 * (128 + 64))
        #expect(mk_quantized_size(MK_Q4, 3, 2050) == 3 * (1088 + 192))
    }
}
