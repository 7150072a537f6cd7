import Foundation
import Tensors
import TestSupport
import Testing

@testable import Qwen3TTS

/// Saved voices: what comes back, and what damaged or foreign files give.
@Suite struct ClonePromptTests {
    static let prompt = ClonePrompt(
        speakerVector: (0..<64).map { Float($0) / 7 - 3 }, codes: (0..<48).map { Int32($0 * 5 % 128) },
        referenceText: "Hello, \"world\" / 你好\n\u{0}end.", modelIdentity: "base-tiny-1")

    /// A path in a folder of its own, which goes away with the test.
    static func withFile(_ body: (String) throws -> Void) throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try body(folder.appendingPathComponent("anna.voice").path)
    }

    /// The error's one line; a failure if nothing is thrown.
    static func message(_ body: () throws -> Void) -> String {
        do {
            try body()
        } catch {
            let text = "\(error)"
            #expect(!text.isEmpty && !text.contains("\n"))
            return text
        }
        Issue.record("nothing was thrown")
        return ""
    }

    @Test func savedVoicesComeBackWhole() throws {
        try Self.withFile { path in
            let vectorOnly = ClonePrompt(speakerVector: [1, -0.0, .leastNonzeroMagnitude], modelIdentity: "m")
            for prompt in [Self.prompt, vectorOnly] {
                try prompt.save(to: path)
                #expect(try ClonePrompt.load(from: path, expectedIdentity: prompt.modelIdentity) == prompt)
                #expect(try ClonePrompt.load(from: path, expectedIdentity: nil) == prompt)
            }
            let folder = URL(fileURLWithPath: path).deletingLastPathComponent().path
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == ["anna.voice"])
        }
    }

    /// Other programs can read the file.
    @Test func theFileIsPlainSafetensors() throws {
        try Self.withFile { path in
            try Self.prompt.save(to: path)
            let file = try SafetensorsFile(path: path)
            #expect(file.names == ["codes", "speaker_vector"])
            #expect(try file.integers("codes").shape == [3, 16])
            #expect(try file.array("speaker_vector") == Self.prompt.speakerVector)
            #expect(file.metadata["version"] == "1")
            #expect(file.metadata["model"] == "base-tiny-1")
            #expect(file.metadata["transcript"] == Self.prompt.referenceText)
        }
    }

    /// Codes without a transcript lead nothing, so they are not kept.
    @Test func halfAPromptIsSavedAsItsVector() throws {
        try Self.withFile { path in
            var prompt = Self.prompt
            prompt.referenceText = nil
            try prompt.save(to: path)
            prompt.codes = []
            #expect(try ClonePrompt.load(from: path, expectedIdentity: nil) == prompt)
        }
    }

    @Test func aVoiceOfAnotherModelSaysWhichOne() throws {
        try Self.withFile { path in
            try Self.prompt.save(to: path)
            let text = Self.message { _ = try ClonePrompt.load(from: path, expectedIdentity: "base-other-2") }
            #expect(text.contains("base-tiny-1") && text.contains("base-other-2") && text.contains("martlet clone"))
        }
    }

    @Test func foreignFilesAreRefused() throws {
        try Self.withFile { path in
            func refusal() -> String {
                Self.message { _ = try ClonePrompt.load(from: path, expectedIdentity: nil) }
            }
            #expect(refusal().contains(path))
            try Data("RIFF....WAVE".utf8).write(to: URL(fileURLWithPath: path))
            #expect(refusal().contains(path))
            var plain = SafetensorsWriter()
            plain.add("speaker_vector", [1 as Float], shape: [1])
            try plain.write(to: path)
            #expect(refusal().contains("no voice"))
            let head = ["format": "martlet.voice", "model": "m"]
            var next = SafetensorsWriter(metadata: head.merging(["version": "2"]) { $1 })
            next.add("speaker_vector", [1 as Float], shape: [1])
            try next.write(to: path)
            #expect(refusal().contains("version"))

            func write(
                _ build: (inout SafetensorsWriter) -> Void, transcript: String? = nil
            ) throws -> String {
                var metadata = head.merging(["version": "1"]) { $1 }
                metadata["transcript"] = transcript
                var writer = SafetensorsWriter(metadata: metadata)
                build(&writer)
                try writer.write(to: path)
                return refusal()
            }
            let vector: (inout SafetensorsWriter) -> Void = { $0.add("speaker_vector", [1 as Float], shape: [1]) }
            let codes: (inout SafetensorsWriter) -> Void = { $0.add("codes", [1, 2] as [Int32], shape: [1, 2]) }
            #expect(try write { _ in }.contains("speaker_vector"))
            #expect(try write { $0.add("speaker_vector", [1] as [Int32], shape: [1]) }.contains("F32"))
            #expect(try write { $0.add("speaker_vector", [1 as Float], shape: [1, 1]) }.contains("F32"))
            #expect(try write { $0.add("speaker_vector", [] as [Float], shape: [0]) }.contains("F32"))
            #expect(try write { $0.add("speaker_vector", [Float.nan], shape: [1]) }.contains("finite"))
            #expect(
                try write {
                    vector(&$0)
                    codes(&$0)
                }.contains("transcript"))
            #expect(try write(vector, transcript: "words").contains("transcript"))
            #expect(
                try write(
                    {
                        vector(&$0)
                        $0.add("codes", [1, 2] as [Int32], shape: [2])
                    }, transcript: "words"
                ).contains("I32"))
        }
    }

    @Test func aFileThatCannotBeWrittenSaysSo() throws {
        let text = Self.message { try Self.prompt.save(to: "/nowhere/at/all.voice") }
        #expect(text.contains("/nowhere/at/all.voice"))
        var odd = Self.prompt
        odd.codes.removeLast()
        #expect(throws: ModelError.self) { try odd.save(to: "/nowhere/at/all.voice") }
    }

    /// Every truncation, and seeded damage of one to four bytes: an error or a prompt that can be checked, never a crash.
    @Test func damagedFilesGiveErrors() throws {
        try Self.withFile { path in
            try Self.prompt.save(to: path)
            let whole = try [UInt8](Data(contentsOf: URL(fileURLWithPath: path)))
            let configuration = try Configuration.load(directory: Fixture.base.directory)
            func load(_ bytes: [UInt8]) throws -> ClonePrompt? {
                try Data(bytes).write(to: URL(fileURLWithPath: path))
                do throws(ModelError) {
                    return try ClonePrompt.load(from: path, expectedIdentity: nil)
                } catch {
                    #expect(!error.description.isEmpty && !error.description.contains("\n"))
                    return nil
                }
            }
            for length in stride(from: 0, to: whole.count, by: 3) {
                #expect(try load(Array(whole[..<length])) == nil, "\(length) bytes")
            }
            let random = Philox(seed: 11)
            for round in 0..<600 {
                var bytes = whole
                func draw(_ index: Int, below limit: Int) -> Int {
                    min(Int(random.uniform(frame: round, codebook: index) * Float(limit)), limit - 1)
                }
                // Half of the damage goes into the header, where it can lie about the rest.
                for hit in 0...draw(0, below: 4) {
                    let at = draw(3 * hit + 1, below: round % 2 == 0 ? 300 : bytes.count)
                    bytes[at] = UInt8(draw(3 * hit + 2, below: 256))
                }
                if let prompt = try load(bytes) { try? prompt.check(configuration) }
            }
        }
    }

    @Test func modelsCheckWhatTheyTake() throws {
        let base = try Configuration.load(directory: Fixture.base.directory)
        let width = base.talker.shape.hidden
        let good = ClonePrompt(
            speakerVector: [Float](repeating: 0.5, count: width), codes: [Int32](repeating: 127, count: 32),
            referenceText: "hello")
        try good.check(base)
        func refused(_ change: (inout ClonePrompt) -> Void) -> String {
            var prompt = good
            change(&prompt)
            return Self.message { try prompt.check(base) }
        }
        #expect(refused { $0.speakerVector.append(0) }.contains("\(width + 1)"))
        #expect(refused { $0.speakerVector = [] }.contains("\(width)"))
        #expect(refused { $0.speakerVector[3] = .infinity }.contains("finite"))
        #expect(refused { $0.codes.removeLast() }.contains("31"))
        #expect(refused { $0.codeGroups = 8 }.contains("8"))
        #expect(refused { $0.codes[17] = -1 }.contains("-1"))
        #expect(refused { $0.codes[17] = 128 }.contains("128"))
        #expect(refused { $0.codes[16] = 128 }.contains("128"))
        let custom = try Configuration.load(directory: Fixture.customVoice.directory)
        #expect(Self.message { try good.check(custom) }.contains("custom_voice"))
    }
}

