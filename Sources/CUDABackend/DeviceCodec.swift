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

/// How the codec decoder computes.
public enum CodecPrecision: String, Sendable, CaseIterable {
    /// float16 weights and activations, float32 sums.
    case half
    /// Both as two float16 parts, as good as float32; about three times the work.
    case exact
}

/// The codec decoder on the device: codes → samples, with each session's state in place.
final class DeviceCodec {
    private struct Snake {
        let alpha: DeviceBuffer
        let inverseBeta: DeviceBuffer
        var addresses: (alpha: UInt64, inverseBeta: UInt64) { (alpha.address, inverseBeta.address) }
    }

    /// The states of all slots, one after the other, so that one call resets a slot.
    private final class SlotStates {
        private(set) var bytesPerSlot = 0
        private var buffer: DeviceBuffer?
        var address: UInt64 { buffer?.address ?? 0 }

        /// Where a part of so many bytes lies in each slot.
        func reserve(_ bytes: Int) -> Int {
            defer { bytesPerSlot += (bytes + 255) & ~255 }
            return bytesPerSlot
        }

        /// Takes the memory, after all parts.
        func allocate(_ device: CUDADevice, slots: Int) throws(CUDAError) {
            buffer = try DeviceBuffer(device, bytes: slots * bytesPerSlot, "decoder states")
        }
    }

    /// The input state of a convolution, for all slots.
    private struct Histories {
        let states: SlotStates
        /// In a slot's state.
        let high: Int
        let low: Int?
        /// Columns kept, and elements of a column.
        let kept: Int
        let ld: Int
        let elementBytes: Int
        var view: History {
            History(
                high: states.address + UInt64(high), low: low.map { states.address + UInt64($0) } ?? 0,
                stride: states.bytesPerSlot / elementBytes)
        }
    }

    private struct Upsample {
        let transposed: PackedLayer
        let rate: Int
        let depthwise, depthwiseBias, normWeight, normBias, gamma: DeviceBuffer
        let expand, contract: PackedLayer
        let history: Histories
    }

    private struct Unit {
        let activation1: Snake
        let convolution1: PackedLayer
        let activation2: Snake
        let convolution2: PackedLayer
        let history: Histories
    }

    private struct Block {
        let activation: Snake
        let transposed: PackedLayer
        let history: Histories
        let rate: Int
        let channels: Int
        let units: [Unit]
    }

    let device: CUDADevice
    let configuration: CodecDecoderConfiguration
    let samplesPerFrame: Int
    let precision: CodecPrecision
    /// Positions of the pre-transformer that a slot keeps, in pages used in turn.
    private let ring: Int
    private let tables: DeviceBuffer
    private let quantizer, preConvolution, inputProjection, outputProjection: PackedLayer
    private let stack: DeviceStack
    private let upsamples: [Upsample]
    private let blocks: [Block]
    private let firstConvolution, lastConvolution: PackedLayer
    private let preHistory, firstHistory, lastHistory: Histories
    private let lastActivation: Snake
    private let pageTable: DeviceBuffer
    private var pages: [DeviceBuffer?]
    private let states: SlotStates
    /// Blocks that keep one session's histories.
    private let rollCount: Int
    private var arena = DeviceScratch()
    private let half = Int(MK_F16)
    private var prepared: [Shape: Prepared] = [:]
    private var passes = 0
    /// Whether passes are recorded as graphs.
    var usesGraphs: Bool
    /// Shapes of passes that are kept prepared, and recorded.
    var preparedShapes = 64

    /// Frames of all packets in one pass: bounds the work memory to about 0.5 GB.
    static let framesPerPass = 128
    /// Frames of one session in a pass.
    static let framesPerPacket = 32

