import Tensors

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Hands out the linear layers of a checkpoint in the wanted format.
struct Weights {
    let file: SafetensorsFile
    let format: WeightFormat
    /// Quantised layers by name; nil for `.bf16`.
    let quantized: SafetensorsFile?

    /// `name.weight` [outputs, inputs], and `name.bias` if asked for.
    func linear(_ name: String, inputs: Int, outputs: Int, bias: Bool = false) throws(TensorError) -> Linear {
        let view = try file.tensor(name + ".weight", shape: [outputs, inputs])
        let biasBuffer = bias ? try file.floats(name + ".bias", shape: [outputs]) : nil
        guard let quantized else { return try Linear(view, owner: file, bias: biasBuffer) }
        let bytes = try quantized.tensor(
            name + ".weight", shape: [Linear.quantizedSize(format, outputs: outputs, inputs: inputs)])
        return Linear(
            quantized: bytes.bytes, format: format, outputs: outputs, inputs: inputs, owner: quantized,
            bias: biasBuffer)
    }
}

extension TransformerStack {
    /// Loads layers `prefix`layers.{i}.* and `prefix`norm. Per-head norms and layer scales are taken where the file has
    /// them.
    convenience init(_ weights: Weights, prefix: String, shape: TransformerShape, compute: Compute)
        throws(TensorError)
    {
        let file = weights.file
        func optional(_ name: String, _ count: Int) throws(TensorError) -> FloatBuffer? {
            file[name] == nil ? nil : try file.floats(name, shape: [count])
        }
        var layers: [Layer] = []
        for index in 0..<shape.layers {
            let p = "\(prefix)layers.\(index)."
            let (hidden, query, key, inner) = (shape.hidden, shape.queryWidth, shape.keyWidth, shape.intermediate)
            layers.append(
                Layer(
                    inputNorm: try file.floats(p + "input_layernorm.weight", shape: [hidden]),
                    query: try weights.linear(p + "self_attn.q_proj", inputs: hidden, outputs: query),
                    key: try weights.linear(p + "self_attn.k_proj", inputs: hidden, outputs: key),
                    value: try weights.linear(p + "self_attn.v_proj", inputs: hidden, outputs: key),
                    output: try weights.linear(p + "self_attn.o_proj", inputs: query, outputs: hidden),
                    queryNorm: try optional(p + "self_attn.q_norm.weight", shape.headDimension),
                    keyNorm: try optional(p + "self_attn.k_norm.weight", shape.headDimension),
                    postNorm: try file.floats(p + "post_attention_layernorm.weight", shape: [hidden]),
                    gate: try weights.linear(p + "mlp.gate_proj", inputs: hidden, outputs: inner),
                    up: try weights.linear(p + "mlp.up_proj", inputs: hidden, outputs: inner),
                    down: try weights.linear(p + "mlp.down_proj", inputs: inner, outputs: hidden),
                    attentionScale: try optional(p + "self_attn_layer_scale.scale", hidden),
                    feedForwardScale: try optional(p + "mlp_layer_scale.scale", hidden)))
        }
        self.init(
            shape: shape, layers: layers, norm: try file.floats(prefix + "norm.weight", shape: [shape.hidden]),
            compute: compute)
    }
}

/// e^x in float32.
func exponential(_ x: Float) -> Float { expf(x) }
