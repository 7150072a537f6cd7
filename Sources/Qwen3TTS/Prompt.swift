/// One row of the talker's prefill: the sum of a text part and a codec part (sections 2.3 to 2.5).
public struct PromptRow: Hashable, Sendable {
    /// What the text embedding and its projection contribute.
    public enum TextPart: Hashable, Sendable {
        /// Nothing is added.
        case none
        /// A token of the text vocabulary.
        case token(Int32)
        /// `<tts_pad>`, `<tts_text_bos>`, `<tts_text_eod>`.
        case pad, bos, eos
    }

    /// What the codec side contributes.
    public enum CodecPart: Hashable, Sendable {
        /// Nothing is added.
        case none
        /// A row of the talker's codec embedding.
        case token(Int32)
        /// The vector of the speaker encoder, as it is.
        case speakerVector
        /// The sum over the groups of one frame of the reference recording.
        case referenceFrame(Int)
    }

    /// What the text side contributes.
    public var text: TextPart
    /// What the codec side contributes.
    public var codec: CodecPart

    /// Whether it holds a token of the text vocabulary.
    var isText: Bool { if case .token = text { true } else { false } }

    /// A row.
    public init(_ text: TextPart, _ codec: CodecPart = .none) {
        self.text = text
        self.codec = codec
    }
}

/// Where the text stands in relation to the frames.
public enum TextLayout: String, Hashable, Sendable, Codable {
    /// One text row goes with each frame, so that speech can start before the text is complete.
    case streaming
    /// The whole text is in the prefill.
    case nonStreaming
}

/// Who speaks.
public enum PromptVoice: Hashable, Sendable {
    /// Nobody in particular; the instruction describes the voice (``ModelKind/voiceDesign``).
    case none
    /// A voice the model was trained on (``ModelKind/customVoice``).
    case named(String)
    /// The vector of the speaker encoder (``ModelKind/base``).
    case vector
    /// That vector, and a reference recording to go on from (``ModelKind/base``).
    /// `transcript` is from ``Tokenizer/referenceTemplate(_:controlTokens:)``; `frames` is the length of the
    /// recording in codec frames.
    case inContext(transcript: [Int32], frames: Int)
}

/// The text to speak as token ids, as far as it is known.
public struct SpeechText: Hashable, Sendable {
    /// `<|im_start|>assistant\n`.
    public var role: [Int32]
    /// The text itself.
    public var body: [Int32]
    /// The token after the body, `<|im_end|>`: what the reference takes for the first text token of an empty text.
    public var end: Int32
    /// False while more text may come.
    public var isComplete: Bool

    /// A complete text from its whole template (``Tokenizer/speechTemplate(_:controlTokens:)``).
    ///
    /// - Throws: ``ModelError/badInput(_:)`` if the ids are fewer than the template's own 8.
    public init(template ids: [Int32]) throws(ModelError) {
        guard ids.count >= 8 else {
            throw .badInput("a speech template has at least 8 tokens, not \(ids.count)")
        }
        role = Array(ids[..<3])
        body = Array(ids[3..<(ids.count - 5)])
        end = ids[ids.count - 5]
        isComplete = true
    }

    /// A text that arrives in pieces (``IncrementalTokenizer``).
    public init(body: [Int32], isComplete: Bool, tokenizer: Tokenizer) {
        role = tokenizer.opening
        self.body = body
        end = tokenizer.tables.endOfMessage
        self.isComplete = isComplete
    }
}

/// Text rows that are added to the talker's inputs after the prefill, one per generated frame.
public struct TrailingText: Hashable, Sendable {
    /// The rows known so far.
    public private(set) var parts: [PromptRow.TextPart]
    /// True once no more text can come.
    public private(set) var isComplete: Bool

    /// Rows, and whether they are all.
    public init(_ parts: [PromptRow.TextPart], isComplete: Bool) {
        self.parts = parts
        self.isComplete = isComplete
    }

    /// The row that goes with frame `index`: `pad` behind the end of the text; nil if it has not arrived.
    public func part(_ index: Int) -> PromptRow.TextPart? {
        index < parts.count ? parts[index] : isComplete ? .pad : nil
    }

    /// More of the text arrived. Nothing may follow ``finish()``.
    public mutating func append(_ ids: [Int32]) {
        precondition(!isComplete, "text after its end")
        parts += ids.map { .token($0) }
    }

    /// The text is complete.
    public mutating func finish() {
        guard !isComplete else { return }
        parts.append(.eos)
        isComplete = true
    }
}

