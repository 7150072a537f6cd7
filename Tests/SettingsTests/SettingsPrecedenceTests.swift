import Foundation
import Testing

@testable import Settings

/// Which value holds, what is refused, what is said of names without effect.
@Suite struct SettingsPrecedenceTests {
    /// A file that is gone at the end.
    private func withFile<Value>(_ text: String, _ body: (String) throws -> Value) throws -> Value {
        let path = NSTemporaryDirectory() + "/martlet-\(UUID().uuidString).json"
        try Data(text.utf8).write(to: URL(fileURLWithPath: path))
        defer { try? FileManager.default.removeItem(atPath: path) }
        return try body(path)
    }

    private func resolve(
        _ environment: [String: String] = [:], flags: [(setting: Setting, text: String)] = [], file: String? = nil
    ) throws -> Settings {
        try Settings(flags: flags, environment: environment, file: file)
    }

    @Test func eachSourceGoesBeforeTheNext() throws {
        try withFile(#"{"packet-tokens": 5}"#) { path in
            let flag = [(setting: Setting.packetTokens, text: "2")]
            var environment = ["MARTLET_PACKET_TOKENS": "3", "TTS_DEEP_STREAM_PACKET_TOKENS": "4"]
            var settings = try resolve(environment, flags: flag, file: path)
            #expect(settings.value(.packetTokens).source == .flag)
            #expect(settings.integer(.packetTokens) == 2)
            settings = try resolve(environment, file: path)
            #expect(settings.value(.packetTokens).source == .variable("MARTLET_PACKET_TOKENS"))
            #expect(settings.integer(.packetTokens) == 3)
            environment["MARTLET_PACKET_TOKENS"] = ""
            settings = try resolve(environment, file: path)
            #expect(settings.value(.packetTokens).source == .variable("TTS_DEEP_STREAM_PACKET_TOKENS"))
            #expect(settings.integer(.packetTokens) == 4)
            settings = try resolve(file: path)
            #expect(settings.value(.packetTokens).source == .file(path))
            #expect(settings.integer(.packetTokens) == 5)
            settings = try resolve(["MARTLET_CONFIG": path])
            #expect(settings.integer(.packetTokens) == 5)
            #expect(try resolve().value(.packetTokens).source == .standard)
        }
    }

    @Test func theRunbooksNamesAreAliases() throws {
        // Every switch of the runbook, whole, with a value that it has there.
        let names = [
            "PROCESS": "0", "PACKET_TOKENS": "2", "LEFT_CONTEXT": "72", "DECODE_MODE": "windowed",
            "PREFILL_PACKETS": "1", "SYNC_MODE": "event", "CODEGEN_BLOCKING": "1", "DEVICE": "cuda:0",
            "CODEGEN_DEVICE": "cpu", "CODEGEN_FP32": "1", "DECODER_FP32": "1", "DUMMY_DECODER": "conv_only",
            "DECODE_EVERY": "2", "DETERMINISTIC_POLICY": "greedy", "SEED_MODE": "content", "SEED": "5",
            "PACKET_TRACE": "1", "METRICS": "1", "TRACE_TIMING": "1", "SILENCE_PACKETS": "9", "SILENCE_RMS": "0.01",
            "MAX_SEC_PER_CHAR": "0.4", "MAX_SEC_MIN": "8", "REQUEST_TIMEOUT_S": "30", "IDLE_TIMEOUT_S": "5",
        ].map { ("TTS_DEEP_STREAM_" + $0.key, $0.value) }
        let others = [
            ("TTS_CODEGEN_DEBUG_TOPK", "1"), ("TTS_CODEGEN_DEBUG_STEP_START", "0"),
            ("TTS_CODEGEN_DEBUG_STEP_END", "100"), ("TTS_CODEGEN_DEBUG_TOPK_N", "2"), ("TTS_CUDNN_BENCHMARK", "1"),
            ("TTS_CUDNN_DETERMINISTIC", "0"), ("TTS_CUDNN_ALLOW_TF32", "1"), ("TTS_CUDA_MATMUL_ALLOW_TF32", "0"),
            ("TTS_CUDNN_TRACE", "1"), ("TTS_CODEGEN_CUDAGRAPH_TALKER", "1"), ("TTS_CODEGEN_CUDAGRAPH_CP", "1"),
            ("TTS_DECODER_CUDAGRAPH", "1"), ("TTS_CODE_DUMP_ENABLE", "1"), ("TTS_CODE_DUMP_DIR", "d"),
            ("TTS_STARTER_CACHE_ENABLE", "1"), ("TTS_STARTER_CACHE_TEXTS", "Yes.|Let me see."),
            ("TTS_STREAM_CHUNK_MS", "40"),
        ]
        for (name, value) in names + others {
            let settings = try resolve([name: value])
            let found = settings.values.filter { $0.source == .variable(name) }
            #expect(found.count == 1, "\(name)")
            #expect(found.first?.text.map { Double($0) ?? 0 } == Double(value) ?? 0, "\(name)")
            #expect(!settings.notes.contains { $0.contains("unknown") }, "\(name)")
        }
    }