    /// - Parameter file: the codec's weights, or nil for made-up ones.
    init(
        _ device: CUDADevice, file: SafetensorsFile?, configuration codec: CodecConfiguration, slots: Int,
        precision: CodecPrecision
    ) throws {
        let c = codec.decoder
        self.device = device
        configuration = c
        samplesPerFrame = codec.samplesPerFrame
        self.precision = precision
        usesGraphs = LaunchGraph.isAvailable(on: device)
        let isExact = precision == .exact
        let loader = WeightLoader(device: device, file: file, half: Int(MK_F16), keepsLow: isExact)
        let states = SlotStates()
        var rollCount = 0
        func history(_ kept: Int, _ channels: Int, split: Bool, float: Bool = false) -> Histories {
            let bytes = kept * padded(channels) * (float ? 4 : 2)
            rollCount += (split ? 2 : 1) * ceiling(padded(channels) * (float ? 4 : 2), Int(MK_ROLL_BYTES))
            return Histories(
                states: states, high: states.reserve(bytes), low: split ? states.reserve(bytes) : nil, kept: kept,
                ld: padded(channels), elementBytes: float ? 4 : 2)
        }
        func snake(_ name: String, _ channels: Int) throws -> Snake {
            let alpha = try loader.values(name + ".alpha", [channels])
            let beta = try loader.values(name + ".beta", [channels])
            return Snake(
                alpha: try loader.floats(alpha.map { expf($0) }, name),
                inverseBeta: try loader.floats(beta.map { 1 / (expf($0) + 1e-9) }, name))
        }

        let width = c.codebookDimension / 2
        var rows: [Float] = []
        rows.reserveCapacity(c.codebooks * c.codebookSize * width)
        for group in 0..<c.codebooks {
            let part = group == 0 ? "rvq_first.vq.layers.0" : "rvq_rest.vq.layers.\(group - 1)"
            let base = "decoder.quantizer.\(part)._codebook."
            let sums = try loader.values(base + "embedding_sum", [c.codebookSize, width])
            let usage = try loader.values(base + "cluster_usage", [c.codebookSize])
            for entry in 0..<c.codebookSize {
                let divisor = max(usage[entry], 1e-5)
                for i in 0..<width { rows.append(sums[entry * width + i] / divisor) }
            }
        }
        tables = try DeviceBuffer(device, rows, "codebooks")
        quantizer = try loader.join(
            ["rvq_first", "rvq_rest"].map { "decoder.quantizer.\($0).output_proj.weight" }, inputs: width,
            outputs: c.codebookDimension)
        preConvolution = try loader.convolution(
            "decoder.pre_conv.conv", taps: 3, channels: c.codebookDimension, outputs: c.latentSize)
        preHistory = history(2, c.codebookDimension, split: true)
        let t = "decoder.pre_transformer."
        let hidden = c.transformer.hidden
        inputProjection = try loader.linear(
            [(t + "input_proj.weight", hidden)], inputs: c.latentSize,
            bias: try loader.values(t + "input_proj.bias", [hidden]))
        outputProjection = try loader.linear(
            [(t + "output_proj.weight", c.latentSize)], inputs: hidden,
            bias: try loader.values(t + "output_proj.bias", [c.latentSize]))
        stack = try DeviceStack(loader, prefix: t, shape: c.transformer)

        var upsamples: [Upsample] = []
        for (index, rate) in c.latentUpsampleRates.enumerated() {
            let d = c.latentSize
            let n = "decoder.upsample.\(index).1."
            let weight = try loader.values(n + "dwconv.conv.weight", [d, 1, 7])
            var taps = [Float](repeating: 0, count: 7 * padded(d))
            for channel in 0..<d { for j in 0..<7 { taps[j * padded(d) + channel] = weight[channel * 7 + j] } }
            let upsample = Upsample(
                transposed: try loader.transposed(
                    "decoder.upsample.\(index).0.conv", channels: d, outputs: d, kernel: rate, stride: rate),
                rate: rate, depthwise: try DeviceBuffer(device, taps, n),
                depthwiseBias: try loader.floats(n + "dwconv.conv.bias", d),
                normWeight: try loader.floats(n + "norm.weight", d), normBias: try loader.floats(n + "norm.bias", d),
                gamma: try loader.floats(n + "gamma", d),
                expand: try loader.linear(
                    [(n + "pwconv1.weight", 4 * d)], inputs: d,
                    bias: try loader.values(n + "pwconv1.bias", [4 * d])),
                contract: try loader.linear(
                    [(n + "pwconv2.weight", d)], inputs: 4 * d,
                    bias: try loader.values(n + "pwconv2.bias", [d])),
                history: history(6, d, split: false, float: true))
            upsamples.append(upsample)
        }
        self.upsamples = upsamples

        firstConvolution = try loader.convolution(
            "decoder.decoder.0.conv", taps: 7, channels: c.latentSize, outputs: c.channels)
        firstHistory = history(6, c.latentSize, split: isExact)
        var blocks: [Block] = []
        var channels = c.channels
        for (index, rate) in c.upsampleRates.enumerated() {
            let n = "decoder.decoder.\(index + 1).block."
            let out = channels / 2
            var units: [Unit] = []
            for (number, dilation) in [1, 3, 9].enumerated() {
                let u = n + "\(number + 2)."
                let unit = Unit(
                    activation1: try snake(u + "act1", out),
                    convolution1: try loader.convolution(
                        u + "conv1.conv", taps: 7, channels: out, outputs: out, dilation: dilation),
                    activation2: try snake(u + "act2", out),
                    convolution2: try loader.convolution(u + "conv2.conv", taps: 1, channels: out, outputs: out),
                    history: history(6 * dilation, out, split: isExact))
                units.append(unit)
            }
            let block = Block(
                activation: try snake(n + "0", channels),
                transposed: try loader.transposed(
                    n + "1.conv", channels: channels, outputs: out, kernel: 2 * rate, stride: rate),
                history: history(1, channels, split: isExact), rate: rate, channels: out, units: units)
            blocks.append(block)
            channels = out
        }
        self.blocks = blocks
        let last = c.upsampleRates.count + 1
        lastActivation = try snake("decoder.decoder.\(last)", channels)
        lastConvolution = try loader.convolution(
            "decoder.decoder.\(last + 1).conv", taps: 7, channels: channels, outputs: 1)
        lastHistory = history(6, channels, split: isExact)
        try states.allocate(device, slots: slots + 1)
        self.states = states
        self.rollCount = rollCount

        ring = ceiling((c.transformer.window ?? 0) + Self.framesPerPacket, Int(MK_PAGE)) + 1
        pageTable = try DeviceBuffer(device, bytes: (slots + 1) * ring * 8, "page table")
        pages = Array(repeating: nil, count: slots + 1)
        guard c.transformer.window != nil else {
            throw CUDAError.unsupportedModel("the codec's transformer has no window")
        }
    }

