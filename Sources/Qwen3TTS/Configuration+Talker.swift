/// The talker (`talker_config`): a decoder over sums of text and codec embeddings that makes code 0 of each frame.
public struct TalkerConfiguration: Equatable, Sendable {
    /// Codec ids that steer the talker (section 2.4).
    public struct ControlIds: Hashable, Sendable {
        /// Fills the codec part beside text.
        public var pad: Int32
        /// Starts speech.
        public var bos: Int32
        /// Ends speech; makes no frame.
        public var eos: Int32
        /// Precedes a language id.
        public var think: Int32
        /// Stands where no language is given.
        public var noThink: Int32
        /// Opens and closes the tags.
        public var thinkBOS: Int32, thinkEOS: Int32
    }

    /// Sizes of the decoder stack.
    public var shape: TransformerShape
    /// Rows of the codec embedding and of the output head: speakable codes, then 1024 control ids.
    public var vocabularySize: Int
    /// Rows of the text embedding.
    public var textVocabularySize: Int
    /// Width of the text embedding before its projection.
    public var textHidden: Int
    /// Positions the talker was made for; prompt and frames together.
    public var maxPositions: Int
    /// Codes in a frame.
    public var codeGroups: Int
    /// Codec ids that steer the talker.
    public var control: ControlIds
    /// Codec id of each language and dialect; lower-case names.
    public var languages: [String: Int32]
    /// Codec id of each named voice; lower-case names.
    public var speakers: [String: Int32]
    /// The dialect a named voice speaks when the language is Chinese or not given; lower-case names.
    public var dialects: [String: String]

    /// Control ids at the end of the vocabulary, which code 0 cannot take.
    public static let controlIdCount = 1024
    /// Code 0 is below this, or ``ControlIds/eos``.
    public var speakableCodes: Int { vocabularySize - Self.controlIdCount }

    init(_ reader: ConfigurationReader) throws(ModelError) {
        shape = try TransformerShape(reader, hidden: 1024, intermediate: 2048, layers: 20, heads: 16, keyValueHeads: 2)
        vocabularySize = try reader.integer(
            "vocab_size", default: 3072, in: (Self.controlIdCount + 1)...Bounds.vocabulary)
        textVocabularySize = try reader.integer("text_vocab_size", in: 1...Bounds.vocabulary)
        textHidden = try reader.integer("text_hidden_size", default: 2048, in: 1...Bounds.width)
        maxPositions = try reader.integer("max_position_embeddings", default: 32768, in: 16...Bounds.positions)
        codeGroups = try reader.integer("num_code_groups", default: 32, in: 2...Bounds.codebooks)
        let codes = (key: "vocab_size", value: vocabularySize)
        func control(_ key: String, _ fallback: Int) throws(ModelError) -> Int32 {
            try reader.id(key, default: fallback, below: codes)
        }
        self.control = ControlIds(
            pad: try control("codec_pad_id", 4196), bos: try control("codec_bos_id", 4197),
            eos: try control("codec_eos_token_id", 4198), think: try control("codec_think_id", 4202),
            noThink: try control("codec_nothink_id", 4203), thinkBOS: try control("codec_think_bos_id", 4204),
            thinkEOS: try control("codec_think_eos_id", 4205))
        languages = try reader.ids("codec_language_id", below: codes)
        speakers = try reader.ids("spk_id", below: codes)
        dialects = try reader.stringsOrFalse("spk_is_dialect")
        for (speaker, dialect) in dialects where speakers[speaker] != nil && languages[dialect] == nil {
            throw reader.bad(
                "spk_is_dialect.\(speaker)", expected: "a key of codec_language_id", found: ModelError.quoted(dialect))
        }
        try reader.requirePlainRope(headDimension: shape.headDimension)
    }
}

/// The code predictor (`talker_config.code_predictor_config`): makes the codes after the first, one pass each.
public struct CodePredictorConfiguration: Equatable, Sendable {
    /// Sizes of the decoder stack.
    public var shape: TransformerShape
    /// Codes each group can take.
    public var vocabularySize: Int
    /// Codes in a frame, the talker's one included.
    public var codeGroups: Int

    init(_ reader: ConfigurationReader) throws(ModelError) {
        shape = try TransformerShape(
            reader, hidden: 1024, intermediate: 3072, layers: 5, heads: 16, keyValueHeads: 8, headDimension: 128)
        vocabularySize = try reader.integer("vocab_size", default: 2048, in: 1...Bounds.vocabulary)
        codeGroups = try reader.integer("num_code_groups", default: 32, in: 2...Bounds.codebooks)
        try reader.requirePlainRope(headDimension: shape.headDimension)
    }
}

/// The speaker encoder (`speaker_encoder_config`), an ECAPA-TDNN over mel frames (section 6.3).
public struct SpeakerEncoderConfiguration: Hashable, Sendable {
    /// Width of the speaker vector: the talker's hidden size.
    public var outputSize: Int
    /// Samples per second it hears.
    public var sampleRate: Int
    /// Mel bands of its input.
    public var melBands: Int
    /// Output channels of the first convolution, of each SE-Res2Net block and of the aggregation.
    public var channels: [Int]
    /// Kernel of each of them; odd.
    public var kernels: [Int]
    /// Dilation of each of them.
    public var dilations: [Int]
    /// Inner width of the attentive pooling.
    public var attentionChannels: Int
    /// Parts into which a Res2Net block splits its channels.
    public var res2NetScale: Int
    /// Inner width of squeeze and excitation.
    public var squeezeChannels: Int

