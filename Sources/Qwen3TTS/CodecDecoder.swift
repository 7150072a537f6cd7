import CKernels
import Tensors

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// The causal codec decoder: 16 codes a frame → 1920 samples (specification, section 5).
///
/// Stateful with zero look-ahead: any split of a stream into packets gives the same samples, bit for bit. A call
/// decodes packets of several sessions at once and reads each weight once.
///
/// `@unchecked Sendable`: weights are immutable; the work memory belongs to the one thread that drives the stage.
public final class CodecDecoder: @unchecked Sendable {
    /// What a session's decoder remembers between packets: constant in size, zeros at the start.
    public final class State: @unchecked Sendable {
        fileprivate let histories: [FloatBuffer]
        fileprivate let cache: KVCache

        fileprivate init(histories: [Int], shape: TransformerShape) {
            self.histories = histories.map { FloatBuffer(count: $0) }
            cache = KVCache(shape: shape)
        }

        /// Frames decoded so far.
        public var frames: Int { cache.length }
        /// Bytes held.
        public var byteCount: Int { histories.reduce(0) { $0 + $1.count * 4 } + cache.byteCount }

        /// A state of its own with the same contents.
        func copy() -> State {
            let other = State(histories: histories.map(\.count), shape: cache.shape)
            other.copy(self)
            return other
        }

        /// Becomes a copy of another state of the same decoder.
        func copy(_ other: State) {
            for (own, history) in zip(histories, other.histories) {
                own.pointer.update(from: history.pointer, count: history.count)
            }
            cache.copy(other.cache, positions: other.cache.length)
        }

        /// Back to the zero state.
        public func reset() {
            for history in histories { history.zero() }
            cache.reset()
        }
    }

    /// Codes of one session to decode in a call.
    ///
    /// `@unchecked Sendable`: `pcm` belongs to the call, like the state.
    public struct Packet: @unchecked Sendable {
        let state: State
        let codes: [Int32]
        let frames: Int
        let pcm: UnsafeMutablePointer<Float>

        /// - Parameters:
        ///   - codes: [frames, code groups].
        ///   - pcm: receives [frames · samplesPerFrame] samples in -1…1.
        public init(state: State, codes: [Int32], frames: Int, pcm: UnsafeMutablePointer<Float>) {
            self.state = state
            self.codes = codes
            self.frames = frames
            self.pcm = pcm
        }
    }

    struct UpsampleBlock {
        let transposed: Convolution
        let depthwise: FloatBuffer
        let depthwiseBias: FloatBuffer
        let normWeight: FloatBuffer
        let normBias: FloatBuffer
        let expand: Convolution
        /// With the block's gamma folded in.
        let contract: Convolution
        let historySlot: Int
    }

    struct ResidualUnit {
        let activation1: SnakeBeta
        let convolution1: Convolution
        let activation2: SnakeBeta
        let convolution2: Convolution
        let historySlot: Int
    }

    struct Block {
        let activation: SnakeBeta
        let transposed: Convolution
        let transposedSlot: Int
        /// The first unit's activation, repeated for each column that an input column becomes.
        let unitActivation: SnakeBeta
        let units: [ResidualUnit]
        let rate: Int
        let channels: Int
    }

    /// Samples of one frame.
    public let samplesPerFrame: Int
    /// Codes of one frame.
    public let codeGroups: Int
    /// Entries of each codebook.
    public let codebookSize: Int

    let configuration: CodecDecoderConfiguration
    let compute: Compute
    /// Codebook rows [groups][entries, codebookWidth], divided by their usage.
    private let codebooks: [FloatBuffer]
    private let codebookWidth: Int
    private let quantizerProjection: Convolution
    private let preConvolution: Convolution
    private let inputProjection: Convolution
    private let transformer: TransformerStack
    private let outputProjection: Convolution
    private let upsamples: [UpsampleBlock]
    private let firstConvolution: Convolution
    private let blocks: [Block]
    private let lastActivation: SnakeBeta
    private let lastConvolution: Convolution
    private let historySizes: [Int]
    private let slots: (preConvolution: Int, first: Int, last: Int)
    private var work = Work()

