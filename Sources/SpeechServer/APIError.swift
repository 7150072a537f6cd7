import HTTPTypes
import Qwen3TTS
import SpeechEngine

/// Why a request is refused: OpenAI's error object with its status. The same everywhere: HTTP, events, WebSocket.
struct APIError: Error, Equatable, CustomStringConvertible {
    /// OpenAI's kinds of error.
    enum Kind: String, Sendable {
        case invalidRequest = "invalid_request_error"
        case authentication = "authentication_error"
        case notFound = "not_found_error"
        case overloaded = "server_overloaded"
        case server = "server_error"
    }

    var status: HTTPResponse.Status
    var kind: Kind
    /// What was wrong and what to do, in one line.
    var message: String
    /// The field of the request that was wrong.
    var parameter: String?
    /// A name for programs.
    var code: String?
    /// Seconds after which another try makes sense.
    var retryAfter: Double?
    /// What only the operator is told, in the log: where files lie is nobody else's business.
    var detail: String?

    var description: String { detail ?? message }

    /// A field that cannot be taken.
    static func invalid(_ parameter: String?, _ message: String, code: String = "invalid_value") -> APIError {
        APIError(
            status: .badRequest, kind: .invalidRequest, message: message, parameter: parameter, code: code)
    }

    /// The server is shutting down or not ready.
    static func unavailable(_ message: String, code: String, retryAfter: Double) -> APIError {
        APIError(
            status: .serviceUnavailable, kind: .overloaded, message: message, code: code, retryAfter: retryAfter)
    }

    /// Something of the server's own went wrong.
    static func server(_ message: String, detail: String? = nil) -> APIError {
        APIError(
            status: .internalServerError, kind: .server, message: message, code: "internal_error", detail: detail)
    }
}

extension APIError {
    /// What the engine refused.
    init(_ error: EngineError) {
        switch error {
        case .request(let error): self.init(error)
        case .busy(_, let retryAfter):
            self = .unavailable(error.description, code: "server_busy", retryAfter: retryAfter)
        case .draining: self = .unavailable(error.description, code: "server_draining", retryAfter: 5)
        }
    }

    /// What the model refused, with the field that it is about.
    init(_ error: ModelError) {
        switch error {
        case .unknownVoice: self = .invalid("voice", error.description, code: "voice_not_found")
        case .unknownLanguage: self = .invalid("language", error.description)
        case .textTooLong: self = .invalid("input", error.description, code: "string_above_max_length")
        case .unsupported: self = .invalid(nil, error.description, code: "unsupported_value")
        case .badInput(let problem):
            // The model's messages about a field begin with its name.
            let fields = ["temperature", "top_p", "top_k", "repetition_penalty", "max_new_tokens"]
            let field = fields.first { problem.hasPrefix($0 + " ") } ?? (problem.contains("text") ? "input" : nil)
            self = .invalid(field, problem)
        case .missingFile, .unreadable, .wrongArchitecture, .badConfiguration, .badTokenizer, .badTensor, .tensors:
            self = .server(
                "the model's files cannot be read, they may have been moved; the server's log says more",
                detail: error.description)
        }
    }

    /// `{"error": {"message", "type", "param", "code"}}`.
    var json: JSONValue {
        .object([
            "error": .object([
                "message": .string(message), "type": .string(kind.rawValue),
                "param": parameter.map { .string($0) } ?? .null, "code": code.map { .string($0) } ?? .null,
            ])
        ])
    }
}
