import Foundation
import TestSupport
import Testing

/// The voice that comes with the program, found where it may lie.
@Suite struct ShippedVoiceTests {
    static let short = ["say", "Tea.", "-o", "-", "--max-seconds", "0.2"]

    /// A program far from this clone, in `bin` of a folder of its own.
    private func install(in folder: borrowing TemporaryFolder) throws -> URL {
        let bin = URL(fileURLWithPath: folder.path + "/bin")
        try FileManager.default.createDirectory(at: bin, withIntermediateDirectories: true)
        let program = bin.appendingPathComponent("martlet")
        do {
            try FileManager.default.linkItem(at: Program.executable, to: program)
        } catch {
            try FileManager.default.copyItem(at: Program.executable, to: program)
        }
        return program
    }

    private func addVoice(_ name: String, in voices: String) throws {
        try FileManager.default.createDirectory(atPath: voices, withIntermediateDirectories: true)
        try FileManager.default.createSymbolicLink(
            atPath: voices + "/" + name, withDestinationPath: Fixture.customVoice.directory)
    }

    @Test func withoutAnyTheErrorSaysWhatToDo() async throws {
        let prefix = try TemporaryFolder()
        let program = try install(in: prefix)
        let result = try await Martlet(Self.short, program: program, in: prefix.path)
        #expect(result.status != 0)
        #expect(result.errors.contains("no model named: use --model DIR"))
        let named = try await Martlet(Self.short + ["--model", "wren"], program: program, in: prefix.path)
        #expect(named.status != 0)
        #expect(named.errors.contains("the model folder wren does not exist"))
    }

    /// Above the program, in the prefix it is installed in, and in the current folder.
    @Test(arguments: ["Voices", "bin/Voices", "share/martlet/Voices", "here/Voices"])
    func isFoundByItselfAndByName(_ place: String) async throws {
        let prefix = try TemporaryFolder()
        let program = try install(in: prefix)
        try FileManager.default.createDirectory(atPath: prefix.path + "/here", withIntermediateDirectories: true)
        try addVoice("wren", in: prefix.path + "/" + place)
        let direct = try await Martlet(Self.short + ["--model", Fixture.customVoice.directory])
        for flags in [[], ["--model", "wren"]] {
            let result = try await Martlet(Self.short + flags, program: program, in: prefix.path + "/here")
            #expect(result.status == 0, "\(result.errors)")
            #expect(result.output == direct.output)
        }
    }

    /// Several: the one of the fixed name; a link to the program is followed.
    @Test func theDefaultVoiceGoesFirst() async throws {
        let prefix = try TemporaryFolder()
        let program = try install(in: prefix)
        let voices = prefix.path + "/share/martlet/Voices"
        try FileManager.default.createDirectory(atPath: voices + "/aaa", withIntermediateDirectories: true)
        try Data("{}".utf8).write(to: URL(fileURLWithPath: voices + "/aaa/config.json"))
        try addVoice("aviary", in: voices)
        let elsewhere = try TemporaryFolder()
        let link = URL(fileURLWithPath: elsewhere.path + "/martlet")
        try FileManager.default.createSymbolicLink(at: link, withDestinationURL: program)
        let result = try await Martlet(Self.short, program: link, in: elsewhere.path)
        #expect(result.status == 0, "\(result.errors)")
        let other = try await Martlet(Self.short + ["--model", "aaa"], program: link, in: elsewhere.path)
        #expect(other.status != 0)
    }
}
