import Tensors

/// A request that has been checked and turned into ids: what the stages need to begin.
public struct PreparedRequest: Sendable {
    /// Seed of its random numbers.
    public let seed: UInt64
    let rules: GenerationConfiguration
    let voice: PromptVoice
    let clone: ClonePrompt?
    let language: String
    let instruction: [Int32]
    let layout: TextLayout
    var text: SpeechText
    /// Tokenises text that is still to come; nil when the text is complete.
    var openText: IncrementalTokenizer?
    let warnings: [PromptWarning]
    let logitTap: LogitTap?
    /// Rows of its prompt, as far as its text is known.
    package let promptRows: Int

    /// Remarks on the request, such as an instruction that this model does not take.
    public var warningTexts: [String] { warnings.map(\.description) }
    /// Most frames that it can have.
    public var maxFrames: Int { rules.maxNewTokens - 1 }
    /// Tokens of its text; nil while more may come.
    package var textTokens: Int? { openText == nil ? text.body.count : nil }
    /// For in-context cloning the codes of the recording, which the decoder hears before it speaks, [frames, code groups].
    package var referenceCodes: [Int32] {
        if case .inContext = voice { clone?.codes ?? [] } else { [] }
    }
    /// Whether enough of the text is known to assemble the prompt; more text would not change it.
    var canBegin: Bool { text.isComplete || text.body.count >= Prompt.bodyTokensNeeded(voice: voice) }

    func prompt(_ configuration: Configuration) throws(ModelError) -> Prompt {
        try Prompt(
            text, voice: voice, language: language, instruction: instruction, layout: layout,
            configuration: configuration)
    }
}

extension SpeechModel {
    /// Checks the length of a request's text.
    public static func checkText(_ request: SpeechRequest) throws(ModelError) {
        guard request.text.utf8.count <= textLimit else {
            throw .badInput(
                "the text has \(request.text.utf8.count) bytes, at most \(textLimit) make sense; speak it in parts")
        }
        guard !request.isComplete || request.text.contains(where: { !$0.isWhitespace }) else {
            throw .badInput("the text is empty: there is nothing to say")
        }
    }

    /// Checks a request. Needs no stage, so any thread may do it.
    public func prepare(_ request: SpeechRequest) throws(ModelError) -> PreparedRequest {
        try Self.checkText(request)
        let rules = try request.sampling.resolved(configuration.generation)
        let layout =
            request.layout ?? (request.isComplete ? Prompt.defaultLayout(configuration.kind) : .streaming)
        var openText: IncrementalTokenizer?
        let text: SpeechText
        if request.isComplete {
            text = try SpeechText(
                template: tokenizer.speechTemplate(request.text, controlTokens: request.controlTokens))
        } else {
            guard layout == .streaming else {
                throw .badInput("text in pieces needs the streaming layout; the other one takes the whole text at once")
            }
            var incremental = IncrementalTokenizer(tokenizer, controlTokens: request.controlTokens)
            text = SpeechText(
                body: try incremental.append(request.text), isComplete: false, tokenizer: tokenizer)
            openText = incremental
        }
        let (voice, clone) = try promptVoice(request)
        let instruction = tokenizer.instructionTemplate(
            request.instruction ?? "", controlTokens: request.controlTokens)
        // A trial prompt checks voice, language, instruction and length even where the text is still to come.
        let trial = try Prompt(
            SpeechText(body: text.body, isComplete: true, tokenizer: tokenizer), voice: voice,
            language: request.language, instruction: instruction, layout: layout, configuration: configuration)
        return PreparedRequest(
            seed: request.sampling.seed, rules: rules, voice: voice, clone: clone, language: request.language,
            instruction: instruction, layout: layout, text: text, openText: openText, warnings: trial.warnings,
            logitTap: request.logitTap, promptRows: trial.rows.count)
    }

    private func promptVoice(_ request: SpeechRequest) throws(ModelError) -> (PromptVoice, ClonePrompt?) {
        switch request.voice {
        case .named(let name): return (.named(name), nil)
        case .standard: return (configuration.voices.first.map { .named($0) } ?? .none, nil)
        case .clone(let prompt):
            try prompt.check(configuration)
            guard let transcript = prompt.referenceText, !prompt.codes.isEmpty else { return (.vector, prompt) }
            let ids = tokenizer.referenceTemplate(transcript, controlTokens: request.controlTokens)
            return (.inContext(transcript: ids, frames: prompt.codes.count / configuration.talker.codeGroups), prompt)
        }
    }

    /// Bytes of text in one request.
    public static let textLimit = 1 << 20

    /// A new utterance. Belongs, like every step of it, to the thread that generates.
    public func makeUtterance(_ prepared: PreparedRequest) -> Utterance {
        Utterance(prepared, configuration: configuration)
    }

    /// Assembles and embeds the prompt of an utterance, once enough of its text is known.
    func begin(_ utterance: Utterance) {
        guard utterance.assemblePrompt(configuration) else { return }
        let rows = utterance.promptRows
        let buffer = FloatBuffer(count: rows.count * configuration.talker.shape.hidden)
        embed(rows, clone: utterance.clone, into: buffer.pointer)
        utterance.prompt = buffer
        utterance.promptDone = prefixes.copyPrefix(of: rows, clone: utterance.clone, into: utterance.cache)
        utterance.promptReused = utterance.promptDone
    }

    /// Sums text and codec parts of prompt rows into `out` [rows, hidden].
    private func embed(_ rows: [PromptRow], clone: ClonePrompt?, into out: UnsafeMutablePointer<Float>) {
        let width = configuration.talker.shape.hidden
        let groups = configuration.talker.codeGroups
        for (index, row) in rows.enumerated() {
            let x = out + index * width
            switch row.codec {
            case .none: break
            case .token(let id): talker.codecEmbedding.copy(Int(id), to: x, compute: compute)
            case .speakerVector: for (i, value) in (clone?.speakerVector ?? []).enumerated() { x[i] = value }
            case .referenceFrame(let frame):
                writeFrameEmbedding((clone?.codes ?? [])[(frame * groups)..<((frame + 1) * groups)], to: x)
            }
        }
        textEmbedding.add(rows.map { configuration.textID($0.text) }, to: out)
    }
}

extension Configuration {
    /// The text id of a row's part, or nil for none.
    package func textID(_ part: PromptRow.TextPart) -> Int32? {
        switch part {
        case .none: nil
        case .token(let id): id
        case .pad: textPad
        case .bos: textBOS
        case .eos: textEOS
        }
    }
}
