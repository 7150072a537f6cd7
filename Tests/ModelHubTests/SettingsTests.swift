import ModelHub
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

@Suite struct SettingsTests {
    @Test(arguments: ["gpt2", "Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice", "a_b/c.d-e"])
    func names(_ name: String) throws {
        #expect(try HubRepository(name).name == name)
    }

    @Test(arguments: [
        "", "/", "a/", "/b", "a/b/c", "../x", "a/..", "a b/c", "a/b--c", "a/b..c", "-a/b", "a/b-", ".a/b", "a/b.",
        "ä/b", "a\\b", "a/\0", "https://x/y",
    ])
    func wrongNames(_ name: String) {
        #expect(throws: HubError.invalidRepository(name)) { try HubRepository(name) }
    }

    @Test func defaults() throws {
        let plain = try HubConfiguration(environment: ["HOME": "/home/x"])
        #expect(plain.endpoint == HubConfiguration.defaultEndpoint)
        #expect(plain.cacheDirectory == "/home/x/.cache/huggingface/hub")
        #expect(plain.token == nil && plain.proxy == nil && !plain.isOffline)
        let xdg = try HubConfiguration(environment: ["HOME": "/home/x", "XDG_CACHE_HOME": "/c"])
        #expect(xdg.cacheDirectory == "/c/huggingface/hub")
        let home = try HubConfiguration(environment: ["HOME": "/home/x", "HF_HOME": "~/hf"])
        #expect(home.cacheDirectory == "/home/x/hf/hub")
        let cache = try HubConfiguration(
            environment: ["HOME": "/h", "HF_HOME": "/hf", "HF_HUB_CACHE": "/cache", "HF_HUB_OFFLINE": "1"])
        #expect(cache.cacheDirectory == "/cache" && cache.isOffline)
        let mirror = try HubConfiguration(environment: ["HOME": "/h", "HF_ENDPOINT": "http://mirror.test:8080/hf/"])
        #expect(mirror.endpoint == "http://mirror.test:8080/hf")
    }

    @Test(arguments: ["mirror", "ftp://x", "http://", "https://x?y=1", "file:///etc"])
    func wrongEndpoints(_ text: String) {
        #expect(throws: HubError.self) { try HubConfiguration(environment: ["HOME": "/h", "HF_ENDPOINT": text]) }
    }

    @Test func tokens() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try Data("hf_file\n".utf8).write(to: folder.appendingPathComponent("token"))
        let home = ["HOME": "/h", "HF_HOME": folder.path]
        #expect(try HubConfiguration(environment: home).token == "hf_file")
        let both = home.merging(["HF_TOKEN": " hf_variable "]) { $1 }
        #expect(try HubConfiguration(environment: both).token == "hf_variable")
        let wrong = home.merging(["HF_TOKEN": "hf\r\nX-Evil: 1"]) { $1 }
        #expect(throws: HubError.self) { try HubConfiguration(environment: wrong) }
    }

    @Test func proxies() throws {
        func proxy(_ environment: [String: String], _ endpoint: String = "https://hub.test") throws -> HubProxy? {
            try HubProxy(environment: environment, for: endpoint)
        }
        #expect(try proxy([:]) == nil)
        #expect(try proxy(["https_proxy": "http://p:3128"]) == HubProxy(host: "p", port: 3128))
        #expect(try proxy(["HTTPS_PROXY": "p:3128", "http_proxy": "q:1"]) == HubProxy(host: "p", port: 3128))
        #expect(try proxy(["http_proxy": "q:1"]) == nil)
        #expect(try proxy(["http_proxy": "q:1"], "http://hub.test") == HubProxy(host: "q", port: 1))
        #expect(try proxy(["ALL_PROXY": "http://q"]) == HubProxy(host: "q", port: 80))
        let login = HubProxy(host: "p", port: 1, credentials: "me:a/b")
        #expect(try proxy(["https_proxy": "http://me:a%2Fb@p:1"]) == login)
        #expect(try proxy(["https_proxy": "p:1", "no_proxy": "other, .test"]) == nil)
        #expect(try proxy(["https_proxy": "p:1", "no_proxy": "ub.test"]) == HubProxy(host: "p", port: 1))
        #expect(try proxy(["https_proxy": "p:1", "NO_PROXY": "*"]) == nil)
        #expect(throws: HubError.self) { try proxy(["https_proxy": "socks5://p:1"]) }
    }

    @Test func selections() {
        let model = FileSelection.model
        for path in ["config.json", "speech_tokenizer/model.safetensors", "merges.txt"] {
            #expect(model.contains(path))
        }
        for path in ["README.md", "json", "a.json.bak", "pytorch_model.bin"] { #expect(!model.contains(path)) }
        let some = FileSelection(include: ["a?c/*x*"], exclude: ["*.bin"])
        for path in ["abc/x", "abc/1x2/3", "aüc/xx"] { #expect(some.contains(path)) }
        for path in ["ac/x", "abc/y", "abc/x.bin", "zabc/x"] { #expect(!some.contains(path)) }
        #expect(
            !FileSelection(include: [String(repeating: "*a", count: 500)]).contains(String(repeating: "a", count: 499)))
    }
}
