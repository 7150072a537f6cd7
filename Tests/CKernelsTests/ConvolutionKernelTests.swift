import CKernels
import Testing

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

@Suite struct ConvolutionKernelTests {
    /// One call of `conv_f32`: weights [outputs, taps, channels] and everything that its epilogue can use.
    struct Case: Sendable, CustomTestStringConvertible {
        var taps = 1
        var channels = 24
        var outputs = 16
        var columns = 5
        var dilation = 1
        var stride = 1
        var hasBias = true
        var hasResidual = false
        var hasRaw = true
        var hasActivation = false

        var k: Int { taps * channels }
        var testDescription: String {
            "\(taps)×\(channels)→\(outputs), \(columns) columns, dilation \(dilation), stride \(stride)"
        }

        static let all = [
            Case(channels: 1, outputs: 1, columns: 1, hasBias: false), Case(channels: 7, outputs: 5, columns: 2),
            Case(taps: 3, channels: 1, outputs: 33, columns: 3, dilation: 2),
            Case(taps: 7, channels: 5, outputs: 17, columns: 13, dilation: 3, hasActivation: true),
            Case(taps: 2, channels: 33, outputs: 130, columns: 4, hasResidual: true, hasActivation: true),
            Case(
                taps: 3, channels: 9, outputs: 40, columns: 7, stride: 2, hasResidual: true, hasRaw: false,
                hasActivation: true),
            Case(outputs: 96, columns: 12), Case(outputs: 64, columns: 1), Case(outputs: 128, columns: 3),
            // Cut into pieces of k: few strips, more channels than one piece, a last piece that is short.
            Case(taps: 2, channels: 150, outputs: 20, columns: 14, hasResidual: true, hasActivation: true),
            Case(taps: 1, channels: 129, outputs: 16, columns: 40),
            Case(taps: 7, channels: 128, outputs: 16, columns: 9),
            // A panel beyond the second-level cache, with more strips than wait at a time.
            Case(taps: 7, channels: 600, outputs: 3, columns: 60),
        ]
    }

    struct Operands {
        let case_: Case
        let dense: [Float]
        let packed, x, bias, residual, alpha, inverseBeta: Guarded<Float>

        init(_ c: Case) {
            case_ = c
            var numbers = TestNumbers(seed: UInt64(c.k * 131 + c.outputs))
            dense = numbers.floats(c.outputs * c.k)
            packed = Guarded(unset: mk_packed_size(c.outputs, c.k))
            mk_pack_panels(dense, c.k, Array(0..<c.k), c.outputs, c.k, packed.pointer)
            x = Guarded(numbers.floats((c.stride * (c.columns - 1) + (c.taps - 1) * c.dilation + 1) * c.channels))
            bias = Guarded(numbers.floats(c.outputs))
            residual = Guarded(numbers.floats(c.columns * (c.outputs + 1)))
            alpha = Guarded(numbers.floats(c.outputs, times: 3))
            inverseBeta = Guarded(numbers.floats(c.outputs))
        }

        /// Results [columns, outputs]: sums as stored, and after SnakeBeta; NaN where nothing was written.
        func run(
            _ kernels: mk_kernels, columns: Range<Int>? = nil, panels: Range<Int>? = nil
        ) -> (raw: Guarded<Float>, activated: Guarded<Float>) {
            let c = case_
            let columns = columns ?? 0..<c.columns
            let panels = panels ?? 0..<((c.outputs + Int(MK_PANEL) - 1) / Int(MK_PANEL))
            let raw = Guarded(unset: c.columns * c.outputs)
            let activated = Guarded(unset: c.columns * c.outputs)
            var epilogue = mk_epilogue()
            epilogue.bias = c.hasBias ? UnsafePointer(bias.pointer) : nil
            let start = columns.lowerBound
            if c.hasResidual {
                epilogue.residual = UnsafePointer(residual.pointer + start * (c.outputs + 1))
                epilogue.ld_residual = c.outputs + 1
            }
            if c.hasRaw { epilogue.raw = raw.pointer + start * c.outputs }
            epilogue.ld_raw = c.outputs
            if c.hasActivation { epilogue.activated = activated.pointer + start * c.outputs }
            epilogue.ld_activated = c.outputs
            epilogue.alpha = UnsafePointer(alpha.pointer)
            epilogue.inv_beta = UnsafePointer(inverseBeta.pointer)
            kernels.conv_f32(
                packed.pointer, c.taps, c.channels, c.outputs, x.pointer + start * c.stride * c.channels,
                c.stride * c.channels, c.dilation * c.channels, columns.count, panels.lowerBound, panels.upperBound,
                &epilogue)
            return (raw, activated)
        }
    }

    /// Sums: the rounding of a chain of k additions. SnakeBeta: that, times its slope 1 + |alpha·inverseBeta| ≤ 4, and
    /// 3e-7 of its own.
    @Test(arguments: KernelTable.available, Case.all)
    func matchesDoublePrecision(table: KernelTable, c: Case) {
        let operands = Operands(c)
        let (raw, activated) = operands.run(table.kernels)
        let x = operands.x.array
        var sums: [Double] = []
        var snakes: [Double] = []
        for t in 0..<c.columns {
            for o in 0..<c.outputs {
                var sum = c.hasBias ? Double(operands.bias.pointer[o]) : 0
                for j in 0..<c.taps {
                    let (w, column) = ((o * c.taps + j) * c.channels, (t * c.stride + j * c.dilation) * c.channels)
                    for i in 0..<c.channels { sum += Double(operands.dense[w + i]) * Double(x[column + i]) }
                }
                if c.hasResidual { sum += Double(operands.residual.pointer[t * (c.outputs + 1) + o]) }
                sums.append(sum)
                let sine = sin(Double(operands.alpha.pointer[o]) * sum)
                snakes.append(sum + sine * sine * Double(operands.inverseBeta.pointer[o]))
            }
        }
        let tolerance = Double(c.k + 4) * 0x1p-24
        if c.hasRaw {
            #expect(worstExcess(raw.array, sums) { _ in tolerance } <= 0)
        } else {
            #expect(raw.isUnset)
        }
        if c.hasActivation {
            #expect(worstExcess(activated.array, snakes) { 4 * tolerance + 3e-7 * (1 + abs(snakes[$0])) } <= 0)
        } else {
            #expect(activated.isUnset)
        }
    }

