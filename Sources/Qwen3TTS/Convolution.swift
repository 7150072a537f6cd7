import CKernels
import Tensors

/// A dense causal convolution over channel-last columns, as a matrix product with K = taps · channels.
///
/// Linear layers are convolutions of one tap; a transposed convolution of stride s is one of `s · outputs` outputs
/// over one or two input columns (specification, section 5.2).
///
/// `@unchecked Sendable`: immutable after `init`.
final class Convolution: @unchecked Sendable {
    let taps: Int
    let channels: Int
    /// Outputs of one input column.
    let outputs: Int
    let dilation: Int
    /// Columns from one output to the next.
    let stride: Int
    private let weights: FloatBuffer
    private let bias: FloatBuffer?

    /// One stretch of columns to convolve.
    struct Stretch {
        /// The first input column that the first output needs: `history` columns before the output's own.
        let input: UnsafePointer<Float>
        /// Output columns.
        let columns: Int
        /// Where results go; its bias is set here.
        var epilogue: mk_epilogue
    }

    /// - Parameter weights: dense [outputs, taps, channels].
    init(
        dense weights: FloatBuffer, taps: Int, channels: Int, outputs: Int, dilation: Int = 1, stride: Int = 1,
        bias: FloatBuffer?
    ) {
        self.taps = taps
        self.channels = channels
        self.outputs = outputs
        self.dilation = dilation
        self.stride = stride
        self.bias = bias
        let k = taps * channels
        let packed = FloatBuffer(count: mk_packed_size(outputs, k))
        mk_pack_panels(weights.pointer, k, Array(0..<k), outputs, k, packed.pointer)
        self.weights = packed
    }

    /// `name.weight` [outputs, channels, taps] and `name.bias`, as PyTorch's Conv1d.
    convenience init(
        _ file: SafetensorsFile, _ name: String, taps: Int, channels: Int, outputs: Int, dilation: Int = 1,
        stride: Int = 1, bias: Bool = true
    ) throws(TensorError) {
        let source = try file.floats(name + ".weight", shape: [outputs, channels, taps])
        let dense = FloatBuffer(count: source.count)
        for o in 0..<outputs {
            let (from, to) = (source.pointer + o * channels * taps, dense.pointer + o * channels * taps)
            for c in 0..<channels {
                for j in 0..<taps { to[j * channels + c] = from[c * taps + j] }
            }
        }
        self.init(
            dense: dense, taps: taps, channels: channels, outputs: outputs, dilation: dilation, stride: stride,
            bias: bias ? try file.floats(name + ".bias", shape: [outputs]) : nil)
    }

    /// `name.weight` [outputs, inputs] and `name.bias` of a linear layer.
    convenience init(linear file: SafetensorsFile, _ name: String, inputs: Int, outputs: Int) throws(TensorError) {
        self.init(
            dense: try file.floats(name + ".weight", shape: [outputs, inputs]), taps: 1, channels: inputs,
            outputs: outputs, bias: try file.floats(name + ".bias", shape: [outputs]))
    }

    /// `name.weight` [channels, outputs, kernel] of a transposed convolution with kernel = stride or 2 · stride, trimmed
    /// on the right: output column t·stride + r = bias + W[:, :, r]ᵀ x_t + W[:, :, r + stride]ᵀ x_{t-1}.
    convenience init(
        transposed file: SafetensorsFile, _ name: String, channels: Int, outputs: Int, kernel: Int, stride: Int
    ) throws(TensorError) {
        let source = try file.floats(name + ".weight", shape: [channels, outputs, kernel])
        let singleBias = try file.floats(name + ".bias", shape: [outputs])
        let taps = kernel / stride
        precondition(kernel == stride || kernel == 2 * stride)
        let dense = FloatBuffer(count: source.count)
        let bias = FloatBuffer(count: stride * outputs)
        for r in 0..<stride {
            for o in 0..<outputs {
                let row = dense.pointer + (r * outputs + o) * taps * channels
                bias.pointer[r * outputs + o] = singleBias.pointer[o]
                for j in 0..<taps {
                    // Tap 0 is the oldest column.
                    let k = r + (taps - 1 - j) * stride
                    for c in 0..<channels { row[j * channels + c] = source.pointer[(c * outputs + o) * kernel + k] }
                }
            }
        }
        self.init(dense: dense, taps: taps, channels: channels, outputs: stride * outputs, bias: bias)
    }

