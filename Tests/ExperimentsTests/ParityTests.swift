import Foundation
import Qwen3TTS
import TestSupport
import Tensors
import Testing

@testable import Experiments

/// The parity check itself: that it agrees with the fixtures, and that it sees what does not.
@Suite struct ParityTests {
    @Test(arguments: [Fixture.customVoice, .base])
    func fixturesAgree(_ fixture: Fixture) throws {
        let model = try SpeechModel(directory: fixture.directory, compute: Compute(threads: 2))
        let report = try ParityCheck.run(model)
        #expect(report.pass, "\(report.stages.filter { !$0.pass })")
        let names = report.stages.map(\.name)
        #expect(names.contains("decoder: samples, one frame a packet"))
        #expect(names.contains { $0.hasSuffix("codes, penalty 1.05") })
    }

    @Test func differencesAreSeen() {
        var report = ParityReport()
        #expect(!report.pass)
        report.compare("near", [1, 2, 1000.001], [1, 2, 1000], relativeTolerance: 1e-5)
        #expect(report.pass)
        report.compare("far", [1, 2], [1, 2.1], relativeTolerance: 1e-2)
        #expect(report.stages[1].maxAbs.map { abs($0 - 0.1) < 1e-6 } == true)
        report.compare("short", [1], [1, 2], relativeTolerance: 1)
        report.compare("broken", [.nan], [1], relativeTolerance: 1)
        report.compare("ids", [1, 2, 3], [1, 5, 4])
        #expect(report.stages.map(\.pass) == [true, false, false, false, false])
        #expect(report.stages[4].maxAbs == 2)
        #expect(!report.pass)
    }

    /// The form that scripts/reference/parity_table.py reads.
    @Test func aDifferenceThatIsNoNumberIsANull() throws {
        var report = ParityReport()
        report.compare("broken", [.infinity], [1], relativeTolerance: 1)
        let json = try JSONSerialization.jsonObject(with: JSONEncoder().encode(report)) as? [String: Any]
        let stage = (json?["stages"] as? [[String: Any]])?.first
        #expect(stage?["max_abs"] is NSNull)
        #expect(json?["pass"] as? Bool == false)
    }

    @Test func aFolderWithoutGoldensSaysSo() throws {
        #expect(throws: ExperimentError.self) { try Goldens(model: "/nowhere") }
    }
}
