import Foundation
import TestSupport
import Testing

@testable import Qwen3TTS

/// Damaged tokenizer files are refused or read, never a crash.
@Suite struct TokenizerFuzzTests {
    private struct Files {
        var vocabulary, merges, settings: [UInt8]

        init(_ directory: String) throws {
            func read(_ name: String) throws -> [UInt8] {
                [UInt8](try Data(contentsOf: URL(fileURLWithPath: directory + "/" + name)))
            }
            vocabulary = try read("vocab.json")
            merges = try read("merges.txt")
            settings = try read("tokenizer_config.json")
        }

        func load() throws(ModelError) -> Tokenizer {
            try Tokenizer(vocabulary: vocabulary, merges: merges, settings: settings)
        }
    }

    private func mutate(_ bytes: inout [UInt8], _ random: inout SeededRandom) {
        for _ in 0..<Int.random(in: 1...4, using: &random) {
            guard !bytes.isEmpty else { return }
            let place = Int.random(in: 0..<bytes.count, using: &random)
            let length = min(bytes.count - place, Int.random(in: 1...40, using: &random))
            switch Int.random(in: 0..<6, using: &random) {
            case 0: bytes[place] = UInt8.random(in: 0...255, using: &random)
            case 1: bytes.removeSubrange(place..<(place + length))
            case 2: bytes.insert(contentsOf: bytes[place..<(place + length)], at: place)
            case 3: bytes.removeSubrange(place...)
            case 4:
                let odd = ["\\ud800", "\\u0000", "99999999999", "-1", "\"\"", "\n", "{", "}", ",", ":", "null", "1e9"]
                bytes.insert(contentsOf: random.pick(odd).utf8, at: place)
            default: bytes[place] ^= 1 << UInt8.random(in: 0...7, using: &random)
            }
        }
    }

    @Test func seededMutations() throws {
        let original = try Files(Fixture.customVoice.directory)
        var random = SeededRandom(seed: 6)
        var loaded = 0
        for round in 0..<300 {
            var files = original
            switch round % 3 {
            case 0: mutate(&files.vocabulary, &random)
            case 1: mutate(&files.merges, &random)
            default: mutate(&files.settings, &random)
            }
            do {
                let tokenizer = try files.load()
                loaded += 1
                let text = random.text(pieces: 10)
                for mode in [ControlTokens.plainText, .recognized] {
                    let ids = tokenizer.encode(text, controlTokens: mode)
                    #expect(ids.allSatisfy { $0 >= 0 && Int($0) < tokenizer.idLimit })
                    _ = tokenizer.decode(ids)
                }
            } catch {
                #expect(!error.description.isEmpty)
                #expect(!error.description.contains("\n"))
            }
        }
        // Flipping a letter inside a token is no error that a file could show; most other damage is.
        #expect(loaded < 150)
    }

    @Test func whatIsWrongIsNamed() throws {
        let good = try Files(Fixture.customVoice.directory)
        func error(_ change: (inout Files) -> Void) -> String {
            var files = good
            change(&files)
            do throws(ModelError) {
                _ = try files.load()
                return "no error"
            } catch { return error.description }
        }
        func settings(_ text: String) -> String { error { $0.settings = Array(text.utf8) } }
        #expect(error { $0.vocabulary = [] } == "vocab.json: expected { at byte 0")
        #expect(error { $0.vocabulary = Array(#"{"a": 1, "b": 1}"#.utf8) } == "vocab.json: id 1 occurs twice")
        #expect(error { $0.vocabulary = Array(#"{"a": 1, "a": 2}"#.utf8) } == "vocab.json: tokens 1 and 2 are the same")
        #expect(error { $0.vocabulary = Array(#"{"a": 1}"#.utf8) } == "vocab.json: there is no token for byte 0")
        #expect(error { $0.vocabulary = Array(#"{"a": 99999999}"#.utf8) }.contains("an id below"))
        #expect(error { $0.merges += Array("zz\n".utf8) }.contains("is not two tokens with a blank"))
        #expect(error { $0.merges += Array("xyz xyz\n".utf8) }.contains("names a token that is not in vocab.json"))
        #expect(settings("{}").contains("<|im_start|> and <|im_end|> are not among the added tokens"))
        #expect(settings("[]").contains("not valid JSON"))
        #expect(settings(#"{"tokenizer_class": "LlamaTokenizer"}"#).contains("expected \"Qwen2Tokenizer\""))
        #expect(settings(#"{"add_prefix_space": true}"#).contains("have to be false"))
        #expect(settings(#"{"added_tokens_decoder": {"x": {"content": "y"}}}"#).contains("is not a number"))
        #expect(
            settings(#"{"added_tokens_decoder": {"900": {"content": "y", "lstrip": true}}}"#).contains("lstrip"))
        #expect(settings(#"{"added_tokens_decoder": {"3": {"content": "y"}}}"#).contains("gives to another token"))
        // A merge must not spell a control token.
        #expect(
            error {
                $0.settings = Array(String(decoding: $0.settings, as: UTF8.self).utf8)
                $0.vocabulary.removeLast()
                $0.vocabulary += Array(#", "ab": 900}"#.utf8)
                $0.merges += Array("a b\n".utf8)
                let text = String(decoding: $0.settings, as: UTF8.self)
                $0.settings = Array(
                    text.replacingOccurrences(
                        of: #""added_tokens_decoder": {"#, with: #""added_tokens_decoder": {"900": {"content": "ab"},"#
                    ).utf8)
            }.contains("makes the added token 900 out of ordinary text"))
    }

    @Test func missingFolder() {
        #expect(throws: ModelError.missingFile(path: "/nowhere/vocab.json")) {
            try Tokenizer(directory: "/nowhere")
        }
    }
}
