import CCUDA

/// The schedule of a persistent kernel: all layers in the order in which their weights are used.
final class StepPlan {
    private let device: CUDADevice
    private let stack: DeviceStack
    private let schedule: DeviceBuffer
    private let count: Int
    /// Entries of one pass through the stack without a head.
    private let stackCount: Int
    private let gains, headGains: DeviceBuffer
    private let headOutputs: Int
    private let inputChunks: Int
    private let positions: Int?
    /// Blocks of a launch, at most: one for each multiprocessor.
    private let blocks: Int
    private let operations: Int
    private let workLayout: WorkLayout
    private let work: DeviceBuffer
    private var partials = DeviceScratch()
    /// Tag of the last operation so far.
    var tag: UInt32 = 0
    /// For measurements: takes the times of the next launch.
    var isTraced = false
    private var trace: (buffer: DeviceBuffer, grid: Int)?
    /// Rows that a team has room for.
    let teamRows: Int
    /// Bytes of weights that a team reads in one launch.
    let weightBytes: Int

    private static let maxTeams = 8
    /// Sessions that one launch takes.
    var sessions: Int { min(Self.maxTeams, blocks) * teamRows }

    /// nil if the card or the model does not fit the kernels.
    /// - Parameters:
    ///   - heads: the layer that follows the stack in each pass.
    ///   - projection: the layer before the stack in each pass.
    ///   - positions: of the code predictor, whose passes are all in one launch; nil for the talker.
    ///   - inputWidth: of the rows that go in, padded.
    init?(
        _ device: CUDADevice, stack: DeviceStack, heads: [PackedLayer], projection: PackedLayer?, positions: Int?,
        inputWidth: Int
    ) throws(CUDAError) {
        self.device = device
        self.stack = stack
        let s = stack.shape
        self.positions = positions
        inputChunks = inputWidth / Int(MK_CHUNK)
        var entries: [mk_stream_entry] = []
        func add(_ layer: PackedLayer, tiles: Int, unit: Int = 1) {
            entries.append(
                mk_stream_entry(
                    weights: layer.weights.address, units: Int32(tiles / unit), unit: UInt16(unit),
                    chunks: UInt16(layer.chunks)))
        }
        let residualTiles = stack.ld / Int(MK_TILE)
        func addStack() {
            if let projection { add(projection, tiles: residualTiles) }
            for layer in stack.layers {
                add(layer.qkv, tiles: ceiling(stack.qkvWidth, Int(MK_TILE)))
                add(layer.output, tiles: residualTiles)
                add(layer.gateUp, tiles: 2 * padded(s.intermediate) / Int(MK_TILE), unit: 2)
                add(layer.down, tiles: residualTiles)
            }
        }
        // A first pass without a head, for launches that take the code predictor's first two rows one after the other.
        if positions != nil { addStack() }
        stackCount = entries.count
        for head in heads {
            addStack()
            // A head's padding to whole tiles is computed.
            add(head, tiles: head.tiles)
        }
        count = entries.count
        weightBytes = entries.dropFirst(stackCount).reduce(0) {
            $0 + Int($1.units) * Int($1.unit) * Int($1.chunks) * 512
        }
        operations = (heads.count + 1) * (5 * s.layers + 3)
        headOutputs = heads.first?.outputs ?? 0
        // Who owns a part of the hidden state computes a part of the head, for 1 / rms.
        blocks = min(device.info.multiprocessors, headOutputs / Int(MK_TILE))
        guard blocks > 0, stack.half == Int(MK_BF16), s.window == nil, stack.queryWidth % Int(MK_CHUNK) == 0,
            stack.layers.allSatisfy({ $0.queryNorm != nil && $0.keyNorm != nil })
        else { return nil }
        // As many rows a team as fit when teams are as small as they get.
        let smallest = max(1, blocks / Self.maxTeams)
        let (inputChunks, headOutputs, all) = (inputChunks, headOutputs, entries.count)
        teamRows =
            (1...Int(MK_TEAM_ROWS)).last {
                SharedLayout(
                    stack, device.info, rows: $0, blocks: smallest, turns: positions ?? $0, pages: 1, entries: all,
                    inputChunks: inputChunks, headOutputs: headOutputs
                ).total <= device.info.sharedMemory
            } ?? 0
        guard teamRows > 0 else { return nil }
        schedule = try DeviceBuffer(device, entries, "schedule")
        gains = try DeviceBuffer(device, bytes: (2 * s.layers + 1) * stack.ld * 4, "schedule")
        headGains = try DeviceBuffer(device, bytes: 2 * s.layers * s.headDimension * 4, "schedule")
        workLayout = WorkLayout(stack, inputWidth: inputWidth, headOutputs: headOutputs)
        work = try DeviceBuffer(device, bytes: Self.maxTeams * workLayout.total, "work memory")
        let (row, head) = (stack.ld * 4, s.headDimension * 4)
        for (index, layer) in stack.layers.enumerated() {
            guard let query = layer.queryNorm, let key = layer.keyNorm else { return nil }
            try device.copyDevice(gains.address + UInt64(2 * index * row), layer.inputNorm.address, row)
            try device.copyDevice(gains.address + UInt64((2 * index + 1) * row), layer.postNorm.address, row)
            try device.copyDevice(headGains.address + UInt64(2 * index * head), query.address, head)
            try device.copyDevice(headGains.address + UInt64((2 * index + 1) * head), key.address, head)
        }
        try device.copyDevice(gains.address + UInt64(2 * s.layers * row), stack.norm.address, row)
    }