    /// Sees the output of a stage: name as in the specification, channel-last values [columns, channels] of the first
    /// packet of the call.
    public typealias Observer = (_ stage: String, _ values: UnsafeBufferPointer<Float>, _ channels: Int) -> Void

    /// Work memory of a call. Two column buffers alternate as input and output of the convolutions; others keep what the
    /// part that runs packet by packet begins with.
    private struct Work {
        var columns = [Scratch(), Scratch()]
        var next = 0
        var waiting = Scratch()
        var waitingResidual = Scratch()
        var residual = Scratch()
        var middle = Scratch()
        var rows = Scratch()
        var wide = Scratch()
        var latents = Scratch()
    }

    /// Input columns of a convolution: for each packet its history, then its fresh columns.
    private struct Columns {
        let starts: [UnsafeMutablePointer<Float>]
        let fresh: [UnsafeMutablePointer<Float>]
        let counts: [Int]
        let slot: Int
        let channels: Int
        let history: Int

        /// Those of one packet.
        func packet(_ i: Int) -> Columns {
            Columns(
                starts: [starts[i]], fresh: [fresh[i]], counts: [counts[i]], slot: slot, channels: channels,
                history: history)
        }
    }

    /// Frames decoded in one pass: bounds the work memory to about 3 MB a frame.
    private static let framesPerPass = 8

