import CCUDA
import Qwen3TTS
import Tensors

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Which session and position each row of a call belongs to, on the device.
struct RowPlaces {
    /// int [rows].
    let slots: UInt64
    let positions: UInt64
    let rows: Int
    /// Pages that the row with the most positions sees.
    let pages: Int
    /// Rows of one session, one position after the other; for codec frames.
    var columns = 1
    /// Whether no two rows are of one session.
    var areAlone = false
}

/// Rows for a layer behind an RMSNorm: times its gain, and what 1 / rms follows from (`HalfRows.normBytes`): of float16 a
/// float a row, of bfloat16 squares.
struct PreparedRows {
    let rows: HalfRows
    let norms: UInt64
}

/// Asks about queries: where the first row's begin, floats from one row to the next.
typealias FocusQuestion = (_ queries: UInt64, _ ld: Int) throws(CUDAError) -> Void

/// A transformer stack on the device: the same formulas and sums for one row and for many.
final class DeviceStack {
    struct Layer {
        let inputNorm: DeviceBuffer
        let qkv: PackedLayer
        let queryNorm: DeviceBuffer?
        let keyNorm: DeviceBuffer?
        let output: PackedLayer
        let postNorm: DeviceBuffer
        /// Outputs gate 0, up 0, gate 1, up 1 …
        let gateUp: PackedLayer
        let down: PackedLayer
        let attentionScale: DeviceBuffer?
        let feedForwardScale: DeviceBuffer?
    }

    let device: CUDADevice
    let shape: TransformerShape
    let half: Int
    let layers: [Layer]
    let norm: DeviceBuffer
    let frequencies: DeviceBuffer
    private var work = DeviceScratch()

    /// Where its work memory is at present; it moves when a call needs more.
    var workAddress: UInt64 { work.address }

    var ld: Int { padded(shape.hidden) }
    var queryWidth: Int { shape.heads * shape.headDimension }
    var keyWidth: Int { shape.keyValueHeads * shape.headDimension }
    var qkvWidth: Int { queryWidth + 2 * keyWidth }
    var weightBytes: Int {
        layers.reduce(0) {
            $0 + $1.qkv.byteCount + $1.output.byteCount + $1.gateUp.byteCount + $1.down.byteCount
        }
    }
    /// Bytes of one page of this stack's cache.
    var pageBytes: Int { shape.layers * 2 * shape.keyValueHeads * Int(MK_PAGE) * shape.headDimension * 4 }

    init(_ loader: WeightLoader, prefix: String, shape: TransformerShape) throws {
        device = loader.device
        self.shape = shape
        half = loader.half
        let group = shape.heads / shape.keyValueHeads
        guard shape.headDimension % 8 == 0, shape.headDimension <= Int(MK_MAX_HEAD), group <= Int(MK_MAX_GROUP) else {
            throw CUDAError.unsupportedModel(
                "heads of \(shape.headDimension), \(group) to a key head; it takes multiples of 8 up to \(MK_MAX_HEAD), "
                    + "and \(MK_MAX_GROUP)")
        }
        let (hidden, inner) = (shape.hidden, shape.intermediate)
        let (query, key) = (shape.heads * shape.headDimension, shape.keyValueHeads * shape.headDimension)
        var layers: [Layer] = []
        for index in 0..<shape.layers {
            let p = "\(prefix)layers.\(index)."
            func optional(_ name: String, _ count: Int) throws -> DeviceBuffer? {
                !loader.has(p + name) ? nil : try loader.floats(p + name, count)
            }
            layers.append(
                Layer(
                    inputNorm: try loader.floats(p + "input_layernorm.weight", hidden),
                    qkv: try loader.linear(
                        [
                            (p + "self_attn.q_proj.weight", query), (p + "self_attn.k_proj.weight", key),
                            (p + "self_attn.v_proj.weight", key),
                        ], inputs: hidden),
                    queryNorm: try optional("self_attn.q_norm.weight", shape.headDimension),
                    keyNorm: try optional("self_attn.k_norm.weight", shape.headDimension),
                    output: try loader.linear([(p + "self_attn.o_proj.weight", hidden)], inputs: query),
                    postNorm: try loader.floats(p + "post_attention_layernorm.weight", hidden),
                    gateUp: try loader.linear(
                        [(p + "mlp.gate_proj.weight", inner), (p + "mlp.up_proj.weight", inner)], inputs: hidden,
                        interleaved: true),
                    down: try loader.linear([(p + "mlp.down_proj.weight", hidden)], inputs: inner),
                    attentionScale: try optional("self_attn_layer_scale.scale", hidden),
                    feedForwardScale: try optional("mlp_layer_scale.scale", hidden)))
        }
        self.layers = layers
        norm = try loader.floats(prefix + "norm.weight", hidden)
        frequencies = try DeviceBuffer(
            device,
            (0..<(shape.headDimension / 2)).map { m in
                Float(1 / pow(shape.ropeTheta, Double(2 * m) / Double(shape.headDimension)))
            }, "frequencies")
    }

