import Foundation
import Tensors
import Testing

/// Layers and tables of a small checkpoint file against sums in double precision.
@Suite struct LinearTests {
    /// A checkpoint with one matrix [outputs, inputs] named `w` in the given type, and what its elements are.
    private struct Checkpoint {
        let file: SafetensorsFile
        let values: [Float]
        private let temporary: TemporaryFile

        init(_ type: DataType, rows: Int, width: Int) throws {
            var state: UInt64 = 77
            var data = Data()
            var values: [Float] = []
            for _ in 0..<(rows * width) {
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                // Eight bits of precision: exact in every type.
                let value = (Float(Int64(state >> 40)) * 0x1p-24 * 255).rounded() / 128 - 1
                values.append(value)
                switch type {
                case .bfloat16: withUnsafeBytes(of: UInt16(value.bitPattern >> 16)) { data.append(contentsOf: $0) }
                case .float16: withUnsafeBytes(of: halfBits(value)) { data.append(contentsOf: $0) }
                default: withUnsafeBytes(of: value) { data.append(contentsOf: $0) }
                }
            }
            let header =
                #"{"w":{"dtype":"\#(type.rawValue)","shape":[\#(rows),\#(width)],"data_offsets":[0,\#(data.count)]}}"#
            temporary = try TemporaryFile(TemporaryFile.bytes(header: header, data: 0) + data)
            file = try SafetensorsFile(path: temporary.path)
            self.values = values
        }
    }

    private static let compute = Compute(threads: 3)
    private static let x: [Float] = (0..<(5 * 200)).map { Float(($0 * 37) % 101 - 50) / 32 }

    private func apply(_ layer: Linear, rows: Int) -> [Float] {
        let input = FloatBuffer(Array(Self.x[..<(rows * layer.inputs)]))
        let output = FloatBuffer(count: rows * layer.outputs)
        var scratch = Scratch()
        layer(input.pointer, rows: rows, into: output.pointer, scratch: &scratch, compute: Self.compute)
        return output.array
    }

    private func worst(_ y: [Float], _ w: [Float], inputs: Int, rows: Int, bias: [Float]? = nil) -> Double {
        let outputs = w.count / inputs
        var worst = 0.0
        for at in 0..<(rows * outputs) {
            let (row, o) = (at / outputs, at % outputs)
            let sum = (0..<inputs).reduce(Double(bias?[o] ?? 0)) {
                $0 + Double(w[o * inputs + $1]) * Double(Self.x[row * inputs + $1])
            }
            worst = max(worst, abs(sum - Double(y[at])))
        }
        return worst
    }

