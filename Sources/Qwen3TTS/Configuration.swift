/// What a checkpoint was trained to do (`tts_model_type`).
public enum ModelKind: String, Hashable, Sendable, CaseIterable {
    /// Speaks with the named voices it was trained on.
    case customVoice = "custom_voice"
    /// Speaks with the voice of a reference recording.
    case base
    /// Speaks with a voice described in words.
    case voiceDesign = "voice_design"
}

/// Everything the configuration files of a model folder say, with the reference's class defaults where a key is missing.
///
/// Every number has been checked: sizes are positive and bounded so that products of a few of them fit `Int`, ids lie
/// inside their vocabularies, and the parts agree with each other.
public struct Configuration: Equatable, Sendable {
    /// What the checkpoint was trained to do.
    public var kind: ModelKind
    /// `tts_model_size`: `0b6` or `1b7` in the released models.
    public var size: String
    /// The talker: the language model that makes code 0 of each frame.
    public var talker: TalkerConfiguration
    /// The code predictor: makes the other codes of a frame.
    public var codePredictor: CodePredictorConfiguration
    /// The speaker encoder; only a ``ModelKind/base`` model has one.
    public var speakerEncoder: SpeakerEncoderConfiguration?
    /// The codec (`speech_tokenizer/config.json`).
    public var codec: CodecConfiguration
    /// Sampling defaults (`generation_config.json`).
    public var generation: GenerationConfiguration
    /// Text ids of `<tts_pad>`, `<tts_text_bos>` and `<tts_text_eod>`.
    public var textPad: Int32, textBOS: Int32, textEOS: Int32
    /// The text normaliser a model wants its text prepared with (`martlet_text_normalizer`), or nil. The released
    /// models have none; a voice trained on letters only names `english`.
    public var textNormalizer: String?
    /// The head of the talker that looks at the text that is being spoken (`martlet_alignment_head`), or nil. The
    /// released models name none.
    public var alignmentHead: AlignmentHead?

    /// Reads `config.json`, `generation_config.json` (may be absent) and `speech_tokenizer/config.json`.
    ///
    /// - Parameter directory: path of the model folder.
    /// - Throws: ``ModelError/missingFile(path:)``, ``ModelError/unreadable(path:reason:)``,
    ///   ``ModelError/wrongArchitecture(file:field:expected:found:)`` or
    ///   ``ModelError/badConfiguration(file:field:expected:found:)``.
    public static func load(directory: String) throws(ModelError) -> Configuration {
        let main = try ConfigurationReader(directory: directory, file: "config.json")
        try main.checkArchitecture("model_type", "qwen3_tts")
        try main.checkArchitecture("tokenizer_type", "qwen3_tts_tokenizer_12hz")
        let codec = try ConfigurationReader(directory: directory, file: "speech_tokenizer/config.json")
        try codec.checkArchitecture("model_type", "qwen3_tts_tokenizer_12hz")
        var generation: ConfigurationReader?
        do {
            generation = try ConfigurationReader(directory: directory, file: "generation_config.json")
        } catch ModelError.missingFile {
            generation = nil
        }
        return try Configuration(main: main, codec: codec, generation: generation)
    }

    init(
        main: ConfigurationReader, codec codecReader: ConfigurationReader, generation: ConfigurationReader?
    ) throws(ModelError) {
        let type = try main.string("tts_model_type")
        guard let kind = ModelKind(rawValue: type) else {
            let known = ModelKind.allCases.map(\.rawValue).joined(separator: ", ")
            throw main.bad("tts_model_type", expected: "one of \(known)", found: ModelError.quoted(type))
        }
        self.kind = kind
        size = try main.string("tts_model_size")
        guard size.utf8.count <= 16 else {
            throw main.bad("tts_model_size", expected: "a short name like 0b6", found: ModelError.quoted(size))
        }
        let talkerReader = try main.section("talker_config")
        talker = try TalkerConfiguration(talkerReader)
        let predictorReader = try talkerReader.section("code_predictor_config")
        codePredictor = try CodePredictorConfiguration(predictorReader)
        codec = try CodecConfiguration(codecReader)
        self.generation = try GenerationConfiguration(generation)

        let texts = (key: "text_vocab_size", value: talker.textVocabularySize)
        textPad = try main.id("tts_pad_token_id", default: 151671, below: texts)
        textBOS = try main.id("tts_bos_token_id", default: 151672, below: texts)
        textEOS = try main.id("tts_eos_token_id", default: 151673, below: texts)
        textNormalizer = try main.optionalString("martlet_text_normalizer")
        if let name = textNormalizer, name != "english" {
            throw main.bad(
                "martlet_text_normalizer", expected: "\"english\" or nothing", found: ModelError.quoted(name))
        }

        if main.has("martlet_alignment_head") {
            let head = try main.section("martlet_alignment_head")
            alignmentHead = AlignmentHead(
                layer: try head.integer("layer", in: 0...(talker.shape.layers - 1)),
                head: try head.integer("head", in: 0...(talker.shape.heads - 1)))
        }

        if kind == .base {
            let reader = try main.section("speaker_encoder_config", orEmpty: true)
            let encoder = try SpeakerEncoderConfiguration(reader)
            guard encoder.outputSize == talker.shape.hidden else {
                throw reader.bad(
                    "enc_dim", expected: "the talker's hidden_size \(talker.shape.hidden)",
                    found: "\(encoder.outputSize)")
            }
            speakerEncoder = encoder
        }
        try checkAgreement(talkerReader, predictorReader, codecReader)
    }