    /// Bytes of weights that one pass reads.
    var weightBytes: Int {
        stack.weightBytes
            + [quantizer, preConvolution, inputProjection, outputProjection, firstConvolution, lastConvolution]
            .reduce(0) { $0 + $1.byteCount }
            + upsamples.reduce(0) { $0 + $1.transposed.byteCount + $1.expand.byteCount + $1.contract.byteCount }
            + blocks.reduce(0) { total, block in
                total + block.transposed.byteCount
                    + block.units.reduce(0) { $0 + $1.convolution1.byteCount + $1.convolution2.byteCount }
            }
    }

    /// Gives a slot the zero state.
    func reset(_ slot: Int) throws(CUDAError) {
        try device.fill(states.address + UInt64(slot * states.bytesPerSlot), states.bytesPerSlot)
        if pages[slot] == nil {
            let memory = try DeviceBuffer(device, bytes: ring * stack.pageBytes, "decoder state", zeroed: false)
            pages[slot] = memory
            try device.copyIn(
                pageTable.address + UInt64(slot * ring * 8),
                (0..<ring).map { memory.address + UInt64($0 * stack.pageBytes) })
        }
    }

    /// Sees the output of a stage: name as in the specification, channel-last values of the first packet.
    typealias Observer = (_ stage: String, _ values: [Float], _ channels: Int) -> Void

