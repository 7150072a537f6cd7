import Foundation
import TestSupport
import Testing

@testable import martlet

/// `martlet selftest`, on an emulated card.
@Suite struct SelfTestCommandTests {
    private func lines(_ directory: String) throws -> (lines: [String], passes: Bool) {
        let card = EmulatedCard(multiprocessors: 2)
        // The cases are tested elsewhere; what remains are the sampler and the decoder.
        let command = try SelfTestCommand.parse([
            directory, "--device", "cuda:\(card.index)", "--case", "none", "--frames", "1",
        ])
        var lines: [String] = []
        let passes = try command.passes(driver: EmulatedCard.driver) { lines.append($0) }
        return (lines, passes)
    }

    @Test func everyComparisonHasALine() throws {
        let (lines, passes) = try lines(Fixture.customVoice.directory)
        #expect(passes)
        #expect(lines.dropLast().allSatisfy { $0.hasPrefix("ok   ") }, "\(lines)")
        #expect(lines.last == "\(lines.count - 1) comparisons, 0 failed")
    }

    @Test func anOutputThatDiffersIsAFailure() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("selftest-\(UUID().uuidString)")
        let fixture = URL(fileURLWithPath: Fixture.customVoice.directory)
        try FileManager.default.copyItem(at: fixture, to: folder)
        defer { try? FileManager.default.removeItem(at: folder) }
        // The decoder's samples: other ones.
        let golden = folder.appendingPathComponent("golden/decoder.safetensors")
        var file = try Data(contentsOf: golden)
        let header = 8 + file.prefix(8).enumerated().reduce(0) { $0 + Int($1.element) << (8 * $1.offset) }
        let json = try #require(try JSONSerialization.jsonObject(with: file[8..<header]) as? [String: Any])
        let offsets = try #require((json["pcm"] as? [String: Any])?["data_offsets"] as? [Int])
        let start = header + offsets[0]
        file.replaceSubrange(start..<(start + 400), with: Data(repeating: 0x3F, count: 400))
        try file.write(to: golden)
        let (lines, passes) = try lines(folder.path)
        #expect(!passes)
        #expect(lines.contains { $0.hasPrefix("FAIL codec exact: samples: ") })
        #expect(lines.last == "\(lines.count - 1) comparisons, 2 failed")
    }

    @Test func otherDevicesAreRefused() throws {
        let command = try SelfTestCommand.parse([Fixture.customVoice.directory, "--device", "cpu"])
        #expect(throws: (any Error).self) { try command.passes { _ in } }
    }
}