    init(_ reader: ConfigurationReader) throws(ModelError) {
        outputSize = try reader.integer("enc_dim", default: 1024, in: 1...Bounds.width)
        sampleRate = try reader.integer("sample_rate", default: 24000, in: 24000...24000)
        melBands = try reader.integer("mel_dim", default: 128, in: 1...1024)
        channels = try reader.integers("enc_channels", default: [512, 512, 512, 512, 1536], in: 1...Bounds.width)
        kernels = try reader.integers("enc_kernel_sizes", default: [5, 3, 3, 3, 1], in: 1...63)
        dilations = try reader.integers("enc_dilations", default: [1, 2, 3, 4, 1], in: 1...64)
        attentionChannels = try reader.integer("enc_attention_channels", default: 128, in: 1...Bounds.width)
        res2NetScale = try reader.integer("enc_res2net_scale", default: 8, in: 2...64)
        squeezeChannels = try reader.integer("enc_se_channels", default: 128, in: 1...Bounds.width)
        let last = channels.count - 1
        guard last >= 2 else {
            throw reader.bad("enc_channels", expected: "at least 3 entries", found: "\(channels)")
        }
        guard kernels.count == channels.count else {
            throw reader.bad("enc_kernel_sizes", expected: "\(channels.count) entries", found: "\(kernels)")
        }
        guard dilations.count == channels.count else {
            throw reader.bad("enc_dilations", expected: "\(channels.count) entries", found: "\(dilations)")
        }
        for index in 1..<last where channels[index] % res2NetScale != 0 || channels[index] != channels[0] {
            throw reader.bad(
                "enc_channels", expected: "equal blocks, multiples of enc_res2net_scale \(res2NetScale)",
                found: "\(channels)")
        }
        guard channels[1..<last].reduce(0, +) == channels[last] else {
            throw reader.bad(
                "enc_channels", expected: "a last entry that is the sum of the blocks", found: "\(channels)")
        }
    }
}

/// Upper bounds on sizes in configuration files: far above any released model, and low enough that a product of any
/// three fits `Int`.
enum Bounds {
    static let width = 1 << 16
    static let intermediate = 1 << 18
    static let layers = 1 << 10
    static let heads = 1 << 10
    static let vocabulary = 1 << 21
    static let positions = 1 << 24
    static let codebooks = 256
}

extension TransformerShape {
    /// Reads the keys that the reference's decoders share; the arguments are the class defaults.
    ///
    /// - Parameters:
    ///   - headDimension: nil: by default hidden size / heads.
    ///   - norm: name of the key of the norm's epsilon, and its default.
    ///   - window: true if the stack looks back `sliding_window` positions only.
    init(
        _ reader: ConfigurationReader, hidden: Int, intermediate: Int, layers: Int, heads: Int, keyValueHeads: Int,
        headDimension: Int? = nil, norm: (key: String, value: Double) = ("rms_norm_eps", 1e-6),
        activation: String = "silu", window: Int? = nil
    ) throws(ModelError) {
        let hidden = try reader.integer("hidden_size", default: hidden, in: 1...Bounds.width)
        let intermediate = try reader.integer("intermediate_size", default: intermediate, in: 1...Bounds.intermediate)
        let layers = try reader.integer("num_hidden_layers", default: layers, in: 1...Bounds.layers)
        let heads = try reader.integer("num_attention_heads", default: heads, in: 1...Bounds.heads)
        let keyValueHeads = try reader.integer("num_key_value_heads", default: keyValueHeads, in: 1...Bounds.heads)
        guard heads % keyValueHeads == 0 else {
            throw reader.bad(
                "num_key_value_heads", expected: "a divisor of num_attention_heads \(heads)", found: "\(keyValueHeads)")
        }
        let headDimension = try reader.integer(
            "head_dim", default: headDimension ?? max(hidden / heads, 1), in: 2...4096)
        guard headDimension % 2 == 0 else {
            throw reader.bad("head_dim", expected: "an even number", found: "\(headDimension)")
        }
        try reader.require("hidden_act", .string(activation))
        try reader.require("attention_bias", .bool(false))
        self.init(
            layers: layers, hidden: hidden, intermediate: intermediate, heads: heads, keyValueHeads: keyValueHeads,
            headDimension: headDimension,
            ropeTheta: try reader.number("rope_theta", default: 10_000, in: 1...1e12),
            normEpsilon: Float(try reader.number(norm.key, default: norm.value, in: 1e-12...1e-1)),
            window: try window.map { fallback throws(ModelError) in
                try reader.integer("sliding_window", default: fallback, in: 1...Bounds.positions)
            })
    }
}

extension ConfigurationReader {
    /// Plain RoPE and full attention. Interleaved M-RoPE counts as plain: its three position axes are equal in this
    /// model (section 3.2).
    fileprivate func requirePlainRope(headDimension: Int) throws(ModelError) {
        try require("use_sliding_window", .bool(false))
        try requireEach("layer_types", .string("full_attention"))
        guard has("rope_scaling") else { return }
        let scaling = try section("rope_scaling")
        try scaling.require("type", .string("default"))
        try scaling.require("rope_type", .string("default"))
        let sections = try scaling.integers("mrope_section", default: [headDimension / 2], in: 0...4096)
        guard sections.reduce(0, +) == headDimension / 2 else {
            throw scaling.bad(
                "mrope_section", expected: "a sum of \(headDimension / 2), half of head_dim", found: "\(sections)")
        }
    }
}