    /// The frame's width and the sizes of the code vocabularies, which three parts state on their own.
    private func checkAgreement(
        _ talkerReader: ConfigurationReader, _ predictorReader: ConfigurationReader,
        _ codecReader: ConfigurationReader
    ) throws(ModelError) {
        let groups = talker.codeGroups
        guard codePredictor.codeGroups == groups else {
            throw predictorReader.bad(
                "num_code_groups", expected: "the talker's \(groups)", found: "\(codePredictor.codeGroups)")
        }
        let decoderReader = try codecReader.section("decoder_config", orEmpty: true)
        guard codec.decoder.codebooks == groups else {
            throw decoderReader.bad(
                "num_quantizers", expected: "the talker's num_code_groups \(groups)",
                found: "\(codec.decoder.codebooks)")
        }
        guard codePredictor.vocabularySize <= codec.decoder.codebookSize else {
            throw predictorReader.bad(
                "vocab_size", expected: "at most the codec's codebook_size \(codec.decoder.codebookSize)",
                found: "\(codePredictor.vocabularySize)")
        }
        guard talker.speakableCodes <= codec.decoder.codebookSize else {
            throw talkerReader.bad(
                "vocab_size", expected: "at most the codec's codebook_size \(codec.decoder.codebookSize) + 1024",
                found: "\(talker.vocabularySize)")
        }
        if kind == .base, let encoder = codec.encoder {
            let encoderReader = try codecReader.section("encoder_config")
            guard encoder.usedCodebooks == groups else {
                throw codecReader.bad(
                    "encoder_valid_num_quantizers", expected: "the talker's num_code_groups \(groups)",
                    found: "\(encoder.usedCodebooks)")
            }
            let codes = min(talker.speakableCodes, codePredictor.vocabularySize)
            guard encoder.codebookSize <= codes else {
                throw encoderReader.bad(
                    "codebook_size",
                    expected: "at most \(codes), what the vocab_size of talker and code predictor leave",
                    found: "\(encoder.codebookSize)")
            }
        }
    }

    /// The named voices, sorted; empty unless the kind is ``ModelKind/customVoice``.
    public var voices: [String] { kind == .customVoice ? talker.speakers.keys.sorted() : [] }

    /// What a caller may name as language: `auto`, then the model's languages, sorted. Dialects follow from the voice.
    public var languages: [String] {
        ["auto"] + talker.languages.keys.filter { !$0.contains("dialect") }.sorted()
    }
}

/// Sampling defaults of a model: its `generation_config.json`, then the reference's hard defaults (section 3.6).
public struct GenerationConfiguration: Hashable, Sendable {
    /// How one code is chosen from its logits.
    public struct Sampling: Hashable, Sendable {
        /// False: the highest logit wins and the other values are ignored.
        public var samples: Bool
        /// Divides the logits; positive.
        public var temperature: Double
        /// Keeps the k highest logits, ties included; 0 or less keeps all.
        public var topK: Int
        /// Keeps the smallest set of codes with at least this probability; 1 keeps all.
        public var topP: Double
    }

    /// For code 0 of a frame.
    public var talker: Sampling
    /// For the other codes (`subtalker_*`).
    public var codePredictor: Sampling
    /// Divides or multiplies the logits of every code 0 that was made before; 1 changes nothing.
    public var repetitionPenalty: Double
    /// Bound on sampled tokens; one less than this is the bound on frames.
    public var maxNewTokens: Int

    init(_ reader: ConfigurationReader?) throws(ModelError) {
        guard let reader else {
            talker = Sampling(samples: true, temperature: 0.9, topK: 50, topP: 1)
            codePredictor = talker
            repetitionPenalty = 1.05
            maxNewTokens = 2048
            return
        }
        func sampling(_ prefix: String, _ flag: String) throws(ModelError) -> Sampling {
            Sampling(
                samples: try reader.boolean(flag, default: true),
                temperature: try reader.number(prefix + "temperature", default: 0.9, in: 1e-3...1e3),
                topK: try reader.integer(prefix + "top_k", default: 50, in: -1...(1 << 24)),
                topP: try reader.number(prefix + "top_p", default: 1, in: 0...1))
        }
        talker = try sampling("", "do_sample")
        codePredictor = try sampling("subtalker_", "subtalker_dosample")
        repetitionPenalty = try reader.number("repetition_penalty", default: 1.05, in: 1e-3...1e3)
        maxNewTokens = try reader.integer("max_new_tokens", default: 2048, in: 1...(1 << 24))
    }
}

/// A query head of the talker that was trained to look at the text token that is being spoken.
public struct AlignmentHead: Sendable, Equatable {
    /// Its layer, counted from 0.
    public var layer: Int
    /// Its place among the layer's query heads.
    public var head: Int
}
