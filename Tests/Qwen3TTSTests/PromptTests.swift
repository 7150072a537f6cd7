import Tensors
import TestSupport
import Testing

@testable import Qwen3TTS

/// The layout of prompts against the reference's prefill and the tables of the specification (section 2.5).
@Suite struct PromptTests {
    private typealias Row = PromptRow

    private let voices: Configuration
    private let cloning: Configuration
    private let design: Configuration
    private let tokenizer: Tokenizer

    init() throws {
        voices = try Configuration.load(directory: Fixture.customVoice.directory)
        cloning = try Configuration.load(directory: Fixture.base.directory)
        design = try Configuration.load(directory: Fixture("tiny-voice-design").directory)
        tokenizer = try Tokenizer(directory: Fixture.customVoice.directory)
    }

    /// A complete text of small made-up ids.
    private func text(_ body: [Int32]) throws -> SpeechText {
        try SpeechText(template: [1, 2, 3] + body + [4, 3, 1, 2, 3])
    }

    private func codec(_ configuration: Configuration, _ parts: [Int32]) -> [Row] {
        parts.map { Row(.pad, .token($0)) }
    }

    // MARK: Against the reference

    /// What a row is made of, as ids: rows of equal ingredients are equal in the reference's output, others are not.
    private struct Ingredients: Hashable {
        var text: Int32?
        var codec: [Int32]
    }

    private struct Sum {
        var ingredients: Ingredients
        var values: ArraySlice<Float>
        var place: String
    }

    private func ingredients(_ row: Row, _ configuration: Configuration, _ frames: [Int32]) -> Ingredients {
        let text: Int32? =
            switch row.text {
            case .none: nil
            case .token(let id): id
            case .pad: configuration.textPad
            case .bos: configuration.textBOS
            case .eos: configuration.textEOS
            }
        let codec: [Int32] =
            switch row.codec {
            case .none: []
            case .token(let id): [id]
            case .speakerVector: [-1]
            case .referenceFrame(let frame): Array(frames[(frame * 16)..<(frame * 16 + 16)])
            }
        return Ingredients(text: text, codec: codec)
    }

    /// Every row of every case of a fixture, and every row of text after the prefill: the ids that this layout puts
    /// there tell apart exactly those rows that differ in the reference's embeddings.
    @Test(arguments: [Fixture.customVoice, .base, Fixture("tiny-voice-design")])
    func rowsOfTheReference(_ fixture: Fixture) throws {
        let configuration = try Configuration.load(directory: fixture.directory)
        let width = configuration.talker.shape.hidden
        let cases = try FixtureCases(fixture)
        var sums: [Sum] = []
        for name in cases.names {
            let arguments = try #require(cases.cases[name]).arguments
            let golden = try fixture.golden("case_\(name).safetensors")
            func ids(_ tensor: String) throws -> [Int32] { try golden.integers(tensor).values.map { Int32($0) } }
            var voice = PromptVoice.none
            var frames: [Int32] = []
            if let speaker = arguments.speaker { voice = .named(speaker) }
            if configuration.kind == .base { voice = .vector }
            if golden["ref_codes"] != nil {
                frames = try ids("ref_codes")
                voice = .inContext(transcript: try ids("ref_ids"), frames: frames.count / 16)
            }
            let prompt = try Prompt(
                SpeechText(template: try ids("input_ids")), voice: voice, language: arguments.language,
                instruction: golden["instruct_ids"] == nil ? [] : try ids("instruct_ids"),
                layout: arguments.non_streaming_mode.map { $0 ? .nonStreaming : .streaming },
                configuration: configuration)
            #expect(prompt.warnings.isEmpty)
            let rows = prompt.rows + prompt.trailing.parts.map { Row($0) }
            let values = try golden.array("prefill_embeds") + golden.array("trailing_text_hidden")
            #expect(prompt.rows.count * width == (try golden.array("prefill_embeds").count), "\(name)")
            try #require(rows.count * width == values.count, "\(name)")
            for (index, row) in rows.enumerated() {
                sums.append(
                    Sum(
                        ingredients: ingredients(row, configuration, frames),
                        values: values[(index * width)..<(index * width + width)], place: "\(name), row \(index)"))
            }
        }
        for (index, one) in sums.enumerated() {
            for other in sums[..<index] {
                let difference = zip(one.values, other.values).map { abs($0 - $1) }.max() ?? 0
                let isEqual = one.ingredients == other.ingredients
                if isEqual ? difference > 1e-5 : difference < 1e-3 {
                    Issue.record("\(one.place) and \(other.place) differ by \(difference)")
                }
            }
        }
    }

