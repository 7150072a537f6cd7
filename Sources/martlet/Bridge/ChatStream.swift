import AsyncHTTPClient
import Experiments
import NIOCore
import NIOHTTP1

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// An OpenAI-compatible language model, whose answers come piece by piece.
struct ChatStream: Sendable {
    /// The server's address; `/v1/chat/completions` is added, after a path such as `/v1` only what is missing.
    let url: String
    let model: String?
    let apiKey: String?
    let system: String?

    /// Lives as long as the program. A server that is not there is an error at once.
    private static let client: HTTPClient = {
        var settings = HTTPClient.Configuration()
        settings.httpVersion = .http1Only
        settings.timeout.connect = .seconds(10)
        settings.connectionPool.retryConnectionEstablishment = false
        return HTTPClient(eventLoopGroupProvider: .singleton, configuration: settings)
    }()

    private struct Body: Encodable {
        struct Message: Encodable { let role, content: String }
        let model: String
        let messages: [Message]
        let stream = true
    }

    private struct Chunk: Decodable {
        struct Choice: Decodable {
            struct Delta: Decodable { let content: String? }
            let delta: Delta?
        }
        let choices: [Choice]?
    }

    private struct Models: Decodable {
        struct Model: Decodable { let id: String }
        let data: [Model]
    }

    private var base: String {
        let trimmed = url.hasSuffix("/") ? String(url.dropLast()) : url
        return trimmed.hasSuffix("/v1") ? trimmed : trimmed + "/v1"
    }

    private func request(_ path: String) -> HTTPClientRequest {
        var request = HTTPClientRequest(url: base + path)
        if let apiKey { request.headers.add(name: "Authorization", value: "Bearer \(apiKey)") }
        return request
    }

    /// The name of the model to ask: the one that was given, else the server's first.
    func modelName() async throws -> String {
        if let model { return model }
        let response = try await Self.client.execute(request("/models"), timeout: .seconds(10))
        let body = try await response.body.collect(upTo: 1 << 20)
        guard response.status == .ok,
            let models = try? JSONDecoder().decode(Models.self, from: Data(body.readableBytesView)),
            let first = models.data.first
        else { throw CommandError("\(base)/models names no model: use --llm-model") }
        return first.id
    }

    /// Asks, and gives each piece of the answer to `body` as it comes.
    func answer(_ prompt: String, _ body: (String) async throws -> Void) async throws {
        do {
            var message = request("/chat/completions")
            message.method = .POST
            message.headers.add(name: "Content-Type", value: "application/json")
            let messages =
                (system.map { [Body.Message(role: "system", content: $0)] } ?? [])
                + [Body.Message(role: "user", content: prompt)]
            let json = try JSONEncoder().encode(Body(model: try await modelName(), messages: messages))
            message.body = .bytes(ByteBuffer(bytes: json))
            let response = try await Self.client.execute(message, timeout: .minutes(10))
            guard response.status == .ok else {
                let text = String(buffer: (try? await response.body.collect(upTo: 1 << 16)) ?? ByteBuffer())
                throw CommandError("\(base)/chat/completions answers \(response.status.code) \(text.prefix(200))")
            }
            var line: [UInt8] = []
            for try await buffer in response.body {
                for byte in buffer.readableBytesView {
                    guard byte == UInt8(ascii: "\n") else {
                        line.append(byte)
                        continue
                    }
                    let text = String(decoding: line, as: UTF8.self)
                    line = []
                    guard text.hasPrefix("data:") else { continue }
                    let data = text.dropFirst(5).drop { $0 == " " }
                    if data.hasPrefix("[DONE]") { return }
                    let chunk = try JSONDecoder().decode(Chunk.self, from: Data(data.utf8))
                    if let piece = chunk.choices?.first?.delta?.content, !piece.isEmpty { try await body(piece) }
                }
            }
        } catch is DecodingError {
            throw CommandError("\(base)/chat/completions sends no chunks of a chat completion")
        } catch let error as CommandError {
            throw error
        } catch let error as CancellationError {
            throw error
        } catch {
            let reason = (error as? HTTPClientError)?.shortDescription ?? SpeechClient.reason(of: error)
            throw CommandError("the language model at \(base) cannot be asked: \(reason)")
        }
    }
}
