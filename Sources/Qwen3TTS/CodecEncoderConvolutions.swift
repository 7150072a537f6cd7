import CKernels
import Tensors

/// The convolutions of the codec encoder: samples → hidden columns, one for `stride` samples
/// (specification, section 6.1; `encoder.encoder.layers`).
///
/// They are causal, so the samples pass through them piece by piece: each layer keeps the columns that the next piece
/// looks back to, and only the last piece is padded on the right. Every sum is that of one pass over the whole, and
/// the work memory stays that of a piece.
///
/// `@unchecked Sendable`: weights are immutable; the work memory belongs to the one thread that drives the stage.
final class CodecEncoderConvolutions: @unchecked Sendable {
    /// A convolution, with what a pass over pieces remembers of its input.
    private final class Layer {
        let convolution: Convolution
        /// Columns before the first of a step that its output needs: effective kernel - stride.
        let history: Int
        let past: FloatBuffer

        init(
            _ file: SafetensorsFile, _ name: String, kernel: Int, channels: Int, outputs: Int, dilation: Int = 1,
            stride: Int = 1
        ) throws(TensorError) {
            convolution = try Convolution(
                file, name + ".conv", taps: kernel, channels: channels, outputs: outputs, dilation: dilation,
                stride: stride)
            history = (kernel - 1) * dilation + 1 - stride
            guard history * channels <= Self.historyLimit else {
                throw .mismatch(
                    name: name + ".conv.weight", expected: "a convolution that looks back less far",
                    found: "one that needs \(history) columns of \(channels) channels")
            }
            past = FloatBuffer(count: history * channels)
        }

        /// Floats; the released model's largest needs 8 Ki.
        private static let historyLimit = 1 << 26
    }

    private struct Unit {
        let narrow: Layer
        let widen: Layer
    }

    private struct Stage {
        let units: [Unit]
        let downsample: Layer
    }

    /// Channels of a hidden column.
    let hidden: Int
    /// Samples of a hidden column.
    let stride: Int

    private let first: Layer
    private let stages: [Stage]
    private let last: Layer
    private let compute: Compute
    private var columns = Scratch()
    private var middle = Scratch()
    private var current = Scratch()
    private var next = Scratch()

    init(_ file: SafetensorsFile, configuration c: CodecEncoderConfiguration, compute: Compute) throws(TensorError) {
        self.compute = compute
        hidden = c.transformer.hidden
        stride = c.strides.reduce(1, *)
        let prefix = "encoder.encoder.layers."
        first = try Layer(file, prefix + "0", kernel: c.kernel, channels: 1, outputs: c.filters)
        var stages: [Stage] = []
        var index = 1
        var channels = c.filters
        for rate in c.strides {
            var units: [Unit] = []
            var dilation = 1
            for _ in 0..<c.residualLayers {
                let inner = channels / c.compress
                units.append(
                    Unit(
                        narrow: try Layer(
                            file, prefix + "\(index).block.1", kernel: c.residualKernel, channels: channels,
                            outputs: inner, dilation: dilation),
                        widen: try Layer(
                            file, prefix + "\(index).block.3", kernel: 1, channels: inner, outputs: channels)))
                index += 1
                dilation *= c.dilationGrowth
            }
            // The activations have numbers of their own.
            index += 1
            stages.append(
                Stage(
                    units: units,
                    downsample: try Layer(
                        file, prefix + "\(index)", kernel: 2 * rate, channels: channels, outputs: 2 * channels,
                        stride: rate)))
            index += 1
            channels *= 2
        }
        self.stages = stages
        last = try Layer(
            file, prefix + "\(index + 1)", kernel: c.lastKernel, channels: channels, outputs: c.transformer.hidden)
    }

    /// Hidden columns of that many samples.
    func columns(samples: Int) -> Int { (samples + stride - 1) / stride }

    /// Encodes samples [n] to columns [ceil(n / stride), hidden] in `out`.
    /// - Parameter columnsPerPiece: bounds the work memory: about 0.9 MB a column in the released model.
    func run(
        _ samples: UnsafeBufferPointer<Float>, columnsPerPiece: Int, into out: UnsafeMutablePointer<Float>
    ) {
        for stage in stages {
            for unit in stage.units { unit.narrow.past.zero() }
            stage.downsample.past.zero()
        }
        first.past.zero()
        last.past.zero()
        let step = columnsPerPiece * stride
        for start in Swift.stride(from: 0, to: samples.count, by: step) {
            let piece = UnsafeBufferPointer(rebasing: samples[start..<min(start + step, samples.count)])
            runPiece(piece, into: out + start / stride * hidden)
        }
    }

    private func runPiece(_ samples: UnsafeBufferPointer<Float>, into out: UnsafeMutablePointer<Float>) {
        var count = samples.count
        var channels = first.convolution.outputs
        var x = current.reserve(count * channels)
        convolve(first, samples.baseAddress.unsafelyUnwrapped, count, activate: false) {
            mk_epilogue(raw: x, stride: channels)
        }
        for stage in stages {
            for unit in stage.units {
                // x + widen(ELU(narrow(ELU(x))))
                let inner = unit.narrow.convolution.outputs
                let narrow = middle.reserve(count * inner)
                convolve(unit.narrow, x, count, activate: true) { mk_epilogue(raw: narrow, stride: inner) }
                elu(narrow, rows: count, width: inner, into: narrow)
                var epilogue = mk_epilogue(raw: x, stride: channels)
                epilogue.residual = UnsafePointer(x)
                epilogue.ld_residual = channels
                unit.widen.convolution.run(narrow, columns: count, epilogue: epilogue, compute: compute)
            }
            let downsampled = (count + stage.downsample.convolution.stride - 1) / stage.downsample.convolution.stride
            let wider = 2 * channels
            let y = next.reserve(downsampled * wider)
            convolve(stage.downsample, x, count, activate: true) { mk_epilogue(raw: y, stride: wider) }
            swap(&current, &next)
            (x, count, channels) = (y, downsampled, wider)
        }
        convolve(last, x, count, activate: true) { mk_epilogue(raw: out, stride: hidden) }
    }

    /// One layer over the next `count` columns x, of ELU(x) if `activate`; columns beyond the end are zeros.
    private func convolve(
        _ layer: Layer, _ x: UnsafePointer<Float>, _ count: Int, activate: Bool, epilogue: () -> mk_epilogue
    ) {
        let convolution = layer.convolution
        let channels = convolution.channels
        let outputs = (count + convolution.stride - 1) / convolution.stride
        let filled = (layer.history + count) * channels
        let needed = (layer.history + outputs * convolution.stride) * channels
        let input = columns.reserve(needed)
        let fresh = input + layer.past.count
        input.update(from: layer.past.pointer, count: layer.past.count)
        if activate {
            elu(x, rows: count, width: channels, into: fresh)
        } else {
            fresh.update(from: x, count: count * channels)
        }
        (input + filled).update(repeating: 0, count: needed - filled)
        convolution.run(input, columns: outputs, epilogue: epilogue(), compute: compute)
        layer.past.pointer.update(from: input + filled - layer.past.count, count: layer.past.count)
    }

    private func elu(
        _ x: UnsafePointer<Float>, rows: Int, width: Int, into y: UnsafeMutablePointer<Float>
    ) {
        compute.forRows(rows, cost: width) { range in
            compute.kernels.elu(x + range.lowerBound * width, range.count * width, y + range.lowerBound * width)
        }
    }
}