    // MARK: Against the tables

    @Test func namedVoiceWholeText() throws {
        let control = voices.talker.control
        let speaker = try #require(voices.talker.speakers["ryan"])
        let english = try #require(voices.talker.languages["english"])
        let prompt = try Prompt(
            text([7, 8, 9]), voice: .named("Ryan"), language: "English", configuration: voices)
        let role = [Row(.token(1)), Row(.token(2)), Row(.token(3))]
        let tags = codec(voices, [control.think, control.thinkBOS, english, control.thinkEOS, speaker])
        let body = [7, 8, 9].map { Row(.token($0), .token(control.pad)) }
        #expect(
            prompt.rows == role + tags + [Row(.bos, .token(control.pad))] + body
                + [Row(.eos, .token(control.pad)), Row(.pad, .token(control.bos))])
        #expect(prompt.trailing == TrailingText([.pad], isComplete: true))
        // The worked example of the specification: 11 rows and the text.
        #expect(prompt.rows.count == 11 + 3)
    }

    @Test func namedVoiceStreamedText() throws {
        let control = voices.talker.control
        let speaker = try #require(voices.talker.speakers["vivian"])
        let prompt = try Prompt(
            text([7, 8, 9]), voice: .named("vivian"), instruction: [20, 21], layout: .streaming, configuration: voices)
        let role = [Row(.token(20)), Row(.token(21)), Row(.token(1)), Row(.token(2)), Row(.token(3))]
        let tags = codec(voices, [control.noThink, control.thinkBOS, control.thinkEOS, speaker])
        #expect(
            prompt.rows == role + tags + [Row(.bos, .token(control.pad)), Row(.token(7), .token(control.bos))])
        #expect(prompt.trailing == TrailingText([.token(8), .token(9), .eos], isComplete: true))
        #expect(prompt.trailing.part(2) == .eos && prompt.trailing.part(3) == .pad && prompt.trailing.part(99) == .pad)
    }

    @Test func emptyTextStreams() throws {
        let prompt = try Prompt(text([]), voice: .named("ryan"), layout: .streaming, configuration: voices)
        // The first text token is then the template's <|im_end|>.
        #expect(prompt.rows.last == Row(.token(4), .token(voices.talker.control.bos)))
        #expect(prompt.trailing == TrailingText([.eos], isComplete: true))
    }

    @Test func describedVoiceHasNoSpeakerRow() throws {
        let named = try Prompt(text([7]), voice: .named("ryan"), configuration: voices)
        let described = try Prompt(text([7]), voice: .none, configuration: design)
        #expect(described.rows.count == named.rows.count - 1)
        #expect(Prompt.defaultLayout(.voiceDesign) == .nonStreaming && Prompt.defaultLayout(.base) == .streaming)
    }

    /// Tails C and D, text longer and shorter than the recording.
    @Test(arguments: [1, 2, 3, 4, 5, 6, 9])
    func inContext(frames: Int) throws {
        let control = cloning.talker.control
        let transcript: [Int32] = [1, 2, 3, 30, 31, 4, 3]
        let voice = PromptVoice.inContext(transcript: transcript, frames: frames)
        let texts: [Row.TextPart] = [.token(30), .token(31), .token(7), .token(8), .eos]
        let codes: [Row.CodecPart] = [.token(control.bos)] + (0..<frames).map { .referenceFrame($0) }
        let prefix =
            [Row(.token(1)), Row(.token(2)), Row(.token(3))]
            + codec(cloning, [control.noThink, control.thinkBOS, control.thinkEOS])
            + [Row(.pad, .speakerVector), Row(.bos, .token(control.pad))]

        let whole = try Prompt(text([7, 8]), voice: voice, layout: .nonStreaming, configuration: cloning)
        #expect(
            whole.rows == prefix + texts.map { Row($0, .token(control.pad)) } + codes.map { Row(.pad, $0) })
        #expect(whole.trailing == TrailingText([.pad], isComplete: true))

        let streamed = try Prompt(text([7, 8]), voice: voice, configuration: cloning)
        let padded = texts + Array(repeating: .pad, count: max(0, codes.count - texts.count))
        #expect(streamed.rows == prefix + zip(padded, codes).map { Row($0, $1) })
        let rest = Array(texts.dropFirst(codes.count))
        #expect(streamed.trailing == TrailingText(rest.isEmpty ? [.pad] : rest, isComplete: true))
    }

    @Test func dialects() throws {
        func language(_ voice: String, _ language: String) throws -> Int32? {
            let prompt = try Prompt(text([7]), voice: .named(voice), language: language, configuration: voices)
            guard case .token(voices.talker.control.think) = prompt.rows[3].codec else { return nil }
            guard case .token(let id) = prompt.rows[5].codec else { return nil }
            return id
        }
        let ids = voices.talker.languages
        for name in ["auto", "Auto", "chinese", "CHINESE"] {
            #expect(try language("Eric", name) == ids["sichuan_dialect"])
            #expect(try language("dylan", name) == ids["beijing_dialect"])
        }
        #expect(try language("eric", "English") == ids["english"])
        #expect(try language("ryan", "Chinese") == ids["chinese"])
        #expect(try language("ryan", "auto") == nil)
    }

    /// A CustomVoice model of the smaller size was not trained on instructions; a Base model of no size was.
    @Test func instructionsAreLeftOut() throws {
        var small = voices
        small.size = "0b6"
        let plain = try Prompt(text([7]), voice: .named("ryan"), configuration: small)
        let prompt = try Prompt(text([7]), voice: .named("ryan"), instruction: [20], configuration: small)
        #expect(prompt.rows == plain.rows)
        #expect(prompt.warnings == [.instructionIgnored(kind: .customVoice, size: "0b6")])
        #expect(prompt.warnings.first?.description.contains("the instruction is ignored") == true)
        let cloned = try Prompt(text([7]), voice: .vector, instruction: [20], configuration: cloning)
        #expect(cloned.warnings == [.instructionIgnored(kind: .base, size: cloning.size)])
        let described = try Prompt(text([7]), voice: .none, instruction: [20, 21], configuration: design)
        #expect(described.warnings.isEmpty && Array(described.rows[..<2]) == [Row(.token(20)), Row(.token(21))])
    }

    // MARK: Text in pieces

    /// A prompt begun as early as possible, and the rest of the text appended, come to the prompt of the whole text.
    @Test func textInPieces() throws {
        var random = SeededRandom(seed: 8)
        let transcript = tokenizer.referenceTemplate("Hello world.")
        for round in 0..<300 {
            let whole = round % 10 == 0 ? "" : random.text(pieces: 1 + round % 12)
            let frames = 1 + round % 25
            let (voice, configuration): (PromptVoice, Configuration) =
                switch round % 3 {
                case 0: (.named("ryan"), voices)
                case 1: (.vector, cloning)
                default: (.inContext(transcript: transcript, frames: frames), cloning)
                }
            let expected = try Prompt(
                SpeechText(template: tokenizer.speechTemplate(whole)), voice: voice, layout: .streaming,
                configuration: configuration)

            var incremental = IncrementalTokenizer(tokenizer)
            var body: [Int32] = []
            var prompt: Prompt?
            let bytes = Array(whole.utf8)
            for start in stride(from: 0, to: bytes.count, by: 5) {
                let ids = try incremental.append(utf8: bytes[start..<min(bytes.count, start + 5)])
                if prompt != nil {
                    prompt?.trailing.append(ids)
                } else {
                    body += ids
                    if body.count >= Prompt.bodyTokensNeeded(voice: voice) {
                        let text = SpeechText(body: body, isComplete: false, tokenizer: tokenizer)
                        prompt = try Prompt(text, voice: voice, layout: .streaming, configuration: configuration)
                    }
                }
            }
            let rest = try incremental.finish()
            if prompt != nil {
                prompt?.trailing.append(rest)
                prompt?.trailing.finish()
            } else {
                let text = SpeechText(body: body + rest, isComplete: true, tokenizer: tokenizer)
                prompt = try Prompt(text, voice: voice, layout: .streaming, configuration: configuration)
            }
            #expect(prompt == expected, "\(whole.debugDescription)")
        }
    }

    @Test func piecesNeedEnoughText() throws {
        let start = SpeechText(body: [7, 8], isComplete: false, tokenizer: tokenizer)
        let voice = PromptVoice.inContext(transcript: [1, 2, 3, 30, 4, 3], frames: 9)
        #expect(Prompt.bodyTokensNeeded(voice: voice) == 9)
        #expect(Prompt.bodyTokensNeeded(voice: .vector) == 1)
        #expect(
            throws: ModelError.badInput("the prompt needs 9 tokens of text, 2 are there")
        ) { try Prompt(start, voice: voice, configuration: cloning) }
        #expect(throws: ModelError.self) {
            try Prompt(start, voice: .vector, layout: .nonStreaming, configuration: cloning)
        }
        var trailing = try Prompt(start, voice: .vector, configuration: cloning).trailing
        // What has not arrived is waited for, not invented.
        #expect(trailing.part(0) == .token(8) && trailing.part(1) == nil)
        trailing.finish()
        #expect(trailing.part(1) == .eos && trailing.part(2) == .pad)
    }

    // MARK: Errors

    @Test func errorsSayWhatThereIs() throws {
        func error(
            _ voice: PromptVoice, _ configuration: Configuration, body: [Int32] = [7], language: String = "auto",
            instruction: [Int32] = []
        ) throws -> String {
            let text = try text(body)
            do throws(ModelError) {
                _ = try Prompt(
                    text, voice: voice, language: language, instruction: instruction, configuration: configuration)
                return "no error"
            } catch { return error.description }
        }
        let known = "aiden, dylan, eric, ono_anna, ryan, serena, sohee, uncle_fu, vivian"
        #expect(try error(.named("bob"), voices) == "unknown voice \"bob\": this model has \(known)")
        #expect(try error(.named("a\nb"), voices) == "unknown voice \"a\\nb\": this model has \(known)")
        #expect(try error(.none, voices) == "the model needs a voice, one of \(known)")
        let languages =
            "auto, chinese, english, french, german, italian, japanese, korean, portuguese, russian, spanish"
        #expect(
            try error(.named("ryan"), voices, language: "Klingon")
                == "unknown language \"Klingon\": this model has \(languages)")
        // Dialects come with their voices; they are not languages to choose.
        #expect(try error(.named("ryan"), voices, language: "beijing_dialect").hasPrefix("unknown language"))
        #expect(try error(.named("ryan"), cloning) == "a base model does not take a named voice")
        #expect(try error(.named("ryan"), design) == "a voice_design model does not take a named voice")
        #expect(try error(.vector, voices) == "a custom_voice model does not take a reference recording")
        #expect(try error(.none, cloning).contains("needs a reference recording"))
        #expect(try error(.named("ryan"), voices, body: [704]).hasPrefix("token 704 is outside"))
        #expect(try error(.named("ryan"), voices, instruction: [-1]).hasPrefix("token -1 is outside"))
        #expect(try error(.inContext(transcript: [1, 2, 3, 4], frames: 1), cloning).contains("at least 5 tokens"))
        #expect(
            try error(.inContext(transcript: [1, 2, 3, 4, 5], frames: 0), cloning)
                == "a reference recording has 1 to 32768 frames, not 0")
        #expect(try error(.inContext(transcript: [1, 2, 3, 4, 5], frames: .max), cloning).contains("1 to 32768"))
        #expect(throws: ModelError.self) { try SpeechText(template: [1, 2, 3, 4, 3, 1, 2]) }
    }

    @Test func longestText() throws {
        var small = voices
        small.talker.maxPositions = 20
        _ = try Prompt(text(Array(repeating: 7, count: 9)), voice: .named("ryan"), configuration: small)
        #expect(throws: ModelError.textTooLong(positions: 20, limit: 20)) {
            try Prompt(text(Array(repeating: 7, count: 10)), voice: .named("ryan"), configuration: small)
        }
        // Streamed text takes positions only as it is spoken.
        _ = try Prompt(
            text(Array(repeating: 7, count: 100)), voice: .named("ryan"), layout: .streaming, configuration: small)
    }
}