    /// Description of a cache for the kernels.
    func cache(pages: UInt64, stride: Int, ring: Int, layer: Int = 0) -> mk_cache {
        mk_cache(
            pages: pages, stride: Int32(stride), ring: Int32(ring), layer: Int32(layer),
            kv_heads: Int32(shape.keyValueHeads), dim: Int32(shape.headDimension), unused: 0)
    }

    /// Runs all layers over float rows `x` [rows, ld], in place: the residual stream before the final norm.
    /// - Parameters:
    ///   - focus: asks a head of a layer about rows; its own queries, from one row to the next `ld` floats.
    ///   - begin: prepares rows for the first layer, of bfloat16; nil: `prepare` does.
    /// - Returns: of bfloat16, rows prepared for the layer behind the final norm.
    @discardableResult
    func forward(
        _ x: UInt64, _ places: RowPlaces, cache: mk_cache, focus: (head: AlignmentHead, ask: FocusQuestion)? = nil,
        begin: ((PreparedRows) throws(CUDAError) -> Void)? = nil, observe: (() throws(CUDAError) -> Void)? = nil
    ) throws(CUDAError) -> PreparedRows {
        let rows = places.rows
        let inner = padded(shape.intermediate)
        let qkvLD = padded(qkvWidth)
        let partialFloats = rows * shape.heads * places.pages * (shape.headDimension + 2)
        guard rows * shape.keyValueHeads * 4 <= Self.counterBytes else {
            throw .unsupportedModel("\(rows) rows at a time")
        }
        let sizes = [
            // At the beginning for any number of rows, so that nothing else is ever put there.
            Self.counterBytes,
            HalfRows.bytes(rows: rows, ld: padded(queryWidth)), HalfRows.bytes(rows: rows, ld: inner),
            rows * qkvLD * 4,
            partialFloats * 4, HalfRows.normBytes(rows: rows, ld: ld), HalfRows.bytes(rows: rows, ld: ld),
        ].map { ($0 + 255) & ~255 }
        var at = try work.reserve(device, sizes.reduce(0, +))
        let parts = sizes.map { size in
            defer { at += UInt64(size) }
            return at
        }
        let (qkv, partials) = (parts[3], parts[4])
        let prepared = PreparedRows(
            rows: HalfRows(split: parts[6], rows: rows, ld: ld, half: half), norms: parts[5])
        let innerRows = HalfRows(split: parts[2], rows: rows, ld: inner, half: half)

        let attended = HalfRows(split: parts[1], rows: rows, ld: padded(queryWidth), half: half)
        let attend =
            attendsFrames
            ? frameAttention(qkv, places, cache, into: attended)
            : pagedAttention(
                qkv, places, cache, partials: partials, counters: parts[0], asked: focus?.head.layer, into: attended)

        // Layers that end a half of a transformer layer prepare their rows for the next.
        let prepares = half == Int(MK_BF16)
        func ending(_ scale: DeviceBuffer?, before gain: DeviceBuffer) -> Epilogue {
            let epilogue = Epilogue(scale: scale?.address ?? 0, residual: x, raw: x, rawStride: ld)
            return prepares ? preparing(epilogue, for: gain, prepared) : epilogue
        }
        if prepares {
            if let begin {
                try begin(prepared)
            } else {
                try prepare(x, rows: rows, gain: layers[0].inputNorm, into: prepared)
            }
        }
        func runBehind(
            _ gain: DeviceBuffer, _ layer: PackedLayer, _ epilogue: Epilogue
        ) throws(CUDAError) {
            if prepares {
                try runPrepared(layer, prepared, rows: rows, epilogue)
            } else {
                try runNormed(layer, x, rows: rows, gain: gain, prepared: prepared, epilogue)
            }
        }
        for (index, layer) in layers.enumerated() {
            try observe?()
            try runBehind(layer.inputNorm, layer.qkv, Epilogue(raw: qkv, rawStride: qkvLD))
            try attend(index, layer)
            if let focus, focus.head.layer == index {
                try focus.ask(qkv + UInt64(focus.head.head * shape.headDimension * 4), qkvLD)
            }
            try device.run(
                layer.output, half: half, attended, rows: rows, ending(layer.attentionScale, before: layer.postNorm))
            try runBehind(
                layer.postNorm, layer.gateUp, Epilogue(activation: Int(MK_SWIGLU), output: innerRows))
            let next = index + 1 < layers.count ? layers[index + 1].inputNorm : norm
            try device.run(
                layer.down, half: half, innerRows, rows: rows, ending(layer.feedForwardScale, before: next))
        }
        try observe?()
        return prepared
    }

