import CCUDA
import Tensors

/// A linear layer or convolution in the kernels' layout, on the device.
struct PackedLayer {
    let weights: DeviceBuffer
    /// What rounding to half lost; only in exact precision.
    let weightsLow: DeviceBuffer?
    /// Floats, padded with zeros.
    let bias: DeviceBuffer?
    /// Outputs, padded; bias repeats after `period` of them.
    let outputs: Int
    let period: Int
    /// Input channels of one tap, padded.
    let channels: Int
    let taps: Int
    let dilation: Int
    let isLinear: Bool

    var tiles: Int { outputs / Int(MK_TILE) }
    var chunks: Int { taps * channels / Int(MK_CHUNK) }
    var history: Int { (taps - 1) * dilation }
    var byteCount: Int { weights.byteCount + (weightsLow?.byteCount ?? 0) }

    /// Parts of each sum: fixed by the layer's kind and shape, so that no launch changes a bit. A linear layer always has
    /// 16, as in the persistent kernels.
    var splits: Int { isLinear || chunks >= 64 ? 16 : chunks >= 12 ? 4 : 1 }
}

/// Uploads tensors and packs them on the device.
struct WeightLoader {
    let device: CUDADevice
    /// nil: made-up weights of the right sizes, for measurements without a checkpoint.
    let file: SafetensorsFile?
    /// MK_BF16 or MK_F16.
    let half: Int
    /// Keeps what rounding to half loses.
    let keepsLow: Bool

    /// A tensor of the file that fills rows of a layer: element (n, tap, c) is at offset + n·n + c·c + tap·tap.
    struct Part {
        let name: String
        let shape: [Int]
        let outputs: Int
        var first = 0
        var step = 1
        var strideN: Int
        var strideC = 1
        var strideTap = 0
        var offset = 0
    }

    /// Rows of linear layers one after the other, or dealt out in turn (`interleaved`).
    func linear(
        _ names: [(name: String, outputs: Int)], inputs: Int, bias: [Float]? = nil, interleaved: Bool = false
    ) throws -> PackedLayer {
        var first = 0
        let parts = names.enumerated().map { index, entry in
            defer { first += entry.outputs }
            return Part(
                name: entry.name, shape: [entry.outputs, inputs], outputs: entry.outputs,
                first: interleaved ? index : first, step: interleaved ? names.count : 1, strideN: inputs)
        }
        // Interleaved rows are padded in each part, so that their products are padded alike.
        let outputs = interleaved ? names.count * padded(names[0].outputs) : padded(first)
        return try pack(parts, outputs: outputs, channels: inputs, isLinear: true, bias: bias)
    }

    /// A convolution [outputs, channels, taps].
    func convolution(_ name: String, taps: Int, channels: Int, outputs: Int, dilation: Int = 1, bias: Bool = true)
        throws
        -> PackedLayer
    {
        try pack(
            [
                Part(
                    name: name + ".weight", shape: [outputs, channels, taps], outputs: outputs,
                    strideN: channels * taps, strideC: taps, strideTap: 1)
            ], outputs: padded(outputs), channels: channels, taps: taps, dilation: dilation,
            bias: bias ? try values(name + ".bias", [outputs]) : nil)
    }

    /// A transposed convolution [channels, outputs, kernel] with kernel = stride or 2 · stride, trimmed on the right, as
    /// a convolution with stride · outputs outputs (specification, section 5.2).
    func transposed(_ name: String, channels: Int, outputs: Int, kernel: Int, stride: Int) throws -> PackedLayer {
        let taps = kernel / stride
        let width = padded(outputs)
        let parts = (0..<stride).map { r in
            Part(
                name: name + ".weight", shape: [channels, outputs, kernel], outputs: outputs, first: r * width,
                strideN: kernel, strideC: outputs * kernel, strideTap: -stride, offset: r + (taps - 1) * stride)
        }
        return try pack(
            parts, outputs: stride * width, channels: channels, taps: taps, period: width,
            bias: try values(name + ".bias", [outputs]))
    }