    /// Input columns before the current one that an output needs.
    var history: Int { (taps - 1) * dilation }
    /// Bytes of weights that one call reads.
    var weightBytes: Int { weights.count * 4 }
    /// Multiply-adds of one output column.
    var multiplyAdds: Int { taps * channels * outputs }

    /// Convolves all stretches, reading each weight from memory once. Work is split by outputs, and by columns where there
    /// are few outputs; neither changes a sum.
    func run(_ stretches: [Stretch], compute: Compute) {
        let panels = (outputs + panelWidth - 1) / panelWidth
        let longest = stretches.map(\.columns).max() ?? 0
        let wanted = compute.pool.threadCount == 1 ? 1 : compute.pool.threadCount * 4
        let strips = panels >= wanted ? 1 : max(1, min(longest / 48, (wanted + panels - 1) / panels))
        let groups = min(panels, max(1, wanted / strips))
        compute.pool.run(groups * strips) { task in
            let (group, strip) = (task % groups, task / groups)
            let (first, last) = (panels * group / groups, panels * (group + 1) / groups)
            // Short stretches take turns on as many panels as a kernel takes at a time: those after the first find the
            // weights in a cache. Of long ones, the columns are in a cache instead.
            let step = stretches.count == 1 || longest > 8 ? last - first : longest > 3 ? 1 : 4
            for panel in Swift.stride(from: first, to: last, by: step) {
                for stretch in stretches {
                    // Strips begin at multiples of 24 columns, whole tiles of every kernel.
                    let begin = strip == 0 ? 0 : stretch.columns * strip / strips / 24 * 24
                    let end = strip + 1 == strips ? stretch.columns : stretch.columns * (strip + 1) / strips / 24 * 24
                    if begin >= end { continue }
                    var epilogue = stretch.epilogue.advanced(columns: begin)
                    epilogue.bias = bias.map { UnsafePointer($0.pointer) }
                    compute.kernels.conv_f32(
                        weights.pointer, taps, channels, outputs, stretch.input + begin * stride * channels,
                        stride * channels, dilation * channels, end - begin, panel, min(panel + step, last), &epilogue)
                }
            }
        }
    }

    /// All columns of one stretch.
    func run(
        _ input: UnsafePointer<Float>, columns: Int, epilogue: mk_epilogue, compute: Compute
    ) {
        run([Stretch(input: input, columns: columns, epilogue: epilogue)], compute: compute)
    }
}

extension mk_epilogue {
    /// Stores sums as they are, rows `stride` apart.
    init(raw: UnsafeMutablePointer<Float>, stride: Int) {
        self.init()
        self.raw = raw
        ld_raw = stride
    }

    /// Stores SnakeBeta of the sums.
    init(activated: UnsafeMutablePointer<Float>, stride: Int, _ snake: SnakeBeta) {
        self.init()
        activate(into: activated, stride: stride, snake)
    }

    mutating func activate(into out: UnsafeMutablePointer<Float>, stride: Int, _ snake: SnakeBeta) {
        activated = out
        ld_activated = stride
        alpha = UnsafePointer(snake.alpha.pointer)
        inv_beta = UnsafePointer(snake.inverseBeta.pointer)
    }

    /// The same for columns from `columns` on.
    func advanced(columns: Int) -> mk_epilogue {
        var moved = self
        moved.residual = residual.map { $0 + columns * ld_residual }
        moved.raw = raw.map { $0 + columns * ld_raw }
        moved.activated = activated.map { $0 + columns * ld_activated }
        return moved
    }
}

/// x + sin²(x·e^alpha) / (e^beta + 1e-9), per channel (specification, section 5.2).
///
/// `@unchecked Sendable`: immutable after `init`.
final class SnakeBeta: @unchecked Sendable {
    let alpha: FloatBuffer
    let inverseBeta: FloatBuffer

    /// - Parameter repeats: how often the channels are repeated, for the outputs of a transposed convolution.
    init(_ file: SafetensorsFile, _ name: String, channels: Int, repeats: Int = 1) throws(TensorError) {
        let alphaLog = try file.floats(name + ".alpha", shape: [channels])
        let betaLog = try file.floats(name + ".beta", shape: [channels])
        alpha = FloatBuffer(count: channels * repeats)
        inverseBeta = FloatBuffer(count: channels * repeats)
        for i in 0..<(channels * repeats) {
            alpha.pointer[i] = exponential(alphaLog.pointer[i % channels])
            inverseBeta.pointer[i] = 1 / (exponential(betaLog.pointer[i % channels]) + 1e-9)
        }
    }
}