/// Something a caller asked for that the model does not do and the prompt leaves out, as the reference does silently.
public enum PromptWarning: Hashable, Sendable, CustomStringConvertible {
    /// Models of this kind and size were not trained on instructions.
    case instructionIgnored(kind: ModelKind, size: String)

    /// One line.
    public var description: String {
        switch self {
        case .instructionIgnored(let kind, let size):
            "the instruction is ignored: a \(kind.rawValue) model of size \(size) was not trained on any"
        }
    }
}

/// What goes into the talker before the first frame, and the text that follows, as ids.
public struct Prompt: Hashable, Sendable {
    /// The prefill, in order of position.
    public private(set) var rows: [PromptRow]
    /// Text for the frames after it.
    public var trailing: TrailingText
    /// What was left out.
    public private(set) var warnings: [PromptWarning]

    /// The layout the reference uses for a kind of model if the caller names none.
    public static func defaultLayout(_ kind: ModelKind) -> TextLayout { kind == .base ? .streaming : .nonStreaming }

    /// How many tokens of an incomplete text the prefill needs; fewer are enough once the text is complete.
    public static func bodyTokensNeeded(voice: PromptVoice) -> Int {
        guard case .inContext(let transcript, let frames) = voice else { return 1 }
        return max(1 + frames - max(transcript.count - 5, 0), 0)
    }

    /// Lays out a prompt.
    ///
    /// - Parameters:
    ///   - text: what to speak. It may be incomplete in the streaming layout, with at least
    ///     ``bodyTokensNeeded(voice:)`` tokens; the rest is appended to ``trailing``.
    ///   - voice: who speaks.
    ///   - language: `auto` or one of ``Configuration/languages``, in any case.
    ///   - instruction: from ``Tokenizer/instructionTemplate(_:controlTokens:)``; empty for none.
    ///   - layout: nil for ``defaultLayout(_:)``.
    /// - Throws: ``ModelError/unknownVoice(_:known:)``, ``ModelError/unknownLanguage(_:known:)``,
    ///   ``ModelError/unsupported(_:by:)``, ``ModelError/textTooLong(positions:limit:)`` or
    ///   ``ModelError/badInput(_:)``.
    public init(
        _ text: SpeechText, voice: PromptVoice, language: String = "auto", instruction: [Int32] = [],
        layout: TextLayout? = nil, configuration: Configuration
    ) throws(ModelError) {
        let talker = configuration.talker
        let layout = layout ?? Self.defaultLayout(configuration.kind)
        let speaker = try Self.speaker(voice, configuration)
        try Self.checkIds(text.role + text.body + [text.end] + instruction, talker)

        rows = []
        warnings = []
        if !instruction.isEmpty {
            if configuration.takesInstruction {
                rows += instruction.map { PromptRow(.token($0)) }
            } else {
                warnings.append(.instructionIgnored(kind: configuration.kind, size: configuration.size))
            }
        }
        rows += text.role.map { PromptRow(.token($0)) }
        for tag in try Self.tags(language, voice, configuration) { rows.append(PromptRow(.pad, .token(tag))) }
        if let speaker { rows.append(PromptRow(.pad, speaker)) }
        rows.append(PromptRow(.bos, .token(talker.control.pad)))

        if layout == .nonStreaming, !text.isComplete {
            throw .badInput("text in pieces needs the streaming layout; the other one takes the whole text at once")
        }
        if !text.isComplete, text.body.count < Self.bodyTokensNeeded(voice: voice) {
            throw .badInput(
                "the prompt needs \(Self.bodyTokensNeeded(voice: voice)) tokens of text, \(text.body.count) are there")
        }
        if case .inContext(let transcript, let frames) = voice {
            try Self.checkIds(transcript, talker)
            guard transcript.count >= 5 else {
                throw .badInput("a transcript template has at least 5 tokens, not \(transcript.count)")
            }
            guard (1...talker.maxPositions).contains(frames) else {
                throw .badInput("a reference recording has 1 to \(talker.maxPositions) frames, not \(frames)")
            }
            let tail = Self.inContext(text, transcript: transcript[3..<(transcript.count - 2)], frames, layout, talker)
            rows += tail.rows
            trailing = tail.trailing
        } else {
            let tail = Self.plain(text, layout, talker)
            rows += tail.rows
            trailing = tail.trailing
        }
        // At least one position has to be left to speak in.
        guard rows.count < talker.maxPositions else {
            throw .textTooLong(positions: rows.count, limit: talker.maxPositions)
        }
    }

