import Foundation
import TestSupport
import Testing

@testable import Qwen3TTS

/// Configuration files: what they say, what is assumed where they say nothing, and what is refused.
@Suite struct ConfigurationTests {
    /// The three files of a model folder as JSON objects that a test can change.
    private struct Files {
        enum Name: CaseIterable {
            case main, codec, generation

            var file: String {
                switch self {
                case .main: "config.json"
                case .codec: "speech_tokenizer/config.json"
                case .generation: "generation_config.json"
                }
            }
        }

        var trees: [Name: JSONValue]

        init(_ fixture: Fixture) throws {
            trees = [:]
            for name in Name.allCases {
                let data = try Data(contentsOf: URL(fileURLWithPath: fixture.directory + "/" + name.file))
                trees[name] = try JSONDecoder().decode(JSONValue.self, from: data)
            }
        }

        func load() throws(ModelError) -> Configuration {
            func reader(_ name: Name) throws(ModelError) -> ConfigurationReader {
                guard case .object(let members) = trees[name] else { throw .badInput("no object") }
                return ConfigurationReader(file: name.file, members: members)
            }
            return try Configuration(main: reader(.main), codec: reader(.codec), generation: reader(.generation))
        }

        /// The error after a change, or nil if the result is still good.
        func error(_ name: Name, _ path: [String], _ value: JSONValue?) -> ModelError? {
            var changed = self
            changed.trees[name]?.set(path[...], value)
            do throws(ModelError) {
                _ = try changed.load()
                return nil
            } catch { return error }
        }
    }

    private static let fixtures = [Fixture.customVoice, .base, Fixture("tiny-voice-design")]

    // MARK: What the files say

