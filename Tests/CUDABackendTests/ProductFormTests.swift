import CCUDA
import TestSupport
import Testing

@testable import CUDABackend

/// Kernels of linear layers and convolutions on the emulator: all forms give the same bits.
@Suite struct ProductFormTests {
    struct Shape: Sendable, CustomTestStringConvertible {
        let half: Int
        let isSplit: Bool
        /// Rows of each of two sessions.
        let columns: Int
        let channels, taps, dilation, outputs: Int
        var seed: UInt32 = 0
        var testDescription: String { "\(columns) columns, \(taps) taps of \(channels), \(outputs) outputs" }
    }

    @Test(arguments: [
        // One, four and sixteen runs; blocks that are not full; runs without chunks.
        Shape(half: Int(MK_F16), isSplit: false, columns: 37, channels: 96, taps: 1, dilation: 1, outputs: 96),
        Shape(
            half: Int(MK_F16), isSplit: false, columns: 70, channels: 96, taps: 7, dilation: 9, outputs: 104, seed: 3),
        Shape(
            half: Int(MK_F16), isSplit: false, columns: 40, channels: 320, taps: 7, dilation: 3, outputs: 96, seed: 5),
        Shape(
            half: Int(MK_F16), isSplit: false, columns: 90, channels: 96, taps: 2, dilation: 1, outputs: 192, seed: 6),
        Shape(half: Int(MK_F16), isSplit: true, columns: 3, channels: 544, taps: 3, dilation: 1, outputs: 72),
        Shape(
            half: Int(MK_BF16), isSplit: true, columns: 35, channels: 640, taps: 1, dilation: 1, outputs: 40, seed: 7),
        Shape(half: Int(MK_BF16), isSplit: true, columns: 9, channels: 96, taps: 1, dilation: 1, outputs: 64),
        Shape(
            half: Int(MK_BF16), isSplit: true, columns: 20, channels: 1536, taps: 1, dilation: 1, outputs: 104, seed: 9),
    ])
    func formsAgree(_ s: Shape) throws {
        let device = try CUDADevice(
            index: EmulatedCard(multiprocessors: 3, seed: s.seed).index, driver: EmulatedCard.driver)
        let loader = WeightLoader(device: device, file: nil, half: s.half, keepsLow: false)
        let layer =
            try s.taps == 1
            ? loader.linear([("a", s.outputs)], inputs: s.channels, bias: Array(repeating: 0.5, count: s.outputs))
            : loader.convolution("a", taps: s.taps, channels: s.channels, outputs: s.outputs, dilation: s.dilation)
        func noise(_ count: Int, _ type: Int, _ seed: UInt32) throws -> UInt64 {
            let buffer = try DeviceBuffer(device, bytes: count * (type == Int(MK_F32) ? 4 : 2), "test")
            buffers.append(buffer)
            let a = mk_noise_arguments(
                output: buffer.address, count: Int64(count), amplitude: 0.5, seed: seed, type: Int32(type), unused: 0)
            try device.launch("fill_noise", grid: (2, 1), a)
            return buffer.address
        }
        var buffers: [DeviceBuffer] = []
        let rows = 2 * s.columns, ld = padded(s.channels), kept = max(1, (s.taps - 1) * s.dilation)
        let isPacked = s.half == Int(MK_BF16)
        let input =
            isPacked
            ? HalfRows(
                split: try noise(HalfRows.bytes(rows: rows, ld: ld) / 2, s.half, 1), rows: rows, ld: ld, half: s.half)
            : HalfRows(
                high: try noise(rows * ld, s.half, 1), low: s.isSplit ? try noise(rows * ld, s.half, 2) : 0, ld: ld)
        let history = History(
            high: try noise(3 * kept * ld, s.half, 3), low: s.isSplit ? try noise(3 * kept * ld, s.half, 4) : 0,
            stride: kept * ld)
        let slots = try DeviceBuffer(device, [2, 0] as [Int32], "test")
        let residual = try noise(rows * layer.outputs, Int(MK_F32), 5)
        // Of an RMSNorm before the layer, and one behind it that takes all outputs but the last.
        let squares = try DeviceBuffer(
            device, (0..<(rows * layer.channels / 8)).map { Float($0 % 13 + 1) }, "test")
        let gain = try noise(layer.outputs, Int(MK_F32), 6)
        func result(_ form: ProductForm) throws -> [Int32] {
            let raw = try DeviceBuffer(device, bytes: rows * layer.outputs * 4, "test")
            let halves = try DeviceBuffer(
                device, bytes: HalfRows.bytes(rows: rows, ld: padded(layer.outputs)) / (isPacked ? 1 : 2), "test")
            let outputSquares = try DeviceBuffer(device, bytes: rows * layer.tiles * 4, "test")
            try device.copyDevice(raw.address, residual, rows * layer.outputs * 4)
            try device.run(
                layer, half: s.half, input, rows: rows, columns: s.columns, history: history, slots: slots.address,
                form: form,
                Epilogue(
                    norm: isPacked ? (squares.address, s.channels, 1e-6) : nil,
                    activation: Int(MK_GELU), residual: raw.address, raw: raw.address, rawStride: layer.outputs,
                    stored: isPacked ? layer.outputs - 1 : nil,
                    output: isPacked
                        ? HalfRows(split: halves.address, rows: rows, ld: padded(layer.outputs), half: s.half)
                        : HalfRows(high: halves.address, low: 0, ld: layer.outputs),
                    next: isPacked ? (gain, outputSquares.address) : nil))
            return try device.integers(raw.address, rows * layer.outputs)
                + device.integers(halves.address, halves.byteCount / 4)
                + device.integers(outputSquares.address, rows * layer.tiles)
        }
        let shape = ProductForm.Shape(
            rows: rows, tiles: layer.tiles, chunks: layer.chunks, splits: layer.splits, taps: layer.taps,
            isSplit: s.isSplit)
        let forms = ProductForm.all(half: s.half, isSplit: s.isSplit, isExact: false).filter { $0.takes(shape) }
        #expect(forms.count >= 4)
        let expected = try result(forms[0])
        #expect(Set(expected).count > rows * s.outputs / 2)
        #expect(expected.allSatisfy { Float(bitPattern: UInt32(bitPattern: $0)).isFinite })
        for form in forms.dropFirst() { #expect(try result(form) == expected, "\(form.name)") }
    }

    /// What was timed is taken for so many rows and fewer, and never for few.
    @Test func timedFormsAreTaken() throws {
        let device = try CUDADevice(index: EmulatedCard(multiprocessors: 3).index, driver: EmulatedCard.driver)
        func shape(_ rows: Int) -> ProductForm.Shape {
            .init(rows: rows, tiles: 16, chunks: 32, splits: 16, isSplit: true)
        }
        let forms = ProductForm.all(half: Int(MK_BF16), isSplit: true, isExact: false)
        device.timedForms = [shape(40): forms[1], shape(64): forms[2]]
        #expect(device.timedForm(shape(33)) == forms[1] && device.timedForm(shape(40)) == forms[1])
        #expect(device.timedForm(shape(41)) == forms[2] && device.timedForm(shape(64)) == forms[2])
        for rows in [1, 16, 20, 65] { #expect(device.timedForm(shape(rows)) == nil) }
    }

    /// What is chosen on a card with 132 multiprocessors: several tiles a block rather than several blocks one after the other,
    /// and shared operands for many rows.
    @Test func formsFitTheirShapes() {
        let card = ProductForm.Card(multiprocessors: 132, sharedMemory: 227 << 10)
        func name(_ rows: Int, _ tiles: Int, _ chunks: Int, _ splits: Int, split: Bool = false, half: Int = Int(MK_F16))
            -> String
        {
            ProductForm.fastest(
                .init(rows: rows, tiles: tiles, chunks: chunks, splits: splits, isSplit: split), half: half,
                isExact: false, on: card
            ).name
        }
        // The codec's units, one frame of one session and of 64.
        #expect(name(160, 48, 84, 16) == "narrow4")
        #expect(name(10240, 48, 84, 16) == "band160" && name(122_880, 12, 21, 4) == "band160")
        // A prompt of 40 rows through the feed-forward layer of the 1.7B model, and one row.
        #expect(name(40, 1536, 64, 16, split: true, half: Int(MK_BF16)) == "rows64x96")
        // 64 sessions through the layers of the 1.7B model: those that were fastest on an H100.
        func rows64(_ tiles: Int, _ chunks: Int) -> String {
            name(64, tiles, chunks, 16, split: true, half: Int(MK_BF16))
        }
        #expect(rows64(512, 64) == "rows32x64" && rows64(256, 64) == "wide4")
        #expect(rows64(1536, 64) == "rows64x96" && rows64(256, 192) == "wide4")
        #expect(rows64(512, 32) == "rows32x64" && rows64(128, 64) == "wide")
        #expect(rows64(768, 32) == "rows64x48" && rows64(128, 96) == "wide")
        #expect(name(1, 128, 32, 16, split: true, half: Int(MK_BF16)) == "narrow")
    }
}
