import CKernels
import Testing

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Functions of one element against the C library's in double precision, over dense ranges. The bounds are the largest
/// errors found, rounded up to one digit.
@Suite struct ElementaryKernelTests {
    /// Evenly spaced from `low` to `high`.
    private static func range(_ low: Float, _ high: Float, _ count: Int) -> [Float] {
        (0..<count).map { low + (high - low) * (Float($0) / Float(count - 1)) }
    }

    /// Every float32 between 2^-24 and 2^6 in steps of 2^14 units in the last place, with both signs.
    private static let magnitudes: [Float] = {
        let bits = stride(from: Float(0x1p-24).bitPattern, to: Float(0x1p6).bitPattern, by: 1 << 14)
        return bits.flatMap { [Float(bitPattern: $0), -Float(bitPattern: $0)] } + [0, -0.0]
    }()

    private func largest(_ x: [Float], _ y: [Float], _ error: (Double, Double) -> Double) -> Double {
        var worst = 0.0
        for (a, b) in zip(x, y) {
            let e = error(Double(a), Double(b))
            if e.isNaN { return .infinity }
            worst = max(worst, e)
        }
        return worst
    }

    private func map(
        _ function: (UnsafePointer<Float>?, Int, UnsafeMutablePointer<Float>?) -> Void, _ x: [Float]
    ) -> [Float] {
        let (input, output) = (Guarded(x), Guarded(unset: x.count))
        function(input.pointer, x.count, output.pointer)
        return output.array
    }

    /// sin² by our polynomial: with alpha 1 and 1/beta 2^30, SnakeBeta is 2^30·sin² but for a rest that does not count.
    @Test(arguments: KernelTable.available)
    func sine(table: KernelTable) {
        func error(_ x: [Float]) -> Double {
            let (one, scale) = (
                Guarded([Float](repeating: 1, count: 64)), Guarded([Float](repeating: 0x1p30, count: 64))
            )
            let (input, output) = (Guarded(x), Guarded(unset: x.count))
            table.kernels.snake(input.pointer, 64, one.pointer, scale.pointer, x.count / 64, 64, output.pointer, 64)
            return largest(x, output.array) { abs(($1 - $0) * 0x1p-30 - sin($0) * sin($0)) }
        }
        #expect(error(Self.range(-30, 30, 64 * 4000)) < 3e-7)
        // Far out, where the reduction by π loses bits.
        #expect(error(Self.range(-10_000, 10_000, 64 * 1000)) < 3e-7)
    }

    @Test(arguments: KernelTable.available)
    func snakeOfRows(table: KernelTable) {
        for n in [1, 15, 16, 17, 40] {
            var numbers = TestNumbers(seed: UInt64(n))
            let x = Guarded(numbers.floats(3 * (n + 2), times: 4))
            let (alpha, inverseBeta) = (Guarded(numbers.floats(n, times: 5)), Guarded(numbers.floats(n)))
            let y = Guarded(unset: 3 * (n + 1))
            table.kernels.snake(x.pointer, n + 2, alpha.pointer, inverseBeta.pointer, 3, n, y.pointer, n + 1)
            for row in 0..<3 {
                for i in 0..<n {
                    let value = Double(x.pointer[row * (n + 2) + i])
                    let sine = sin(Double(alpha.pointer[i]) * value)
                    let expected = value + sine * sine * Double(inverseBeta.pointer[i])
                    // The product alpha·x is rounded before its sine is taken: up to 20 · 2^-24.
                    #expect(abs(Double(y.pointer[row * (n + 1) + i]) - expected) < 2e-6)
                }
                #expect(y.pointer[row * (n + 1) + n].isNaN)
            }
        }
    }

    /// exp is seen through silu(x) = x / (1 + exp(-x)): relative error.
    @Test(arguments: KernelTable.available)
    func silu(table: KernelTable) {
        let x = Self.range(-80, 80, 60_000) + Self.magnitudes
        let worst = largest(x, map({ table.kernels.silu($0, $1, $2) }, x)) { x, y in
            let expected = x / (1 + exp(-x))
            return abs(y - expected) / max(abs(expected), 1e-30)
        }
        #expect(worst < 4e-7)
        let ends = map({ table.kernels.silu($0, $1, $2) }, [-.infinity, -1000, -100, 100, 1000, .infinity])
        #expect(ends[1...] == [ends[1], ends[2], 100, 1000, .infinity])
        #expect(abs(ends[1]) < 1e-30 && abs(ends[2]) < 1e-30)
    }

