import Tensors

/// Why an utterance ended.
public enum FinishReason: String, Sendable, Codable, CaseIterable {
    /// The model said that the speech is over.
    case stop
    /// The limit on frames was reached.
    case length
    /// The engine's guard found a run-away: too long for its text, silence or a loop.
    case runaway
    /// The caller gave up.
    case cancelled
    /// It took too long.
    case timeout
    /// The worker process that generated its codes died.
    case workerLost = "worker_lost"
    /// The GPU that it was made on failed, or had no memory left for it.
    case deviceLost = "device_lost"

    /// Whether it was the machine's fault, so that the same request may do better later.
    public var isFault: Bool { self == .workerLost || self == .deviceLost }
}

/// How codes are chosen: the model's own rules unless the caller says otherwise.
public struct SamplingOptions: Sendable, Equatable, Codable {
    /// Seed of the request's random numbers.
    public var seed: UInt64 = 0
    /// The highest logit wins, for both the talker and the code predictor.
    public var greedy = false
    /// Overrides of the talker's rule.
    public var temperature: Double?
    /// Overrides of the talker's rule.
    public var topK: Int?
    /// Overrides of the talker's rule.
    public var topP: Double?
    /// Overrides of the code predictor's rule.
    public var predictorTemperature: Double?
    /// Overrides of the code predictor's rule.
    public var predictorTopK: Int?
    /// Overrides of the code predictor's rule.
    public var predictorTopP: Double?
    /// Overrides of the model's repetition penalty on code 0.
    public var repetitionPenalty: Double?
    /// Bound on tokens sampled by the talker; one less is the bound on frames.
    public var maxNewTokens: Int?

    /// The model's own rules with seed 0.
    public init() {}

    /// The rules that hold for a model.
    func resolved(_ defaults: GenerationConfiguration) throws(ModelError) -> GenerationConfiguration {
        var rules = defaults
        func override(
            _ rule: inout Sampler.Rule, _ temperature: Double?, _ topK: Int?, _ topP: Double?
        ) throws(ModelError) {
            if let temperature {
                guard temperature >= 0, temperature <= 100 else {
                    throw .badInput("temperature is \(temperature), expected 0 (greedy) to 100")
                }
                // The reference divides by the temperature; 0 is what callers write for greedy.
                if temperature == 0 { rule.samples = false } else { rule.temperature = temperature }
            }
            if let topK { rule.topK = topK }
            if let topP {
                guard topP >= 0, topP <= 1 else { throw .badInput("top_p is \(topP), expected 0 to 1") }
                rule.topP = topP
            }
            if greedy { rule.samples = false }
        }
        try override(&rules.talker, temperature, topK, topP)
        try override(&rules.codePredictor, predictorTemperature, predictorTopK, predictorTopP)
        if let repetitionPenalty {
            guard repetitionPenalty > 0, repetitionPenalty <= 100 else {
                throw .badInput("repetition_penalty is \(repetitionPenalty), expected more than 0, at most 100")
            }
            rules.repetitionPenalty = repetitionPenalty
        }
        if let maxNewTokens {
            guard maxNewTokens >= 1 else { throw .badInput("max_new_tokens is \(maxNewTokens), expected at least 1") }
            rules.maxNewTokens = maxNewTokens
        }
        return rules
    }
}

/// What to speak and how.
public struct SpeechRequest: Sendable {
    /// Whose voice.
    public enum Voice: Sendable {
        /// A voice of a CustomVoice model.
        case named(String)
        /// A voice heard in a recording, for a Base model.
        case clone(ClonePrompt)
        /// The first named voice of a CustomVoice model; the described voice of a VoiceDesign model.
        case standard
    }