    @Test func fixtureValues() throws {
        let voices = try Configuration.load(directory: Fixture.customVoice.directory)
        #expect(voices.kind == .customVoice && voices.size == "1b7" && voices.takesInstruction)
        #expect(
            voices.talker.shape
                == TransformerShape(
                    layers: 3, hidden: 64, intermediate: 128, heads: 4, keyValueHeads: 2, headDimension: 32,
                    ropeTheta: 1e6, normEpsilon: 1e-6, window: nil))
        #expect(
            voices.codePredictor.shape
                == TransformerShape(
                    layers: 2, hidden: 48, intermediate: 96, heads: 4, keyValueHeads: 2, headDimension: 32,
                    ropeTheta: 1e6, normEpsilon: 1e-6, window: nil))
        #expect(
            voices.talker.control
                == .init(pad: 228, bos: 229, eos: 230, think: 234, noThink: 235, thinkBOS: 236, thinkEOS: 237))
        #expect(voices.talker.speakableCodes == 128 && voices.codePredictor.vocabularySize == 128)
        #expect(voices.textPad == 668 && voices.textBOS == 669 && voices.textEOS == 670)
        #expect(voices.speakerEncoder == nil && voices.textNormalizer == nil)
        let names = ["aiden", "dylan", "eric", "ono_anna", "ryan", "serena", "sohee", "uncle_fu", "vivian"]
        #expect(voices.voices == names)
        #expect(voices.languages.count == 11 && voices.languages[0] == "auto")
        #expect(voices.talker.dialects == ["eric": "sichuan_dialect", "dylan": "beijing_dialect"])
        #expect(voices.codec.sampleRate == 24000 && voices.codec.samplesPerFrame == 1920)
        #expect(voices.codec.decoder.transformer.window == 8 && voices.codec.decoder.codebooks == 16)
        let base = try Configuration.load(directory: Fixture.base.directory)
        #expect(base.kind == .base && base.voices == [] && !base.takesInstruction)
        #expect(base.speakerEncoder?.outputSize == base.talker.shape.hidden)
        #expect(base.codec.encoder?.strides == [4, 5, 6, 8] && base.codec.encoder?.codebooks == 32)
        let design = try Configuration.load(directory: Fixture("tiny-voice-design").directory)
        #expect(design.kind == .voiceDesign && design.voices == [] && design.takesInstruction)
    }

    /// The class defaults of the reference (section 1.2), which differ from every released file.
    @Test func defaults() throws {
        let main = #"""
            {"tts_model_type": "voice_design", "tts_model_size": "1b7",
             "talker_config": {"text_vocab_size": 151936, "vocab_size": 5000, "num_code_groups": 16,
             "code_predictor_config": {"num_code_groups": 16}}}
            """#
        let codec = #"{"decoder_config": {"codebook_dim": 512, "codebook_size": 4096}}"#
        let configuration = try Configuration(
            main: ConfigurationReader(file: "config.json", json: Array(main.utf8)),
            codec: ConfigurationReader(file: "codec", json: Array(codec.utf8)), generation: nil)
        #expect(
            configuration.talker.shape
                == TransformerShape(
                    layers: 20, hidden: 1024, intermediate: 2048, heads: 16, keyValueHeads: 2, headDimension: 64,
                    ropeTheta: 10_000, normEpsilon: 1e-6, window: nil))
        #expect(
            configuration.codePredictor.shape
                == TransformerShape(
                    layers: 5, hidden: 1024, intermediate: 3072, heads: 16, keyValueHeads: 8, headDimension: 128,
                    ropeTheta: 10_000, normEpsilon: 1e-6, window: nil))
        #expect(
            configuration.talker.control
                == .init(
                    pad: 4196, bos: 4197, eos: 4198, think: 4202, noThink: 4203, thinkBOS: 4204, thinkEOS: 4205))
        #expect(configuration.talker.textHidden == 2048 && configuration.talker.maxPositions == 32768)
        #expect(configuration.textPad == 151671 && configuration.textBOS == 151672 && configuration.textEOS == 151673)
        #expect(configuration.codec.decoder.transformer.window == 72)
        #expect(configuration.codec.encoder == nil)
        let sampling = GenerationConfiguration.Sampling(samples: true, temperature: 0.9, topK: 50, topP: 1)
        #expect(configuration.generation.talker == sampling && configuration.generation.codePredictor == sampling)
        #expect(configuration.generation.repetitionPenalty == 1.05 && configuration.generation.maxNewTokens == 2048)
    }

    @Test func idsMayBeLists() throws {
        var files = try Files(Fixture.customVoice)
        let expected = try files.load()
        files.trees[.main]?.set(["talker_config", "spk_id", "ryan"], .array([.integer(1141)]))
        #expect(try files.load() == expected)
        let error = files.error(.main, ["talker_config", "spk_id", "ryan"], .array([.integer(1), .integer(2)]))
        #expect(
            error?.description
                == "config.json: talker_config.spk_id.ryan is [1, 2], expected an id below vocab_size 1152")
    }

    @Test func generationMayBeMissing() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        defer { try? FileManager.default.removeItem(at: folder) }
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        for name in ["config.json", "speech_tokenizer"] {
            try FileManager.default.createSymbolicLink(
                atPath: folder.appendingPathComponent(name).path,
                withDestinationPath: Fixture.base.directory + "/" + name)
        }
        #expect(try Configuration.load(directory: folder.path).generation.maxNewTokens == 2048)
        // But it has to be right if it is there.
        try Data("[]".utf8).write(to: folder.appendingPathComponent("generation_config.json"))
        #expect(throws: ModelError.self) { try Configuration.load(directory: folder.path) }
    }

    // MARK: What is refused

    @Test func whatIsWrongIsNamed() throws {
        let files = try Files(.base)
        func expect(
            _ name: Files.Name, _ path: String, _ value: JSONValue?, _ description: String,
            _ location: SourceLocation = #_sourceLocation
        ) {
            let error = files.error(name, path.split(separator: ".").map { String($0) }, value)
            #expect(error?.description == "\(name.file): \(description)", sourceLocation: location)
        }
        let talker = "talker_config"
        let predictor = "talker_config.code_predictor_config"
        expect(.main, "tts_model_type", nil, "tts_model_type is missing, expected a string")
        expect(
            .main, "tts_model_type", .string("singer"),
            "tts_model_type is \"singer\", expected one of custom_voice, base, voice_design")
        expect(.main, talker, nil, "talker_config is missing, expected an object")
        expect(.main, talker, .array([]), "talker_config is [], expected an object")
        expect(
            .main, "\(talker).hidden_size", .integer(1_000_000_000_000_000_000),
            "talker_config.hidden_size is 1000000000000000000, expected an integer from 1 to 65536")
        expect(
            .main, "\(talker).hidden_size", .number(64.5),
            "talker_config.hidden_size is 64.5, expected an integer from 1 to 65536")
        expect(
            .main, "\(talker).hidden_size", .string("64"),
            "talker_config.hidden_size is \"64\", expected an integer from 1 to 65536")
        expect(
            .main, "\(talker).num_hidden_layers", .integer(-1),
            "talker_config.num_hidden_layers is -1, expected an integer from 1 to 1024")
        expect(
            .main, "\(talker).num_key_value_heads", .integer(3),
            "talker_config.num_key_value_heads is 3, expected a divisor of num_attention_heads 4")
        expect(
            .main, "\(talker).vocab_size", .integer(1024),
            "talker_config.vocab_size is 1024, expected an integer from 1025 to 2097152")
        expect(
            .main, "\(talker).codec_eos_token_id", .integer(1152),
            "talker_config.codec_eos_token_id is 1152, expected an id below vocab_size 1152")
        expect(
            .main, "\(talker).text_vocab_size", nil,
            "talker_config.text_vocab_size is missing, expected an integer from 1 to 2097152")
        expect(
            .main, "tts_eos_token_id", nil,
            "tts_eos_token_id is missing, by default 151673, expected an id below text_vocab_size 704")
        expect(
            .main, "\(talker).hidden_act", .string("gelu"),
            "talker_config.hidden_act is \"gelu\", expected \"silu\"")
        expect(
            .main, "\(talker).rope_scaling.rope_type", .string("yarn"),
            "talker_config.rope_scaling.rope_type is \"yarn\", expected \"default\"")
        expect(
            .main, "\(talker).rope_scaling.mrope_section", .array([.integer(6), .integer(5)]),
            "talker_config.rope_scaling.mrope_section is [6, 5], expected a sum of 16, half of head_dim")
        // Another count of codes a frame, in any one place.
        expect(
            .main, "\(talker).num_code_groups", .integer(8),
            "talker_config.code_predictor_config.num_code_groups is 16, expected the talker's 8")
        expect(
            .main, "\(predictor).num_code_groups", .integer(32),
            "talker_config.code_predictor_config.num_code_groups is 32, expected the talker's 16")
        expect(
            .codec, "decoder_config.num_quantizers", .integer(8),
            "decoder_config.num_quantizers is 8, expected the talker's num_code_groups 16")
        expect(
            .codec, "encoder_valid_num_quantizers", .integer(8),
            "encoder_valid_num_quantizers is 8, expected the talker's num_code_groups 16")
        #expect(
            files.error(.codec, ["decoder_config", "codebook_size"], .integer(64))?.description
                == "config.json: talker_config.code_predictor_config.vocab_size is 128, "
                + "expected at most the codec's codebook_size 64")
        expect(
            .codec, "decode_upsample_rate", .integer(960),
            "decoder_config.upsample_rates is 1920, "
                + "expected a product with upsampling_ratios of decode_upsample_rate 960")
        expect(
            .codec, "decoder_config.decoder_dim", .integer(24),
            "decoder_config.decoder_dim is 24, expected a multiple of 2^4, as each block halves it")
        expect(
            .codec, "encoder_config.use_causal_conv", .bool(false),
            "encoder_config.use_causal_conv is false, expected true")
        expect(
            .generation, "temperature", .integer(0),
            "temperature is 0.0, expected a number from 0.001 to 1000.0")
        expect(
            .generation, "top_p", .string("all"),
            "top_p is \"all\", expected a number from 0.0 to 1.0")
        expect(
            .generation, "do_sample", .integer(1),
            "do_sample is 1, expected true or false")
        expect(
            .generation, "max_new_tokens", .integer(1_000_000_000_000),
            "max_new_tokens is 1000000000000, expected an integer from 1 to 16777216")
    }

    @Test func otherArchitectures() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        func error(_ json: String) throws -> String {
            try Data(json.utf8).write(to: folder.appendingPathComponent("config.json"))
            do throws(ModelError) {
                _ = try Configuration.load(directory: folder.path)
                return "no error"
            } catch { return error.description }
        }
        // The folders of other models have no speech_tokenizer; that is not what is wrong with them.
        #expect(
            try error(#"{"model_type": "llama"}"#)
                == "config.json describes another model: model_type is \"llama\", expected \"qwen3_tts\"")
        #expect(try error("{}").contains("model_type is missing, expected \"qwen3_tts\""))
        #expect(try error(#"{"model_type": 7}"#).contains("model_type is 7"))
        #expect(
            try error(#"{"model_type": "qwen3_tts", "tokenizer_type": "qwen3_tts_tokenizer_25hz"}"#)
                == "config.json describes another model: tokenizer_type is \"qwen3_tts_tokenizer_25hz\", "
                + "expected \"qwen3_tts_tokenizer_12hz\"")
        #expect(try error("[]") == "config.json: the top is [], expected an object")
        #expect(try error("") == "config.json: the file is not valid JSON, expected JSON")
        #expect(try error(String(repeating: "[", count: 100_000)).contains("not valid JSON"))
        let deep = "{\"a\":" + String(repeating: "[", count: 400) + String(repeating: "]", count: 400) + "}"
        #expect(try error(deep).contains("model_type is missing"))
        let large = "{\"a\": \"" + String(repeating: "x", count: 5 << 20) + "\"}"
        #expect(try error(large).contains("bytes, at most 4194304 make sense"))
        #expect(
            try error(#"{"model_type": "qwen3_tts", "tokenizer_type": "qwen3_tts_tokenizer_12hz"}"#)
                .contains("speech_tokenizer/config.json is missing"))
        try FileManager.default.removeItem(at: folder.appendingPathComponent("config.json"))
        try FileManager.default.createDirectory(
            at: folder.appendingPathComponent("config.json"), withIntermediateDirectories: true)
        #expect(throws: ModelError.self) { try Configuration.load(directory: folder.path) }
        #expect(throws: ModelError.missingFile(path: "/nowhere/config.json")) {
            try Configuration.load(directory: "/nowhere")
        }
    }

    /// Every value of every file, left out and replaced by each odd one: it loads, or one line names the value.
    @Test(arguments: fixtures)
    func everyValue(_ fixture: Fixture) throws {
        let files = try Files(fixture)
        _ = try files.load()
        let large = JSONValue.integer(1_000_000_000_000_000_000)
        let odd: [JSONValue?] = [
            nil, .null, .bool(true), .string(""), .string("x"), .array([]), .object([:]), .integer(0), .integer(-1),
            .integer(1), .integer(3), .number(0.5), .integer(65535), .integer(2_147_483_648), large, .number(1e300),
            .array([.integer(1), .integer(2)]), .array([large]), .array([.null]),
            .array(Array(repeating: .integer(64), count: 65)),
        ]
        var refused = 0
        for name in Files.Name.allCases {
            for path in try #require(files.trees[name]).paths {
                for value in odd {
                    guard let error = files.error(name, path, value) else { continue }
                    refused += 1
                    let line = error.description
                    #expect(!line.contains("\n") && line.utf8.count < 400)
                    #expect(line.contains(path[path.count - 1]), "\(path) = \(String(describing: value)): \(line)")
                }
            }
        }
        #expect(refused > 900)
    }

    @Test func seededMutations() throws {
        let texts = try Files.Name.allCases.map { name in
            [UInt8](try Data(contentsOf: URL(fileURLWithPath: Fixture.base.directory + "/" + name.file)))
        }
        let names = Files.Name.allCases.map(\.file)
        let good = try zip(names, texts).map { try ConfigurationReader(file: $0, json: $1) }
        var random = SeededRandom(seed: 9)
        var refused = 0
        for round in 0..<300 {
            let which = round % 3
            var text = texts[which]
            mutate(&text, &random)
            do throws(ModelError) {
                var readers = good
                readers[which] = try ConfigurationReader(file: names[which], json: text)
                _ = try Configuration(main: readers[0], codec: readers[1], generation: readers[2])
            } catch {
                refused += 1
                #expect(!error.description.contains("\n") && error.description.utf8.count < 400)
            }
        }
        #expect(refused > 100)
    }

    private func mutate(_ bytes: inout [UInt8], _ random: inout SeededRandom) {
        for _ in 0..<Int.random(in: 1...3, using: &random) {
            guard !bytes.isEmpty else { return }
            let place = Int.random(in: 0..<bytes.count, using: &random)
            let length = min(bytes.count - place, Int.random(in: 1...30, using: &random))
            switch Int.random(in: 0..<8, using: &random) {
            case 0: bytes[place] = UInt8.random(in: 0...255, using: &random)
            case 1: bytes.removeSubrange(place..<(place + length))
            case 2: bytes.insert(contentsOf: bytes[place..<(place + length)], at: place)
            case 3: bytes.removeSubrange(place...)
            // Other digits: the file stays good JSON.
            default:
                for index in place..<bytes.count where (48...57).contains(bytes[index]) {
                    let odd = ["0", "99999999", "9223372036854775807", "9223372036854775808", "-7", "1e30", "null"]
                    bytes.replaceSubrange(index...index, with: random.pick(odd).utf8)
                    break
                }
            }
        }
    }
}

extension JSONValue {
    /// The places of all values inside objects, sorted.
    fileprivate var paths: [[String]] {
        guard case .object(let members) = self else { return [] }
        return members.keys.sorted().flatMap { key in [[key]] + (members[key]?.paths ?? []).map { [key] + $0 } }
    }

    /// Replaces the value at a place, or takes it away.
    fileprivate mutating func set(_ path: ArraySlice<String>, _ value: JSONValue?) {
        guard let key = path.first, case .object(var members) = self else { return }
        if path.count == 1 {
            members[key] = value
        } else {
            members[key]?.set(path.dropFirst(), value)
        }
        self = .object(members)
    }
}
