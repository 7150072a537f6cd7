import CCUDA

/// The schedule of a persistent kernel: all layers in the order in which their weights are used.
final class StepPlan {
    private let device: CUDADevice
    private let stack: DeviceStack
    private let schedule: DeviceBuffer
    private let count: Int
    private let layers: DeviceBuffer
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
        case (9, 0), (10, 0): ring = 20
        case (8, 0), (8, 7): ring = 12
        default: ring = 6
        }
        let gather = 16 * warps * 2 * 8 * 4
        let attention = 2 * group * (3 * s.headDimension + Int(MK_PAGE) + 2) * 4
        shared =
            warps * ring * 512 + warps * longest * 2 * 8 * 16 + warps * longest * 2 * 4 * 4 + 2 * warps * 4 + 2 * warps
            * 4
            + max(gather, attention)
        guard shared <= device.info.sharedMemory, stack.half == Int(MK_BF16), s.window == nil else { return nil }
        schedule = try DeviceBuffer(device, entries, "schedule")
        layers = try DeviceBuffer(
            device,
            stack.layers.map {
                mk_layer_entry(
                    input_gain: $0.inputNorm.address, post_gain: $0.postNorm.address,
                    query_norm: $0.queryNorm?.address ?? 0, key_norm: $0.keyNorm?.address ?? 0)
            }, "schedule")
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
            layers: layers.address, final_gain: stack.norm.address, frequencies: stack.frequencies.address,
            layer_count: Int32(s.layers), width: Int32(s.hidden), chunks: Int32(stack.ld / Int(MK_CHUNK)),
            heads: Int32(s.heads), intermediate_chunks: Int32(inner / Int(MK_CHUNK)), epsilon: s.normEpsilon,
            cache: cache)
        a.schedule = schedule.address
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
