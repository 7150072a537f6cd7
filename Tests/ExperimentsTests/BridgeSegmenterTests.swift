import Testing

@testable import Experiments

/// Where a bridge cuts a growing text.
@Suite struct BridgeSegmenterTests {
    private func pieces(_ text: String, by size: Int) -> [String] {
        var segmenter = BridgeSegmenter()
        var pieces: [String] = []
        var rest = Substring(text)
        while !rest.isEmpty {
            pieces += segmenter.add(String(rest.prefix(size)))
            rest = rest.dropFirst(size)
        }
        if let last = segmenter.finish() { pieces.append(last) }
        return pieces
    }

    static let text = "Well then, the swallow flies extraordinarilyfarandlong today. It 飞得很高，很远！ Yes"

    @Test(arguments: [1, 2, 3, 7, 1000]) func cutsDoNotDependOnHowTextComes(size: Int) {
        let cut = pieces(Self.text, by: size)
        #expect(cut.joined() == Self.text)
        #expect(cut == pieces(Self.text, by: 1))
        #expect(cut.allSatisfy { $0.count <= 12 })
    }

    @Test func aStarterThenMarksThenLength() {
        #expect(
            pieces(Self.text, by: 4) == [
                "Well ", "then,", " the swallow", " flies extra", "ordinarilyfa", "randlong ", "today.", " It 飞得很高，",
                "很远！", " Yes",
            ])
    }

    @Test func nothingGivesNothing() {
        var segmenter = BridgeSegmenter()
        #expect(segmenter.add("").isEmpty)
        #expect(segmenter.finish() == nil)
    }
}