    /// The text, or its beginning if more is appended later.
    public var text: String
    /// False if text is appended later by `Utterance.append`.
    public var isComplete = true
    /// Whose voice.
    public var voice = Voice.standard
    /// `auto` or a language of the model.
    public var language = "auto"
    /// Style instruction, or the description of a VoiceDesign voice.
    public var instruction: String?
    /// Where the text stands in the prompt; nil takes the model kind's own default, or streaming for text in pieces.
    public var layout: TextLayout?
    /// How codes are chosen.
    public var sampling = SamplingOptions()
    /// Sees every code's logits, of this one request; nil costs nothing.
    public var logitTap: LogitTap?
    /// Whether spellings of control tokens in the text steer the model.
    public var controlTokens = ControlTokens.plainText

    /// A request with the defaults of the model.
    public init(text: String) { self.text = text }
}

/// The generation of one utterance: everything that differs between sessions but the decoder's side of it.
///
/// `@unchecked Sendable`: driven by one thread at a time, the one that generates.
public final class Utterance: @unchecked Sendable {
    /// Codes of all frames so far, [frames, code groups].
    public internal(set) var codes: [Int32] = []
    /// Frames generated so far.
    public internal(set) var frames = 0
    /// Set when the utterance has ended.
    public internal(set) var finishReason: FinishReason?
    /// Remarks on the request, such as an instruction that this model does not take.
    public let warnings: [String]
    /// The seed of its random numbers.
    public let seed: UInt64

    package let rules: GenerationConfiguration
    let sampler: Sampler
    package let logitTap: LogitTap?
    var constraints: TalkerConstraints
    let cache: KVCache

    /// What the prompt will be assembled from; nil once it is.
    var opening: PreparedRequest?
    /// Prompt rows, their embeddings [rows, hidden] on the CPU, how many the talker has seen, and how many of those were
    /// copied.
    package private(set) var promptRows: [PromptRow] = []
    var prompt = FloatBuffer(count: 0)
    package var promptDone = 0
    var promptReused = 0
    /// Whose voice is cloned.
    package private(set) var clone: ClonePrompt?
    /// The talker's normed hidden state and raw logits at the last position, on the CPU.
    let hidden: FloatBuffer
    let logits: FloatBuffer

    /// Where the text's tokens stand among the talker's positions, once the prompt is assembled.
    private var textStart = 0
    /// Token ids of the text so far, once the prompt is assembled.
    public private(set) var textIDs: [Int32] = []
    /// Which of `textIDs` each frame speaks; empty if the model cannot tell.
    public private(set) var places: [Int32] = []

    /// Text still to be added, one row per frame, and how many rows were.
    private(set) var trailing = TrailingText([], isComplete: true)
    private var trailingDone = 0
    /// Tokenises text that is still to come, once the prompt is assembled.
    private var openText: IncrementalTokenizer?
    /// Most positions the talker has.
    package let maxPositions: Int
    private var textTokenCount: Int

    package init(_ prepared: PreparedRequest, configuration: Configuration) {
        rules = prepared.rules
        seed = prepared.seed
        sampler = Sampler(seed: seed)
        logitTap = prepared.logitTap
        constraints = TalkerConstraints(configuration.talker, repetitionPenalty: rules.repetitionPenalty)
        cache = KVCache(shape: configuration.talker.shape)
        opening = prepared
        textTokenCount = prepared.text.body.count
        warnings = prepared.warningTexts
        maxPositions = configuration.talker.maxPositions
        hidden = FloatBuffer(count: configuration.talker.shape.hidden)
        logits = FloatBuffer(count: configuration.talker.vocabularySize)
    }

    /// Appends text to an utterance that was started incomplete.
    /// - Throws: `badInput` if its text is complete already.
    public func append(_ text: String) throws(ModelError) {
        if var tokenizer = opening?.openText {
            let ids = try tokenizer.append(text)
            textTokenCount += ids.count
            opening?.text.body += ids
            opening?.openText = tokenizer
        } else if var tokenizer = openText {
            let ids = try tokenizer.append(text)
            textTokenCount += ids.count
            textIDs += ids
            trailing.append(ids)
            openText = tokenizer
        } else {
            throw .badInput("the text of this utterance is complete already")
        }
    }