    /// Loads the decoder from `speech_tokenizer/model.safetensors`.
    public init(_ file: SafetensorsFile, configuration codec: CodecConfiguration, compute: Compute)
        throws(TensorError)
    {
        let c = codec.decoder
        configuration = c
        self.compute = compute
        codeGroups = c.codebooks
        codebookSize = c.codebookSize
        samplesPerFrame = codec.samplesPerFrame
        codebookWidth = c.codebookDimension / 2
        var historySizes: [Int] = []
        func slot(_ floats: Int) -> Int {
            historySizes.append(floats)
            return historySizes.count - 1
        }

        let q = "decoder.quantizer."
        var codebooks: [FloatBuffer] = []
        for group in 0..<c.codebooks {
            let part = group == 0 ? "rvq_first.vq.layers.0" : "rvq_rest.vq.layers.\(group - 1)"
            let base = q + part + "._codebook."
            let rows = try file.floats(base + "embedding_sum", shape: [c.codebookSize, codebookWidth])
            let usage = try file.floats(base + "cluster_usage", shape: [c.codebookSize])
            for entry in 0..<c.codebookSize {
                let divisor = max(usage.pointer[entry], 1e-5)
                for i in 0..<codebookWidth { rows.pointer[entry * codebookWidth + i] /= divisor }
            }
            codebooks.append(rows)
        }
        self.codebooks = codebooks
        let width = c.codebookDimension
        let projections = [
            try file.floats(q + "rvq_first.output_proj.weight", shape: [width, codebookWidth, 1]),
            try file.floats(q + "rvq_rest.output_proj.weight", shape: [width, codebookWidth, 1]),
        ]
        let joined = FloatBuffer(count: width * 2 * codebookWidth)
        for o in 0..<width {
            for (part, projection) in projections.enumerated() {
                (joined.pointer + (o * 2 + part) * codebookWidth).update(
                    from: projection.pointer + o * codebookWidth, count: codebookWidth)
            }
        }
        quantizerProjection = Convolution(
            dense: joined, taps: 1, channels: 2 * codebookWidth, outputs: width, bias: nil)

        preConvolution = try Convolution(
            file, "decoder.pre_conv.conv", taps: 3, channels: width, outputs: c.latentSize)
        let preSlot = slot(preConvolution.history * width)

        let t = "decoder.pre_transformer."
        inputProjection = try Convolution(
            linear: file, t + "input_proj", inputs: c.latentSize, outputs: c.transformer.hidden)
        outputProjection = try Convolution(
            linear: file, t + "output_proj", inputs: c.transformer.hidden, outputs: c.latentSize)
        transformer = try TransformerStack(
            Weights(file: file, format: .bf16, quantized: nil), prefix: t, shape: c.transformer, compute: compute)

        var upsamples: [UpsampleBlock] = []
        for (index, factor) in c.latentUpsampleRates.enumerated() {
            let d = c.latentSize
            let n = "decoder.upsample.\(index).1."
            let taps = 7
            let weight = try file.floats(n + "dwconv.conv.weight", shape: [d, 1, taps])
            let tapMajor = FloatBuffer(count: d * taps)
            for channel in 0..<d {
                for j in 0..<taps { tapMajor.pointer[j * d + channel] = weight.pointer[channel * taps + j] }
            }
            let contractWeight = try file.floats(n + "pwconv2.weight", shape: [d, 4 * d])
            let contractBias = try file.floats(n + "pwconv2.bias", shape: [d])
            let gamma = try file.floats(n + "gamma", shape: [d])
            for o in 0..<d {
                contractBias.pointer[o] *= gamma.pointer[o]
                for i in 0..<(4 * d) { contractWeight.pointer[o * 4 * d + i] *= gamma.pointer[o] }
            }
            upsamples.append(
                UpsampleBlock(
                    transposed: try Convolution(
                        transposed: file, "decoder.upsample.\(index).0.conv", channels: d, outputs: d, kernel: factor,
                        stride: factor),
                    depthwise: tapMajor,
                    depthwiseBias: try file.floats(n + "dwconv.conv.bias", shape: [d]),
                    normWeight: try file.floats(n + "norm.weight", shape: [d]),
                    normBias: try file.floats(n + "norm.bias", shape: [d]),
                    expand: try Convolution(linear: file, n + "pwconv1", inputs: d, outputs: 4 * d),
                    contract: Convolution(
                        dense: contractWeight, taps: 1, channels: 4 * d, outputs: d, bias: contractBias),
                    historySlot: slot((taps - 1) * d)))
        }
        self.upsamples = upsamples

        firstConvolution = try Convolution(
            file, "decoder.decoder.0.conv", taps: 7, channels: c.latentSize, outputs: c.channels)
        let firstSlot = slot(firstConvolution.history * c.latentSize)
        var blocks: [Block] = []
        var channels = c.channels
        for (index, rate) in c.upsampleRates.enumerated() {
            let n = "decoder.decoder.\(index + 1).block."
            let out = channels / 2
            let transposed = try Convolution(
                transposed: file, n + "1.conv", channels: channels, outputs: out, kernel: 2 * rate, stride: rate)
            let transposedSlot = slot(transposed.history * channels)
            var units: [ResidualUnit] = []
            for (unit, dilation) in [1, 3, 9].enumerated() {
                let u = n + "\(unit + 2)."
                let convolution = try Convolution(
                    file, u + "conv1.conv", taps: 7, channels: out, outputs: out, dilation: dilation)
                units.append(
                    ResidualUnit(
                        activation1: try SnakeBeta(file, u + "act1", channels: out), convolution1: convolution,
                        activation2: try SnakeBeta(file, u + "act2", channels: out),
                        convolution2: try Convolution(file, u + "conv2.conv", taps: 1, channels: out, outputs: out),
                        historySlot: slot(convolution.history * out)))
            }
            blocks.append(
                Block(
                    activation: try SnakeBeta(file, n + "0", channels: channels), transposed: transposed,
                    transposedSlot: transposedSlot,
                    unitActivation: try SnakeBeta(file, n + "2.act1", channels: out, repeats: rate), units: units,
                    rate: rate, channels: out))
            channels = out
        }
        self.blocks = blocks
        let last = c.upsampleRates.count + 1
        lastActivation = try SnakeBeta(file, "decoder.decoder.\(last)", channels: channels)
        lastConvolution = try Convolution(
            file, "decoder.decoder.\(last + 1).conv", taps: 7, channels: channels, outputs: 1)
        let lastSlot = slot(lastConvolution.history * channels)
        slots = (preSlot, firstSlot, lastSlot)
        self.historySizes = historySizes
    }