/// What a model's identity tells apart.
@Suite struct ModelIdentityTests {
    private func identity(_ directory: String) throws -> String {
        try ModelIdentity.of(directory: directory, configuration: Configuration.load(directory: directory))
    }

    @Test func copiesAreTheSameModel() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString).path
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try FileManager.default.copyItem(atPath: Fixture.base.directory, toPath: folder)
        let original = try identity(Fixture.base.directory)
        #expect(original.hasPrefix("base-"))
        #expect(try identity(folder) == original)
        #expect(try identity(folder + "/") == original)
        #expect(try identity(Fixture.customVoice.directory) != original)
        #expect(
            try SpeechModel(directory: folder, compute: Compute(threads: 1)).identity == original)
        try FileManager.default.removeItem(atPath: folder + "/generation_config.json")
        #expect(try identity(folder) == original)
    }

    /// Another training of the same architecture: other weights, the same table of tensors.
    @Test(arguments: [
        "config.json", "speech_tokenizer/config.json", "model.safetensors", "speech_tokenizer/model.safetensors",
    ])
    func changesShow(file: String) throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString).path
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try FileManager.default.copyItem(atPath: Fixture.base.directory, toPath: folder)
        let original = try identity(folder)
        let url = URL(fileURLWithPath: folder + "/" + file)
        var bytes = try Data(contentsOf: url)
        if file.hasSuffix(".json") {
            bytes.append(contentsOf: Array("\n".utf8))
        } else {
            let header = 8 + bytes[..<8].reversed().reduce(0) { $0 << 8 | Int($1) }
            for index in header..<bytes.count { bytes[index] ^= 0x10 }
        }
        try bytes.write(to: url)
        #expect(try identity(folder) != original)
    }

    @Test func missingAndCutFilesGiveErrors() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString).path
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try FileManager.default.copyItem(atPath: Fixture.base.directory, toPath: folder)
        let configuration = try Configuration.load(directory: folder)
        let path = folder + "/model.safetensors"
        // However short or wrong the file is, its identity is only another one: reading it is the loader's part.
        var seen: Set<String> = []
        for bytes in [[], [1, 2, 3], [UInt8](repeating: 0xFF, count: 8), [UInt8](repeating: 0xFF, count: 9_000)] {
            try Data(bytes).write(to: URL(fileURLWithPath: path))
            seen.insert(try ModelIdentity.of(directory: folder, configuration: configuration))
        }
        #expect(seen.count == 4)
        try FileManager.default.removeItem(atPath: path)
        #expect(throws: ModelError.missingFile(path: path)) {
            try ModelIdentity.of(directory: folder, configuration: configuration)
        }
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        #expect(throws: ModelError.self) { try ModelIdentity.of(directory: folder, configuration: configuration) }
    }
}
