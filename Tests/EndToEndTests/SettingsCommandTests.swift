import Foundation
import TestSupport
import Testing

/// `martlet config`, and settings as commands take them.
@Suite struct SettingsCommandTests {
    private struct Report: Decodable {
        struct Row: Decodable {
            let name, flag, variable, source: String
            let value: String?
            let values: String
            let aliases: [String]
        }
        let settings: [Row]
        let notes: [String]
    }

    private func config(
        _ arguments: [String] = [], environment: [String: String] = [:]
    ) async throws -> Report {
        let result = try await Martlet(["config", "--json"] + arguments, environment: environment)
        #expect(result.status == 0, "\(result.errors)")
        return try JSONDecoder().decode(Report.self, from: result.output)
    }

    @Test func valuesComeWithTheirSources() async throws {
        let folder = try TemporaryFolder()
        let file = folder.path + "/martlet.json"
        try Data(#"{"left-context": 72, "decode-mode": "windowed", "starter-cache-texts": ["A.", "B."]}"#.utf8)
            .write(to: URL(fileURLWithPath: file))
        let report = try await config(
            ["--config", file, "--packet-tokens", "2", "--no-code-dump"],
            environment: [
                "MARTLET_SYNC_MODE": "event", "TTS_DEEP_STREAM_SYNC_MODE": "phase", "TTS_DEEP_STREAM_SEED": "9",
                "TTS_CUDNN_BENCHMARK": "1",
            ])
        func row(_ name: String) -> [String?] {
            report.settings.filter { $0.name == name }.flatMap { [$0.value, $0.source] }
        }
        #expect(row("packet-tokens") == ["2", "flag"])
        #expect(row("code-dump") == ["0", "flag"])
        #expect(row("sync-mode") == ["event", "MARTLET_SYNC_MODE"])
        #expect(row("seed") == ["9", "TTS_DEEP_STREAM_SEED"])
        #expect(row("left-context") == ["72", file])
        #expect(row("starter-cache-texts") == ["A.|B.", file])
        #expect(row("prefill-packets") == ["1", "default"])
        #expect(report.notes.count == 1)
    }

    /// A flag for every row of the table: a new row without one fails here.
    @Test func everySettingHasItsFlag() async throws {
        let samples = [
            "0 or 1": "", "texts parted by |": "a", "a text": "a", "cpu, cuda:0, cuda:1, …": "cpu",
        ]
        var arguments: [String] = []
        let rows = try await config().settings
        for row in rows {
            arguments.append(row.flag)
            // Numbers: 1 is within all bounds. Words: the first.
            let value = samples[row.values] ?? (row.values.hasPrefix("a ") ? "1" : row.values.prefix { $0 != "," } + "")
            if !value.isEmpty { arguments.append(value) }
        }
        let set = try await config(arguments).settings
        #expect(set.filter { $0.source != "flag" }.map(\.name) == [])
    }

    /// Arguments, variables, a word that the error must name.
    static let mistakes: [([String], [String: String], String)] = [
        (["config", "--sync-mode", "fast"], [:], "none, sync, event, phase"),
        (["config"], ["TTS_DEEP_STREAM_PACKET_TOKENS": "x"], "TTS_DEEP_STREAM_PACKET_TOKENS"),
        (["config", "--config", "/nowhere.json"], [:], "/nowhere.json"),
        (["codes", "dump", "--device", "cuda:0"] + SayTests.model, [:], "cpu"),
        (["codes", "dump", "--codegen-fp32", "--weights", "q8"] + SayTests.model, [:], "bf16"),
        (["codes", "dump", "--server", "ftp://x"], [:], "http://HOST:PORT"),
        (["codes", "dump", "--server", "http://127.0.0.1:1", "--wait", "0"], [:], "connection refused"),
        (["codes", "stream"] + SayTests.model, ["MARTLET_SERVER": "http://127.0.0.1:1"], "--dummy-decoder"),
        (["serve", "--port", "99999"] + SayTests.model, [:], "65535"),
        (["serve"] + SayTests.model, ["MARTLET_THREADS": "0"], "MARTLET_THREADS"),
    ]

    @Test(arguments: mistakes.indices) func aMistakeIsNamed(index: Int) async throws {
        let (arguments, environment, word) = Self.mistakes[index]
        let result = try await Martlet(arguments, environment: environment)
        #expect(result.status != 0, "\(arguments)")
        #expect(result.errors.contains(word), "\(arguments): \(result.errors)")
    }

    @Test func oldNamesActAndAreSaid() async throws {
        let folder = try TemporaryFolder()
        let codes = folder.path + "/codes"
        let old = [
            "TTS_DEEP_STREAM_PACKET_TOKENS": "2", "TTS_DEEP_STREAM_DETERMINISTIC_POLICY": "greedy",
            "TTS_CODE_DUMP_DIR": codes, "TTS_CODEGEN_DEBUG_TOPK": "1", "TTS_CODEGEN_CUDAGRAPH_CP": "1",
        ]
        let result = try await Martlet(
            ["codes", "dump", "--max-seconds", "0.3"] + SayTests.model, environment: old)
        #expect(result.status == 0)
        #expect(result.errors.split(separator: "\n").count == 1, "\(result.errors)")
        #expect(result.errors.contains("TTS_CODEGEN_CUDAGRAPH_CP: accepted, has no effect"))
        struct Meta: Decodable { let switches: [String: String] }
        let meta = try JSONDecoder().decode(
            Meta.self, from: Data(contentsOf: URL(fileURLWithPath: codes + "/meta_short_01_1.json")))
        #expect(meta.switches["packet_tokens"] == "2")
        #expect(meta.switches["deterministic_policy"] == "greedy")
        #expect(FileManager.default.fileExists(atPath: codes + "/topk_short_01_1.json"))
    }
}
