import Qwen3TTS
import Tensors

/// The tensors that a model folder should hold, from its configuration files.
struct CheckpointSchema {
    struct Tensor: Hashable {
        let name: String
        let shape: [Int]
    }

    /// Of `model.safetensors`.
    private(set) var main: [Tensor] = []
    /// Of `speech_tokenizer/model.safetensors`.
    private(set) var codec: [Tensor] = []

    /// Sizes of a decoder stack, as the configuration files state them.
    private struct Stack: Decodable {
        let hidden_size: Int?
        let intermediate_size: Int?
        let num_hidden_layers: Int?
        let num_attention_heads: Int?
        let num_key_value_heads: Int?
        let head_dim: Int?
    }

    private struct Sizes {
        let hidden, inner, layers, queryWidth, keyWidth, head: Int

        /// The other arguments are the reference's class defaults.
        init(_ stack: Stack?, hidden: Int, inner: Int, layers: Int, heads: Int, keyHeads: Int, head: Int? = nil) {
            self.hidden = stack?.hidden_size ?? hidden
            self.inner = stack?.intermediate_size ?? inner
            self.layers = stack?.num_hidden_layers ?? layers
            let heads = stack?.num_attention_heads ?? heads
            self.head = stack?.head_dim ?? head ?? self.hidden / heads
            queryWidth = heads * self.head
            keyWidth = (stack?.num_key_value_heads ?? keyHeads) * self.head
        }
    }

    private struct MainFile: Decodable {
        struct TalkerPart: Decodable {
            let code_predictor_config: Stack
        }
        let talker_config: TalkerPart
    }
    private struct TalkerFile: Decodable { let talker_config: Stack }
    private struct CodecFile: Decodable {
        let decoder_config: Stack?
        let encoder_config: Stack?
    }

    /// - Parameter configuration: what the folder's files say, already checked.
    init(folder: String, _ configuration: Configuration) throws(ExperimentError) {
        let talkerPart = try readJSON(TalkerFile.self, folder + "/config.json").talker_config
        let predictorPart = try readJSON(MainFile.self, folder + "/config.json").talker_config.code_predictor_config
        let codecFile = try readJSON(CodecFile.self, folder + "/speech_tokenizer/config.json")
        let talker = Sizes(talkerPart, hidden: 1024, inner: 2048, layers: 20, heads: 16, keyHeads: 2)
        let predictor = Sizes(
            predictorPart, hidden: 1024, inner: 3072, layers: 5, heads: 16, keyHeads: 8, head: 128)
        addTalker(talker, configuration.talker)
        addPredictor(predictor, configuration.codePredictor, talkerHidden: talker.hidden)
        if let encoder = configuration.speakerEncoder { addSpeakerEncoder(encoder) }
        addDecoder(
            Sizes(codecFile.decoder_config, hidden: 1024, inner: 3072, layers: 8, heads: 16, keyHeads: 16),
            configuration.codec.decoder)
        if let encoder = configuration.codec.encoder {
            addEncoder(
                Sizes(codecFile.encoder_config, hidden: 512, inner: 2048, layers: 8, heads: 8, keyHeads: 8), encoder)
        }
    }

    // MARK: Language model

    private mutating func addTalker(_ s: Sizes, _ c: TalkerConfiguration) {
        add("talker.model.text_embedding.weight", c.textVocabularySize, c.textHidden)
        add("talker.model.codec_embedding.weight", c.vocabularySize, s.hidden)
        add("talker.text_projection.linear_fc1", weight: [c.textHidden, c.textHidden])
        add("talker.text_projection.linear_fc2", weight: [s.hidden, c.textHidden])
        main += Self.stack("talker.model.", s, headNorms: true)
        add("talker.codec_head.weight", c.vocabularySize, s.hidden)
    }

    private mutating func addPredictor(_ s: Sizes, _ c: CodePredictorConfiguration, talkerHidden: Int) {
        let p = "talker.code_predictor."
        main += Self.stack(p + "model.", s, headNorms: true)
        if s.hidden != talkerHidden { add(p + "small_to_mtp_projection", weight: [s.hidden, talkerHidden]) }
        for group in 0..<(c.codeGroups - 1) {
            add("\(p)lm_head.\(group).weight", c.vocabularySize, s.hidden)
            add("\(p)model.codec_embedding.\(group).weight", c.vocabularySize, talkerHidden)
        }
    }