    /// A session's state before its first frame.
    public func makeState() -> State { State(histories: historySizes, shape: transformer.shape) }

    /// Every convolution with the output columns that a frame gives it, one input column each for transposed ones.
    private var convolutions: [(Convolution, columns: Int)] {
        var all: [(Convolution, columns: Int)] = [
            (quantizerProjection, 1), (preConvolution, 1), (inputProjection, 1), (outputProjection, 1),
        ]
        var columns = 1
        for (block, rate) in zip(upsamples, configuration.latentUpsampleRates) {
            all.append((block.transposed, columns))
            columns *= rate
            all += [(block.expand, columns), (block.contract, columns)]
        }
        all.append((firstConvolution, columns))
        for block in blocks {
            all.append((block.transposed, columns))
            columns *= block.rate
            for unit in block.units { all += [(unit.convolution1, columns), (unit.convolution2, columns)] }
        }
        return all + [(lastConvolution, columns)]
    }

    /// Bytes of weights that one call reads.
    public var weightBytes: Int {
        convolutions.reduce(transformer.weightBytes) { $0 + $1.0.weightBytes }
    }

    /// Multiply-adds of one frame, attention and activations aside.
    public var multiplyAdds: Int {
        convolutions.reduce(transformer.multiplyAdds) { $0 + $1.0.multiplyAdds * $1.columns }
    }

    /// Decodes the packets, each with its own state, and advances the states.
    public func decode(_ packets: [Packet], stages: DecoderStages = .all, observe: Observer? = nil) {
        for pass in passes(packets) {
            let latents = work.latents.reserve(pass.reduce(0) { $0 + $1.frames } * configuration.latentSize)
            makeLatents(pass, stages: stages, into: latents, observe: observe)
            makeSamples(pass, stages: stages, from: latents, observe: observe)
        }
    }

    /// A decode call that stands between its two halves.
    public struct HalfDecoded: Sendable {
        fileprivate let passes: [[Packet]]
        fileprivate let latents: FloatBuffer
        fileprivate let stages: DecoderStages
    }

    /// The first half of ``decode(_:stages:observe:)``: codebooks and pre-transformer. Until the second half, calls of other
    /// sessions may come between.
    public func beginDecoding(_ packets: [Packet], stages: DecoderStages = .all) -> HalfDecoded {
        let half = HalfDecoded(
            passes: passes(packets),
            latents: FloatBuffer(count: packets.reduce(0) { $0 + $1.frames } * configuration.latentSize), stages: stages
        )
        var at = half.latents.pointer
        for pass in half.passes {
            makeLatents(pass, stages: stages, into: at, observe: nil)
            at += pass.reduce(0) { $0 + $1.frames } * configuration.latentSize
        }
        return half
    }

    /// The second half: upsampling and convolutions. Writes the packets' samples.
    public func finishDecoding(_ half: HalfDecoded) {
        var at = half.latents.pointer
        for pass in half.passes {
            makeSamples(pass, stages: half.stages, from: at, observe: nil)
            at += pass.reduce(0) { $0 + $1.frames } * configuration.latentSize
        }
    }

    /// Packets in parts that are decoded together, each session once in a part.
    private func passes(_ packets: [Packet]) -> [[Packet]] {
        var passes: [[Packet]] = []
        var pass: [Packet] = []
        var frames = 0
        func flush() {
            if !pass.isEmpty { passes.append(pass) }
            pass = []
            frames = 0
        }
        for packet in packets {
            var done = 0
            while done < packet.frames {
                let count = min(packet.frames - done, Self.framesPerPass - frames)
                let codes = Array(packet.codes[(done * codeGroups)..<((done + count) * codeGroups)])
                pass.append(
                    Packet(
                        state: packet.state, codes: codes, frames: count, pcm: packet.pcm + done * samplesPerFrame))
                frames += count
                done += count
                // The rest of a long packet must follow its beginning, so it waits for the next pass.
                if frames == Self.framesPerPass || done < packet.frames { flush() }
            }
        }
        flush()
        return passes
    }