    @Test(arguments: KernelTable.available, Case.all)
    func dependsOnNeitherColumnsNorPanels(table: KernelTable, c: Case) {
        let operands = Operands(c)
        let whole = operands.run(table.kernels)
        func check(_ part: (raw: Guarded<Float>, activated: Guarded<Float>)) {
            for (one, other) in [(part.raw, whole.raw), (part.activated, whole.activated)] {
                let differs = zip(one.array, other.array).contains { !$0.isNaN && $0.bitPattern != $1.bitPattern }
                #expect(!differs)
            }
        }
        for column in stride(from: 0, to: c.columns, by: 3) {
            check(operands.run(table.kernels, columns: column..<(column + 1)))
        }
        if c.columns > 1 {
            check(operands.run(table.kernels, columns: 0..<(c.columns / 2)))
            check(operands.run(table.kernels, columns: (c.columns / 2)..<c.columns))
        }
        let panels = (c.outputs + Int(MK_PANEL) - 1) / Int(MK_PANEL)
        for panel in 0..<panels { check(operands.run(table.kernels, panels: panel..<(panel + 1))) }
        if panels > 2 { check(operands.run(table.kernels, panels: 1..<panels)) }
    }

    @Test(arguments: KernelTable.vectorised, Case.all)
    func agreesWithScalarToTheBit(table: KernelTable, c: Case) {
        let operands = Operands(c)
        let (raw, activated) = operands.run(table.kernels)
        let expected = operands.run(KernelTable.scalar.kernels)
        #expect(raw.bits == expected.raw.bits)
        #expect(activated.bits == expected.activated.bits)
    }

    /// The residual may be the memory that receives the sums.
    @Test(arguments: KernelTable.available)
    func residualInPlace(table: KernelTable) {
        let c = Case(taps: 2, channels: 20, outputs: 23, columns: 9)
        let operands = Operands(c)
        let plain = operands.run(table.kernels).raw.array
        var numbers = TestNumbers(seed: 8)
        let residual = Guarded(numbers.floats(c.columns * c.outputs))
        let before = residual.array
        var epilogue = mk_epilogue()
        epilogue.bias = UnsafePointer(operands.bias.pointer)
        epilogue.residual = UnsafePointer(residual.pointer)
        epilogue.ld_residual = c.outputs
        epilogue.raw = residual.pointer
        epilogue.ld_raw = c.outputs
        table.kernels.conv_f32(
            operands.packed.pointer, c.taps, c.channels, c.outputs, operands.x.pointer, c.channels, c.channels,
            c.columns,
            0, 2, &epilogue)
        #expect(residual.array == zip(plain, before).map { $0 + $1 })
    }

    @Test func packingIsTapMajorAndPadded() {
        // Outputs 0…17 of a [18, 2, 3] convolution weight, channel-major as PyTorch stores it.
        let w = (0..<(18 * 6)).map { Float($0) }
        let index = [0, 3, 1, 4, 2, 5]
        let packed = Guarded(unset: mk_packed_size(18, 6))
        mk_pack_panels(w, 6, index, 18, 6, packed.pointer)
        #expect(packed.count == 32 * 6)
        for o in 0..<32 {
            for (i, source) in index.enumerated() {
                #expect(packed.pointer[o / 16 * 96 + i * 16 + o % 16] == (o < 18 ? Float(o * 6 + source) : 0))
            }
        }
    }

    @Test(arguments: KernelTable.available)
    func depthwise(table: KernelTable) {
        for (taps, channels, columns) in [(1, 1, 1), (7, 5, 3), (7, 16, 9), (3, 37, 4)] {
            var numbers = TestNumbers(seed: 21)
            let w = Guarded(numbers.floats(taps * channels))
            let bias = Guarded(numbers.floats(channels))
            let x = Guarded(numbers.floats((columns + taps - 1) * channels))
            for hasBias in [true, false] {
                let y = Guarded(unset: columns * channels)
                table.kernels.depthwise_f32(
                    w.pointer, hasBias ? bias.pointer : nil, taps, channels, x.pointer, columns, y.pointer)
                let expected = (0..<(columns * channels)).map { at in
                    let (t, c) = (at / channels, at % channels)
                    return (0..<taps).reduce(hasBias ? Double(bias.pointer[c]) : 0) {
                        $0 + Double(w.pointer[$1 * channels + c]) * Double(x.pointer[(t + $1) * channels + c])
                    }
                }
                #expect(worstExcess(y.array, expected) { _ in 1e-6 } <= 0)
                let scalar = Guarded(unset: columns * channels)
                KernelTable.scalar.kernels.depthwise_f32(
                    w.pointer, hasBias ? bias.pointer : nil, taps, channels, x.pointer, columns, scalar.pointer)
                #expect(y.bits == scalar.bits)
            }
        }
    }
}
