import Foundation
import TestSupport
import Testing

/// The runbook as a script sees it: what is printed, what is written, and how it exits.
@Suite struct RunbookCommandTests {
    private static let common = [
        "--model", Fixture.customVoice.directory, "--max-seconds", "0.3", "--text-id", "short_01", "--count", "2",
    ]

    /// Half of it generates codes in a worker process, which only the program itself can be.
    @Test func aProcedurePassesAndLeavesItsReport() async throws {
        let folder = try TemporaryFolder()
        let result = try await Martlet(["runbook", "q33", "q36", "--out", folder.path] + Self.common)
        let output = String(decoding: result.output, as: UTF8.self)
        #expect(result.status == 0, "\(output) \(result.errors)")
        #expect(output.contains("q33 verdict: pass") && output.contains("hash_unique 1 in 4 runs over all 2 arms"))
        #expect(output.contains("q36 verdict: pass"))
        for name in ["report.html", "runbook.json", "codes"] {
            #expect(FileManager.default.fileExists(atPath: "\(folder.path)/\(name)"))
        }
    }

    /// The second makes its logits in a worker process.
    @Test(arguments: ["accept", "q33"]) func driftMakesItFail(procedure: String) async throws {
        let folder = try TemporaryFolder()
        let result = try await Martlet(
            ["runbook", procedure, "--inject-drift", "1:4", "--out", folder.path] + Self.common)
        let output = String(decoding: result.output, as: UTF8.self)
        #expect(result.status == 1)
        #expect(output.contains("hash_unique 2 of 2") && output.contains("drift from frame 1, codebook 4"), "\(output)")
    }

    @Test func unknownNamesAreRefused() async throws {
        for arguments in [["q44"], ["q31", "--text-id", "long_99"], ["q31", "--inject-drift", "1:99"], []] {
            let folder = try TemporaryFolder()
            let result = try await Martlet(["runbook", "--out", folder.path] + Self.common + arguments)
            #expect(result.status != 0 && !result.errors.isEmpty, "\(arguments)")
        }
    }
}