    /// Exact GELU: error relative to |x|.
    @Test(arguments: KernelTable.available)
    func gelu(table: KernelTable) {
        let x = Self.range(-20, 20, 60_000) + Self.magnitudes
        let worst = largest(x, map({ table.kernels.gelu($0, $1, $2) }, x)) { x, y in
            abs(y - 0.5 * x * erfc(-x * 0.5.squareRoot())) / max(abs(x), 1e-30)
        }
        #expect(worst < 2e-7)
    }

    /// exp(x) - 1 below 0, relative error: no cancellation near 0.
    @Test(arguments: KernelTable.available)
    func elu(table: KernelTable) {
        let x = Self.range(-90, 0, 60_000) + Self.magnitudes
        let worst = largest(x, map({ table.kernels.elu($0, $1, $2) }, x)) { x, y in
            let expected = x < 0 ? expm1(x) : x
            return abs(y - expected) / max(abs(expected), 1e-30)
        }
        #expect(worst < 2e-7)
    }

    private static let lengths = Array(1...34) + [47, 48, 64, 100, 129]

    @Test(arguments: KernelTable.available)
    func productsSumsAndTables(table: KernelTable) {
        let kernels = table.kernels
        for n in Self.lengths {
            var numbers = TestNumbers(seed: UInt64(n))
            let (a, b, c) = (
                Guarded(numbers.floats(n, times: 5)), Guarded(numbers.floats(n)), Guarded(numbers.floats(n))
            )
            let y = Guarded(unset: n)
            kernels.silu_mul(a.pointer, b.pointer, n, y.pointer)
            let gated = (0..<n).map { Double(a.array[$0]) / (1 + exp(-Double(a.array[$0]))) * Double(b.array[$0]) }
            #expect(worstExcess(y.array, gated) { 5e-7 * abs(gated[$0]) } <= 0)

            for scale in [true, false] {
                y.pointer.update(from: c.pointer, count: n)
                kernels.add_scaled(a.pointer, scale ? b.pointer : nil, n, y.pointer)
                let sums = (0..<n).map { Double(c.array[$0]) + Double(a.array[$0]) * (scale ? Double(b.array[$0]) : 1) }
                #expect(worstExcess(y.array, sums) { _ in 4e-7 } <= 0)
            }

            let half = Guarded(a.array.map(bfloat16))
            kernels.copy_bf16(half.pointer, n, y.pointer)
            #expect(y.array == half.array.map(float(bfloat16:)))
            y.pointer.update(from: c.pointer, count: n)
            kernels.add_bf16(half.pointer, n, y.pointer)
            #expect(y.array == (0..<n).map { c.array[$0] + float(bfloat16: half.array[$0]) })
        }
    }

    @Test(arguments: KernelTable.available)
    func mayWorkInPlace(table: KernelTable) {
        let kernels = table.kernels
        var numbers = TestNumbers(seed: 2)
        let x = numbers.floats(37, times: 4)
        for function in [kernels.silu, kernels.gelu, kernels.elu].compactMap({ $0 }) {
            let apart = map({ function($0, $1, $2) }, x)
            let same = Guarded(x)
            function(same.pointer, x.count, same.pointer)
            #expect(same.array == apart)
        }
    }

    @Test(arguments: KernelTable.vectorised)
    func agreesWithScalarToTheBit(table: KernelTable) {
        let (kernels, scalar) = (table.kernels, KernelTable.scalar.kernels)
        let x = Self.magnitudes + [.infinity, -.infinity, 1000, -1000, .leastNonzeroMagnitude]
        for (one, other) in [(kernels.silu, scalar.silu), (kernels.gelu, scalar.gelu), (kernels.elu, scalar.elu)] {
            let a = map({ one?($0, $1, $2) }, x), b = map({ other?($0, $1, $2) }, x)
            // Infinities may give different NaNs.
            let differs = zip(a, b).contains { $0.bitPattern != $1.bitPattern && !($0.isNaN && $1.isNaN) }
            #expect(!differs)
        }
        for n in Self.lengths {
            var numbers = TestNumbers(seed: UInt64(n))
            let (a, b) = (numbers.floats(n, times: 5), numbers.floats(n))
            func run(_ k: mk_kernels) -> [UInt32] {
                let (product, sum, snake) = (Guarded(unset: n), Guarded(b), Guarded(unset: n))
                k.silu_mul(a, b, n, product.pointer)
                k.add_scaled(a, b, n, sum.pointer)
                k.snake(a, n, b, a, 1, n, snake.pointer, n)
                return product.bits + sum.bits + snake.bits
            }
            #expect(run(kernels) == run(scalar), "n \(n)")
        }
    }
}
