import CKernels
import Testing

/// `prepare` and `linear` of every format against sums in double precision over the same stored weights.
@Suite struct LinearKernelTests {
    static let formats = [MK_BF16, MK_Q8, MK_Q4].map(\.rawValue)

    /// A matrix [outputs, k] in a format, and what its elements stand for.
    struct Stored {
        let format: mk_format
        let outputs: Int
        let k: Int
        let bytes: Guarded<UInt16>
        let values: [Float]

        init(_ format: mk_format, outputs: Int, k: Int, seed: UInt64) {
            (self.format, self.outputs, self.k) = (format, outputs, k)
            var numbers = TestNumbers(seed: seed)
            let dense = numbers.normals(outputs * k)
            if format == MK_BF16 {
                bytes = Guarded(dense.map(bfloat16))
                values = bytes.array.map(float(bfloat16:))
            } else {
                bytes = Guarded(count: mk_quantized_size(format, outputs, k) / 2, filledWith: 0xFFFF)
                mk_quantize(format, dense, k, outputs, k, 0, outputs, bytes.pointer)
                let restored = Guarded(unset: outputs * k)
                for o in 0..<outputs {
                    mk_dequantize_row(format, bytes.pointer, outputs, k, o, restored.pointer + o * k)
                }
                values = restored.array
            }
        }

        /// y [rows, outputs] of activations x [rows, k].
        func apply(_ kernels: mk_kernels, _ x: [Float], rows: Int, range: Range<Int>? = nil) -> Guarded<Float> {
            let range = range ?? 0..<outputs
            let prepared = Guarded(unset: kernels.prepared_size(format, k) * rows)
            kernels.prepare(format, Guarded(x).pointer, k, rows, k, prepared.pointer)
            let y = Guarded(unset: rows * outputs)
            kernels.linear(
                format, bytes.pointer, k, range.lowerBound, range.upperBound, prepared.pointer, rows, y.pointer, outputs
            )
            return y
        }
    }

    /// Rounding of at most k/16 + 8 steps in a chain, relative to the magnitudes that are added. Quantised weights take
    /// activations that are off by half of the 32767th part of their group's largest.
    @Test(arguments: KernelTable.available, formats)
    func matchesDoublePrecision(table: KernelTable, format: UInt32) {
        let kernels = table.kernels
        for k in [1, 2, 15, 16, 17, 31, 33, 96, 127, 128, 129, 200, 511, 513, 1100] {
            let w = Stored(mk_format(rawValue: format), outputs: 7, k: k, seed: UInt64(k))
            var numbers = TestNumbers(seed: 7)
            let rows = k % 9 + 1
            let x = numbers.floats(rows * k, times: 3)
            let y = w.apply(kernels, x, rows: rows).array
            var expected: [Double] = []
            var tolerances: [Double] = []
            for r in 0..<rows {
                for o in 0..<w.outputs {
                    var (sum, magnitude, steps) = (0.0, 0.0, 0.0)
                    for i in 0..<k {
                        let (weight, activation) = (Double(w.values[o * k + i]), Double(x[r * k + i]))
                        let group = x[(r * k + i / 32 * 32)..<(r * k + min(i / 32 * 32 + 32, k))]
                        sum += weight * activation
                        magnitude += abs(weight * activation)
                        steps += abs(weight) * Double(group.lazy.map(abs).max() ?? 0) / 32767
                    }
                    expected.append(sum)
                    let isExact = w.format == MK_BF16
                    tolerances.append(Double(k / 16 + 8) * 0x1p-24 * magnitude + (isExact ? 0 : 0.5001 * steps))
                }
            }
            let excess = worstExcess(y, expected) { tolerances[$0] }
            #expect(excess <= 0, "k \(k), rows \(rows)")
        }
    }

    @Test(arguments: KernelTable.available, formats)
    func dependsOnNeitherRowsNorSplit(table: KernelTable, format: UInt32) {
        let kernels = table.kernels
        for (k, outputs) in [(96, 13), (1090, 6)] {
            let w = Stored(mk_format(rawValue: format), outputs: outputs, k: k, seed: 3)
            var numbers = TestNumbers(seed: 4)
            let x = numbers.floats(9 * k)
            let alone = (0..<9).flatMap { w.apply(kernels, Array(x[($0 * k)..<(($0 + 1) * k)]), rows: 1).bits }
            for rows in 2...9 {
                let together = w.apply(kernels, Array(x[..<(rows * k)]), rows: rows).bits
                #expect(together == Array(alone[..<(rows * outputs)]), "k \(k), rows \(rows)")
            }
            for cut in 1..<outputs {
                for rows in [1, 5] {
                    let low = w.apply(kernels, Array(x[..<(rows * k)]), rows: rows, range: 0..<cut).array
                    let high = w.apply(kernels, Array(x[..<(rows * k)]), rows: rows, range: cut..<outputs).array
                    let joined = (0..<(rows * outputs)).map { ($0 % outputs < cut ? low : high)[$0].bitPattern }
                    #expect(joined == Array(alone[..<(rows * outputs)]), "k \(k), rows \(rows), cut \(cut)")
                    // What lies outside the range stays as it was.
                    #expect(low[cut].isNaN && high[0].isNaN)
                }
            }
        }
    }

    @Test(arguments: KernelTable.vectorised, formats)
    func agreesWithScalarToTheBit(table: KernelTable, format: UInt32) {
        for k in [3, 16, 47, 128, 150, 512, 700, 1056] {
            let w = Stored(mk_format(rawValue: format), outputs: 9, k: k, seed: 11)
            var numbers = TestNumbers(seed: 12)
            for rows in [1, 2, 5, 9] {
                let x = numbers.floats(rows * k, times: 100)
                let expected = w.apply(KernelTable.scalar.kernels, x, rows: rows).bits
                #expect(w.apply(table.kernels, x, rows: rows).bits == expected, "k \(k), rows \(rows)")
            }
        }
    }

    @Test(arguments: KernelTable.available, formats)
    func whatIsNotFiniteStaysVisible(table: KernelTable, format: UInt32) {
        let w = Stored(mk_format(rawValue: format), outputs: 5, k: 150, seed: 8)
        for value in [Float.nan, .infinity, -.infinity] {
            for place in [0, 40, 149] {
                var x = [Float](repeating: 0.25, count: 300)
                x[150 + place] = value
                let y = w.apply(table.kernels, x, rows: 2).array
                #expect(y[..<5].allSatisfy(\.isFinite) && y[5...].allSatisfy { !$0.isFinite }, "\(value) at \(place)")
            }
        }
    }

    @Test(arguments: KernelTable.available, formats)
    func preparesStridedRows(table: KernelTable, format: UInt32) {
        let (kernels, format) = (table.kernels, mk_format(rawValue: format))
        let k = 50
        let size = kernels.prepared_size(format, k)
        var numbers = TestNumbers(seed: 5)
        let x = numbers.floats(3 * (k + 9))
        let together = Guarded(unset: 3 * size)
        kernels.prepare(format, x, k + 9, 3, k, together.pointer)
        for row in 0..<3 {
            let alone = Guarded(unset: size)
            let part = Guarded(Array(x[(row * (k + 9))..<(row * (k + 9) + k)]))
            kernels.prepare(format, part.pointer, k, 1, k, alone.pointer)
            #expect(alone.bits == Array(together.bits[(row * size)..<((row + 1) * size)]))
        }
    }
}
