import CKernels
import Tensors

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// The speaker encoder: a recording → the vector that says who speaks (specification, section 6.3;
/// `Qwen3TTSSpeakerEncoder`). An ECAPA-TDNN without batch norm: a convolution, SE-Res2Net blocks, aggregation of their
/// outputs, attentive pooling over time, a linear layer.
///
/// Activations are channel-last; time averages are summed in double, frame after frame.
///
/// `@unchecked Sendable`: weights are immutable; the scratch memory belongs to the one thread that drives the stage.
public final class SpeakerEncoder: @unchecked Sendable {
    /// Width of the vector: the talker's hidden size.
    public let outputSize: Int
    /// Samples per second of what it hears.
    public let sampleRate: Int
    /// The fewest samples it takes: so many that every layer can mirror its input at the ends, as the reference does.
    public let shortest: Int

    private let mel: MelSpectrogram
    private let channels: Int
    private let first: Layer
    private let blocks: [Block]
    private let aggregation: Layer
    private let pooling: SpeakerPooling
    private let output: Convolution
    private let compute: Compute
    private var padded = Scratch()

    /// A convolution over time that keeps the number of frames: the input is mirrored at the ends.
    private struct Layer {
        let convolution: Convolution
        /// Mirrored frames before the first and behind the last.
        let left: Int, right: Int

        init(
            _ file: SafetensorsFile, _ name: String, kernel: Int = 1, channels: Int, outputs: Int, dilation: Int = 1
        ) throws(TensorError) {
            convolution = try Convolution(
                file, "speaker_encoder." + name, taps: kernel, channels: channels, outputs: outputs, dilation: dilation)
            left = (kernel - 1) * dilation / 2
            right = (kernel - 1) * dilation - left
        }
    }

    private struct Block {
        let enter: Layer
        /// Of parts 1, 2, … of the channels; part 0 passes unchanged.
        let parts: [Layer]
        let leave: Layer
        let squeeze: Convolution
        let excite: Convolution
    }

    /// Loads the encoder from the model's `model.safetensors`.
    public init(_ file: SafetensorsFile, configuration c: SpeakerEncoderConfiguration, compute: Compute)
        throws(TensorError)
    {
        self.compute = compute
        outputSize = c.outputSize
        sampleRate = c.sampleRate
        mel = MelSpectrogram(bands: c.melBands, sampleRate: c.sampleRate)
        channels = c.channels[0]
        first = try Layer(
            file, "blocks.0.conv", kernel: c.kernels[0], channels: c.melBands, outputs: channels,
            dilation: c.dilations[0])
        let last = c.channels.count - 1
        let part = channels / c.res2NetScale
        var blocks: [Block] = []
        for index in 1..<last {
            let p = "blocks.\(index)."
            var parts: [Layer] = []
            for number in 1..<c.res2NetScale {
                parts.append(
                    try Layer(
                        file, p + "res2net_block.blocks.\(number - 1).conv", kernel: c.kernels[index], channels: part,
                        outputs: part, dilation: c.dilations[index]))
            }
            blocks.append(
                Block(
                    enter: try Layer(file, p + "tdnn1.conv", channels: channels, outputs: channels), parts: parts,
                    leave: try Layer(file, p + "tdnn2.conv", channels: channels, outputs: channels),
                    squeeze: try Convolution(
                        file, "speaker_encoder.\(p)se_block.conv1", taps: 1, channels: channels,
                        outputs: c.squeezeChannels),
                    excite: try Convolution(
                        file, "speaker_encoder.\(p)se_block.conv2", taps: 1, channels: c.squeezeChannels,
                        outputs: channels)))
        }
        self.blocks = blocks
        let wide = c.channels[last]
        aggregation = try Layer(
            file, "mfa.conv", kernel: c.kernels[last], channels: wide, outputs: wide, dilation: c.dilations[last])
        pooling = try SpeakerPooling(file, channels: wide, inner: c.attentionChannels, compute: compute)
        output = try Convolution(file, "speaker_encoder.fc", taps: 1, channels: 2 * wide, outputs: c.outputSize)
        let reach = ([first, aggregation] + blocks.flatMap(\.parts)).map(\.right).max() ?? 0
        shortest = max(MelSpectrogram.shortest, (reach + 1) * MelSpectrogram.hop)
    }

    /// The longest recording it takes, in seconds: all of it is averaged, at about 1.2 MB of work memory a second.
    public static let longestSeconds = CodecEncoder.longestSeconds

    /// The vector of a recording.
    /// - Parameters:
    ///   - samples: mono float32 at `sampleRate`, in -1…1; from `shortest` to `longestSeconds`.
    ///   - observe: sees the mel spectrogram [frames, bands].
    /// - Returns: [outputSize], not normalised.
    /// - Throws: ``ModelError/badInput(_:)``.
    public func encode(
        _ samples: [Float], observe: ((_ mel: UnsafeBufferPointer<Float>) -> Void)? = nil
    ) throws(ModelError) -> [Float] {
        try ModelError.checkRecording(samples, sampleRate: sampleRate, longestSeconds: Self.longestSeconds)
        guard samples.count >= shortest else {
            throw .badInput(
                "the recording has \(samples.count) samples at \(sampleRate) Hz, the speaker encoder needs at least "
                    + "\(shortest): use a recording of a few seconds")
        }
        let frames = mel.frames(samples: samples.count)
        let spectrogram = FloatBuffer(count: frames * mel.bands)
        samples.withUnsafeBufferPointer { mel.run($0, into: spectrogram.pointer, compute: compute) }
        observe?(UnsafeBufferPointer(start: spectrogram.pointer, count: spectrogram.count))
        return embed(spectrogram, frames: frames)
    }