    /// Decodes `frames` frames of every session.
    /// - Parameters:
    ///   - codes: [sessions][frames][groups].
    ///   - positions: frames that each session has decoded before.
    ///   - stages: those that run.
    /// - Returns: device address of samples [sessions][frames · samplesPerFrame]; of no use unless all stages run.
    func decode(
        slots: [Int], positions: [Int], codes: [Int32], frames: Int, stages: DecoderStages = .all,
        observe: Observer? = nil
    ) throws(CUDAError) -> UInt64 {
        try finish(
            begin(slots: slots, positions: positions, codes: codes, frames: frames, stages: stages, observe: observe))
    }

    /// Sessions of a pass with the same launches as so many sessions': others, in a slot behind the last, fill it up, so that
    /// few graphs do.
    static func filled(_ sessions: Int, frames: Int) -> Int {
        let step = sessions <= 8 ? 1 : sessions <= 32 ? 4 : 8
        let filled = ceiling(sessions, step) * step
        return filled * frames <= framesPerPass ? filled : sessions
    }

    /// The first half of ``decode(slots:positions:codes:frames:stages:observe:)``, up to the pre-transformer. No other
    /// pass may begin before its second half.
    func begin(
        slots: [Int], positions: [Int], codes: [Int32], frames: Int, stages: DecoderStages = .all,
        observe: Observer? = nil
    ) throws(CUDAError) -> Pass {
        var (slots, positions, codes) = (slots, positions, codes)
        let others = Self.filled(slots.count, frames: frames) - slots.count
        if others > 0 {
            let spare = pages.count - 1
            if pages[spare] == nil { try reset(spare) }
            slots += Array(repeating: spare, count: others)
            positions += Array(repeating: 0, count: others)
            codes += Array(repeating: 0, count: others * frames * configuration.codebooks)
        }
        let shape = Shape(sessions: slots.count, frames: frames, stages: stages, isObserved: observe != nil)
        let known = try prepare(shape)
        try device.copyIn(known.base, inputs(slots, positions, codes, frames, known.rolls))
        let graphs = observe == nil ? try graphs(of: known) : nil
        var pass = Pass(shape, plan: Plan(base: known.base, runs: true), graphs: graphs, observe: observe)
        if let graphs { try graphs.first.launch() } else { try transform(&pass) }
        return pass
    }

    /// The second half: upsampling and convolutions.
    /// - Returns: device address of samples [sessions][frames · samplesPerFrame]; of no use unless all stages run.
    func finish(_ pass: Pass) throws(CUDAError) -> UInt64 {
        if let graphs = pass.graphs {
            try graphs.second.launch()
            return graphs.samples
        }
        var pass = pass
        return try convolve(&pass)
    }

    /// What launches of a pass depend on, apart from what is copied in before them.
    fileprivate struct Shape: Hashable {
        let sessions, frames: Int
        let stages: DecoderStages
        let isObserved: Bool
    }

    /// What passes of one shape have in common.
    private final class Prepared {
        let shape: Shape
        /// Where their work memory begins.
        let base: UInt64
        let rolls: [mk_roll_entry]
        var graphs: Graphs?
        var passes = 0
        /// The number of its last pass.
        var last = 0

        init(_ shape: Shape, base: UInt64, rolls: [mk_roll_entry]) {
            self.shape = shape
            self.base = base
            self.rolls = rolls
        }
    }

    /// Both halves of a pass, recorded.
    fileprivate final class Graphs {
        let first, second: LaunchGraph
        let samples: UInt64
        /// Where the transformer's work memory was.
        let work: UInt64

        init(first: LaunchGraph, second: LaunchGraph, samples: UInt64, work: UInt64) {
            self.first = first
            self.second = second
            self.samples = samples
            self.work = work
        }
    }

