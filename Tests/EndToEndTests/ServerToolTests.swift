import Foundation
import TestSupport
import Testing

/// The experiments on a server, beside the same ones in the process.
@Suite struct ServerToolTests {
    private static let short = ["--max-seconds", "0.3", "--seed", "7"]

    private struct Report: Decodable {
        struct Run: Decodable {
            let tag, hash: String
            let ok: Bool
            let frames: Int
            let first_packet_hash, pcm_hash: String
            let ttfa_ms: Double?
        }
        let source: String
        let runs: [Run]
        let hash_unique, first_packet_hash_unique, pcm_hash_unique, fail_count: Int
        let meta_missing: Int?
    }

    private func report(_ arguments: [String]) async throws -> Report {
        let result = try await Martlet(arguments + ["--json"])
        #expect(result.status == 0, "\(result.errors)")
        return try JSONDecoder().decode(Report.self, from: result.output)
    }

    @Test func aServerGivesWhatTheProcessGives() async throws {
        let folder = try TemporaryFolder()
        let server = try await ServerProgram(
            SayTests.model + [
                "--code-dump", "--code-dump-dir", folder.path + "/kept", "--debug-topk", "--packet-trace",
            ])
        let remote = ["--server", server.url]
        let dump = ["codes", "dump", "--count", "2", "--packet-tokens", "2"] + Self.short
        let own = try await report(dump + SayTests.model + ["-o", folder.path + "/own", "--tag", "own"])
        let http = try await report(dump + remote + ["-o", folder.path + "/http", "--tag", "http", "--debug-topk"])
        #expect(own.source == "in_process")
        #expect(http.source == "http")
        #expect(http.fail_count == 0 && http.meta_missing == 0)
        #expect(http.runs.map(\.hash) == own.runs.map(\.hash))
        #expect(http.runs.map(\.first_packet_hash) == own.runs.map(\.first_packet_hash))
        #expect(http.runs.map(\.pcm_hash) == own.runs.map(\.pcm_hash))
        let pair = [folder.path + "/own/codes_own_1.safetensors", folder.path + "/http/codes_http_2.safetensors"]
        #expect(try await Martlet(["codes", "diff"] + pair).status == 0)
        #expect(FileManager.default.fileExists(atPath: folder.path + "/http/topk_http_1.json"))
        #expect(FileManager.default.fileExists(atPath: folder.path + "/kept/meta_http_1.json"))

        let bench = try await report(["bench", "ttfa", "--count", "2"] + remote + Self.short)
        #expect(bench.source == "http" && bench.hash_unique == 1 && bench.fail_count == 0)
        #expect(bench.runs.allSatisfy { $0.ttfa_ms ?? 0 > 0 })
        #expect(bench.runs.first?.hash == own.runs.first?.hash)

        let stress = try await Martlet(["stress", "cancel", "--rounds", "4", "--json"] + remote + Self.short)
        #expect(stress.status == 0, "\(stress.errors)")
        #expect(String(decoding: stress.output, as: UTF8.self).contains("\"source\" : \"http\""))

        let regress = ["regress", "--ttfa-limit", "0", "--json"] + Self.short
        let first = try await Martlet(regress + SayTests.model + ["-o", folder.path + "/a"])
        #expect(first.status == 0, "\(first.errors)")
        let second = try await Martlet(
            regress + remote + ["-o", folder.path + "/b", "--baseline", folder.path + "/a/latest"])
        #expect(second.status == 0, "\(second.errors) \(String(decoding: second.output, as: UTF8.self))")
        struct Summary: Decodable {
            struct Case: Decodable {
                let codes_equal, pcm_equal: Bool
                let equals_baseline: Bool?
                let repeated_frames: Int?
            }
            let source: String
            let cases: [Case]
        }
        let summary = try JSONDecoder().decode(Summary.self, from: second.output)
        #expect(summary.source == "http")
        #expect(summary.cases.allSatisfy { $0.codes_equal && $0.pcm_equal && $0.repeated_frames != nil })
        // The same bytes as the engine in the process, through a WAV file.
        #expect(summary.cases.allSatisfy { $0.equals_baseline == true })
        #expect(server.log.contains("packet trace http_1: queue_wait_ms="))
    }

    @Test func aServerThatKeepsNoCodesIsTold() async throws {
        let folder = try TemporaryFolder()
        let server = try await ServerProgram(SayTests.model)
        let dump = try await Martlet(["codes", "dump", "--server", server.url, "-o", folder.path] + Self.short)
        #expect(dump.status == 1)
        #expect(dump.errors.contains("--code-dump"), "\(dump.errors)")
        let bench = try await report(["bench", "ttfa", "--count", "1", "--server", server.url] + Self.short)
        #expect(bench.fail_count == 0 && bench.meta_missing == nil)
    }
}