    @Test func aNameWithoutEffectIsAnsweredByOneLine() throws {
        let settings = try resolve(["TTS_CUDNN_BENCHMARK": "1", "TTS_DEEP_STREAM_PACKET_TOKENS": "2"])
        #expect(settings.notes.count == 1)
        #expect(settings.notes.first?.hasPrefix("TTS_CUDNN_BENCHMARK: accepted, has no effect: ") == true)
    }

    @Test func anUnknownVariableIsNamedWithItsNearest() throws {
        let settings = try resolve([
            "MARTLET_PACKET_TOKEN": "2", "TTS_OTHER": "1", "MARTLET_ISA": "scalar", "TTSX": "1",
        ])
        #expect(
            settings.notes == [
                "MARTLET_PACKET_TOKEN: unknown, ignored; did you mean MARTLET_PACKET_TOKENS?",
                "TTS_OTHER: unknown, ignored",
            ])
    }

    static let mistakes: [(String, String, String)] = [
        ("MARTLET_PACKET_TOKENS", "0", "from 1 to 1024"), ("MARTLET_PACKET_TOKENS", "two", "\"two\""),
        ("TTS_DEEP_STREAM_SYNC_MODE", "fast", "none, sync, event, phase"),
        ("TTS_DEEP_STREAM_PROCESS", "maybe", "(worker-process)"), ("MARTLET_DEVICE", "gpu", "cuda:0"),
        ("MARTLET_DEVICE", "cuda:-1", "cuda:0"), ("MARTLET_SILENCE_RMS", "nan", "from 0.0 to 1.0"),
        ("MARTLET_SEED", "-1", "from 0"), ("MARTLET_PORT", "70000", "65535"),
    ]

    @Test(arguments: mistakes) func aBadValueNamesWhatIsAllowed(name: String, value: String, word: String) throws {
        let error = #expect(throws: SettingsError.self) { try resolve([name: value]) }
        #expect(error?.description.contains(name) == true, "\(error?.description ?? "")")
        #expect(error?.description.contains(word) == true, "\(error?.description ?? "")")
    }

    static let badFiles = [
        ("[1]", "JSON object"), ("{", "JSON object"), (#"{"packet-token": 2}"#, "did you mean packet-tokens?"),
        (#"{"packet-tokens": {"a": 1}}"#, "packet-tokens"), (#"{"frobnicate": 1}"#, "martlet config"),
        (#"{"packet-tokens": 0}"#, "from 1 to 1024"), (#"{"packet-tokens": 1.5}"#, "1.5"),
    ]

    @Test(arguments: badFiles) func aBadFileIsNamed(text: String, word: String) throws {
        try withFile(text) { path in
            let error = #expect(throws: SettingsError.self) { try resolve(file: path) }
            #expect(error?.description.contains(path) == true)
            #expect(error?.description.contains(word) == true, "\(error?.description ?? "")")
        }
        #expect(throws: SettingsError.self) { try resolve(file: "/nowhere.json") }
    }

    @Test func aFileHoldsAllKinds() throws {
        let text = """
            {"worker-process": true, "seed": 18446744073709551615, "silence-rms": 0.5, "sync-mode": "PHASE",
             "starter-cache-texts": ["Well,  now.", "Yes."], "threads": null, "device": "cuda", "code-dump": 0}
            """
        let settings = try withFile(text) { try resolve(file: $0) }
        #expect(settings.isOn(.workerProcess))
        #expect(settings.unsigned(.seed) == .max)
        #expect(settings.number(.silenceRMS) == 0.5)
        #expect(settings.text(.syncMode) == "phase")
        #expect(settings.list(.starterTexts) == ["Well, now.", "Yes."])
        #expect(!settings.isSet(.threads))
        #expect(settings.text(.device) == "cuda:0")
        #expect(settings.isSet(.codeDump) && !settings.isOn(.codeDump))
    }

    @Test func theTableIsSound() {
        let all = Setting.all
        #expect(Set(all.map(\.name)).count == all.count)
        let variables = all.flatMap { [$0.variable] + $0.aliases }
        #expect(Set(variables).count == variables.count)
        for setting in all {
            if let standard = setting.standard { #expect(setting.canonical(standard) != nil, "\(setting.name)") }
            #expect(!setting.meaning.isEmpty)
        }
    }
}