    /// Launches a kernel over sessions, at most `sessions`, of which the longest will have `positions` positions.
    func launch(
        _ name: String, batch: Int, positions longest: Int, cache: mk_cache, _ fill: (inout mk_step_arguments) -> Void
    ) throws(CUDAError) {
        let s = stack.shape
        let pages = ceiling(longest, Int(MK_PAGE))
        let teams = ceiling(batch, teamRows)
        let each = ceiling(batch, teams)
        // The code predictor's first two rows in one pass, if there is room.
        let together = positions != nil && 2 * each <= teamRows
        let rows = together ? 2 * each : each
        let teamBlocks = blocks / teams
        let first = positions == nil || together ? stackCount : 0
        let shared = SharedLayout(
            stack, device.info, rows: rows, blocks: teamBlocks, turns: positions ?? each, pages: pages,
            entries: count - first, inputChunks: inputChunks, headOutputs: headOutputs)
        guard shared.total <= device.info.sharedMemory else {
            throw .unsupportedModel("\(longest) positions in one session")
        }
        let partialBytes = pages == 1 ? 0 : rows * s.heads * pages * (s.headDimension / 2 + 1) * 16
        let partialAddress = try partials.reserve(device, teams * partialBytes)
        if tag > UInt32.max - 2 * UInt32(operations) {
            // No unit may hold a tag that comes again.
            try device.fill(work.address, work.byteCount)
            partials = DeviceScratch()
            tag = 0
            return try launch(name, batch: batch, positions: longest, cache: cache, fill)
        }
        func inverse(_ n: Int) -> UInt32 { n > 1 ? UInt32((1 << 32 + UInt64(n) - 1) / UInt64(n)) : 0 }
        var a = mk_step_arguments()
        a.stack = mk_stack(
            gains: gains.address, head_gains: headGains.address, frequencies: stack.frequencies.address,
            layer_count: Int32(s.layers), width: Int32(s.hidden), chunks: Int32(stack.ld / Int(MK_CHUNK)),
            heads: Int32(s.heads), intermediate_chunks: Int32(padded(s.intermediate) / Int(MK_CHUNK)),
            epsilon: s.normEpsilon, cache: cache)
        a.schedule = schedule.address
        a.schedule_first = Int32(first)
        a.schedule_count = Int32(count)
        a.batch = Int32(batch)
        a.teams = Int32(teams)
        a.blocks = Int32(teamBlocks)
        a.blocks_inverse = inverse(teamBlocks)
        a.rows = Int32(rows)
        a.is_predictor = positions == nil ? 0 : 1
        a.together = together ? 1 : 0
        a.tag = tag
        a.work = work.address
        a.work_stride = Int64(workLayout.total)
        a.input_at = workLayout.input
        a.x_at = workLayout.x
        a.attended_at = workLayout.attended
        a.inner_at = workLayout.inner
        a.entry_at = workLayout.entry
        a.qkv_at = workLayout.qkv
        a.logits_at = workLayout.logits
        a.layers = layers
        a.gather = Int32(shared.gather)
        a.piece = Int32(shared.piece)
        a.row_places = Int32(shared.rowPlaces)
        a.row_places_log = Int32(shared.rowPlaces.trailingZeroBitCount)
        a.finishers_log = Int32(shared.finishers.trailingZeroBitCount)
        a.ld_qkv = Int32(padded(stack.qkvWidth))
        a.partials = partialAddress
        a.partials_stride = Int64(partialBytes)
        a.pages = Int32(pages)
        a.run_sums_at = shared.runSums
        a.residual_at = shared.residual
        a.turns_at = shared.turns
        a.places_at = shared.places
        a.words_at = shared.words
        a.schedule_at = shared.schedule
        a.area_at = shared.area
        a.stage_units = Int32(shared.stageBytes / 16)
        // As many blocks for attention as there are, where each then has one query head.
        let group = s.heads / s.keyValueHeads
        let itemHeads = each * s.heads * pages <= teamBlocks ? 1 : group
        a.item_heads = Int32(itemHeads)
        a.key_queries = Int32(group)
        a.head_items = Int32(s.heads / itemHeads)
        a.key_queries_inverse = inverse(group)
        a.head_items_inverse = inverse(s.heads / itemHeads)
        a.half_inverse = inverse(s.headDimension / 2)
        a.ring = Int32(shared.ring)
        a.streams_at = shared.streams
        a.partials_in_area = Int32(Int(MK_WARPS) * shared.stageBytes)
        a.talker_chunks = Int32(inputChunks)
        a.head_outputs = Int32(headOutputs)
        fill(&a)
        if isTraced {
            let grid = teams * teamBlocks
            let buffer = try DeviceBuffer(device, bytes: operations * grid * MemoryLayout<mk_trace>.stride, "trace")
            trace = (buffer, grid)
            a.trace = buffer.address
            a.traced = 1
            isTraced = false
        }
        try device.launch(name, grid: (teams * teamBlocks, 1), shared: shared.total, cooperative: true, a)
        tag += UInt32(operations)
    }