    /// Bytes of counters of rows and key heads.
    private static let counterBytes = 1 << 18

    /// Attention of a layer: queries, keys and values → attended rows.
    private typealias Attention = (_ index: Int, _ layer: Layer) throws(CUDAError) -> Void

    /// Rotation, unless rows are alone in their sessions, and sums over pages.
    /// - Parameters:
    ///   - qkv: float rows [rows, padded(qkvWidth)].
    ///   - asked: the layer whose queries are read afterwards, if there is one.
    private func pagedAttention(
        _ qkv: UInt64, _ places: RowPlaces, _ cache: mk_cache, partials: UInt64, counters: UInt64, asked: Int?,
        into attended: HalfRows
    ) -> Attention {
        let rows = places.rows
        var rope = mk_rope_arguments()
        rope.qkv = qkv
        rope.ld = Int32(padded(qkvWidth))
        rope.rows = Int32(rows)
        rope.heads = Int32(shape.heads)
        rope.epsilon = shape.normEpsilon
        rope.frequencies = frequencies.address
        rope.row_slots = places.slots
        rope.row_positions = places.positions
        rope.cache = cache
        var attention = mk_attention_arguments()
        attention.qkv = qkv
        attention.ld = rope.ld
        attention.rows = Int32(rows)
        attention.heads = Int32(shape.heads)
        attention.window = Int32(shape.window ?? 0)
        attention.row_slots = places.slots
        attention.row_positions = places.positions
        attention.cache = cache
        attention.epsilon = shape.normEpsilon
        attention.frequencies = frequencies.address
        attention.partials = partials
        attention.counters = counters
        attention.pages = Int32(places.pages)
        attention.half = Int32(half)
        attention.output = attended.high
        attention.output_low = attended.low
        attention.ld_output = Int32(attended.ld)
        let group = shape.heads / shape.keyValueHeads
        let dim = shape.headDimension
        let headFloats = ceiling((group + 2) * dim + group * (Int(MK_PAGE) + Int(MK_WARPS) * dim + 2), 4) * 4
        func shared(_ heads: Int) -> Int { (dim + heads * headFloats) * 4 }
        // As many key heads a block as there can be, unless all find room at once.
        let items = rows * shape.keyValueHeads
        let heads =
            items * places.pages <= device.info.multiprocessors
            ? 1
            : [4, 2].first { shape.keyValueHeads % $0 == 0 && shared($0) <= device.info.sharedMemory } ?? 1
        let name = heads == 1 ? "attend_rows" : "attend_rows\(heads)"
        return { [self] (index, layer) throws(CUDAError) in
            rope.query_norm = layer.queryNorm?.address ?? 0
            rope.key_norm = layer.keyNorm?.address ?? 0
            rope.cache.layer = Int32(index)
            attention.cache.layer = Int32(index)
            attention.query_norm = rope.query_norm
            attention.key_norm = rope.key_norm
            // Who is asked about queries finds them rotated in memory.
            let isAlone = places.areAlone && index != asked
            attention.is_alone = isAlone ? 1 : 0
            if !isAlone {
                try device.launch("rope_and_store", grid: (rows, 1), shared: dim * 4, overlaps: true, rope)
            }
            try device.launch(
                name, grid: (items / heads, places.pages), shared: shared(heads), overlaps: true, attention)
        }
    }

    /// In one launch, where `attendsFrames`.
    /// - Parameter qkv: float rows [rows, padded(qkvWidth)].
    private func frameAttention(
        _ qkv: UInt64, _ places: RowPlaces, _ cache: mk_cache, into attended: HalfRows
    ) -> Attention {
        var frames = mk_frame_attention_arguments()
        frames.qkv = qkv
        frames.ld = Int32(padded(qkvWidth))
        frames.rows = Int32(places.rows)
        frames.heads = Int32(shape.heads)
        frames.window = Int32(shape.window ?? 0)
        frames.columns = Int32(places.columns)
        frames.frequencies = frequencies.address
        frames.row_slots = places.slots
        frames.row_positions = places.positions
        frames.cache = cache
        frames.output = attended.high
        frames.output_low = attended.low
        frames.ld_output = Int32(attended.ld)
        let shared = (places.columns * shape.headDimension + Int(MK_WARPS) * (shape.headDimension + 2)) * 4
        let pairs = ceiling(shape.heads, Int(MK_WARPS / MK_FRAME_GROUPS))
        let name = places.rows * pairs <= device.info.multiprocessors ? "attend_frames" : "attend_many_frames"
        return { [self] (index, _) throws(CUDAError) in
            frames.cache.layer = Int32(index)
            try device.launch(name, grid: (places.rows, pairs), shared: shared, overlaps: true, frames)
        }
    }