    /// A tensor as float32.
    func values(_ name: String, _ shape: [Int]) throws -> [Float] {
        guard let file else {
            let count = shape.reduce(1, *)
            let isOne = name.contains("norm.weight") || name.hasSuffix("cluster_usage")
            return Array(
                repeating: isOne ? 1 : name.hasSuffix("alpha") || name.hasSuffix("beta") ? 0 : 0.02, count: count)
        }
        return try file.floats(name, shape: shape).array
    }

    /// Whether the checkpoint has a tensor.
    func has(_ name: String) -> Bool {
        guard let file else {
            return name.hasPrefix("decoder.") ? name.hasSuffix(".scale") : name.hasSuffix("_norm.weight")
        }
        return file[name] != nil
    }

    private func fillWithNoise(_ buffer: DeviceBuffer) throws(CUDAError) {
        let a = mk_noise_arguments(
            output: buffer.address, count: Int64(buffer.byteCount / 2), amplitude: 0.03,
            seed: UInt32(truncatingIfNeeded: buffer.byteCount), type: Int32(half), unused: 0)
        try device.launch("fill_noise", grid: (4 * device.info.multiprocessors, 1), a)
    }

    /// Floats padded to a multiple of 32.
    func floats(_ values: [Float], _ what: String) throws(CUDAError) -> DeviceBuffer {
        try DeviceBuffer(device, values + Array(repeating: 0, count: padded(values.count) - values.count), what)
    }

    func floats(_ name: String, _ count: Int) throws -> DeviceBuffer {
        try floats(try values(name, [count]), name)
    }