    /// Lays out the work memory of a pass, or finds it laid out.
    private func prepare(_ shape: Shape) throws(CUDAError) -> Prepared {
        passes += 1
        if let known = prepared[shape], known.base == arena.address {
            known.passes += 1
            known.last = passes
            return known
        }
        // Once without launches, to learn how much memory it takes.
        var trial = Pass(shape, plan: Plan(base: 0, runs: false), graphs: nil, observe: nil)
        try transform(&trial)
        _ = try convolve(&trial)
        let base = try arena.reserve(device, trial.plan.used)
        for entry in trial.rolls.indices { trial.rolls[entry].fresh += base }
        // Graphs that go may still be under way.
        let stale = prepared.values.filter { $0.base != base }
        if prepared.count - stale.count >= preparedShapes || stale.contains(where: { $0.graphs != nil }) {
            try device.wait()
        }
        for entry in stale { prepared[entry.shape] = nil }
        while prepared.count >= preparedShapes, let oldest = prepared.values.min(by: { $0.last < $1.last }) {
            prepared[oldest.shape] = nil
        }
        let new = Prepared(shape, base: base, rolls: trial.rolls)
        new.last = passes
        prepared[shape] = new
        return new
    }

    /// A shape's graphs: from its second pass on, so that passes of rare shapes cost no recording, and so that the first has
    /// taken all memory and found all kernels.
    private func graphs(of known: Prepared) throws(CUDAError) -> Graphs? {
        if let graphs = known.graphs, graphs.work == stack.workAddress { return graphs }
        guard usesGraphs, known.passes > 0 else { return nil }
        if known.graphs != nil {
            try device.wait()
            known.graphs = nil
        }
        do throws(CUDAError) {
            var pass = Pass(known.shape, plan: Plan(base: known.base, runs: true), graphs: nil, observe: nil)
            let first = try LaunchGraph(device) { () throws(CUDAError) in try transform(&pass) }
            var samples: UInt64 = 0
            let second = try LaunchGraph(device) { () throws(CUDAError) in samples = try convolve(&pass) }
            known.graphs = Graphs(first: first, second: second, samples: samples, work: stack.workAddress)
        } catch {
            if error.isSticky { throw error }
            if device.overlapsLaunches {
                device.overlapsLaunches = false
                return try graphs(of: known)
            }
            // Kernel by kernel it gives the same samples.
            usesGraphs = false
        }
        return known.graphs
    }

    /// What a pass is told, in the order in which it lies at the beginning of its work memory.
    private func inputs(
        _ slots: [Int], _ positions: [Int], _ codes: [Int32], _ frames: Int, _ rolls: [mk_roll_entry]
    ) -> [UInt8] {
        var bytes: [UInt8] = []
        func put<Element>(_ values: [Element]) {
            values.withUnsafeBytes { bytes += $0 }
            bytes += Array(repeating: 0, count: -bytes.count & (Plan.alignment - 1))
        }
        put(slots.map { Int32($0) })
        put(slots.flatMap { Array(repeating: Int32($0), count: frames) })
        put(positions.flatMap { start in (0..<frames).map { Int32(start + $0) } })
        put(codes)
        put(rolls)
        return bytes
    }

    /// Work memory of a pass, handed out in order.
    fileprivate struct Plan {
        static let alignment = 256
        let base: UInt64
        let runs: Bool
        var used = 0

        init(base: UInt64, runs: Bool) {
            self.base = base
            self.runs = runs
        }

        mutating func take(_ bytes: Int) -> UInt64 {
            defer { used += (bytes + Self.alignment - 1) & -Self.alignment }
            return base + UInt64(used)
        }

        mutating func halves(_ rows: Int, _ ld: Int, split: Bool) -> HalfRows {
            HalfRows(high: take(rows * ld * 2), low: split ? take(rows * ld * 2) : 0, ld: ld)
        }
    }

