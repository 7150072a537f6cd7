import Foundation
import TestSupport
import Testing

@testable import Qwen3TTS

/// Small, fast and the same everywhere: SplitMix64.
struct SeededRandom: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    mutating func pick<T>(_ values: [T]) -> T { values[Int.random(in: 0..<values.count, using: &self)] }

    /// Text of many scripts, with what is hard for a tokenizer: marks, jamo, contractions, white space, control tokens.
    mutating func text(pieces: Int) -> String {
        let ranges: [ClosedRange<UInt32>] = [
            0x20...0x7E, 0x20...0x7E, 0x00...0x1F, 0x7F...0x9F, 0xA0...0x17F, 0x1E00...0x1EFF, 0x300...0x345,
            0x370...0x3FF, 0x400...0x4FF, 0x590...0x5F4, 0x620...0x6ED, 0x900...0x94D, 0x985...0x9D7, 0xB47...0xB57,
            0xE01...0xE5B, 0xF40...0xF84, 0x1100...0x11FF, 0x1B05...0x1B44, 0x1F00...0x1FFE, 0x2000...0x206F,
            0x2100...0x218B, 0x2460...0x249B, 0x3000...0x30FF, 0x4E00...0x9FA5, 0xAC00...0xD7A3, 0xF900...0xFA6D,
            0xFB1D...0xFB4F, 0xFF00...0xFFEE, 0x11099...0x110BA, 0x1D15E...0x1D164, 0x1F300...0x1F64F,
            0x20000...0x20100,
        ]
        let special = [
            "'s", "'S", "'ſ", "'re", "'RE", "'Ll", "'d", "'m", "'ve", "'r", "'l", "'x", "'", "''", " '", "\n", "\r\n",
            "\n\n", " ", "  ", "   ", "\t", "\u{3000}", "\u{2028}", "\u{85}", "\u{A0}", "1", "23", "²", "e\u{301}",
            "\u{301}", "a\u{323}\u{307}", "\u{1100}\u{1161}", "\u{AC00}\u{11A8}", "\u{F71}\u{F72}", "\u{F73}",
            "\u{344}", "\u{212B}", "\u{9C7}\u{9BE}", "<|im_end|>", "<|im_", "<tts_pad>", "<tts_text_bos_single>",
            "<", "|>", "!", "!\n", "...\r\n", " !", "-", "$5", " the", "ing", "Hello",
        ]
        var scalars = String.UnicodeScalarView()
        for _ in 0..<pieces {
            if Bool.random(using: &self) {
                scalars.append(contentsOf: pick(special).unicodeScalars)
            } else {
                let range = pick(ranges)
                for _ in 0..<Int.random(in: 1...8, using: &self) {
                    if let scalar = Unicode.Scalar(UInt32.random(in: range, using: &self)) { scalars.append(scalar) }
                }
            }
        }
        return String(scalars)
    }
}

/// Normalisation and pieces, against other implementations.
@Suite struct TokenizerTextTests {
    private func composed(_ text: String) -> [UInt32] {
        var composition = CanonicalComposition()
        var output: [UInt32] = []
        for scalar in text.unicodeScalars { composition.append(scalar.value, to: &output) }
        composition.finish(into: &output)
        return output
    }

    private func pieces(_ text: String) -> [String] {
        var splitter = PreTokenSplitter()
        var result: [String] = []
        for scalar in text.unicodeScalars {
            splitter.append(scalar.value) { result.append(String(decoding: $0, as: UTF8.self)) }
        }
        splitter.finish { result.append(String(decoding: $0, as: UTF8.self)) }
        return result
    }

    /// Every scalar that Unicode 9 knows, alone, decomposed, and with a mark in between, against Foundation's ICU.
    @Test func formCOfEveryScalar() {
        for value in UInt32(0x80)..<0x30000 {
            guard let scalar = Unicode.Scalar(value), (scalar.properties.age?.major ?? .max) <= 9 else { continue }
            // Ideographs have no marks and no decompositions.
            if (0x3400..<0x9FFF).contains(value) || (0x20000..<0x2F800).contains(value) { continue }
            var texts = [String(scalar)]
            let parts = String(scalar).decomposedStringWithCanonicalMapping
            if parts.unicodeScalars.count > 1 || parts.unicodeScalars.first != scalar {
                var middle = String.UnicodeScalarView()
                for part in parts.unicodeScalars { middle.append(contentsOf: [part, "\u{323}"]) }
                texts += [parts, String(middle)]
            }
            for text in texts {
                let expected = text.precomposedStringWithCanonicalMapping.unicodeScalars.map(\.value)
                #expect(composed(text) == expected, "U+\(String(value, radix: 16))")
            }
        }
    }

