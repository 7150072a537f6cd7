import CKernels
import Tensors

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// The transformer of the codec encoder: LayerNorm, attention to everything before, an MLP with exact GELU, layer scales,
/// no final norm (specification, section 6.1; `encoder.encoder_transformer`).
///
/// It goes layer by layer over all rows, a block of rows at a time: one layer's keys and values are all that a long
/// recording adds to the rows themselves.
///
/// `@unchecked Sendable`: weights are immutable; the scratch memory belongs to the one thread that drives the stage.
final class CodecEncoderTransformer: @unchecked Sendable {
    private struct Layer {
        let inputNorm: Norm
        let query: Linear
        let key: Linear
        let value: Linear
        let output: Linear
        let attentionScale: FloatBuffer
        let postNorm: Norm
        let expand: Linear
        let contract: Linear
        let feedForwardScale: FloatBuffer
    }

    private struct Norm {
        let weight: FloatBuffer
        let bias: FloatBuffer

        init(_ file: SafetensorsFile, _ name: String, _ count: Int) throws(TensorError) {
            weight = try file.floats(name + ".weight", shape: [count])
            bias = try file.floats(name + ".bias", shape: [count])
        }
    }

    private let shape: TransformerShape
    private let layers: [Layer]
    private let compute: Compute
    private let cache: KVCache
    private var scratch = Scratch()
    private var prepared = Scratch()

    /// Rows that go through a layer together.
    private static let rowsPerBlock = 128

    init(_ file: SafetensorsFile, shape: TransformerShape, compute: Compute) throws(TensorError) {
        self.shape = shape
        self.compute = compute
        let weights = Weights(file: file, format: .bf16, quantized: nil)
        var layers: [Layer] = []
        for index in 0..<shape.layers {
            let p = "encoder.encoder_transformer.layers.\(index)."
            let (hidden, query, key, inner) = (shape.hidden, shape.queryWidth, shape.keyWidth, shape.intermediate)
            layers.append(
                Layer(
                    inputNorm: try Norm(file, p + "input_layernorm", hidden),
                    query: try weights.linear(p + "self_attn.q_proj", inputs: hidden, outputs: query),
                    key: try weights.linear(p + "self_attn.k_proj", inputs: hidden, outputs: key),
                    value: try weights.linear(p + "self_attn.v_proj", inputs: hidden, outputs: key),
                    output: try weights.linear(p + "self_attn.o_proj", inputs: query, outputs: hidden),
                    attentionScale: try file.floats(p + "self_attn_layer_scale.scale", shape: [hidden]),
                    postNorm: try Norm(file, p + "post_attention_layernorm", hidden),
                    expand: try weights.linear(p + "mlp.fc1", inputs: hidden, outputs: inner),
                    contract: try weights.linear(p + "mlp.fc2", inputs: inner, outputs: hidden),
                    feedForwardScale: try file.floats(p + "mlp_layer_scale.scale", shape: [hidden])))
        }
        self.layers = layers
        cache = KVCache(
            shape: TransformerShape(
                layers: 1, hidden: shape.hidden, intermediate: shape.intermediate, heads: shape.heads,
                keyValueHeads: shape.keyValueHeads, headDimension: shape.headDimension, ropeTheta: shape.ropeTheta,
                normEpsilon: shape.normEpsilon, window: nil))
    }

    /// Memory of a block of rows.
    private struct Workspace {
        let hidden, query, key, value, attention, inner, states: UnsafeMutablePointer<Float>
    }

    private func workspace(rows: Int) -> Workspace {
        let s = shape
        let sizes = [
            rows * s.hidden, rows * s.queryWidth, rows * s.keyWidth, rows * s.keyWidth, rows * s.queryWidth,
            rows * s.intermediate, rows * s.heads * (s.headDimension + 2),
        ].map { ($0 + 15) & ~15 }
        var next = scratch.reserve(sizes.reduce(0, +))
        let parts = sizes.map { size in
            defer { next += size }
            return next
        }
        return Workspace(
            hidden: parts[0], query: parts[1], key: parts[2], value: parts[3], attention: parts[4], inner: parts[5],
            states: parts[6])
    }

    /// cos and sin of the angles of positions 0..<rows, [rows, headDimension / 2] each; frequencies and angles in float32
    /// as in the reference.
    private func rotations(rows: Int) -> (cosines: FloatBuffer, sines: FloatBuffer) {
        let half = shape.headDimension / 2
        let (cosines, sines) = (FloatBuffer(count: rows * half), FloatBuffer(count: rows * half))
        let frequencies = (0..<half).map { m in
            Float(1 / pow(shape.ropeTheta, Double(2 * m) / Double(shape.headDimension)))
        }
        for position in 0..<rows {
            for m in 0..<half {
                let angle = Float(position) * frequencies[m]
                cosines.pointer[position * half + m] = cosf(angle)
                sines.pointer[position * half + m] = sinf(angle)
            }
        }
        return (cosines, sines)
    }