    /// Re-decodes `codes` [frames, groups] window by window from the zero state, as the reference's `chunked_decode`:
    /// `chunk` new frames at a time after up to `leftContext` frames whose samples are dropped.
    public func decodeWindowed(_ codes: [Int32], frames: Int, chunk: Int, leftContext: Int) -> [Float] {
        var pcm: [Float] = []
        var start = 0
        while start < frames {
            let end = min(start + chunk, frames)
            let context = min(start, leftContext)
            let state = makeState()
            let count = end - start + context
            let out = FloatBuffer(count: count * samplesPerFrame)
            let window = Array(codes[((start - context) * codeGroups)..<(end * codeGroups)])
            decode([Packet(state: state, codes: window, frames: count, pcm: out.pointer)])
            pcm += out.array[(context * samplesPerFrame)...]
            start = end
        }
        return pcm
    }
}

// MARK: - One pass, in reading order

extension CodecDecoder {
    /// Shows an observer the values of the first packet of a pass.
    private func note(
        _ observe: Observer?, _ packets: [Packet]
    ) -> (_ stage: String, _ values: UnsafePointer<Float>, _ columns: Int, _ channels: Int) -> Void {
        { stage, values, columns, channels in
            observe?(stage, UnsafeBufferPointer(start: values, count: columns * packets[0].frames * channels), channels)
        }
    }

    /// Codes to latents [frames, latentSize].
    private func makeLatents(
        _ packets: [Packet], stages: DecoderStages, into latent: UnsafeMutablePointer<Float>, observe: Observer?
    ) {
        if stages == .none { return }
        let c = configuration
        let frames = packets.reduce(0) { $0 + $1.frames }
        let note = note(observe, packets)

        // Codebooks, [codebookDimension, 1].
        let quantized = open(
            packets, slot: slots.preConvolution, channels: c.codebookDimension, columns: 1,
            history: preConvolution.history)
        let entries = work.rows.reserve(frames * 2 * codebookWidth)
        var row = 0
        for packet in packets {
            for frame in 0..<packet.frames {
                gather(packet.codes[(frame * codeGroups)..<((frame + 1) * codeGroups)], into: entries + row)
                row += 2 * codebookWidth
            }
        }
        let entryRows = offsets(entries, packets, width: 2 * codebookWidth)
        run(quantizerProjection, entryRows, packets: packets, columns: 1) { i in
            mk_epilogue(raw: quantized.fresh[i], stride: c.codebookDimension)
        }
        note("quantized", quantized.fresh[0], 1, c.codebookDimension)

        // Pre-convolution and transformer, [latentSize, 1].
        let latents = offsets(latent, packets, width: c.latentSize)
        run(preConvolution, quantized) { i in mk_epilogue(raw: latents[i], stride: c.latentSize) }
        close(quantized, packets)
        note("pre_conv", latent, 1, c.latentSize)
        if stages == .convolutionsOnly { return }
        let hidden = work.rows.reserve(frames * c.transformer.hidden)
        inputProjection.run(
            latent, columns: frames, epilogue: mk_epilogue(raw: hidden, stride: c.transformer.hidden), compute: compute)
        transformer.forward(
            hidden, segments: packets.map { .init(cache: $0.state.cache, rows: $0.frames) }, into: hidden)
        outputProjection.run(
            hidden, columns: frames, epilogue: mk_epilogue(raw: latent, stride: c.latentSize), compute: compute)
        note("pre_transformer", latent, 1, c.latentSize)
    }

