import CCUDA

/// The schedule of a persistent kernel: all layers in the order in which their weights are used.
final class StepPlan {
    private let device: CUDADevice
    private let stack: DeviceStack
    private let schedule: DeviceBuffer
    private let count: Int
    private let gains, headGains: DeviceBuffer
    private let headOutputs: Int
    private let shared: Int
    private var work = DeviceScratch()
    /// Bytes of weights that one launch reads.
    let weightBytes: Int

    /// nil if the card or the model does not fit the kernels.
    /// - Parameters:
    ///   - passes: layers that follow the stack in each pass.
    ///   - projection: the layer before the stack in each pass.
    init?(_ device: CUDADevice, stack: DeviceStack, passes: [[PackedLayer]], projection: PackedLayer?) throws(CUDAError)
    {
        self.device = device
        self.stack = stack
        let s = stack.shape
        var entries: [mk_stream_entry] = []
        var bytes = 0
        func add(_ layer: PackedLayer, tiles: Int) {
            entries.append(
                mk_stream_entry(weights: layer.weights.address, tiles: Int32(tiles), chunks: Int32(layer.chunks)))
            bytes += tiles * layer.chunks * 512
        }
        let residualTiles = stack.ld / Int(MK_TILE)
        for pass in passes {
            if let projection { add(projection, tiles: residualTiles) }
            for layer in stack.layers {
                add(layer.qkv, tiles: ceiling(stack.qkvWidth, Int(MK_TILE)))
                add(layer.output, tiles: residualTiles)
                add(layer.gateUp, tiles: 2 * padded(s.intermediate) / Int(MK_TILE))
                add(layer.down, tiles: residualTiles)
            }
            // A head's padding is not computed.
            for layer in pass { add(layer, tiles: layer.tiles) }
        }
        count = entries.count
        weightBytes = bytes
        let longest = ceiling(entries.map { Int($0.chunks) }.max() ?? 0, Int(MK_WARPS))
        let warps = Int(MK_WARPS)
        let group = s.heads / s.keyValueHeads
        // As step_block::open lays it out.
        let ring: Int
        switch device.info.capability {
        case (9, 0), (10, 0): ring = 16
        case (8, 0), (8, 7): ring = 8
        default: ring = 6
        }
        let gather = 16 * warps * 2 * 8 * 4
        let attention =
            (2 * (group + 2) * s.headDimension + group * (Int(MK_PAGE) + warps * s.headDimension)) * 4
        let parts = [
            warps * ring * 512, warps * longest * 2 * 8 * 16, warps * longest * 2 * 4 * 4, 2 * warps * 4,
            Int(MK_SAMPLER_BYTES), max(gather, attention),
        ]
        shared = parts.reduce(0, +)
        guard shared <= device.info.sharedMemory, stack.half == Int(MK_BF16), s.window == nil else { return nil }
        schedule = try DeviceBuffer(device, entries, "schedule")
        gains = try DeviceBuffer(device, bytes: (2 * s.layers + 1) * stack.ld * 4, "schedule")
        headGains = try DeviceBuffer(device, bytes: 2 * s.layers * s.headDimension * 4, "schedule")
        let (row, head) = (stack.ld * 4, s.headDimension * 4)
        for (index, layer) in stack.layers.enumerated() {
            guard let query = layer.queryNorm, let key = layer.keyNorm else { return nil }
            try device.copyDevice(gains.address + UInt64(2 * index * row), layer.inputNorm.address, row)
            try device.copyDevice(gains.address + UInt64((2 * index + 1) * row), layer.postNorm.address, row)
            try device.copyDevice(headGains.address + UInt64(2 * index * head), query.address, head)
            try device.copyDevice(headGains.address + UInt64((2 * index + 1) * head), key.address, head)
        }
        try device.copyDevice(gains.address + UInt64(2 * s.layers * row), stack.norm.address, row)
        headOutputs = passes.first?.first?.outputs ?? 0
    }

    /// Launches a kernel whose session will have `positions` positions.
    func launch(
        _ name: String, positions: Int, cache: mk_cache, _ fill: (inout mk_step_arguments) -> Void
    ) throws(CUDAError) {
        let s = stack.shape
        let qkvLD = padded(stack.qkvWidth)
        let inner = padded(s.intermediate)
        let pages = ceiling(positions, Int(MK_PAGE))
        let partials = 2 * s.heads * pages * (s.headDimension + 2)
        var layout = Layout(try work.reserve(device, 2 * qkvLD * 4 + partials * 4 + 4 * inner * 2 + 2048))
        var a = mk_step_arguments()
        a.stack = mk_stack(
            gains: gains.address, head_gains: headGains.address, frequencies: stack.frequencies.address,
            layer_count: Int32(s.layers), width: Int32(s.hidden), chunks: Int32(stack.ld / Int(MK_CHUNK)),
            heads: Int32(s.heads), intermediate_chunks: Int32(inner / Int(MK_CHUNK)), epsilon: s.normEpsilon,
            cache: cache)
        a.schedule = schedule.address
        a.head_outputs = Int32(headOutputs)
        a.schedule_count = Int32(count)
        a.qkv = layout.take(2 * qkvLD * 4)
        a.partials = layout.take(partials * 4)
        a.inner = layout.take(2 * inner * 2)
        a.inner_low = layout.take(2 * inner * 2)
        a.ld_qkv = Int32(qkvLD)
        a.ld_inner = Int32(inner)
        a.pages = Int32(pages)
        fill(&a)
        try device.fill(a.barrier, 4)
        try device.launch(name, grid: (device.info.multiprocessors, 1), shared: shared, cooperative: true, a)
    }
}