    /// Sums of up to 200 products below 2: 1e-5 is the rounding of a chain of them.
    @Test(arguments: [DataType.bfloat16, .float16, .float32])
    func ofACheckpoint(type: DataType) throws {
        for (outputs, inputs) in [(1, 1), (35, 70), (48, 200)] {
            let checkpoint = try Checkpoint(type, rows: outputs, width: inputs)
            let view = try checkpoint.file.tensor("w", shape: [outputs, inputs])
            let bias = (0..<outputs).map { Float($0) / 4 }
            let plain = try Linear(view, owner: checkpoint.file)
            let biased = try Linear(view, owner: checkpoint.file, bias: FloatBuffer(bias))
            #expect((plain.outputs, plain.inputs) == (outputs, inputs))
            for rows in [1, 5] {
                #expect(worst(apply(plain, rows: rows), checkpoint.values, inputs: inputs, rows: rows) < 1e-5)
                #expect(
                    worst(apply(biased, rows: rows), checkpoint.values, inputs: inputs, rows: rows, bias: bias) < 1e-5)
            }
        }
    }

    @Test func ofDenseMemory() throws {
        let checkpoint = try Checkpoint(.float32, rows: 20, width: 33)
        let layer = Linear(FloatBuffer(checkpoint.values), outputs: 20, inputs: 33)
        #expect(worst(apply(layer, rows: 3), checkpoint.values, inputs: 33, rows: 3) < 1e-5)
        // Whole panels of 16 outputs.
        #expect(layer.weightBytes == 32 * 33 * 4)
    }

    /// The rounding of the weights alone: steps of 1/127 and 1/8 of about 1, so errors of 0.0023 and 0.036 on average, times
    /// activations of 0.9, added 200 times: 0.03 and 0.46; the worst of 200 sums is off by four times that at most.
    @Test(arguments: [(WeightFormat.q8, 0.12), (.q4, 2)])
    func quantised(format: WeightFormat, tolerance: Double) throws {
        for type in [DataType.bfloat16, .float32, .float16] {
            let (outputs, inputs) = (40, 200)
            let checkpoint = try Checkpoint(type, rows: outputs, width: inputs)
            let view = try checkpoint.file.tensor("w", shape: [outputs, inputs])
            let size = Linear.quantizedSize(format, outputs: outputs, inputs: inputs)
            let memory = FloatBuffer(count: (size + 3) / 4)
            try Linear.quantize(view, format: format, into: memory.pointer, pool: Self.compute.pool)
            let layer = Linear(
                quantized: UnsafeRawBufferPointer(start: memory.pointer, count: size), format: format, outputs: outputs,
                inputs: inputs, owner: memory)
            #expect(layer.weightBytes == size)
            let error = worst(apply(layer, rows: 5), checkpoint.values, inputs: inputs, rows: 5)
            #expect(error < tolerance && error > tolerance / 30)
        }
    }

    @Test(arguments: [DataType.bfloat16, .float32])
    func dependsOnNeitherRowsNorThreads(type: DataType) throws {
        let checkpoint = try Checkpoint(type, rows: 50, width: 100)
        let layer = try Linear(try checkpoint.file.tensor("w", shape: [50, 100]), owner: checkpoint.file)
        let whole = apply(layer, rows: 5)
        for threads in [1, 2, 4] {
            let compute = Compute(threads: threads)
            var scratch = Scratch()
            let input = FloatBuffer(Self.x)
            for row in 0..<5 {
                let y = FloatBuffer(count: 50)
                layer(input.pointer + row * 100, rows: 1, into: y.pointer, scratch: &scratch, compute: compute)
                #expect(y.array == Array(whole[(row * 50)..<(row * 50 + 50)]))
            }
        }
    }

    @Test func refusesWhatIsNoMatrix() throws {
        let header = """
            {"v":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"i":{"dtype":"I32","shape":[2,2],"data_offsets":[16,32]}}
            """
        let temporary = try TemporaryFile(header: header, data: 32)
        let file = try SafetensorsFile(path: temporary.path)
        let memory = FloatBuffer(count: 1000)
        for (name, expected, found) in [("v", "a matrix", "F32 [4]"), ("i", "floating point", "I32 [2, 2]")] {
            let view = try #require(file[name])
            let error = TensorError.mismatch(name: name, expected: expected, found: found)
            #expect(throws: error) { try Linear(view, owner: file) }
            #expect(throws: error) {
                try Linear.quantize(view, format: .q8, into: memory.pointer, pool: Self.compute.pool)
            }
        }
    }

    @Test(arguments: [DataType.bfloat16, .float16, .float32])
    func embeddings(type: DataType) throws {
        let checkpoint = try Checkpoint(type, rows: 9, width: 37)
        let table = try EmbeddingTable(checkpoint.file, "w", count: 9, width: 37)
        #expect((table.count, table.width) == (9, 37))
        let row = FloatBuffer(count: 37)
        for id in [0, 8, 4] {
            table.copy(id, to: row.pointer, compute: Self.compute)
            let expected = Array(checkpoint.values[(id * 37)..<(id * 37 + 37)])
            #expect(row.array == expected)
            table.add(id, to: row.pointer, compute: Self.compute)
            #expect(row.array == expected.map { 2 * $0 })
        }
        #expect(throws: TensorError.self) { try EmbeddingTable(checkpoint.file, "w", count: 10, width: 37) }
        #expect(throws: TensorError.self) { try EmbeddingTable(checkpoint.file, "u", count: 9, width: 37) }
    }
}

/// The half with that value, which has at most eight significant bits and an exponent in the normal range, or is 0.
private func halfBits(_ value: Float) -> UInt16 {
    if value == 0 { return 0 }
    let bits = value.bitPattern
    return UInt16(bits >> 16 & 0x8000) | UInt16((bits >> 23 & 0xFF) - 112) << 10 | UInt16(bits >> 13 & 0x3FF)
}

@Suite struct MemoryTests {
    /// The half-precision format, number by number: sign, exponent with bias 15, ten bits of fraction.
    @Test func halfToFloat() {
        for bits in stride(from: UInt16(0), to: .max, by: 7) {
            let (exponent, fraction) = (Int(bits >> 10 & 31), Float(bits & 1023) / 1024)
            let magnitude =
                exponent == 0
                ? fraction * 0x1p-14
                : exponent == 31
                    ? (fraction == 0 ? .infinity : .nan)
                    : Float(sign: .plus, exponent: exponent - 15, significand: 1 + fraction)
            let value = floatFromHalf(bits)
            #expect(magnitude.isNaN ? value.isNaN : value == (bits >> 15 == 0 ? magnitude : -magnitude))
        }
        #expect(floatFromBFloat16(0x3FC0) == 1.5)
        #expect(floatFromBFloat16(0xFF80) == -.infinity)
    }

    @Test func buffersAreAlignedAndZeroed() {
        for count in [0, 1, 15, 16, 1000] {
            let buffer = FloatBuffer(count: count)
            #expect(Int(bitPattern: buffer.pointer) % 64 == 0)
            #expect(buffer.array == [Float](repeating: 0, count: count))
        }
        let buffer = FloatBuffer([1, 2, 3])
        #expect(buffer.array == [1, 2, 3])
        buffer.zero()
        #expect(buffer.array == [0, 0, 0])
    }

    @Test func scratchGrowsAndStays() {
        var scratch = Scratch()
        let first = scratch.reserve(100)
        #expect(scratch.reserve(50) == first)
        _ = scratch.reserve(1000)
        let bytes = scratch.byteCount
        #expect(bytes >= 4000)
        _ = scratch.reserve(10)
        #expect(scratch.byteCount == bytes)
    }

    @Test func computeFallsBackToWhatThereIs() {
        for set in InstructionSet.allCases {
            let compute = Compute(instructionSet: set, threads: 1)
            if set.isAvailable {
                #expect(compute.instructionSet == set)
            } else {
                #expect(compute.instructionSet.isAvailable)
            }
        }
    }
}
