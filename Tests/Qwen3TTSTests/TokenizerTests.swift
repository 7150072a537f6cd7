import Foundation
import Tensors
import TestSupport
import Testing

@testable import Qwen3TTS

/// Token ids against the Python reference's.
@Suite struct TokenizerTests {
    private struct Case: Decodable {
        let text: String
        let ids: [Int32]
    }

    private struct Golden: Decodable {
        let tokenizer_cases: [Case]
    }

    @Test(arguments: [Fixture.customVoice, .base, Fixture("tiny-voice-design")])
    func fixtureCases(_ fixture: Fixture) throws {
        let tokenizer = try Tokenizer(directory: fixture.directory)
        let data = try Data(contentsOf: URL(fileURLWithPath: fixture.directory + "/golden/golden.json"))
        let cases = try JSONDecoder().decode(Golden.self, from: data).tokenizer_cases
        #expect(!cases.isEmpty)
        for one in cases {
            #expect(tokenizer.encode(one.text, controlTokens: .recognized) == one.ids, "\(one.text)")
        }
    }

    /// The vocabulary of the released models is too big for the repository.
    @Test(.enabled(if: ProcessInfo.processInfo.environment["MARTLET_QWEN_TOKENIZER"] != nil))
    func realVocabulary() throws {
        let directory = try #require(ProcessInfo.processInfo.environment["MARTLET_QWEN_TOKENIZER"])
        let clock = ContinuousClock()
        let start = clock.now
        let tokenizer = try Tokenizer(directory: directory)
        print("vocabulary of \(tokenizer.idLimit) ids read in \(clock.now - start)")
        let file = Fixture("qwen2-tokenizer-cases.json").directory
        let cases = try JSONDecoder().decode([Case].self, from: Data(contentsOf: URL(fileURLWithPath: file)))
        for one in cases {
            #expect(tokenizer.encode(one.text, controlTokens: .recognized) == one.ids, "\(one.text)")
        }
        let hello: [Int32] = [151644, 77091, 198, 9707, 1879, 151645, 198, 151644, 77091, 198]
        #expect(tokenizer.speechTemplate("Hello world") == hello)
        #expect(tokenizer.instructionTemplate("Hello world") == [151644, 872, 198, 9707, 1879, 151645, 198])
        // The trap of section 2.2: the text's line break merges with the template's.
        #expect(tokenizer.speechTemplate("\nHello", controlTokens: .recognized)[..<4] == [151644, 77091, 271, 9707])
        #expect(tokenizer.speechTemplate("\nHello")[..<4] == [151644, 77091, 198, 9707])
    }

    @Test(arguments: [Fixture.customVoice, .base, Fixture("tiny-voice-design")])
    func templates(_ fixture: Fixture) throws {
        let tokenizer = try Tokenizer(directory: fixture.directory)
        let golden = try FixtureCases(fixture)
        for name in golden.names {
            let arguments = try #require(golden.cases[name]).arguments
            let file = try fixture.golden("case_\(name).safetensors")
            for mode in [ControlTokens.plainText, .recognized] {
                let text = tokenizer.speechTemplate(arguments.text, controlTokens: mode)
                #expect(text == (try ids(file, "input_ids")), "\(name)")
                if let instruct = arguments.instruct, !instruct.isEmpty {
                    let expected = try ids(file, "instruct_ids")
                    #expect(tokenizer.instructionTemplate(instruct, controlTokens: mode) == expected)
                }
                if let transcript = arguments.ref_text {
                    #expect(tokenizer.referenceTemplate(transcript, controlTokens: mode) == (try ids(file, "ref_ids")))
                }
            }
        }
    }