    /// Says that no more text comes. An utterance that got none ends without a frame.
    public func completeText() throws(ModelError) {
        defer { if textTokens == 0 { finish(.stop) } }
        if var tokenizer = opening?.openText {
            let ids = try tokenizer.finish()
            textTokenCount += ids.count
            opening?.text.body += ids
            opening?.text.isComplete = true
            opening?.openText = nil
        } else if var tokenizer = openText {
            let ids = try tokenizer.finish()
            textTokenCount += ids.count
            textIDs += ids
            trailing.append(ids)
            trailing.finish()
            openText = nil
        }
    }

    /// Tokens of its text; nil while more may come.
    public var textTokens: Int? { opening?.openText == nil && openText == nil ? textTokenCount : nil }

    /// Ends the utterance from outside after its first `count` frames; frames beyond were never heard.
    public func truncate(frames count: Int, _ reason: FinishReason) {
        codes.removeLast((frames - count) * (codes.count / max(frames, 1)))
        places.removeLast(max(places.count - count, 0))
        frames = count
        finishReason = reason
    }

    /// Ends the utterance from outside.
    public func finish(_ reason: FinishReason) {
        if finishReason == nil { finishReason = reason }
    }

    /// The talker is about to need a text row that has not come.
    public var isWaitingForText: Bool {
        if let opening { return !opening.canBegin }
        return promptDone == promptRows.count && trailing.part(trailingDone) == nil
    }

    // MARK: For the stages

    /// Assembles the prompt once enough of the text is known; true the one time that happens.
    package func assemblePrompt(_ configuration: Configuration) -> Bool {
        guard let prepared = opening, prepared.canBegin else { return false }
        opening = nil
        guard let assembled = try? prepared.prompt(configuration) else {
            // `prepare` has assembled the same prompt.
            finish(.cancelled)
            return false
        }
        promptRows = assembled.rows
        clone = prepared.clone
        textIDs = prepared.text.body
        // Behind the template's own tokens, which have no codec part. A transcript before the text is not followed.
        let isFollowed = clone?.codes.isEmpty ?? true
        textStart = (isFollowed ? promptRows.firstIndex { $0.isText && $0.codec != .none } : nil) ?? maxPositions
        trailing = assembled.trailing
        openText = prepared.openText
        return true
    }

    /// Whether the talker has still to read rows of the prompt.
    package var isReadingPrompt: Bool { promptDone < promptRows.count }

    /// The positions of its text's tokens among the talker's first `positions`.
    package func textPositions(among positions: Int) -> Range<Int> {
        let end = min(textStart + textIDs.count, positions)
        return textStart..<max(textStart, end)
    }

    /// Which position its next frame speaks; nil if the model cannot tell.
    package func speaks(at position: Int?) {
        if let position { places.append(Int32(position - textStart)) }
    }

    /// The id of the text row that goes with the talker's next input; nil where none is added.
    package func takeTextRow(_ configuration: Configuration) -> Int32? {
        defer { trailingDone += 1 }
        return trailing.part(trailingDone).flatMap { configuration.textID($0) }
    }

    /// Whether `code0` begins a frame; otherwise it has ended the utterance.
    package func goesOn(with code0: Int32, _ configuration: Configuration) -> Bool {
        if code0 == configuration.talker.control.eos {
            finish(.stop)
        } else if frames + 1 >= rules.maxNewTokens {
            // The reference drops the last token that the limit allows.
            finish(.length)
        } else {
            return true
        }
        return false
    }

    /// Chooses a code of the next frame from the code predictor's logits, as all stages do.
    package func choose(_ logits: UnsafeMutableBufferPointer<Float>, codebook: Int) -> Int32 {
        sampler.choose(logits, rule: rules.codePredictor, frame: frames, codebook: codebook)
    }

    /// The codes of the next frame, [code groups].
    package func append(frame: [Int32]) {
        codes += frame
        frames += 1
    }
}