    /// Latents to samples, or to silence unless all stages run.
    private func makeSamples(
        _ packets: [Packet], stages: DecoderStages, from latent: UnsafeMutablePointer<Float>, observe: Observer?
    ) {
        defer {
            if stages != .all {
                for packet in packets { packet.pcm.update(repeating: 0, count: packet.frames * samplesPerFrame) }
            }
        }
        if stages == .none || stages == .preTransformerOnly { return }
        let c = configuration
        let frames = packets.reduce(0) { $0 + $1.frames }
        let note = note(observe, packets)

        // Two upsampling blocks, [latentSize, 2] and [latentSize, 4].
        var columns = 1
        var source = offsets(latent, packets, width: c.latentSize)
        for (index, block) in upsamples.enumerated() {
            columns *= c.latentUpsampleRates[index]
            let isLast = index + 1 == upsamples.count
            let x = open(packets, slot: block.historySlot, channels: c.latentSize, columns: columns, history: 6)
            run(block.transposed, source, packets: packets, columns: columns / c.latentUpsampleRates[index]) { i in
                mk_epilogue(raw: x.fresh[i], stride: block.transposed.outputs)
            }
            note("upsample.\(index).0", x.fresh[0], columns, c.latentSize)
            let target =
                isLast
                ? open(
                    packets, slot: slots.first, channels: c.latentSize, columns: columns,
                    history: firstConvolution.history)
                : nil
            let outputs =
                target?.fresh
                ?? offsets(
                    work.wide.reserve(frames * columns * c.latentSize), packets,
                    width: columns * c.latentSize)
            convNeXt(block, x, into: outputs)
            close(x, packets)
            note("upsample.\(index).1", outputs[0], columns, c.latentSize)
            source = outputs
            if let target { runBlocks(packets, input: target, columns: columns, note: observe == nil ? nil : note) }
        }
    }

    /// From the first wide convolution to samples.
    ///
    /// Up to the first block's transposed convolution there are many weights for few columns, so all packets run together.
    /// After it there are more columns than a cache keeps, so each packet runs by itself, and what a convolution reads is
    /// what the one before has just written.
    private func runBlocks(
        _ packets: [Packet], input: Columns, columns: Int,
        note: ((String, UnsafePointer<Float>, Int, Int) -> Void)?
    ) {
        let channels = configuration.channels
        let frames = packets.reduce(0) { $0 + $1.frames }
        let current = open(
            packets, slot: blocks[0].transposedSlot, channels: channels, columns: columns,
            history: blocks[0].transposed.history)
        let raw = note == nil ? nil : work.residual.reserve(frames * columns * channels)
        let rawStarts = raw.map { offsets($0, packets, width: columns * channels) }
        run(firstConvolution, input) { i in
            var epilogue = mk_epilogue(activated: current.fresh[i], stride: channels, blocks[0].activation)
            epilogue.raw = rawStarts?[i]
            epilogue.ld_raw = channels
            return epilogue
        }
        close(input, packets)
        if let raw { note?("decoder.0", raw, columns, channels) }

        let first = upsample(blocks[0], packets, current, columns: columns, waits: packets.count > 1)
        for i in packets.indices {
            let packet = [packets[i]], note = i == 0 ? note : nil
            var (unitInput, residual) = (first.unitInput.packet(i), first.residuals[i])
            var blockColumns = columns
            for (index, block) in blocks.enumerated() {
                blockColumns *= block.rate
                let next = runUnits(index, packet, unitInput, residual, columns: blockColumns, isObserved: note != nil)
                note?("decoder.\(index + 1)", residual, blockColumns, block.channels)
                if index + 1 == blocks.count {
                    finish(packet, next, columns: blockColumns, note: note)
                } else {
                    let following = upsample(blocks[index + 1], packet, next, columns: blockColumns, waits: false)
                    (unitInput, residual) = (following.unitInput, following.residuals[0])
                }
            }
        }
    }

