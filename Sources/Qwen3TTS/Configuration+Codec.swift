/// The codec (`speech_tokenizer/config.json`): frames of codes to samples and back.
public struct CodecConfiguration: Equatable, Sendable {
    /// Samples per second, in and out.
    public var sampleRate: Int
    /// Samples in a frame.
    public var samplesPerFrame: Int
    /// Codes to samples.
    public var decoder: CodecDecoderConfiguration
    /// Samples to codes; nil if the file has no `encoder_config`, as a model that only speaks needs none.
    public var encoder: CodecEncoderConfiguration?

    init(_ reader: ConfigurationReader) throws(ModelError) {
        sampleRate = try reader.integer("output_sample_rate", default: 24000, in: 1000...768_000)
        samplesPerFrame = try reader.integer("decode_upsample_rate", default: 1920, in: 1...Bounds.samplesPerFrame)
        let decoderReader = try reader.section("decoder_config", orEmpty: true)
        decoder = try CodecDecoderConfiguration(decoderReader)
        let product = (decoder.upsampleRates + decoder.latentUpsampleRates).reduce(1, *)
        guard product == samplesPerFrame else {
            throw decoderReader.bad(
                "upsample_rates",
                expected: "a product with upsampling_ratios of decode_upsample_rate \(samplesPerFrame)",
                found: "\(product)")
        }
        guard reader.has("encoder_config") else { return }
        let encoderReader = try reader.section("encoder_config")
        let encoder = try CodecEncoderConfiguration(
            encoderReader,
            usedCodebooks: try reader.integer("encoder_valid_num_quantizers", default: 16, in: 2...Bounds.codebooks))
        let rate = try reader.integer("encode_downsample_rate", default: 1920, in: 1...Bounds.samplesPerFrame)
        let inputRate = try reader.integer("input_sample_rate", default: 24000, in: 1000...768_000)
        guard inputRate == sampleRate else {
            throw reader.bad("input_sample_rate", expected: "output_sample_rate \(sampleRate)", found: "\(inputRate)")
        }
        guard rate == samplesPerFrame else {
            throw reader.bad(
                "encode_downsample_rate", expected: "decode_upsample_rate \(samplesPerFrame)", found: "\(rate)")
        }
        let strides = encoder.strides.reduce(1, *) * CodecEncoderConfiguration.downsampleStride
        guard strides == rate else {
            throw encoderReader.bad(
                "upsampling_ratios", expected: "a product of encode_downsample_rate / 2 = \(rate / 2)",
                found: "\(encoder.strides)")
        }
        self.encoder = encoder
    }
}

/// The codec decoder (`decoder_config`, section 5).
public struct CodecDecoderConfiguration: Equatable, Sendable {
    /// Sizes of the pre-transformer.
    public var transformer: TransformerShape
    /// Channels before and after the pre-transformer.
    public var latentSize: Int
    /// Channels after the quantiser's output projections; a codebook entry has half as many.
    public var codebookDimension: Int
    /// Entries of each codebook.
    public var codebookSize: Int
    /// Codebooks, the semantic one included.
    public var codebooks: Int
    /// Channels before the first upsampling block; each block halves them.
    public var channels: Int
    /// Columns made of one column by each upsampling block (`upsample_rates`).
    public var upsampleRates: [Int]
    /// Likewise for the ConvNeXt stages before them (`upsampling_ratios`).
    public var latentUpsampleRates: [Int]

    init(_ reader: ConfigurationReader) throws(ModelError) {
        transformer = try TransformerShape(
            reader, hidden: 1024, intermediate: 3072, layers: 8, heads: 16, keyValueHeads: 16,
            norm: ("rms_norm_eps", 1e-5), window: 72)
        latentSize = try reader.integer("latent_dim", default: 1024, in: 1...Bounds.width)
        codebookDimension = try reader.integer("codebook_dim", in: 2...Bounds.width)
        codebookSize = try reader.integer("codebook_size", default: 2048, in: 1...Bounds.vocabulary)
        codebooks = try reader.integer("num_quantizers", default: 16, in: 2...Bounds.codebooks)
        channels = try reader.integer("decoder_dim", default: 1536, in: 1...Bounds.width)
        upsampleRates = try reader.integers("upsample_rates", default: [8, 5, 4, 3], in: 1...64)
        latentUpsampleRates = try reader.integers("upsampling_ratios", default: [2, 2], in: 1...64)
        guard codebookDimension % 2 == 0 else {
            throw reader.bad("codebook_dim", expected: "an even number", found: "\(codebookDimension)")
        }
        guard upsampleRates.count <= 8, latentUpsampleRates.count <= 8 else {
            throw reader.bad(
                "upsample_rates", expected: "at most 8 entries, as upsampling_ratios",
                found: "\(upsampleRates.count) and \(latentUpsampleRates.count)")
        }
        guard channels % (1 << upsampleRates.count) == 0 else {
            throw reader.bad(
                "decoder_dim", expected: "a multiple of 2^\(upsampleRates.count), as each block halves it",
                found: "\(channels)")
        }
        try reader.requireEach("layer_types", .string("sliding_attention"))
    }
}