    /// bfloat16 rows [count, padded width].
    func table(_ names: [String], count: Int, width: Int) throws -> DeviceBuffer {
        let ld = padded(width)
        let table = try DeviceBuffer(device, bytes: names.count * count * ld * 2, "embeddings")
        guard let file else {
            try fillWithNoise(table)
            return table
        }
        for (index, name) in names.enumerated() {
            let view = try file.tensor(name, shape: [count, width])
            let target = table.address + UInt64(index * count * ld * 2)
            if view.type == .bfloat16, ld == width {
                try device.copyIn(target, view.bytes)
            } else {
                let values = try file.floats(name, shape: [count, width]).array
                var halves = [UInt16](repeating: 0, count: count * ld)
                for row in 0..<count {
                    for k in 0..<width {
                        let bits = values[row * width + k].bitPattern
                        halves[row * ld + k] = UInt16(truncatingIfNeeded: (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)
                    }
                }
                try device.copyIn(target, halves)
            }
        }
        return table
    }

    /// Layers side by side over inputs one after the other: one layer that gives their sum.
    func join(_ names: [String], inputs: Int, outputs: Int) throws -> PackedLayer {
        let parts = try names.map { try values($0, [outputs, inputs, 1]) }
        let width = names.count * inputs
        var joined: [Float] = []
        for row in 0..<outputs { for part in parts { joined += part[(row * inputs)..<((row + 1) * inputs)] } }
        let source = try DeviceBuffer(device, joined, "weights on their way")
        let part = Part(name: "", shape: [outputs, width], outputs: outputs, strideN: width)
        return try pack(
            [part], outputs: padded(outputs), channels: width, isLinear: true, source: (source.address, Int(MK_F32)))
    }

    /// - Parameter source: what to pack instead of tensors of the file.
    private func pack(
        _ parts: [Part], outputs: Int, channels: Int, taps: Int = 1, dilation: Int = 1, period: Int? = nil,
        isLinear: Bool = false, bias: [Float]? = nil, source: (address: UInt64, type: Int)? = nil
    ) throws -> PackedLayer {
        let width = padded(channels)
        let bytes = outputs * taps * width * 2
        let weights = try DeviceBuffer(device, bytes: bytes, "weights")
        let low = keepsLow ? try DeviceBuffer(device, bytes: bytes, "weights") : nil
        var uploaded: (name: String, buffer: DeviceBuffer, type: Int)?
        if file == nil { try fillWithNoise(weights) }
        for part in parts where file != nil || source != nil {
            if source == nil, let file, uploaded?.name != part.name {
                let view = try file.tensor(part.name, shape: part.shape)
                let type: Int
                switch view.type {
                case .bfloat16: type = Int(MK_BF16)
                case .float16: type = Int(MK_F16)
                case .float32: type = Int(MK_F32)
                default: throw TensorError.mismatch(name: part.name, expected: "floating point", found: view.summary)
                }
                let buffer = try DeviceBuffer(device, bytes: view.bytes.count, "weights on their way", zeroed: false)
                try device.copyIn(buffer.address, view.bytes)
                uploaded = (part.name, buffer, type)
            }
            var arguments = mk_pack_arguments()
            arguments.source = source?.address ?? uploaded?.buffer.address ?? 0
            arguments.type = Int32(source?.type ?? uploaded?.type ?? 0)
            arguments.outputs = Int32(part.outputs)
            arguments.taps = Int32(taps)
            arguments.channels = Int32(channels)
            arguments.padded_channels = Int32(width)
            arguments.chunks = Int32(taps * width / Int(MK_CHUNK))
            arguments.stride_n = Int64(part.strideN)
            arguments.stride_c = Int64(part.strideC)
            arguments.stride_tap = Int64(part.strideTap)
            arguments.offset = Int64(part.offset)
            arguments.output = weights.address
            arguments.output_low = low?.address ?? 0
            arguments.first = Int32(part.first)
            arguments.step = Int32(part.step)
            arguments.half = Int32(half)
            try device.launch(
                "pack_weights", grid: (ceiling(taps * width, Int(MK_THREADS)), part.outputs), arguments)
        }
        // The staging memory is freed when this returns.
        try device.wait()
        var biasBuffer: DeviceBuffer?
        if let bias {
            let count = period ?? outputs
            biasBuffer = try DeviceBuffer(
                device, bias + Array(repeating: 0, count: max(0, count - bias.count)), "biases")
        }
        return PackedLayer(
            weights: weights, weightsLow: low, bias: biasBuffer, outputs: outputs, period: period ?? outputs,
            channels: width, taps: taps, dilation: dilation, isLinear: isLinear)
    }
}

/// Half rows on the device with what rounding lost.
struct HalfRows {
    let high: UInt64
    /// 0 if the rows are plain halves.
    let low: UInt64
    let ld: Int
}

extension HalfRows {
    /// Split rows in a piece of memory. Float16: rows, then what rounding lost of them. Bfloat16: as `packed_place` says.
    init(split address: UInt64, rows: Int, ld: Int, half: Int) {
        let piece = Int(MK_TILE * MK_CHUNK) * 2
        self.init(
            high: address, low: address + UInt64(half == Int(MK_BF16) ? piece : Self.bytes(rows: rows, ld: ld) / 2),
            ld: ld)
    }

    /// Bytes of split rows.
    static func bytes(rows: Int, ld: Int) -> Int { ceiling(rows, 8) * 8 * ld * 4 }