    /// Tails A and B of section 2.5.
    private static func plain(
        _ text: SpeechText, _ layout: TextLayout, _ talker: TalkerConfiguration
    ) -> (rows: [PromptRow], trailing: TrailingText) {
        let pad = PromptRow.CodecPart.token(talker.control.pad)
        let bos = PromptRow.CodecPart.token(talker.control.bos)
        switch layout {
        case .nonStreaming:
            let rows = text.body.map { PromptRow(.token($0), pad) } + [PromptRow(.eos, pad), PromptRow(.pad, bos)]
            return (rows, TrailingText([.pad], isComplete: true))
        case .streaming:
            var trailing = TrailingText(text.body.dropFirst().map { .token($0) }, isComplete: false)
            if text.isComplete { trailing.finish() }
            return ([PromptRow(.token(text.body.first ?? text.end), bos)], trailing)
        }
    }

    /// Tails C and D.
    private static func inContext(
        _ text: SpeechText, transcript: ArraySlice<Int32>, _ frames: Int, _ layout: TextLayout,
        _ talker: TalkerConfiguration
    ) -> (rows: [PromptRow], trailing: TrailingText) {
        var texts = transcript.map { PromptRow.TextPart.token($0) } + text.body.map { .token($0) }
        if text.isComplete { texts.append(.eos) }
        let codes = [.token(talker.control.bos)] + (0..<frames).map { PromptRow.CodecPart.referenceFrame($0) }
        switch layout {
        case .nonStreaming:
            let rows = texts.map { PromptRow($0, .token(talker.control.pad)) } + codes.map { PromptRow(.pad, $0) }
            return (rows, TrailingText([.pad], isComplete: true))
        case .streaming:
            let rows = codes.enumerated().map { index, code in
                PromptRow(index < texts.count ? texts[index] : .pad, code)
            }
            let rest = Array(texts.dropFirst(codes.count))
            if text.isComplete { return (rows, TrailingText(rest.isEmpty ? [.pad] : rest, isComplete: true)) }
            return (rows, TrailingText(rest, isComplete: false))
        }
    }

    /// The codec part that says who speaks, or nil.
    private static func speaker(
        _ voice: PromptVoice, _ configuration: Configuration
    ) throws(ModelError) -> PromptRow.CodecPart? {
        switch (configuration.kind, voice) {
        case (.customVoice, .named(let name)):
            guard let id = configuration.talker.speakers[name.lowercased()] else {
                throw .unknownVoice(name, known: configuration.voices)
            }
            return .token(id)
        case (.customVoice, .none):
            throw .badInput("the model needs a voice, one of \(configuration.voices.joined(separator: ", "))")
        case (.base, .vector), (.base, .inContext): return .speakerVector
        case (.base, .none): throw .badInput("the model needs a reference recording or a saved voice to speak with")
        case (.voiceDesign, .none): return nil
        case (let kind, .named): throw .unsupported("a named voice", by: kind)
        case (let kind, .vector), (let kind, .inContext): throw .unsupported("a reference recording", by: kind)
        }
    }

    /// The codec ids between the role and the speaker (section 2.4).
    private static func tags(
        _ language: String, _ voice: PromptVoice, _ configuration: Configuration
    ) throws(ModelError) -> [Int32] {
        let talker = configuration.talker
        let name = language.lowercased()
        guard configuration.languages.contains(name) else {
            throw .unknownLanguage(language, known: configuration.languages)
        }
        var id = talker.languages[name]
        if case .named(let voice) = voice, name == "auto" || name == "chinese",
            let dialect = talker.dialects[voice.lowercased()]
        {
            id = talker.languages[dialect]
        }
        let control = talker.control
        guard let id else { return [control.noThink, control.thinkBOS, control.thinkEOS] }
        return [control.think, control.thinkBOS, id, control.thinkEOS]
    }

    private static func checkIds(_ ids: [Int32], _ talker: TalkerConfiguration) throws(ModelError) {
        for id in ids where id < 0 || id >= talker.textVocabularySize {
            throw .badInput(
                "token \(id) is outside the model's text vocabulary of \(talker.textVocabularySize): "
                    + "do tokenizer and model belong together?")
        }
    }
}

extension Configuration {
    /// True if the model was trained on instructions: the voice description of ``ModelKind/voiceDesign``, and
    /// ``ModelKind/customVoice`` except the smaller size.
    public var takesInstruction: Bool {
        switch kind {
        case .base: false
        case .voiceDesign: true
        // The reference drops it if the size is a part of this string.
        case .customVoice: !"0b6".contains(size)
        }
    }
}