/// The codec encoder (`encoder_config`), a Mimi encoder (section 6.1).
public struct CodecEncoderConfiguration: Equatable, Sendable {
    /// Sizes of the transformer. It attends to everything before: the reference does not apply its window.
    public var transformer: TransformerShape
    /// Channels after the first convolution; each downsampling doubles them.
    public var filters: Int
    /// Stride of each downsampling, first to last (the reverse of `upsampling_ratios`).
    public var strides: [Int]
    /// Kernels of the first, the last and the residual convolutions.
    public var kernel: Int, lastKernel: Int, residualKernel: Int
    /// Residual units per stage.
    public var residualLayers: Int
    /// Dilation of unit i is this to the power i.
    public var dilationGrowth: Int
    /// Factor by which a residual unit narrows inside.
    public var compress: Int
    /// Width of a codebook entry.
    public var codebookDimension: Int
    /// Entries of each codebook.
    public var codebookSize: Int
    /// Codebooks in the file, semantic and acoustic.
    public var codebooks: Int
    /// Codebooks in use: the codes of a frame.
    public var usedCodebooks: Int

    /// Stride of the convolution between transformer and quantiser.
    public static let downsampleStride = 2

    init(_ reader: ConfigurationReader, usedCodebooks: Int) throws(ModelError) {
        transformer = try TransformerShape(
            reader, hidden: 512, intermediate: 2048, layers: 8, heads: 8, keyValueHeads: 8,
            norm: ("norm_eps", 1e-5), activation: "gelu")
        filters = try reader.integer("num_filters", default: 64, in: 1...4096)
        strides = try reader.integers("upsampling_ratios", default: [8, 6, 5, 4], in: 1...64).reversed()
        kernel = try reader.integer("kernel_size", default: 7, in: 1...63)
        lastKernel = try reader.integer("last_kernel_size", default: 3, in: 1...63)
        residualKernel = try reader.integer("residual_kernel_size", default: 3, in: 1...63)
        residualLayers = try reader.integer("num_residual_layers", default: 1, in: 1...8)
        dilationGrowth = try reader.integer("dilation_growth_rate", default: 2, in: 1...8)
        compress = try reader.integer("compress", default: 2, in: 1...16)
        codebookDimension = try reader.integer("codebook_dim", default: 256, in: 1...Bounds.width)
        codebookSize = try reader.integer("codebook_size", default: 2048, in: 1...Bounds.vocabulary)
        codebooks = try reader.integer("num_quantizers", default: 32, in: 2...Bounds.codebooks)
        self.usedCodebooks = usedCodebooks
        guard usedCodebooks <= codebooks else {
            throw reader.bad(
                "num_quantizers", expected: "at least encoder_valid_num_quantizers \(usedCodebooks)",
                found: "\(codebooks)")
        }
        guard strides.count <= 8 else {
            throw reader.bad("upsampling_ratios", expected: "at most 8 entries", found: "\(strides.count)")
        }
        guard filters % compress == 0 else {
            throw reader.bad("compress", expected: "a divisor of num_filters \(filters)", found: "\(compress)")
        }
        try reader.require("audio_channels", .integer(1))
        try reader.require("num_semantic_quantizers", .integer(1))
        try reader.require("use_causal_conv", .bool(true))
        try reader.require("use_conv_shortcut", .bool(false))
        try reader.require("pad_mode", .string("constant"))
        try reader.require("normalize", .bool(false))
    }
}

extension Bounds {
    static let samplesPerFrame = 1 << 20
}