    /// Whether rows are codec frames, whose attention is one kernel: a short window, plain narrow heads.
    private var attendsFrames: Bool {
        half == Int(MK_F16) && shape.window != nil && shape.heads == shape.keyValueHeads && shape.headDimension <= 64
            && queryWidth % Int(MK_CHUNK) == 0 && layers.allSatisfy { $0.queryNorm == nil && $0.keyNorm == nil }
    }

    /// Rows up to which a block takes 8 of them through a float16 layer behind an RMSNorm.
    private static let normedRows = 16

    /// Runs a layer behind an RMSNorm over float rows `x` [rows, ld].
    /// - Parameters:
    ///   - prepared: room for the rows that go in.
    func runNormed(
        _ layer: PackedLayer, _ x: UInt64, rows: Int, gain: DeviceBuffer, prepared: PreparedRows, _ epilogue: Epilogue
    ) throws(CUDAError) {
        let isFew = rows <= Self.normedRows
        guard half == Int(MK_F16), layer.weightsLow == nil, isFew || layer.chunks <= Int(MK_WARPS) else {
            try prepare(x, rows: rows, gain: gain, into: prepared)
            return try runPrepared(layer, prepared, rows: rows, epilogue)
        }
        var a = mk_normed_arguments()
        a.product = device.arguments(layer, prepared.rows, rows: rows, epilogue)
        a.x = x
        a.gain = gain.address
        a.ld_x = Int32(ld)
        a.width = Int32(shape.hidden)
        a.epsilon = shape.normEpsilon
        // Groups of 8 rows and tiles a block: one wave of blocks if that can be.
        let groups = isFew ? 1 : 8
        let blocks = ceiling(rows, 8 * groups)
        let tiles =
            (isFew ? [1, 2] : [2]).first { blocks * ceiling(layer.tiles, $0) <= device.info.multiprocessors }
            ?? (isFew ? 4 : 3)
        try device.launch(
            "gemm_f16_normed\(isFew ? "" : "_rows")\(tiles)", grid: (blocks, ceiling(layer.tiles, tiles)),
            shared: Int(MK_WARPS) * groups * (tiles * 64 + 8) * 4 + tiles * Int(MK_TILE) * 16, overlaps: true, a)
    }

    /// Runs a layer over rows that are prepared for it.
    func runPrepared(
        _ layer: PackedLayer, _ prepared: PreparedRows, rows: Int, _ epilogue: Epilogue
    ) throws(CUDAError) {
        var epilogue = epilogue
        if half == Int(MK_BF16) {
            epilogue.norm = (prepared.norms, shape.hidden, shape.normEpsilon)
        } else {
            epilogue.rowScale = prepared.norms
        }
        try device.run(layer, half: half, prepared.rows, rows: rows, epilogue)
    }

    /// The same epilogue, which prepares bfloat16 rows of this stack for a layer behind an RMSNorm.
    func preparing(_ epilogue: Epilogue, for gain: DeviceBuffer, _ prepared: PreparedRows) -> Epilogue {
        var epilogue = epilogue
        epilogue.stored = shape.hidden
        epilogue.output = prepared.rows
        epilogue.next = (gain.address, prepared.norms)
        return epilogue
    }

    /// Splits rows for a layer behind an RMSNorm, or behind nothing without `gain`.
    /// - Parameters:
    ///   - output: its norms are not written without `gain`.
    ///   - index: int rows of x, or 0 for all in order.
    ///   - normed: where the normed floats go: rows, stride, and row numbers or 0.
    func prepare(
        _ x: UInt64, rows: Int, gain: DeviceBuffer?, into prepared: PreparedRows, index: UInt64 = 0,
        normed: (rows: UInt64, ld: Int, index: UInt64)? = nil
    ) throws(CUDAError) {
        let output = prepared.rows
        var a = mk_prepare_arguments()
        a.x = x
        a.row_index = index
        a.ld = Int32(ld)
        a.width = Int32(shape.hidden)
        a.rows = Int32(rows)
        a.chunks = Int32(output.ld / Int(MK_CHUNK))
        a.gain = gain?.address ?? 0
        a.epsilon = shape.normEpsilon
        a.half = Int32(half)
        a.output = output.high
        a.output_low = output.low
        a.ld_output = Int32(output.ld)
        if gain != nil {
            if half == Int(MK_BF16) { a.squares = prepared.norms } else { a.row_scale = prepared.norms }
        }
        a.normed = normed?.rows ?? 0
        a.normed_rows = normed?.index ?? 0
        a.ld_normed = Int32(normed?.ld ?? 0)
        try device.launch(
            "prepare_rows", grid: (rows, 1), shared: (output.ld / Int(MK_CHUNK) + Int(MK_WARPS)) * 4, overlaps: true, a)
    }
}