    /// Some frames of some sessions on their way through the decoder.
    struct Pass {
        fileprivate var plan: Plan
        fileprivate let sessions: Int
        /// Columns of one session and of all at the present stage.
        fileprivate var columns: Int, rows: Int
        fileprivate var slotList: UInt64 = 0
        fileprivate var rollList: UInt64 = 0
        /// Between the halves, [latentSize, 1].
        fileprivate var latent = HalfRows(high: 0, low: 0, ld: 0)
        /// What convolutions remember, to be moved on at the end.
        fileprivate var rolls: [mk_roll_entry] = []
        fileprivate let stages: DecoderStages
        private let isObserved: Bool
        /// Set if it goes through them.
        fileprivate let graphs: Graphs?
        fileprivate let observe: Observer?

        fileprivate init(_ shape: Shape, plan: Plan, graphs: Graphs?, observe: Observer?) {
            sessions = shape.sessions
            columns = shape.frames
            rows = shape.sessions * shape.frames
            stages = shape.stages
            isObserved = shape.isObserved
            self.plan = plan
            self.graphs = graphs
            self.observe = observe
        }

        /// Room for float copies of a stage's output, if anybody looks.
        fileprivate mutating func spare(_ ld: Int) -> UInt64 {
            isObserved ? plan.take(rows * ld * 4) : 0
        }
    }

    private func run(
        _ pass: inout Pass, _ layer: PackedLayer, _ input: HalfRows, history: Histories? = nil, tiles: Int? = nil,
        _ epilogue: Epilogue
    ) throws(CUDAError) {
        if let history {
            keep(&pass, history, of: input.high, in: history.view.high)
            if history.low != nil { keep(&pass, history, of: input.low, in: history.view.low) }
        }
        guard pass.plan.runs else { return }
        try device.run(
            layer, half: half, input, rows: pass.rows, columns: pass.columns, history: history?.view,
            slots: pass.slotList, tiles: tiles, epilogue)
    }

    /// Has the last of the columns `fresh` kept for the next packet.
    private func keep(_ pass: inout Pass, _ history: Histories, of fresh: UInt64, in address: UInt64) {
        let bytes = history.ld * history.elementBytes
        for first in stride(from: 0, to: bytes, by: Int(MK_ROLL_BYTES)) {
            pass.rolls.append(
                mk_roll_entry(
                    history: address + UInt64(first), fresh: fresh + UInt64(first),
                    history_stride: Int32(states.bytesPerSlot), column_bytes: Int32(bytes),
                    width: Int32(min(bytes - first, Int(MK_ROLL_BYTES))), kept: Int32(history.kept),
                    columns: Int32(pass.columns), unused: 0))
        }
    }

    /// Shows a stage's output to the observer.
    private func note(
        _ pass: Pass, _ stage: String, _ raw: UInt64, _ channels: Int, ld: Int
    ) throws(CUDAError) {
        guard let observe = pass.observe else { return }
        let values = try device.floats(raw, pass.columns * ld)
        observe(stage, (0..<pass.columns).flatMap { values[($0 * ld)..<($0 * ld + channels)] }, channels)
    }

