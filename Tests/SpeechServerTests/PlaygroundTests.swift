import AsyncHTTPClient
import Crypto
import Foundation
import NIOCore
import Testing

@testable import SpeechServer

@Suite struct PlaygroundTests {
    @Test func loadsNothingFromElsewhere() {
        let html = PlaygroundPage.html
        // The name space of SVG is no address that a browser asks for.
        let addresses = html.replacing("http://www.w3.org/2000/svg", with: "")
        #expect(!addresses.contains("http://") && !addresses.contains("https://"))
        #expect(html.components(separatedBy: "<script>").count == 2)
        #expect(!html.contains(" style=\"") && !html.contains(" onclick"))
    }

    @Test func everyFieldHasALabel() {
        let html = PlaygroundPage.html
        for kind in ["<input id=\"", "<select id=\"", "<textarea id=\""] {
            for part in html.components(separatedBy: kind).dropFirst() {
                let id = part.prefix { $0 != "\"" }
                #expect(html.contains("<label for=\"\(id)\">"), "\(id)")
            }
        }
        #expect(html.contains("role=\"status\"") && html.contains("role=\"alert\"") && html.contains("lang=\"en\""))
    }

    @Test func isServedUnderAStrictPolicy() async throws {
        try await withSpeechServer {
            $0.apiKeys = ["secret"]
        } _: { _, port in
            var request = HTTPClientRequest(url: "http://127.0.0.1:\(port)/")
            let response = try await HTTPClient.shared.execute(request, timeout: .minutes(15))
            let body = String(buffer: try await response.body.collect(upTo: 1 << 20))
            #expect(response.status == .ok)
            #expect(body == PlaygroundPage.html)
            let policy = response.headers.first(name: "Content-Security-Policy") ?? ""
            #expect(policy.hasPrefix("default-src 'none'") && !policy.contains("unsafe"))
            // The policy names the hash of the script that the page holds.
            let script = body.components(separatedBy: "<script>")[1].components(separatedBy: "</script>")[0]
            let hash = Data(SHA256.hash(data: Data(script.utf8))).base64EncodedString()
            #expect(policy.contains("script-src 'sha256-\(hash)'"))
            request.headers.add(name: "If-None-Match", value: response.headers.first(name: "ETag") ?? "")
            #expect(try await HTTPClient.shared.execute(request, timeout: .minutes(15)).status == .notModified)
        }
    }
}