    /// Rows of a larger matrix: frame t, channel c lies at [t · stride + c].
    private struct Rows {
        let start: UnsafeMutablePointer<Float>
        let stride: Int

        func channels(from first: Int) -> Rows { Rows(start: start + first, stride: stride) }
    }

    private func embed(_ spectrogram: FloatBuffer, frames: Int) -> [Float] {
        let wide = pooling.channels
        let buffers = [mel.bands, channels, channels, channels, wide, wide].map { FloatBuffer(count: frames * $0) }
        let statistics = FloatBuffer(count: 2 * wide)
        let vector = FloatBuffer(count: outputSize)
        return withExtendedLifetime((buffers, spectrogram, statistics)) {
            func rows(_ index: Int, _ stride: Int) -> Rows { Rows(start: buffers[index].pointer, stride: stride) }
            let (entered, split, joined) = (rows(1, channels), rows(2, channels), rows(3, channels))
            let (all, aggregated) = (rows(4, wide), rows(5, wide))
            convolve(first, Rows(start: spectrogram.pointer, stride: mel.bands), frames, into: entered)
            var x = entered
            for (index, block) in blocks.enumerated() {
                let out = all.channels(from: index * channels)
                run(block, x, frames, split: split, joined: joined, into: out)
                x = out
            }
            convolve(aggregation, all, frames, into: aggregated)
            pooling.run(aggregated.start, frames: frames, logits: all.start, into: statistics.pointer)
            output.run(
                statistics.pointer, columns: 1, epilogue: mk_epilogue(raw: vector.pointer, stride: outputSize),
                compute: compute)
            return vector.array
        }
    }

    /// out = x + y · s, where y is the block's convolutions and s a weight for each channel from y's average.
    private func run(_ block: Block, _ x: Rows, _ frames: Int, split: Rows, joined: Rows, into out: Rows) {
        convolve(block.enter, x, frames, into: split)
        let width = channels / (block.parts.count + 1)
        for frame in 0..<frames {
            (joined.start + frame * joined.stride).update(from: split.start + frame * split.stride, count: width)
        }
        for (index, part) in block.parts.enumerated() {
            // Part 1 goes in alone, the others with the result of the part before.
            convolve(
                part, split.channels(from: (index + 1) * width),
                plus: index == 0 ? nil : joined.channels(from: index * width), frames,
                into: joined.channels(from: (index + 1) * width))
        }
        convolve(block.leave, joined, frames, into: split)
        let scales = exciteScales(block, split, frames)
        compute.forRows(frames, cost: channels) { range in
            for frame in range {
                let (from, y) = (x.start + frame * x.stride, split.start + frame * split.stride)
                let to = out.start + frame * out.stride
                for c in 0..<channels { to[c] = from[c] + y[c] * scales.pointer[c] }
            }
        }
    }

    /// sigmoid(excite(relu(squeeze(mean over time of y)))), [channels].
    private func exciteScales(_ block: Block, _ y: Rows, _ frames: Int) -> FloatBuffer {
        let scales = FloatBuffer(count: channels)
        let inner = FloatBuffer(count: block.squeeze.outputs)
        compute.pool.split(channels, grain: 16) { range in
            for c in range {
                var sum = 0.0
                for frame in 0..<frames { sum += Double(y.start[frame * y.stride + c]) }
                scales.pointer[c] = Float(sum / Double(frames))
            }
        }
        block.squeeze.run(
            scales.pointer, columns: 1, epilogue: mk_epilogue(raw: inner.pointer, stride: inner.count),
            compute: compute)
        for i in 0..<inner.count { inner.pointer[i] = max(0, inner.pointer[i]) }
        block.excite.run(
            inner.pointer, columns: 1, epilogue: mk_epilogue(raw: scales.pointer, stride: channels), compute: compute)
        for c in 0..<channels { scales.pointer[c] = 1 / (1 + expf(-scales.pointer[c])) }
        return scales
    }

    /// relu(convolution(x + addend)) over all frames.
    private func convolve(_ layer: Layer, _ x: Rows, plus addend: Rows? = nil, _ frames: Int, into out: Rows) {
        let convolution = layer.convolution
        let width = convolution.channels
        let input = padded.reserve((layer.left + frames + layer.right) * width)
        let middle = input + layer.left * width
        compute.forRows(frames, cost: width) { range in
            for frame in range {
                let (from, to) = (x.start + frame * x.stride, middle + frame * width)
                if let addend {
                    let other = addend.start + frame * addend.stride
                    for c in 0..<width { to[c] = from[c] + other[c] }
                } else {
                    to.update(from: from, count: width)
                }
            }
        }
        for i in 0..<layer.left { (middle - (i + 1) * width).update(from: middle + (i + 1) * width, count: width) }
        for i in 0..<layer.right {
            (middle + (frames + i) * width).update(from: middle + (frames - 2 - i) * width, count: width)
        }
        convolution.run(
            input, columns: frames, epilogue: mk_epilogue(raw: out.start, stride: out.stride), compute: compute)
        compute.forRows(frames, cost: convolution.outputs) { range in
            for frame in range {
                let row = out.start + frame * out.stride
                for o in 0..<convolution.outputs { row[o] = max(0, row[o]) }
            }
        }
    }
}