    /// Bytes that an RMSNorm's scale or squares of such rows take.
    static func normBytes(rows: Int, ld: Int) -> Int { rows * ld / 2 }
}

/// Histories of a convolution's input, by slot.
struct History {
    let high: UInt64
    let low: UInt64
    /// Elements of a slot.
    let stride: Int
}

/// What happens to a layer's sums, in this order; addresses of 0 are skipped.
struct Epilogue {
    var rowScale: UInt64 = 0
    /// Of bfloat16 rows in its place: the squares of those that go in, and how many values a row's RMSNorm is of.
    var norm: (squares: UInt64, width: Int, epsilon: Float)?
    var activation = Int(MK_LINEAR)
    var scale: UInt64 = 0
    var residual: UInt64 = 0
    var raw: UInt64 = 0
    var rawRows: UInt64 = 0
    var rawStride = 0
    var stored: Int?
    var output: HalfRows?
    /// Of bfloat16 `output`: the RMSNorm that it goes to, and room for the squares of its rows.
    var next: (gain: UInt64, squares: UInt64)?
    var snake: (alpha: UInt64, inverseBeta: UInt64)?
    var clamps = false
}

extension CUDADevice {
    /// Runs a layer over rows.
    /// - Parameters:
    ///   - columns: rows of one session, for convolutions with history.
    ///   - slots: int [sessions] on the device, for convolutions with history.
    ///   - form: which kernel; nil for the fastest.
    func run(
        _ layer: PackedLayer, half: Int, _ input: HalfRows, rows: Int, columns: Int? = nil, history: History? = nil,
        slots: UInt64 = 0, tiles: Int? = nil, form: ProductForm? = nil, _ epilogue: Epilogue
    ) throws(CUDAError) {
        let a = arguments(
            layer, input, rows: rows, columns: columns, history: history, slots: slots, tiles: tiles, epilogue)
        let isSplit = input.low != 0
        let shape = ProductForm.Shape(
            rows: rows, tiles: Int(a.tiles), chunks: layer.chunks, splits: layer.splits, taps: layer.taps,
            isSplit: isSplit)
        let card = ProductForm.Card(info)
        let form =
            form
            ?? (half == Int(MK_BF16) ? timedForm(shape) : nil)
            ?? ProductForm.fastest(shape, half: half, isExact: layer.weightsLow != nil, on: card)
        let name = "gemm_" + (half == Int(MK_BF16) ? "bf16" : "f16") + (isSplit ? "_split_" : "_plain_") + form.name
        try launch(name, grid: form.grid(shape, on: card), shared: form.sharedBytes(shape), overlaps: true, a)
    }

    /// What a layer's kernels are told, for ``run(_:half:_:rows:columns:history:slots:tiles:form:_:)``.
    func arguments(
        _ layer: PackedLayer, _ input: HalfRows, rows: Int, columns: Int? = nil, history: History? = nil,
        slots: UInt64 = 0, tiles: Int? = nil, _ epilogue: Epilogue
    ) -> mk_gemm_arguments {
        var a = mk_gemm_arguments()
        a.weights = layer.weights.address
        a.weights_low = layer.weightsLow?.address ?? 0
        a.tiles = Int32(tiles ?? layer.tiles)
        a.chunks = Int32(layer.chunks)
        a.splits = Int32(layer.splits)
        a.rows = Int32(rows)
        a.input = input.high
        a.input_low = input.low
        a.ld_input = Int32(input.ld)
        a.taps = Int32(layer.taps)
        a.chunks_per_tap = Int32(layer.channels / Int(MK_CHUNK))
        a.dilation = Int32(layer.dilation)
        a.columns = Int32(columns ?? rows)
        a.history = history?.high ?? 0
        a.history_low = history?.low ?? 0
        a.history_stride = Int32(history?.stride ?? 0)
        a.slots = slots
        a.row_scale = epilogue.rowScale
        a.squares = epilogue.norm?.squares ?? 0
        a.norm_width = Int32(epilogue.norm?.width ?? 0)
        a.epsilon = epilogue.norm?.epsilon ?? 0
        a.bias = layer.bias?.address ?? 0
        a.scale = epilogue.scale
        a.residual = epilogue.residual
        a.raw = epilogue.raw
        a.raw_rows = epilogue.rawRows
        a.ld_raw = Int32(epilogue.rawStride)
        a.stored = Int32(epilogue.stored ?? layer.outputs)
        a.output = epilogue.output?.high ?? 0
        a.output_low = epilogue.output?.low ?? 0
        a.ld_output = Int32(epilogue.output?.ld ?? 0)
        a.activation = Int32(epilogue.activation)
        a.output_squares = epilogue.next?.squares ?? 0
        a.alpha = epilogue.next?.gain ?? epilogue.snake?.alpha ?? 0
        a.inverse_beta = epilogue.snake?.inverseBeta ?? 0
        a.period = Int32(layer.period)
        a.clamp = epilogue.clamps ? 1 : 0
        return a
    }
}
