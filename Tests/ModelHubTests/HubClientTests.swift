import ModelHub
import Synchronization
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Byte `i` of a test file: (31 i + 7 ⌊i / 251⌋ + seed) mod 256. The hashes below were computed with Python's hashlib.
private func pattern(_ count: Int, seed: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: $0 * 31 + $0 / 251 * 7 + seed) }
}

private let weightsHash = "1c1644dc6508d126599808d455af894be1107d8805051f54cedc4e9247859788"
private let codecHash = "b949899af1952ce1187b888fc827ed0446d843222e0db1928c1a11f0312032bc"
private let configHash = "0a407cb114966e6d2b1be286edc688aeb0b22fa3"
private let emptyHash = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"

private let repositoryFiles: [String: FakeFile] = [
    "config.json": FakeFile(content: Array("{\"model_type\":\"qwen3_tts\"}\n".utf8), hash: configHash),
    "merges.txt": FakeFile(content: [], hash: emptyHash),
    "model.safetensors": FakeFile(content: pattern(200_000, seed: 1), hash: weightsHash),
    "notes/with space.txt": FakeFile(content: Array("spaces\n".utf8), hash: "1e17e0530dab286280805f1ff8216365ce4a0917"),
    "speech_tokenizer/config.json": FakeFile(
        content: Array("{}\n".utf8), hash: "0967ef424bce6791893e9a57bb952f80fd536e93"),
    "speech_tokenizer/model.safetensors": FakeFile(content: pattern(70_001, seed: 2), hash: codecHash),
    "README.md": FakeFile(content: Array("{}\n".utf8), hash: "0967ef424bce6791893e9a57bb952f80fd536e93"),
]
private let wanted = repositoryFiles.filter { $0.key != "README.md" }

@Suite struct HubClientTests {
    /// A client with a cache of its own and short waits.
    private struct Fixture {
        let folder: URL
        let client: HubClient

        init(_ hub: FakeHub, token: String? = nil) throws {
            folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
            client = try Self.client(hub.endpoint, folder, token: token)
        }

        static func client(_ endpoint: String, _ folder: URL, token: String? = nil) throws -> HubClient {
            var configuration = try HubConfiguration(
                endpoint: endpoint, token: token, cacheDirectory: folder.appendingPathComponent("hub").path)
            configuration.retry.firstDelay = .milliseconds(1)
            configuration.retry.longestDelay = .milliseconds(5)
            configuration.retry.silence = .seconds(600)
            return HubClient(configuration: configuration)
        }

        var repository: URL { folder.appendingPathComponent("hub/models--Acme--Speech-0.1B") }

        func pull(_ files: FileSelection = .model) async throws -> URL {
            try await client.pull(repository: FakeHub.repository, files: files)
        }

        func names(_ path: String) -> [String] {
            ((try? FileManager.default.contentsOfDirectory(atPath: repository.appendingPathComponent(path).path)) ?? [])
                .sorted()
        }
    }

    private func withHub(
        token: String? = nil, _ body: @escaping @Sendable (FakeHub, Fixture) async throws -> Void
    ) async throws {
        try await FakeHub(repositoryFiles).run { hub in
            let fixture = try Fixture(hub, token: token)
            defer { try? FileManager.default.removeItem(at: fixture.folder) }
            try await body(hub, fixture)
        }
    }

    private func expectWhole(_ snapshot: URL) throws {
        for (path, file) in wanted {
            let data = try Data(contentsOf: snapshot.appendingPathComponent(path))
            #expect([UInt8](data) == file.content, "\(path)")
        }
    }