    private mutating func addSpeakerEncoder(_ c: SpeakerEncoderConfiguration) {
        let p = "speaker_encoder."
        let last = c.channels.count - 1
        add(p + "blocks.0.conv", weight: [c.channels[0], c.melBands, c.kernels[0]])
        for index in 1..<last {
            let (b, width) = ("\(p)blocks.\(index).", c.channels[index])
            add(b + "tdnn1.conv", weight: [width, c.channels[index - 1], 1])
            let part = width / c.res2NetScale
            for number in 0..<(c.res2NetScale - 1) {
                add("\(b)res2net_block.blocks.\(number).conv", weight: [part, part, c.kernels[index]])
            }
            add(b + "tdnn2.conv", weight: [width, width, 1])
            add(b + "se_block.conv1", weight: [c.squeezeChannels, width, 1])
            add(b + "se_block.conv2", weight: [width, c.squeezeChannels, 1])
        }
        let wide = c.channels[last]
        add(p + "mfa.conv", weight: [wide, wide, c.kernels[last]])
        add(p + "asp.tdnn.conv", weight: [c.attentionChannels, 3 * wide, 1])
        add(p + "asp.conv", weight: [wide, c.attentionChannels, 1])
        add(p + "fc", weight: [c.outputSize, 2 * wide, 1])
    }

    // MARK: Codec

    private mutating func addDecoder(_ s: Sizes, _ c: CodecDecoderConfiguration) {
        let half = c.codebookDimension / 2
        for group in 0..<c.codebooks {
            let part = group == 0 ? "rvq_first.vq.layers.0" : "rvq_rest.vq.layers.\(group - 1)"
            addCodec("decoder.quantizer.\(part)._codebook.embedding_sum", c.codebookSize, half)
            addCodec("decoder.quantizer.\(part)._codebook.cluster_usage", c.codebookSize)
        }
        for part in ["rvq_first", "rvq_rest"] {
            addCodec("decoder.quantizer.\(part).output_proj.weight", c.codebookDimension, half, 1)
        }
        addCodec("decoder.pre_conv.conv", weight: [c.latentSize, c.codebookDimension, 3])
        addCodec("decoder.pre_transformer.input_proj", weight: [s.hidden, c.latentSize])
        codec += Self.stack("decoder.pre_transformer.", s, layerScales: true)
        addCodec("decoder.pre_transformer.output_proj", weight: [c.latentSize, s.hidden])
        for (index, factor) in c.latentUpsampleRates.enumerated() {
            let (u, d) = ("decoder.upsample.\(index).", c.latentSize)
            addCodec(u + "0.conv.weight", d, d, factor)
            addCodec(u + "0.conv.bias", d)
            addCodec(u + "1.dwconv.conv", weight: [d, 1, 7])
            addCodec(u + "1.norm", weight: [d])
            addCodec(u + "1.pwconv1", weight: [4 * d, d])
            addCodec(u + "1.pwconv2", weight: [d, 4 * d])
            addCodec(u + "1.gamma", d)
        }
        addCodec("decoder.decoder.0.conv", weight: [c.channels, c.latentSize, 7])
        var width = c.channels
        for (index, rate) in c.upsampleRates.enumerated() {
            let b = "decoder.decoder.\(index + 1).block."
            addSnake(b + "0", width)
            addCodec(b + "1.conv.weight", width, width / 2, 2 * rate)
            addCodec(b + "1.conv.bias", width / 2)
            width /= 2
            for unit in 2...4 {
                addSnake("\(b)\(unit).act1", width)
                addCodec("\(b)\(unit).conv1.conv", weight: [width, width, 7])
                addSnake("\(b)\(unit).act2", width)
                addCodec("\(b)\(unit).conv2.conv", weight: [width, width, 1])
            }
        }
        let last = c.upsampleRates.count + 1
        addSnake("decoder.decoder.\(last)", width)
        addCodec("decoder.decoder.\(last + 1).conv", weight: [1, width, 7])
    }

    private mutating func addSnake(_ name: String, _ width: Int) {
        addCodec(name + ".alpha", width)
        addCodec(name + ".beta", width)
    }