    /// A block's transposed convolution: the residual stream of its units, and the first one's input.
    /// - Parameters:
    ///   - columns: a frame's columns of `input`.
    ///   - waits: whether the results must outlast other blocks.
    private func upsample(
        _ block: Block, _ packets: [Packet], _ input: Columns, columns: Int, waits: Bool
    ) -> (unitInput: Columns, residuals: [UnsafeMutablePointer<Float>]) {
        let width = block.channels
        let outputColumns = columns * block.rate
        let count = packets.reduce(0) { $0 + $1.frames } * outputColumns * width
        let residual = waits ? work.waitingResidual.reserve(count) : work.residual.reserve(count)
        let residuals = offsets(residual, packets, width: outputColumns * width)
        let unitInput = open(
            packets, slot: block.units[0].historySlot, channels: width, columns: outputColumns,
            history: block.units[0].convolution1.history, waits: waits)
        run(block.transposed, input) { i in
            var epilogue = mk_epilogue(raw: residuals[i], stride: block.transposed.outputs)
            epilogue.activate(into: unitInput.fresh[i], stride: block.transposed.outputs, block.unitActivation)
            return epilogue
        }
        close(input, packets)
        return (unitInput, residuals)
    }

    /// The residual units of a block for one packet; returns the activated input of what follows.
    private func runUnits(
        _ index: Int, _ packet: [Packet], _ input: Columns, _ residual: UnsafeMutablePointer<Float>, columns: Int,
        isObserved: Bool
    ) -> Columns {
        let block = blocks[index]
        let width = block.channels
        var unitInput = input
        for (unitIndex, unit) in block.units.enumerated() {
            let middle = work.middle.reserve(packet[0].frames * columns * width)
            run(unit.convolution1, unitInput) { _ in
                mk_epilogue(activated: middle, stride: width, unit.activation2)
            }
            close(unitInput, packet)
            let isLastUnit = unitIndex + 1 == block.units.count
            let next: Columns
            let nextActivation: SnakeBeta
            if !isLastUnit {
                let following = block.units[unitIndex + 1]
                nextActivation = following.activation1
                next = open(
                    packet, slot: following.historySlot, channels: width, columns: columns,
                    history: following.convolution1.history)
            } else if index + 1 < blocks.count {
                nextActivation = blocks[index + 1].activation
                next = open(
                    packet, slot: blocks[index + 1].transposedSlot, channels: width, columns: columns,
                    history: blocks[index + 1].transposed.history)
            } else {
                nextActivation = lastActivation
                next = open(
                    packet, slot: slots.last, channels: width, columns: columns, history: lastConvolution.history)
            }
            run(unit.convolution2, [middle], packets: packet, columns: columns) { _ in
                var epilogue = mk_epilogue(activated: next.fresh[0], stride: width, nextActivation)
                epilogue.residual = UnsafePointer(residual)
                epilogue.ld_residual = width
                if !isLastUnit || isObserved {
                    epilogue.raw = residual
                    epilogue.ld_raw = width
                }
                return epilogue
            }
            unitInput = next
        }
        return unitInput
    }

    /// The last convolution, and samples within -1…1.
    private func finish(
        _ packets: [Packet], _ current: Columns, columns: Int,
        note: ((String, UnsafePointer<Float>, Int, Int) -> Void)?
    ) {
        note?("decoder.\(blocks.count + 1)", current.fresh[0], columns, current.channels)
        run(lastConvolution, current) { i in mk_epilogue(raw: packets[i].pcm, stride: 1) }
        close(current, packets)
        note?("pre_clamp", packets[0].pcm, columns, 1)
        for packet in packets {
            for i in 0..<(packet.frames * samplesPerFrame) { packet.pcm[i] = min(1, max(-1, packet.pcm[i])) }
        }
    }

    /// Sums of codebook rows: the first codebook's, then the sum of the others'.
    private func gather(_ codes: ArraySlice<Int32>, into out: UnsafeMutablePointer<Float>) {
        for (group, code) in codes.enumerated() {
            let entry = codebooks[group].pointer + Int(max(0, min(code, Int32(codebookSize - 1)))) * codebookWidth
            if group <= 1 {
                (out + group * codebookWidth).update(from: entry, count: codebookWidth)
            } else {
                compute.kernels.add_scaled(entry, nil, codebookWidth, out + codebookWidth)
            }
        }
    }