    // The first half, in reading order.
    private func transform(_ pass: inout Pass) throws(CUDAError) {
        let c = configuration
        let isExact = precision == .exact
        let runs = pass.plan.runs
        let rows = pass.rows
        pass.slotList = pass.plan.take(pass.sessions * 4)
        let rowSlots = pass.plan.take(rows * 4)
        let rowPositions = pass.plan.take(rows * 4)
        let codeList = pass.plan.take(rows * c.codebooks * 4)
        pass.rollList = pass.plan.take(rollCount * MemoryLayout<mk_roll_entry>.stride)

        // Codebooks, [codebookDimension, 1].
        let entries = pass.plan.halves(rows, padded(c.codebookDimension), split: true)
        if runs {
            let a = mk_codebook_arguments(
                codes: codeList, tables: tables.address, rows: Int32(rows), groups: Int32(c.codebooks),
                entries: Int32(c.codebookSize), width: Int32(c.codebookDimension / 2), output: entries.high,
                output_low: entries.low, ld_output: Int32(entries.ld), unused: 0)
            try device.launch("sum_codebooks", grid: (rows, 1), shared: c.codebooks * 4, overlaps: true, a)
        }
        let quantized = pass.plan.halves(rows, padded(c.codebookDimension), split: true)
        var raw = pass.spare(quantized.ld)
        try run(&pass, quantizer, entries, Epilogue(raw: raw, rawStride: quantized.ld, output: quantized))
        try note(pass, "quantized", raw, c.codebookDimension, ld: quantized.ld)

        // Pre-convolution and transformer, [latentSize, 1].
        let latentLD = padded(c.latentSize)
        let convolved = pass.plan.halves(rows, latentLD, split: true)
        raw = pass.spare(latentLD)
        try run(
            &pass, preConvolution, quantized, history: preHistory,
            Epilogue(raw: raw, rawStride: latentLD, output: convolved))
        try note(pass, "pre_conv", raw, c.latentSize, ld: latentLD)
        if pass.stages == .convolutionsOnly {
            pass.latent = HalfRows(high: convolved.high, low: isExact ? convolved.low : 0, ld: latentLD)
            return
        }
        let hidden = pass.plan.take(rows * stack.ld * 4)
        try run(&pass, inputProjection, convolved, Epilogue(raw: hidden, rawStride: stack.ld))
        let prepared = PreparedRows(
            rows: pass.plan.halves(rows, stack.ld, split: true), norms: pass.plan.take(rows * 4))
        if runs {
            // As many as a row can see, wherever it is.
            let pages = ((c.transformer.window ?? 0) + Int(MK_PAGE) - 2) / Int(MK_PAGE) + 1
            try stack.forward(
                hidden,
                RowPlaces(slots: rowSlots, positions: rowPositions, rows: rows, pages: pages, columns: pass.columns),
                cache: stack.cache(pages: pageTable.address, stride: ring, ring: ring))
        }
        let latent = pass.plan.halves(rows, latentLD, split: isExact)
        raw = pass.spare(latentLD)
        if runs {
            try stack.runNormed(
                outputProjection, hidden, rows: rows, gain: stack.norm, prepared: prepared,
                Epilogue(raw: raw, rawStride: latentLD, output: latent))
        }
        try note(pass, "pre_transformer", raw, c.latentSize, ld: latentLD)
        pass.latent = latent
    }