    private mutating func addEncoder(_ s: Sizes, _ c: CodecEncoderConfiguration) {
        let e = "encoder.encoder.layers."
        addCodec(e + "0.conv", weight: [c.filters, 1, c.kernel])
        var (width, layer) = (c.filters, 1)
        for stride in c.strides {
            for _ in 0..<c.residualLayers {
                addCodec("\(e)\(layer).block.1.conv", weight: [width / c.compress, width, c.residualKernel])
                addCodec("\(e)\(layer).block.3.conv", weight: [width, width / c.compress, 1])
                layer += 1
            }
            // An activation lies in between.
            addCodec("\(e)\(layer + 1).conv", weight: [2 * width, width, 2 * stride])
            (width, layer) = (2 * width, layer + 2)
        }
        addCodec("\(e)\(layer + 1).conv", weight: [s.hidden, width, c.lastKernel])
        for index in 0..<s.layers {
            let t = "encoder.encoder_transformer.layers.\(index)."
            for norm in ["input_layernorm", "post_attention_layernorm"] { addCodec(t + norm, weight: [s.hidden]) }
            addCodec(t + "self_attn.q_proj.weight", s.queryWidth, s.hidden)
            for part in ["k", "v"] { addCodec("\(t)self_attn.\(part)_proj.weight", s.keyWidth, s.hidden) }
            addCodec(t + "self_attn.o_proj.weight", s.hidden, s.queryWidth)
            addCodec(t + "mlp.fc1.weight", s.inner, s.hidden)
            addCodec(t + "mlp.fc2.weight", s.hidden, s.inner)
            for part in ["self_attn", "mlp"] { addCodec("\(t)\(part)_layer_scale.scale", s.hidden) }
        }
        addCodec(
            "encoder.downsample.conv.weight", s.hidden, s.hidden, 2 * CodecEncoderConfiguration.downsampleStride)
        for (part, count) in [("semantic", 1), ("acoustic", c.usedCodebooks - 1)] {
            let q = "encoder.quantizer.\(part)_residual_vector_quantizer."
            addCodec(q + "input_proj.weight", c.codebookDimension, s.hidden, 1)
            for level in 0..<count {
                addCodec("\(q)layers.\(level).codebook.embed_sum", c.codebookSize, c.codebookDimension)
                addCodec("\(q)layers.\(level).codebook.cluster_usage", c.codebookSize)
            }
        }
    }

    // MARK: Parts

    private static func stack(
        _ prefix: String, _ s: Sizes, headNorms: Bool = false, layerScales: Bool = false
    ) -> [Tensor] {
        var all: [Tensor] = []
        for index in 0..<s.layers {
            let p = "\(prefix)layers.\(index)."
            func add(_ name: String, _ shape: Int...) { all.append(Tensor(name: p + name, shape: shape)) }
            add("input_layernorm.weight", s.hidden)
            add("self_attn.q_proj.weight", s.queryWidth, s.hidden)
            add("self_attn.k_proj.weight", s.keyWidth, s.hidden)
            add("self_attn.v_proj.weight", s.keyWidth, s.hidden)
            add("self_attn.o_proj.weight", s.hidden, s.queryWidth)
            if headNorms {
                add("self_attn.q_norm.weight", s.head)
                add("self_attn.k_norm.weight", s.head)
            }
            add("post_attention_layernorm.weight", s.hidden)
            add("mlp.gate_proj.weight", s.inner, s.hidden)
            add("mlp.up_proj.weight", s.inner, s.hidden)
            add("mlp.down_proj.weight", s.hidden, s.inner)
            if layerScales {
                add("self_attn_layer_scale.scale", s.hidden)
                add("mlp_layer_scale.scale", s.hidden)
            }
        }
        return all + [Tensor(name: prefix + "norm.weight", shape: [s.hidden])]
    }

    private mutating func add(_ name: String, _ shape: Int...) { main.append(Tensor(name: name, shape: shape)) }

    private mutating func addCodec(_ name: String, _ shape: Int...) { codec.append(Tensor(name: name, shape: shape)) }

    /// `name.weight` of that shape, and `name.bias` of its first dimension.
    private mutating func add(_ name: String, weight shape: [Int]) {
        main += [Tensor(name: name + ".weight", shape: shape), Tensor(name: name + ".bias", shape: [shape[0]])]
    }

    private mutating func addCodec(_ name: String, weight shape: [Int]) {
        codec += [Tensor(name: name + ".weight", shape: shape), Tensor(name: name + ".bias", shape: [shape[0]])]
    }
}