    /// x + gamma · MLP(LayerNorm(depthwise(x))).
    private func convNeXt(_ block: UpsampleBlock, _ x: Columns, into outputs: [UnsafeMutablePointer<Float>]) {
        let d = configuration.latentSize
        let total = x.counts.reduce(0, +)
        let rows = work.middle.reserve(total * d)
        let wide = work.residual.reserve(total * 4 * d)
        var at = 0
        for i in x.counts.indices {
            compute.kernels.depthwise_f32(
                block.depthwise.pointer, block.depthwiseBias.pointer, 7, d, x.starts[i], x.counts[i], rows + at * d)
            at += x.counts[i]
        }
        compute.kernels.layer_norm(
            rows, d, block.normWeight.pointer, block.normBias.pointer, 1e-6, total, d, rows, d)
        block.expand.run(rows, columns: total, epilogue: mk_epilogue(raw: wide, stride: 4 * d), compute: compute)
        compute.forRows(total, cost: 16 * d) { range in
            compute.kernels.gelu(wide + range.lowerBound * 4 * d, range.count * 4 * d, wide + range.lowerBound * 4 * d)
        }
        at = 0
        var stretches: [Convolution.Stretch] = []
        for i in x.counts.indices {
            var epilogue = mk_epilogue(raw: outputs[i], stride: d)
            epilogue.residual = UnsafePointer(x.fresh[i])
            epilogue.ld_residual = d
            stretches.append(.init(input: wide + at * 4 * d, columns: x.counts[i], epilogue: epilogue))
            at += x.counts[i]
        }
        block.contract.run(stretches, compute: compute)
    }

    // MARK: Columns with history

    /// Lays out the input of a convolution and copies every packet's history in front of its fresh columns.
    /// - Parameter waits: whether it must outlast the columns that are laid out after it.
    private func open(
        _ packets: [Packet], slot: Int, channels: Int, columns: Int, history: Int, waits: Bool = false
    ) -> Columns {
        let historyFloats = history * channels
        let sizes = packets.map { historyFloats + $0.frames * columns * channels }
        let size = sizes.reduce(0, +)
        let buffer: UnsafeMutablePointer<Float>
        if waits {
            buffer = work.waiting.reserve(size)
        } else {
            buffer = work.columns[work.next].reserve(size)
            work.next = 1 - work.next
        }
        var starts: [UnsafeMutablePointer<Float>] = []
        var at = buffer
        for (packet, size) in zip(packets, sizes) {
            at.update(from: packet.state.histories[slot].pointer, count: historyFloats)
            starts.append(at)
            at += size
        }
        return Columns(
            starts: starts, fresh: starts.map { $0 + historyFloats }, counts: packets.map { $0.frames * columns },
            slot: slot, channels: channels, history: history)
    }

    /// Keeps the last columns of a convolution's input as the next packet's history.
    private func close(_ columns: Columns, _ packets: [Packet]) {
        for (i, packet) in packets.enumerated() {
            packet.state.histories[columns.slot].pointer.update(
                from: columns.starts[i] + columns.counts[i] * columns.channels,
                count: columns.history * columns.channels)
        }
    }

    private func offsets(
        _ base: UnsafeMutablePointer<Float>, _ packets: [Packet], width: Int
    ) -> [UnsafeMutablePointer<Float>] {
        var at = base
        return packets.map { packet in
            defer { at += packet.frames * width }
            return at
        }
    }

    /// Convolves columns with their history.
    private func run(_ convolution: Convolution, _ input: Columns, epilogue: (Int) -> mk_epilogue) {
        convolution.run(
            input.starts.indices.map {
                .init(input: input.starts[$0], columns: input.counts[$0], epilogue: epilogue($0))
            }, compute: compute)
    }

    /// A convolution of one tap: no history. `columns` are a frame's.
    private func run(
        _ convolution: Convolution, _ inputs: [UnsafeMutablePointer<Float>], packets: [Packet], columns: Int,
        epilogue: (Int) -> mk_epilogue
    ) {
        convolution.run(
            inputs.indices.map {
                .init(input: inputs[$0], columns: packets[$0].frames * columns, epilogue: epilogue($0))
            }, compute: compute)
    }
}
