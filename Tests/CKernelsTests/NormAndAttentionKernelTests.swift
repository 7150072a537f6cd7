import CKernels
import Testing

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

@Suite struct NormAndAttentionKernelTests {
    private static let widths = [1, 2, 15, 16, 17, 31, 48, 64, 100, 130]

    @Test(arguments: KernelTable.available)
    func norms(table: KernelTable) {
        for n in Self.widths {
            var numbers = TestNumbers(seed: UInt64(n))
            let (rows, ldx, ldy) = (3, n + 3, n + 1)
            let x = Guarded(numbers.floats(rows * ldx, times: 20).map { $0 + 5 })
            let (weight, bias) = (Guarded(numbers.floats(n)), Guarded(numbers.floats(n)))
            func run(_ k: mk_kernels) -> (rms: Guarded<Float>, layer: Guarded<Float>) {
                let (rms, layer) = (Guarded(unset: rows * ldy), Guarded(unset: rows * ldy))
                k.rms_norm(x.pointer, ldx, weight.pointer, 1e-6, rows, n, rms.pointer, ldy)
                k.layer_norm(x.pointer, ldx, weight.pointer, bias.pointer, 1e-5, rows, n, layer.pointer, ldy)
                return (rms, layer)
            }
            let (rms, layer) = run(table.kernels)
            for row in 0..<rows {
                let values = (0..<n).map { Double(x.pointer[row * ldx + $0]) }
                let mean = values.reduce(0, +) / Double(n)
                let square = values.reduce(0) { $0 + $1 * $1 } / Double(n)
                let variance = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(n)
                for i in 0..<n {
                    let w = Double(weight.pointer[i])
                    let expected = w * values[i] / (square + Double(Float(1e-6))).squareRoot()
                    #expect(abs(Double(rms.pointer[row * ldy + i]) - expected) < 1e-6, "n \(n)")
                    let centred = (values[i] - mean) / (variance + Double(Float(1e-5))).squareRoot()
                    // The mean is off by a unit in its last place; a variance of 0 makes the most of that.
                    let tolerance = n == 1 ? 1e-3 : 2e-5
                    let got = Double(layer.pointer[row * ldy + i])
                    #expect(abs(got - (centred * w + Double(bias.pointer[i]))) < tolerance, "n \(n)")
                }
                #expect(rms.pointer[row * ldy + n].isNaN && layer.pointer[row * ldy + n].isNaN)
            }
            let scalar = run(KernelTable.scalar.kernels)
            #expect(rms.bits == scalar.rms.bits && layer.bits == scalar.layer.bits, "n \(n)")
        }
    }

    @Test(arguments: KernelTable.available)
    func rotatesHeads(table: KernelTable) {
        for dim in [2, 4, 32, 34, 64, 80, 128] {
            let (heads, half) = (3, dim / 2)
            var numbers = TestNumbers(seed: UInt64(dim))
            let x = numbers.floats(heads * dim, times: 2)
            let weight = Guarded(numbers.floats(dim))
            let angles = numbers.floats(half, times: 40)
            let (cosines, sines) = (Guarded(angles.map { cosf($0) }), Guarded(angles.map { sinf($0) }))
            for normed in [true, false] {
                func run(_ k: mk_kernels) -> Guarded<Float> {
                    let y = Guarded(x)
                    k.norm_rope(
                        y.pointer, heads, dim, normed ? weight.pointer : nil, 1e-6, cosines.pointer, sines.pointer)
                    return y
                }
                var expected: [Double] = []
                for head in 0..<heads {
                    var v = x[(head * dim)..<((head + 1) * dim)].map(Double.init)
                    if normed {
                        let square = v.reduce(0) { $0 + $1 * $1 } / Double(dim)
                        v = v.indices.map { v[$0] / (square + 1e-6).squareRoot() * Double(weight.pointer[$0]) }
                    }
                    let rotated = (0..<dim).map { i in
                        let m = i % half
                        let (c, s) = (Double(cosines.pointer[m]), Double(sines.pointer[m]))
                        return i < half ? v[m] * c - v[m + half] * s : v[m + half] * c + v[m] * s
                    }
                    expected += rotated
                }
                let y = run(table.kernels)
                #expect(worstExcess(y.array, expected) { _ in 2e-6 } <= 0, "dim \(dim)")
                #expect(y.bits == run(KernelTable.scalar.kernels).bits, "dim \(dim)")
            }
        }
    }

    /// Several calls of different counts, as a KV cache brings them, against softmax over all keys at once.
    @Test(arguments: KernelTable.available)
    func attends(table: KernelTable) {
        for (dim, counts) in [
            (16, [1]), (64, [64, 3]), (128, [64, 64, 5]), (20, [7, 1]), (33, [2, 64]), (130, [9]),
        ] {
            let total = counts.reduce(0, +)
            let stride = dim + 7
            var numbers = TestNumbers(seed: UInt64(dim))
            let q = Guarded(numbers.floats(dim, times: 2))
            let k = Guarded(numbers.floats((total - 1) * stride + dim, times: 2))
            let v = Guarded(numbers.floats((total - 1) * stride + dim, times: 2))
            let scale: Float = 0.7
            func run(_ kernels: mk_kernels) -> Guarded<Float> {
                let state = Guarded([-.infinity] + [Float](repeating: 0, count: dim + 1))
                var start = 0
                for count in counts {
                    kernels.attend(
                        q.pointer, k.pointer + start * stride, v.pointer + start * stride, stride, count, dim, scale,
                        state.pointer)
                    start += count
                }
                return state
            }
            let scores = (0..<total).map { key in
                (0..<dim).reduce(0.0) { $0 + Double(q.pointer[$1]) * Double(k.pointer[key * stride + $1]) }
                    * Double(scale)
            }
            let largest = scores.max().unsafelyUnwrapped
            let weights = scores.map { exp($0 - largest) }
            let sum = weights.reduce(0, +)
            let expected = (0..<dim).map { d in
                (0..<total).reduce(0.0) { $0 + weights[$1] * Double(v.pointer[$1 * stride + d]) } / sum
            }
            let state = run(table.kernels)
            let out = state.array[2...].map { $0 / state.pointer[1] }
            // Scores reach 100, where a unit in the last place is 8e-6.
            #expect(worstExcess(out, expected) { _ in 3e-5 } <= 0, "dim \(dim)")
            #expect(abs(Double(state.pointer[0]) - largest) < 1e-4)
            #expect(state.bits == run(KernelTable.scalar.kernels).bits, "dim \(dim)")
        }
    }

    /// A score far below the rest adds nothing, and one far above the rest rescales them away.
    @Test(arguments: KernelTable.available)
    func attendsToExtremeScores(table: KernelTable) {
        let k = Guarded<Float>([-2000, 0, 3000])
        let v = Guarded<Float>([5, 7, 11])
        let q = Guarded<Float>([1])
        let state = Guarded<Float>([-.infinity, 0, 0])
        for key in 0..<3 {
            table.kernels.attend(q.pointer, k.pointer + key, v.pointer + key, 1, 1, 1, 1, state.pointer)
            #expect(abs(state.pointer[2] / state.pointer[1] - [5, 7, 11][key]) < 1e-6)
        }
    }
}
