import Foundation
import Testing
import TextNormalization

/// The Swift rules against the Python ones, which the voice is trained with.
@Suite struct EnglishNormalizerTests {
    private struct Case: Decodable {
        let text: String
        let words: String
    }

    /// Made by `scripts/reference/normalizer_cases.py`.
    @Test func goldens() throws {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        let file = root.appendingPathComponent("Fixtures/english-normalizer-cases.json")
        let cases = try JSONDecoder().decode([Case].self, from: Data(contentsOf: file))
        #expect(cases.count >= 600)
        for one in cases {
            #expect(EnglishNormalizer.normalize(one.text) == one.words, "\(one.text.debugDescription)")
        }
    }

    @Test(arguments: ["", " ", ",", "\n", "日本語", "\u{301}"])
    func nothingToRead(_ text: String) {
        #expect(EnglishNormalizer.normalize(text) == "")
    }

    /// Where the Python implementation has no answer: it refuses to convert that many digits.
    @Test func veryLongNumbers() {
        let digits = String(repeating: "7", count: 5000)
        let spelled = Array(repeating: "seven", count: 5000).joined(separator: " ")
        #expect(EnglishNormalizer.normalize(digits) == spelled)
        #expect(EnglishNormalizer.normalize("$" + digits) == spelled + " dollars")
        #expect(EnglishNormalizer.normalize(digits + "th") == spelled + "th")
    }

    /// Only what can be spoken or paused at is left, whatever comes in.
    @Test func alphabet() {
        let kept = Set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,;:!?'\"-")
        var random = SeededNumbers(seed: 11)
        for _ in 0..<300 {
            var text = String.UnicodeScalarView()
            for _ in 0..<Int.random(in: 0..<40, using: &random) {
                let bound: UInt32 = Bool.random(using: &random) ? 0x80 : 0x2_0000
                text.append(Unicode.Scalar(UInt32.random(in: 0..<bound, using: &random)) ?? " ")
            }
            let words = EnglishNormalizer.normalize(String(text))
            #expect(kept.isSuperset(of: words), "\(String(text).debugDescription)")
            #expect(!words.contains("  "))
        }
    }
}

/// The same numbers every time (SplitMix64).
struct SeededNumbers: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