    /// By kind, MK_QKV to MK_PROJECT: units of tiles, chunks, input.
    private var layers: (mk_step_layer, mk_step_layer, mk_step_layer, mk_step_layer, mk_step_layer, mk_step_layer) {
        func layer(_ units: Int, _ inputs: Int, _ inputAt: Int32) -> mk_step_layer {
            let chunks = inputs / Int(MK_CHUNK)
            return mk_step_layer(
                units: Int32(units), chunks: Int32(chunks), run: Int32(ceiling(chunks, Int(MK_WARPS))),
                input_at: inputAt)
        }
        let tile = Int(MK_TILE)
        let (residualTiles, inner) = (stack.ld / tile, padded(stack.shape.intermediate))
        return (
            layer(ceiling(stack.qkvWidth, tile), stack.ld, workLayout.x),
            layer(residualTiles, stack.queryWidth, workLayout.attended),
            layer(inner / tile, stack.ld, workLayout.x),
            layer(residualTiles, inner, workLayout.inner),
            layer(padded(headOutputs) / tile, stack.ld, workLayout.x),
            layer(residualTiles, inputChunks * Int(MK_CHUNK), workLayout.input)
        )
    }
}

/// What the blocks did in operations of one kind.
struct OperationTimes {
    let name: String
    /// Operations, and the blocks that took part on average.
    let count: Int
    let blocks: Double
    /// Cycles of a block: until its input was there, for its sums, for the rest.
    let wait, work, finish: Double
}

extension StepPlan {
    /// Of the traced launch: a line for each kind of operation.
    func times() throws(CUDAError) -> [OperationTimes] {
        guard let trace else { return [] }
        let words = try device.integers(trace.buffer.address, trace.buffer.byteCount / 4)
        let names = [
            (MK_INPUT, "sampling and input"), (MK_PROJECT, "projection"), (MK_QKV, "queries, keys, values"),
            (MK_ATTEND, "attention"), (MK_OUTPUT, "output"), (MK_GATE_UP, "gate, up"), (MK_DOWN, "down"),
            (MK_HEAD, "head"),
        ]
        return names.compactMap { kind, name in
            var (entries, sums) = (0, [0.0, 0.0, 0.0])
            var seen = Set<Int>()
            for entry in 0..<(words.count / 5) where words[entry * 5] == Int32(kind) + 1 {
                entries += 1
                seen.insert(entry / trace.grid)
                for part in 0..<3 {
                    let clocks = words[(entry * 5 + 1 + part)...].prefix(2).map { UInt32(bitPattern: $0) }
                    sums[part] += Double(clocks[1] &- clocks[0])
                }
            }
            if entries == 0 { return nil }
            let n = Double(entries)
            return OperationTimes(
                name: name, count: seen.count, blocks: n / Double(seen.count), wait: sums[0] / n, work: sums[1] / n,
                finish: sums[2] / n)
        }
    }
}