    // The second half.
    private func convolve(_ pass: inout Pass) throws(CUDAError) -> UInt64 {
        if pass.stages == .preTransformerOnly {
            try roll(pass)
            return 0
        }
        let c = configuration
        let isExact = precision == .exact
        let runs = pass.plan.runs
        let latentLD = padded(c.latentSize)
        var latent = pass.latent

        // Two upsampling blocks, [latentSize, 2] and [latentSize, 4].
        for (index, block) in upsamples.enumerated() {
            let x = pass.plan.take(pass.rows * block.rate * latentLD * 4)
            try run(&pass, block.transposed, latent, Epilogue(raw: x, rawStride: block.rate * latentLD))
            pass.rows *= block.rate
            pass.columns *= block.rate
            try note(pass, "upsample.\(index).0", x, c.latentSize, ld: latentLD)
            let normed = pass.plan.halves(pass.rows, latentLD, split: isExact)
            if runs {
                let a = mk_depthwise_arguments(
                    x: x, history: block.history.view.high, slots: pass.slotList, ld: Int32(latentLD),
                    width: Int32(c.latentSize), rows: Int32(pass.rows), columns: Int32(pass.columns),
                    history_stride: Int32(block.history.view.stride), epsilon: 1e-6,
                    weights: block.depthwise.address, bias: block.depthwiseBias.address,
                    norm_weight: block.normWeight.address, norm_bias: block.normBias.address, output: normed.high,
                    output_low: normed.low, ld_output: Int32(latentLD), unused: 0)
                try device.launch(
                    "depthwise_norm", grid: (pass.rows, 1), shared: (Int(MK_WARPS) + latentLD) * 4, overlaps: true, a)
            }
            keep(&pass, block.history, of: x, in: block.history.view.high)
            let wide = pass.plan.halves(pass.rows, block.expand.outputs, split: isExact)
            try run(&pass, block.expand, normed, Epilogue(activation: Int(MK_GELU), output: wide))
            latent = pass.plan.halves(pass.rows, latentLD, split: isExact)
            let raw = pass.spare(latentLD)
            try run(
                &pass, block.contract, wide,
                Epilogue(scale: block.gamma.address, residual: x, raw: raw, rawStride: latentLD, output: latent))
            try note(pass, "upsample.\(index).1", raw, c.latentSize, ld: latentLD)
        }

        // Wide convolution and the blocks.
        var channels = c.channels
        var current = pass.plan.halves(pass.rows, padded(channels), split: isExact)
        let raw = pass.spare(padded(channels))
        try run(
            &pass, firstConvolution, latent, history: firstHistory,
            Epilogue(raw: raw, rawStride: padded(channels), output: current, snake: blocks[0].activation.addresses))
        try note(pass, "decoder.0", raw, channels, ld: padded(channels))
        for (index, block) in blocks.enumerated() {
            let ld = padded(block.channels)
            let residual = pass.plan.take(pass.rows * block.rate * ld * 4)
            var input = pass.plan.halves(pass.rows * block.rate, ld, split: isExact)
            // As rows of the block's input: `rate` columns side by side.
            let stacked = HalfRows(high: input.high, low: input.low, ld: block.rate * ld)
            try run(
                &pass, block.transposed, current, history: block.history,
                Epilogue(
                    raw: residual, rawStride: block.rate * ld, output: stacked,
                    snake: block.units[0].activation1.addresses))
            pass.rows *= block.rate
            pass.columns *= block.rate
            channels = block.channels
            for (number, unit) in block.units.enumerated() {
                let middle = pass.plan.halves(pass.rows, ld, split: isExact)
                try run(
                    &pass, unit.convolution1, input, history: unit.history,
                    Epilogue(output: middle, snake: unit.activation2.addresses))
                let next =
                    number + 1 < block.units.count
                    ? block.units[number + 1].activation1
                    : index + 1 < blocks.count ? blocks[index + 1].activation : lastActivation
                let output = pass.plan.halves(pass.rows, ld, split: isExact)
                try run(
                    &pass, unit.convolution2, middle,
                    Epilogue(
                        residual: residual, raw: residual, rawStride: ld, output: output, snake: next.addresses))
                input = output
            }
            current = input
            try note(pass, "decoder.\(index + 1)", residual, channels, ld: ld)
        }
        let pcm = pass.plan.take(pass.rows * 4)
        try run(
            &pass, lastConvolution, current, history: lastHistory, tiles: 1,
            Epilogue(raw: pcm, rawStride: 1, stored: 1, clamps: true))
        try note(pass, "pcm", pcm, 1, ld: 1)
        try roll(pass)
        return pcm
    }

    /// Has every convolution remember what it has just seen.
    private func roll(_ pass: Pass) throws(CUDAError) {
        guard pass.plan.runs else { return }
        let a = mk_roll_arguments(
            entries: pass.rollList, slots: pass.slotList, count: Int32(pass.rolls.count),
            sessions: Int32(pass.sessions))
        try device.launch("roll_histories", grid: (pass.rolls.count, pass.sessions), overlaps: true, a)
    }
}
