import Foundation
import TestSupport
import Testing

@Suite struct SayTests {
    static let model = ["--model", Fixture.customVoice.directory]
    static let short = ["--max-seconds", "0.3", "--seed", "7"]

    @Test func aFileAndAPipeHoldTheSameSamples() async throws {
        let folder = try TemporaryFolder()
        let wav = folder.path + "/a.wav"
        let file = try await Martlet(["say", "Tea", "for", "two.", "-o", wav, "--json"] + Self.model + Self.short)
        #expect(file.status == 0)
        #expect(file.errors == "")
        let pipe = try await Martlet(
            ["say", "-o", "-", "--packet", "1", "--threads", "1"] + Self.model + Self.short,
            input: Data("Tea for two.".utf8))
        #expect(pipe.status == 0)
        let bytes = try Data(contentsOf: URL(fileURLWithPath: wav))
        #expect(bytes.count > 44 + 1920 * 2)
        #expect(bytes.dropFirst(44) == pipe.output)

        struct Summary: Decodable {
            struct Fingerprint: Decodable { let codes, pcm: String }
            let frames: Int
            let finishReason: String
            let fingerprint: Fingerprint
        }
        let summary = try JSONDecoder().decode(Summary.self, from: file.output)
        #expect(summary.frames * 1920 * 2 == pipe.output.count)
        #expect(summary.fingerprint.pcm.count == 64)
        #expect(["length", "stop"].contains(summary.finishReason))
    }

    #if os(Linux)
        @Test func aServerThatWillNotFitIsNotStarted() async throws {
            let count = "100000000"
            let server = try await Martlet(
                ["serve", "--port", "0", "--max-streams", count, "--max-batch", count] + Self.model)
            #expect(server.status == 1)
            for word in ["are needed", "are free", "--force"] {
                #expect(server.errors.contains(word), "\(server.errors)")
            }
        }
    #endif

    /// The same files as a server's.
    @Test func codesAreKeptWhereTheOldNamesSay() async throws {
        let folder = try TemporaryFolder()
        let result = try await Martlet(
            ["say", "Tea.", "-o", folder.path + "/my tea.wav", "--json"] + Self.model + Self.short,
            environment: [
                "TTS_CODE_DUMP_ENABLE": "1", "TTS_CODE_DUMP_DIR": folder.path, "TTS_CODEGEN_DEBUG_TOPK": "1",
            ])
        #expect(result.status == 0, "\(result.errors)")
        struct Meta: Decodable { let tag, text, codes_sha256: String }
        let meta = try JSONDecoder().decode(
            Meta.self, from: Data(contentsOf: URL(fileURLWithPath: folder.path + "/meta_my-tea.json")))
        #expect(meta.tag == "my-tea" && meta.text == "Tea.")
        #expect(String(decoding: result.output, as: UTF8.self).contains(meta.codes_sha256))
        for name in ["codes_my-tea.safetensors", "topk_my-tea.json"] {
            #expect(FileManager.default.fileExists(atPath: folder.path + "/" + name))
        }
    }

    @Test func seedsDifferAndGreedyDoesNot() async throws {
        func speak(_ more: [String]) async throws -> Data {
            try await Martlet(["say", "So.", "-o", "-", "--max-seconds", "0.3"] + Self.model + more).output
        }
        #expect(try await speak(["--seed", "1"]) != speak(["--seed", "2"]))
        #expect(try await speak(["--seed", "1", "--greedy"]) == speak(["--seed", "2", "--greedy"]))
    }

    /// Arguments, a word that the error must name, and the exit code.
    static let mistakes: [([String], String, Int32)] = [
        (["say", "x", "--model", "/nowhere/at/all"], "/nowhere/at/all", 1),
        (["say", "x", "--voice", "nobody"] + model, "serena", 1),
        (["say", "x", "--language", "klingon"] + model, "english", 1),
        (["say", "x", "--temperature=-1"] + model, "temperature", 1),
        (["say", "x", "--top-p", "7"] + model, "top_p", 1),
        (["say", "x", "--max-seconds", "-3"] + model, "--max-seconds", 64),
        (["say", "x", "--threads", "0"] + model, "--threads", 64),
        (["say", "x", "--weights", "q5"] + model, "q5", 64),
        (["say", "", "-o", "-"] + model, "empty", 1),
        (["say", "x", "-f", "/dev/null"] + model, "not both", 64),
        (["say", "-f", "/nowhere.txt"] + model, "/nowhere.txt", 1),
        (["say", "x", "-o", "/nowhere/a.wav"] + model, "/nowhere/a.wav", 1),
        (["say", "x", "--voice", "/nowhere.voice"] + model, "/nowhere.voice", 1),
        (["say", "x", "-o", "/dev/full"] + model + short, "full", 1),
        (["say", "x", "--model", "/dev/null"], "/dev/null", 1),
        (["inspect", "/nowhere"], "/nowhere", 1),
        (["sing", "x"], "sing", 64),
    ]

    @Test(arguments: mistakes.indices) func aMistakeGetsOneClearLine(index: Int) async throws {
        let (arguments, word, status) = Self.mistakes[index]
        let result = try await Martlet(arguments)
        #expect(result.status == status, "\(arguments): \(result.errors)")
        #expect(result.errors.contains(word), "\(arguments): \(result.errors)")
        #expect(result.output.isEmpty, "\(arguments)")
        if status == 1 { #expect(result.errors.split(separator: "\n").count == 1, "\(result.errors)") }
    }

    @Test func invalidUTF8AndOtherFoldersAreNamed() async throws {
        let bytes = try await Martlet(["say", "-o", "-"] + Self.model, input: Data([0x61, 0xFF, 0xFE]))
        #expect(bytes.status == 1)
        #expect(bytes.errors.contains("UTF-8"))

        let folder = try TemporaryFolder()
        let config = URL(fileURLWithPath: folder.path + "/config.json")
        try Data(#"{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}"#.utf8).write(to: config)
        let llama = try await Martlet(["say", "x", "--model", folder.path])
        #expect(llama.status == 1)
        #expect(llama.errors.contains("llama"))
        let left = folder.path + "/left.wav"
        #expect(try await Martlet(["say", "x", "--voice", "nobody", "-o", left] + Self.model).status == 1)
        #expect(!FileManager.default.fileExists(atPath: left))
    }
}