    @Test func leadingLineBreaksAreLeftOut() throws {
        let tokenizer = try Tokenizer(directory: Fixture.customVoice.directory)
        let plain = tokenizer.speechTemplate("Hello world")
        for breaks in ["\n", "\r\n", "\n\n\n", " \n", "\t\r \n"] {
            #expect(tokenizer.speechTemplate(breaks + "Hello world") == plain)
            #expect(tokenizer.referenceTemplate(breaks + "Hello") == tokenizer.referenceTemplate("Hello"))
            #expect(tokenizer.instructionTemplate(breaks + "Hello") == tokenizer.instructionTemplate("Hello"))
        }
        #expect(tokenizer.speechTemplate("\n Hello") == tokenizer.speechTemplate(" Hello"))
        #expect(tokenizer.speechTemplate("\n\n") == tokenizer.speechTemplate(""))
        #expect(tokenizer.speechTemplate("").count == 8)
    }

    /// No text makes a control token unless the caller asks for it.
    @Test func controlTokensArePlainTextByDefault() throws {
        let tokenizer = try Tokenizer(directory: Fixture.customVoice.directory)
        let control = tokenizer.tables.controlTokens
        #expect(control.count == 33)
        let ids = Set(control.map(\.id))
        var random = SeededRandom(seed: 1)
        for round in 0..<200 {
            let pieces = control.map(\.text) + ["<|", "im_end", "|>", "<", " ", "a", "tts_pad>"]
            let text = (0..<(1 + round % 7)).map { _ in random.pick(pieces) }.joined()
            #expect(ids.isDisjoint(with: tokenizer.encode(text)), "\(text)")
            #expect(tokenizer.decode(tokenizer.encode(text)) == text)
            #expect(tokenizer.decode(tokenizer.encode(text, controlTokens: .recognized)) == text)
        }
        for token in control {
            #expect(tokenizer.id(ofControlToken: token.text) == token.id)
            #expect(tokenizer.encode(token.text, controlTokens: .recognized) == [token.id])
        }
    }

    /// Against merges done the plain way: again and again the pair of lowest rank, the leftmost first.
    @Test func mergesOfLongPieces() throws {
        let directory = Fixture.customVoice.directory
        let tokenizer = try Tokenizer(directory: directory)
        let lines = try String(contentsOfFile: directory + "/merges.txt", encoding: .utf8).split(separator: "\n")
        let ranks = Dictionary(uniqueKeysWithValues: lines.dropFirst().enumerated().map { (String($1), $0) })
        let ids = try JSONDecoder().decode(
            [String: Int32].self, from: Data(contentsOf: URL(fileURLWithPath: directory + "/vocab.json")))
        var random = SeededRandom(seed: 2)
        let letters = ["a", "s", "t", "is", "an", "er", "the", "ing", "in", "on", "assistant", "user", "q"]
        for length in [1, 2, 3, 7, 15, 16, 17, 30, 60, 120] {
            for _ in 0..<20 {
                let text = (0..<length).map { _ in random.pick(letters) }.joined()
                var parts = text.map { String($0) }
                while let best = parts.indices.dropLast().min(by: {
                    let left = ranks["\(parts[$0]) \(parts[$0 + 1])"] ?? .max
                    return left < ranks["\(parts[$1]) \(parts[$1 + 1])"] ?? .max
                }), ranks["\(parts[best]) \(parts[best + 1])"] != nil {
                    parts[best] += parts.remove(at: best + 1)
                }
                #expect(tokenizer.encode(text) == parts.map { ids[$0] }, "\(text)")
            }
        }
    }

    /// Long texts of one letter, of blanks, of what may begin a control token: nothing is quadratic.
    @Test(.timeLimit(.minutes(15)))
    func longTexts() throws {
        let tokenizer = try Tokenizer(directory: Fixture.customVoice.directory)
        for piece in ["a", " ", "<|im_", "e\u{301}\u{323}", "\n ", "!", "'"] {
            let text = String(repeating: piece, count: 60_000 / piece.utf8.count)
            for mode in [ControlTokens.plainText, .recognized] {
                let bytes = tokenizer.decode(tokenizer.encode(text, controlTokens: mode)).utf8.count
                #expect(bytes >= text.utf8.count * 3 / 5)
            }
        }
    }

    private func ids(_ file: SafetensorsFile, _ name: String) throws -> [Int32] {
        try file.integers(name).values.map { Int32($0) }
    }
}