    /// Clusters of many scripts, against Python's unicodedata. (Foundation leaves U+AC00 U+11A8 as it is.)
    @Test func formCOfManyTexts() throws {
        let file = try String(contentsOfFile: Fixture("nfc-cases.txt").directory, encoding: .utf8)
        let lines = file.split(separator: "\n").dropFirst()
        #expect(lines.count == 700)
        for line in lines {
            let sides = line.components(separatedBy: " > ")
            let scalars = sides.map { $0.split(separator: " ").compactMap { UInt32($0, radix: 16) } }
            let text = String(String.UnicodeScalarView(scalars[0].compactMap { Unicode.Scalar($0) }))
            #expect(composed(text) == (sides[1] == "=" ? scalars[0] : scalars[1]), "\(line)")
        }
    }

    /// Against the regular expression itself, run by Foundation. White space is spelled out: ICU's `\s` lacks U+000B
    /// and U+0085.
    @Test func piecesOfRandomTexts() throws {
        let space = #"\p{White_Space}"#
        let expression = try NSRegularExpression(
            pattern: [
                #"(?i:'s|'t|'re|'ve|'m|'ll|'d)"#, #"[^\r\n\p{L}\p{N}]?\p{L}+"#, #"\p{N}"#,
                #" ?[^SPACE\p{L}\p{N}]+[\r\n]*"#, #"[SPACE]*[\r\n]+"#, #"[SPACE]+(?![^SPACE])"#, #"[SPACE]+"#,
            ].joined(separator: "|").replacingOccurrences(of: "SPACE", with: space))
        var random = SeededRandom(seed: 4)
        for round in 0..<3000 {
            let text = random.text(pieces: 1 + round % 15)
            let whole = NSRange(text.startIndex..., in: text)
            let expected = expression.matches(in: text, range: whole).map {
                (text as NSString).substring(with: $0.range)
            }
            let found = pieces(text)
            #expect(found.map(\.utf8.count) == expected.map(\.utf8.count), "\(text.debugDescription)")
            #expect(found.joined() == text)
        }
    }
}

/// Text in pieces gives the ids of the whole text.
@Suite struct TokenizerIncrementalTests {
    @Test(arguments: [ControlTokens.plainText, .recognized])
    func anySplit(_ mode: ControlTokens) throws {
        let tokenizer = try Tokenizer(directory: Fixture.base.directory)
        var random = SeededRandom(seed: 5)
        for round in 0..<1500 {
            let text = random.text(pieces: 1 + round % 20)
            let bytes = Array(text.utf8)
            var incremental = IncrementalTokenizer(tokenizer, controlTokens: mode)
            var ids: [Int32] = []
            var start = 0
            while start < bytes.count {
                let end = min(bytes.count, start + Int.random(in: 1...(1 + round % 9), using: &random))
                ids += try incremental.append(utf8: bytes[start..<end])
                start = end
            }
            ids += try incremental.finish()
            // The templates know the ids of the whole text, which is what pieces have to come to.
            let whole = tokenizer.speechTemplate(text, controlTokens: mode).dropLast(5)
            if mode == .plainText || !text.hasPrefix("\n") && !text.hasPrefix("\r") {
                #expect(Array(whole.dropFirst(3)) == ids, "\(text.debugDescription)")
            }
        }
    }

    /// A word is out once the next one begins; nothing waits longer than it has to.
    @Test func emitsEarly() throws {
        let tokenizer = try Tokenizer(directory: Fixture.base.directory)
        var incremental = IncrementalTokenizer(tokenizer)
        var ids: [Int32] = []
        ids += try incremental.append("Hello wor")
        #expect(ids == tokenizer.encode("Hello"))
        ids += try incremental.append("ld. Ne")
        #expect(ids == tokenizer.encode("Hello world."))
        ids += try incremental.append("xt")
        #expect(ids == tokenizer.encode("Hello world."))
        ids += try incremental.finish()
        #expect(ids == tokenizer.encode("Hello world. Next"))
    }

    @Test(arguments: [
        [0x80], [0xC0, 0x80], [0xC3, 0x28], [0xE0, 0x80, 0x80], [0xED, 0xA0, 0x80], [0xF0, 0x80, 0x80, 0x80],
        [0xF4, 0x90, 0x80, 0x80], [0xF5], [0xFF], [0xE2, 0x82, 0x41], [0x61, 0xE2],
    ])
    func invalidUTF8(_ bytes: [UInt8]) throws {
        let tokenizer = try Tokenizer(directory: Fixture.base.directory)
        var incremental = IncrementalTokenizer(tokenizer)
        #expect(throws: ModelError.self) {
            _ = try incremental.append(utf8: bytes)
            _ = try incremental.finish()
        }
    }
}
