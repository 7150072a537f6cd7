import Foundation
import Qwen3TTS
import Testing

@testable import Experiments

/// Where runs part.
@Suite struct CodesComparisonTests {
    private let base = CodeRecord(tag: "a", codes: (0..<48).map { Int32($0) }, groups: 4)

    private func changed(_ index: Int) -> CodeRecord {
        var codes = base.codes
        codes[index] += 100
        return CodeRecord(tag: "b", codes: codes, groups: 4)
    }

    @Test func equalRuns() throws {
        let comparison = try CodesComparison([base, base, base], packet: 2)
        #expect(comparison.hashUnique == 1)
        #expect(comparison.firstPacketHashUnique == 1)
        #expect(comparison.firstDiffFrame == -1)
        #expect(comparison.firstDiffCodebook == -1)
    }

    @Test(arguments: 0..<48)
    func oneCodeIsFound(index: Int) throws {
        let comparison = try CodesComparison([base, base, changed(index)], packet: 2)
        #expect(comparison.hashUnique == 2)
        #expect(comparison.firstPacketHashUnique == (index < 8 ? 2 : 1))
        #expect(comparison.firstDiffFrame == index / 4)
        #expect(comparison.firstDiffCodebook == index % 4)
        #expect(comparison.runs[2].differingFrames == 1)
    }

    @Test func aShorterRunPartsAtItsEnd() throws {
        let short = CodeRecord(tag: "c", codes: Array(base.codes.prefix(20)), groups: 4)
        let comparison = try CodesComparison([base, short], packet: 2)
        #expect(comparison.firstDiffFrame == 5)
        #expect(comparison.firstDiffCodebook == -1)
        #expect(CodesComparison.picture([base, short])[1] == "c  ·····-------")
        #expect(CodesComparison.picture([short, base])[1] == "a  ·····+++++++")
    }

    @Test func thePictureNamesTheCodebook() {
        #expect(CodesComparison.picture([base, changed(14)])[1] == "b  ···2········")
    }

    @Test func theDrawingHasEveryDifferenceAndNamesTheFirst() {
        var codes = base.codes
        for index in [14, 15, 18, 22] { codes[index] += 1 }
        let svg = CodesComparison.svg([base, CodeRecord(tag: "<b>", codes: codes, groups: 4)])
        // Codebook 2 differs in frames 3 to 5, codebook 3 in frame 3.
        #expect(svg.components(separatedBy: "class=\"other\"").count - 1 == 2)
        #expect(svg.contains("&lt;b&gt;: frame 3, codebook 2"))
        #expect(svg.hasPrefix("<svg xmlns="))
        #expect(svg.components(separatedBy: "class=\"first\"").count - 1 == 1)
        #expect(!CodesComparison.svg([base, base]).contains("class=\"other\""))
        let short = CodesComparison.svg([base, CodeRecord(tag: "c", codes: Array(base.codes.prefix(20)), groups: 4)])
        #expect(short.contains("c: another length") && short.contains("class=\"none\""))
    }

    @Test func nonsenseIsRefused() {
        #expect(throws: ExperimentError.self) { try CodesComparison([], packet: 1) }
        #expect(throws: ExperimentError.self) { try CodesComparison([base], packet: 0) }
        let other = CodeRecord(tag: "d", codes: [1, 2], groups: 2)
        #expect(throws: ExperimentError.self) { try CodesComparison([base, other], packet: 1) }
    }
}

/// Disturbances and recorded choices.
@Suite struct LogitToolsTests {
    @Test func driftIsRead() throws {
        #expect(try InjectedDrift("12").label == "12:0")
        #expect(try InjectedDrift("12:3").label == "12:3")
        #expect(try InjectedDrift("0:15:tiny").label == "0:15:tiny")
        #expect(try InjectedDrift("7:tiny").label == "7:0:tiny")
    }

    @Test(arguments: ["", "x", "1:2:3", "-1", "1:-2", ":", "tiny", "1:tiny:2", "1 "])
    func nonsenseIsRefused(_ text: String) {
        #expect(throws: ExperimentError.self) { try InjectedDrift(text) }
    }

    @Test func driftFlipsAChoiceAndTinyDriftDoesNot() throws {
        var logits: [Float] = [1, 5, -3, 4, 99]
        try logits.withUnsafeMutableBufferPointer { try InjectedDrift("0").apply($0, choices: 4) }
        #expect(logits == [1, 5, 1e4, 4, 99])
        logits = [1, 5, -3, 4, 99]
        try logits.withUnsafeMutableBufferPointer { try InjectedDrift("0:tiny").apply($0, choices: 4) }
        #expect(logits == [1, Float(5).nextUp, -3, 4, 99])
    }

    private func choices(_ steps: [[Float]]) -> TopChoices {
        TopChoices(
            tag: "t",
            steps: steps.enumerated().map { frame, row in
                var logits = row
                return logits.withUnsafeMutableBufferPointer {
                    CodeChoices(frame: frame, codebook: 0, best: 2, of: $0) { $0 < 4 }
                }
            })
    }

    @Test func theBestChoicesAreRecorded() {
        let steps = choices([[1, 5, 5, 4, 99], [-1, -2, -3, -1, 0]]).steps
        #expect(steps.map(\.ids) == [[1, 2], [0, 3]])
        #expect(steps[1].logits == [-1, -1])
    }

    @Test func theFirstDifferenceIsNamed() {
        let a = choices([[1, 5, 3, 4], [1, 2, 3, 4], [4, 3, 2, 1]])
        #expect(a.difference(from: a).firstLogit == nil)
        let tiny = choices([[1, 5, 3, 4], [1, 2, 3, Float(4).nextUp], [4, 3, 2, 1]])
        #expect(a.difference(from: tiny).firstLogit?.frame == 1)
        #expect(a.difference(from: tiny).firstChoice == nil)
        let flipped = choices([[1, 5, 3, 4], [1, 2, 3, Float(4).nextUp], [4, 9, 2, 1]])
        #expect(a.difference(from: flipped).firstLogit?.frame == 1)
        #expect(a.difference(from: flipped).firstChoice?.frame == 2)
    }
}