    /// Runs all layers on x [rows, hidden] in place; row i has position i.
    func forward(_ x: UnsafeMutablePointer<Float>, rows: Int) {
        let hidden = shape.hidden
        let kernels = compute.kernels
        let rotation = rotations(rows: rows)
        for layer in layers {
            cache.reset()
            for start in stride(from: 0, to: rows, by: Self.rowsPerBlock) {
                let count = min(Self.rowsPerBlock, rows - start)
                let block = x + start * hidden
                let w = workspace(rows: count)
                cache.reserve(count)

                normalize(block, layer.inputNorm, rows: count, into: w.hidden)
                apply(layer.query, w.hidden, rows: count, into: w.query)
                apply(layer.key, w.hidden, rows: count, into: w.key)
                apply(layer.value, w.hidden, rows: count, into: w.value)
                rotateAndStore(start..<(start + count), rotation, w)
                attend(start..<(start + count), w)
                apply(layer.output, w.attention, rows: count, into: w.hidden)
                addResidual(w.hidden, layer.attentionScale, rows: count, to: block)

                normalize(block, layer.postNorm, rows: count, into: w.hidden)
                apply(layer.expand, w.hidden, rows: count, into: w.inner)
                compute.forRows(count, cost: shape.intermediate) { range in
                    let inner = w.inner + range.lowerBound * shape.intermediate
                    kernels.gelu(inner, range.count * shape.intermediate, inner)
                }
                apply(layer.contract, w.inner, rows: count, into: w.hidden)
                addResidual(w.hidden, layer.feedForwardScale, rows: count, to: block)
                cache.advance(count)
            }
        }
    }

    private func apply(
        _ linear: Linear, _ x: UnsafePointer<Float>, rows: Int, into y: UnsafeMutablePointer<Float>
    ) {
        linear(x, rows: rows, into: y, scratch: &prepared, compute: compute)
    }

    private func normalize(
        _ x: UnsafePointer<Float>, _ norm: Norm, rows: Int, into y: UnsafeMutablePointer<Float>
    ) {
        let n = shape.hidden
        compute.forRows(rows, cost: n) { range in
            compute.kernels.layer_norm(
                x + range.lowerBound * n, n, norm.weight.pointer, norm.bias.pointer, shape.normEpsilon, range.count, n,
                y + range.lowerBound * n, n)
        }
    }

    private func addResidual(
        _ branch: UnsafePointer<Float>, _ scale: FloatBuffer, rows: Int, to x: UnsafeMutablePointer<Float>
    ) {
        let n = shape.hidden
        compute.forRows(rows, cost: n) { range in
            for row in range { compute.kernels.add_scaled(branch + row * n, scale.pointer, n, x + row * n) }
        }
    }

    /// Rotates queries and keys of the block's rows and puts keys and values into the cache.
    private func rotateAndStore(
        _ positions: Range<Int>, _ rotation: (cosines: FloatBuffer, sines: FloatBuffer), _ w: Workspace
    ) {
        let s = shape
        let dim = s.headDimension
        compute.forRows(positions.count, cost: 2 * s.queryWidth) { range in
            for row in range {
                let position = positions.lowerBound + row
                let cosines = rotation.cosines.pointer + position * dim / 2
                let sines = rotation.sines.pointer + position * dim / 2
                let (query, key) = (w.query + row * s.queryWidth, w.key + row * s.keyWidth)
                compute.kernels.norm_rope(query, s.heads, dim, nil, 0, cosines, sines)
                compute.kernels.norm_rope(key, s.keyValueHeads, dim, nil, 0, cosines, sines)
                for head in 0..<s.keyValueHeads {
                    let slot = cache.keys(layer: 0, head: head, position: position)
                    slot.update(from: key + head * dim, count: dim)
                    (slot + cache.valueOffset).update(from: w.value + row * s.keyWidth + head * dim, count: dim)
                }
            }
        }
    }

    /// w.query → w.attention; each query sees all positions up to its own.
    private func attend(_ positions: Range<Int>, _ w: Workspace) {
        let s = shape
        compute.forRows(positions.count * s.heads, cost: positions.upperBound * s.headDimension) { range in
            for item in range {
                attendHead(
                    item / positions.count, row: item % positions.count,
                    position: positions.lowerBound + item % positions.count, w)
            }
        }
    }

    private func attendHead(_ head: Int, row: Int, position: Int, _ w: Workspace) {
        let s = shape
        let dim = s.headDimension
        let state = w.states + (row * s.heads + head) * (dim + 2)
        state.update(repeating: 0, count: dim + 2)
        state[0] = -.infinity
        for start in stride(from: 0, through: position, by: KVCache.blockLength) {
            let keys = cache.keys(layer: 0, head: head * s.keyValueHeads / s.heads, position: start)
            compute.kernels.attend(
                w.query + row * s.queryWidth + head * dim, keys, keys + cache.valueOffset, dim,
                min(position + 1 - start, KVCache.blockLength), dim, 1 / Float(dim).squareRoot(), state)
        }
        let out = w.attention + row * s.queryWidth + head * dim
        let inverse = 1 / state[1]
        for i in 0..<dim { out[i] = state[2 + i] * inverse }
    }
}