/// Where the parts of shared memory lie, in bytes; see `step_block`.
private struct SharedLayout {
    let streams, runSums, residual, turns, places, words, schedule, area: Int32
    /// See `mk_step_arguments`.
    let gather, piece, rowPlaces, finishers, ring: Int
    /// Activations of a warp.
    let stageBytes: Int
    let total: Int
    /// Whether a warp holds all its activations.
    private let isWhole: Bool

    /// Rings are as long as shared memory allows, but no longer than `MK_RING` or what was measured to be best: 5 with bulk
    /// copies, 3 without. From 3 rows on a longer ring is not worth activations in pieces.
    init(
        _ stack: DeviceStack, _ info: CUDADeviceInfo, rows: Int, blocks: Int, turns: Int, pages: Int, entries: Int,
        inputChunks: Int, headOutputs: Int
    ) {
        let longest = KernelCompiler.defines["MK_RING"] ?? (info.capability >= (9, 0) ? 5 : 3)
        let layouts = (2...max(2, min(longest, 5))).map {
            SharedLayout(
                stack, ring: $0, sharedMemory: info.sharedMemory, rows: rows, blocks: blocks, turns: turns,
                pages: pages, entries: entries, inputChunks: inputChunks, headOutputs: headOutputs)
        }
        let fitting = layouts.filter { $0.total <= info.sharedMemory }
        self =
            fitting.last { $0.isWhole && $0.ring >= 3 } ?? fitting.last { $0.ring <= 3 } ?? fitting.first ?? layouts[0]
    }

    private init(
        _ stack: DeviceStack, ring: Int, sharedMemory: Int, rows: Int, blocks: Int, turns turnCount: Int, pages: Int,
        entries: Int, inputChunks: Int, headOutputs: Int
    ) {
        self.ring = ring
        let (warps, dim) = (Int(MK_WARPS), stack.shape.headDimension)
        let group = stack.shape.heads / stack.shape.keyValueHeads
        var places = 1
        while places < rows { places *= 2 }
        rowPlaces = places
        gather = min(Int(MK_GATHER), 4 * Int(MK_GATHER) / places)
        var next = warps * ring * 2048
        func take(_ bytes: Int) -> Int32 {
            defer { next += (bytes + 15) & ~15 }
            return Int32(next)
        }
        // As in step.cu: weight_stream, and a barrier for each row of a ring.
        streams = take(warps * (48 + 5 * 8))
        runSums = take(rows * warps * 4)
        residual = take(ceiling(stack.ld / Int(MK_TILE), blocks) * rows * Int(MK_TILE) * 4)
        turns = take(turnCount * dim / 2 * 8)
        self.places = take(rows * 8 + 48)
        words = take(Int(MK_SAMPLER_BYTES))
        schedule = take(entries * 16)
        let page = group * (Int(MK_PAGE) + warps * dim + 2)
        let attention = (2 * (group + 2) * dim + page) * 4
        let other = max(attention, group * pages * 8, headOutputs * 4)
        finishers = gather * places * 4
        let sums = 2 * warps * finishers * 8
        // All of a warp's activations, if there is room for them: three units for eight of a row.
        let chunks = [stack.ld, stack.queryWidth, padded(stack.shape.intermediate)].map { $0 / Int(MK_CHUNK) }
        let run = ceiling(ceiling((chunks + [inputChunks]).max() ?? 1, warps), 2) * 2
        var piece = run
        while piece > 2, next + warps * piece * rows * 192 + sums > sharedMemory { piece -= 2 }
        isWhole = piece == run
        self.piece = piece
        stageBytes = piece * rows * 192
        area = take(max(warps * stageBytes + sums, other))
        total = next
    }
}

/// Where the parts of a team's work memory lie, in bytes; see `mk_step_arguments`.
private struct WorkLayout {
    let input, x, attended, inner, entry, qkv, logits: Int32
    let total: Int

    init(_ stack: DeviceStack, inputWidth: Int, headOutputs: Int) {
        var next = 0
        func take(_ values: Int, _ bytesOfEight: Int) -> Int32 {
            defer { next += (Int(MK_TEAM_ROWS) * values / 8 * bytesOfEight + 255) & ~255 }
            return Int32(next)
        }
        // A record of eight values takes three units, a pair of floats one.
        let (record, floats) = (48, 64)
        input = take(inputWidth, record)
        x = take(stack.ld, record)
        attended = take(stack.queryWidth, record)
        inner = take(padded(stack.shape.intermediate), record)
        entry = take(stack.ld, floats)
        qkv = take(padded(stack.qkvWidth), floats)
        logits = take(headOutputs, floats)
        total = next
    }
}