    @Test func layout() async throws {
        try await withHub { hub, fixture in
            #expect(try fixture.client.locate(repository: FakeHub.repository) == nil)
            let reports = Mutex<[PullProgress]>([])
            let snapshot = try await fixture.client.pull(repository: FakeHub.repository) { progress in
                reports.withLock { $0.append(progress) }
            }
            #expect(snapshot.path.hasSuffix("models--Acme--Speech-0.1B/snapshots/\(FakeHub.commit)"))
            try expectWhole(snapshot)
            #expect(fixture.names("blobs") == Set(wanted.values.map(\.hash)).sorted())
            let reference = fixture.repository.appendingPathComponent("refs/main")
            #expect(try Data(contentsOf: reference) == Data(FakeHub.commit.utf8))
            let link = snapshot.appendingPathComponent("speech_tokenizer/model.safetensors").path
            #expect(
                try FileManager.default.destinationOfSymbolicLink(atPath: link) == "../../../blobs/\(codecHash)")
            #expect(fixture.names("snapshots/\(FakeHub.commit)").contains("README.md") == false)
            #expect(try fixture.client.locate(repository: FakeHub.repository)?.path == snapshot.path)

            let total = Int64(wanted.values.reduce(0) { $0 + $1.content.count })
            let last = try #require(reports.withLock { $0.last })
            #expect(last.bytesDone == total && last.bytesTotal == total)
            #expect(last.filesDone == wanted.count && last.filesTotal == wanted.count)
            let bytes = reports.withLock { $0.map(\.bytesDone) }
            #expect(bytes == bytes.sorted())

            // A second pull asks for the listing and nothing else.
            hub.forgetSeen()
            #expect(try await fixture.pull().path == snapshot.path)
            #expect(hub.seen.map(\.method) == ["GET"])
        }
    }

    @Test func tokenGoesToTheHubOnly() async throws {
        try await withHub(token: "hf_secret") { hub, fixture in
            hub.misbehave { $0.requiredToken = "hf_secret" }
            _ = try await fixture.pull()
            let content = hub.seen.filter { $0.server == "content" }
            #expect(content.count == 2 && content.allSatisfy { $0.authorization == nil })
            #expect(hub.seen.filter { $0.server == "hub" }.allSatisfy { $0.authorization == "Bearer hf_secret" })
        }
    }

    @Test func brokenConnectionsAreResumed() async throws {
        try await withHub { hub, fixture in
            hub.misbehave { ($0.breakAfter, $0.breaks) = (50_000, 3) }
            let snapshot = try await fixture.pull(FileSelection(include: ["model.safetensors"]))
            let data = try Data(contentsOf: snapshot.appendingPathComponent("model.safetensors"))
            #expect([UInt8](data) == wanted["model.safetensors"]?.content)
            let requests = hub.seen.filter { $0.server == "content" }
            #expect(requests.count == 1 + 3)
            let ranges = requests.compactMap(\.range)
            #expect(!ranges.isEmpty && ranges.allSatisfy { $0 != "bytes=0-" }, "\(ranges)")
        }
    }

    @Test func laterPullGoesOnWhereAnEarlierOneStopped() async throws {
        try await withHub { hub, fixture in
            hub.misbehave { ($0.breakAfter, $0.breaks) = (16_384, 1_000_000) }
            let only = FileSelection(include: ["model.safetensors"])
            // Each connection brings something, so the limit on all attempts ends it.
            var configuration = fixture.client.configuration
            configuration.retry.totalAttempts = 3
            let impatient = HubClient(configuration: configuration)
            let error = try await #require(throws: HubError.self) {
                try await impatient.pull(repository: FakeHub.repository, files: only)
            }
            guard case .unreachable = error else { throw error }
            #expect(fixture.names("blobs") == ["\(weightsHash).incomplete"])
            #expect(try fixture.client.locate(repository: FakeHub.repository) == nil)
            hub.misbehave { $0.breaks = 0 }
            hub.forgetSeen()
            let partial = fixture.repository.appendingPathComponent("blobs/\(weightsHash).incomplete")
            let count = try Data(contentsOf: partial).count
            #expect(0 < count && count <= 3 * 16_384)
            let snapshot = try await fixture.pull(only)
            // The hub is asked with the range, and the content server it redirects to.
            #expect(hub.seen.compactMap(\.range) == ["bytes=\(count)-", "bytes=\(count)-"])
            let data = try Data(contentsOf: snapshot.appendingPathComponent("model.safetensors"))
            #expect([UInt8](data) == wanted["model.safetensors"]?.content)
            #expect(fixture.names("blobs") == [weightsHash])
        }
    }

    @Test func serverWithoutRanges() async throws {
        try await withHub { hub, fixture in
            hub.misbehave { ($0.breakAfter, $0.breaks, $0.ignoresRanges) = (60_000, 2, true) }
            try expectWhole(try await fixture.pull())
        }
    }

    @Test(arguments: [1, 70_001, 200_000, 300_000])
    func wrongLeftoversAreFetchedAgain(_ count: Int) async throws {
        try await withHub { hub, fixture in
            let blobs = fixture.repository.appendingPathComponent("blobs")
            try FileManager.default.createDirectory(at: blobs, withIntermediateDirectories: true)
            for hash in [weightsHash, codecHash] {
                try Data(repeating: 9, count: count).write(to: blobs.appendingPathComponent("\(hash).incomplete"))
            }
            try expectWhole(try await fixture.pull())
        }
    }

    @Test func damagedBlobIsFetchedAgain() async throws {
        try await withHub { hub, fixture in
            let snapshot = try await fixture.pull()
            try Data("short".utf8).write(to: fixture.repository.appendingPathComponent("blobs/\(weightsHash)"))
            try FileManager.default.removeItem(at: fixture.repository.appendingPathComponent("blobs/\(codecHash)"))
            #expect(try fixture.client.locate(repository: FakeHub.repository) == nil)
            try expectWhole(try await fixture.pull())
            #expect(try fixture.client.locate(repository: FakeHub.repository)?.path == snapshot.path)
        }
    }

    @Test func corruptedFilesAreDeleted() async throws {
        try await withHub { hub, fixture in
            hub.misbehave { $0.corrupts = true }
            let error = try await #require(throws: HubError.self) { try await fixture.pull() }
            guard case .hashMismatch(let path, let expected, let actual) = error else { throw error }
            #expect(path.hasSuffix("model.safetensors") && [weightsHash, codecHash].contains(expected))
            #expect(actual.count == 64 && actual != expected)
            #expect(!fixture.names("blobs").contains { $0.hasPrefix(expected) })
            #expect(try fixture.client.locate(repository: FakeHub.repository) == nil)
        }
    }

    @Test func wrongGitHash() async throws {
        try await withHub { hub, fixture in
            hub.setFile("config.json", FakeFile(content: Array("{}".utf8), hash: configHash))
            let error = try await #require(throws: HubError.self) { try await fixture.pull() }
            guard case .hashMismatch("config.json", configHash, let actual) = error else { throw error }
            #expect(actual == "9e26dfeeb6e641a33dae4961196235bdb965b21b")
        }
    }

    @Test(arguments: [-1, 1])
    func wrongLength(_ change: Int) async throws {
        try await withHub { hub, fixture in
            hub.misbehave { $0.lengthChange = change }
            let error = try await #require(throws: HubError.self) { try await fixture.pull() }
            guard case .sizeMismatch(_, let expected, let actual) = error else { throw error }
            #expect(actual == expected + Int64(change))
        }
    }

    @Test(arguments: [429, 500, 502, 503, 504])
    func busyHubIsAskedAgain(_ status: Int) async throws {
        try await withHub { hub, fixture in
            hub.misbehave { ($0.busyStatus, $0.busy) = (status, 3) }
            try expectWhole(try await fixture.pull())
            hub.misbehave { $0.busy = 100 }
            hub.forgetSeen()
            let error = try await #require(throws: HubError.self) { try await fixture.pull() }
            guard case .unexpectedStatus("127.0.0.1", status, _) = error else { throw error }
            #expect(hub.seen.count == 5)
        }
    }

    @Test func refusals() async throws {
        try await withHub { hub, fixture in
            let name = FakeHub.repository
            let withToken = try Fixture.client(hub.endpoint, fixture.folder, token: "hf_wrong")
            await #expect(throws: HubError.repositoryNotFound(repository: "Acme/Other", hasToken: false)) {
                try await fixture.client.pull(repository: "Acme/Other")
            }
            await #expect(throws: HubError.revisionNotFound(repository: name, revision: "v9")) {
                try await fixture.client.pull(repository: name, revision: "v9")
            }
            hub.misbehave { $0.requiredToken = "hf_right" }
            let page = "\(hub.endpoint)/\(name)"
            let gated = try await #require(throws: HubError.self) { try await fixture.pull() }
            #expect(gated == .gated(repository: name, page: page, hasToken: false))
            #expect(gated.description.contains("set HF_TOKEN") && gated.description.contains(page))
            await #expect(throws: HubError.gated(repository: name, page: page, hasToken: true)) {
                try await withToken.pull(repository: name)
            }
            hub.misbehave { ($0.requiredToken, $0.refusal) = (nil, (401, nil, "Invalid credentials")) }
            await #expect(
                throws: HubError.accessDenied(repository: name, reason: "Invalid credentials", hasToken: true)
            ) { try await withToken.pull(repository: name) }
            hub.misbehave { $0.refusal = (403, nil, nil) }
            await #expect(throws: HubError.accessDenied(repository: name, reason: "status 403", hasToken: false)) {
                try await fixture.pull()
            }
            for code in [nil, "EntryNotFound"] {
                hub.misbehave { $0.refusal = (404, code, nil) }
                await #expect(throws: HubError.repositoryNotFound(repository: name, hasToken: false)) {
                    try await fixture.pull()
                }
            }
            hub.misbehave { $0.refusal = nil }
            await #expect(throws: HubError.nothingToPull(repository: name, patterns: ["*.gguf"])) {
                try await fixture.pull(FileSelection(include: ["*.gguf"]))
            }
        }
    }

    @Test func nobodyListens() async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        let client = try Fixture.client("http://127.0.0.1:1", folder)
        let error = try await #require(throws: HubError.self) { try await client.pull(repository: "a/b") }
        #expect(error == .unreachable(host: "127.0.0.1", reason: "Connection refused"))
        #expect(error.description.contains("check the network"))
        #expect(!FileManager.default.fileExists(atPath: folder.path))
    }

    @Test(arguments: ["../evil.json", "/etc/evil.json", "a/../../evil.json", "a//evil.json", "./evil.json", "a/.."])
    func pathsOutsideAreRefused(_ path: String) async throws {
        try await withHub { hub, fixture in
            hub.setFile(path, FakeFile(content: Array("{}\n".utf8), hash: "0967ef424bce6791893e9a57bb952f80fd536e93"))
            await #expect(throws: HubError.unsafePath(path)) {
                try await fixture.pull(FileSelection(include: ["*"]))
            }
            #expect(!FileManager.default.fileExists(atPath: fixture.folder.path))
        }
    }

    @Test(arguments: ["", "main", "../../../../etc", String(repeating: "A", count: 40)])
    func wrongCommits(_ commit: String) async throws {
        try await withHub { hub, fixture in
            hub.misbehave { $0.commit = commit }
            await #expect(throws: HubError.unexpectedAnswer("'\(commit)' is not a commit")) {
                try await fixture.pull()
            }
        }
    }

    @Test func hubThatListsNoSizes() async throws {
        try await withHub { hub, fixture in
            hub.misbehave { $0.listsBlobs = false }
            try expectWhole(try await fixture.pull())
        }
    }

    @Test(arguments: [Int64.max / 3, .max])
    func fullDisk(_ size: Int64) async throws {
        try await withHub { hub, fixture in
            // The sizes come from the hub before anything is fetched: files no disk holds.
            hub.misbehave { ($0.listsBlobs, $0.statedSize) = (false, size) }
            let error = try await #require(throws: HubError.self) { try await fixture.pull() }
            guard case .diskSpace(_, let needed, let free) = error else { throw error }
            #expect(needed > free)
            #expect(error.description.contains("MB free"))
            #expect(hub.seen.allSatisfy { $0.server == "hub" })
        }
    }

    @Test func twoPullsAtOnceFetchOnce() async throws {
        try await withHub { hub, fixture in
            hub.misbehave { $0.delay = .milliseconds(2) }
            async let first = fixture.pull()
            async let second = fixture.pull()
            let (a, b) = try await (first, second)
            #expect(a == b)
            try expectWhole(a)
            #expect(hub.seen.filter { $0.server == "content" }.count == 2)
        }
    }

    @Test func cancelKeepsWhatCame() async throws {
        try await withHub { hub, fixture in
            hub.misbehave { $0.delay = .milliseconds(400) }
            let began = Mutex(false)
            let task = Task {
                try await fixture.client.pull(
                    repository: FakeHub.repository, files: FileSelection(include: ["model.safetensors"])
                ) { progress in
                    if progress.bytesDone > 0 { began.withLock { $0 = true } }
                }
            }
            while !began.withLock({ $0 }) { try await Task.sleep(for: .milliseconds(2)) }
            task.cancel()
            await #expect(throws: HubError.cancelled) { try await task.value }
            #expect(fixture.names("blobs") == ["\(weightsHash).incomplete"])
            hub.misbehave { $0.delay = .zero }
            hub.forgetSeen()
            try expectWhole(try await fixture.pull())
            #expect(hub.seen.compactMap(\.range).isEmpty == false)
        }
    }

    @Test func revisions() async throws {
        try await withHub { hub, fixture in
            let name = FakeHub.repository
            let request = try await fixture.client.pull(repository: name, revision: "refs/pr/1")
            #expect(fixture.names("refs/refs/pr") == ["1"])
            let commit = try await fixture.client.pull(repository: name, revision: FakeHub.commit)
            #expect(commit == request)
            #expect(try fixture.client.locate(repository: name, revision: FakeHub.commit)?.path == commit.path)
            #expect(try fixture.client.locate(repository: name, revision: "main") == nil)
            var configuration = fixture.client.configuration
            configuration.isOffline = true
            let offline = HubClient(configuration: configuration)
            #expect(try await offline.pull(repository: name, revision: "refs/pr/1").path == request.path)
            await #expect(throws: HubError.offline(repository: name)) { try await offline.pull(repository: name) }
            for revision in ["", "..", "a/../b", "/main", "a\nb"] {
                await #expect(throws: HubError.invalidRevision(revision)) {
                    try await fixture.client.pull(repository: name, revision: revision)
                }
            }
        }
    }
}
