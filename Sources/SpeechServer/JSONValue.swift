import Qwen3TTS

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Requests and answers.
typealias JSONValue = Qwen3TTS.JSONValue

extension JSONValue {
    /// What it is, for an error.
    var kind: String {
        switch self {
        case .null: "null"
        case .bool: "a boolean"
        case .integer, .unsigned: "an integer"
        case .number: "a number"
        case .string: "a string"
        case .array: "an array"
        case .object: "an object"
        }
    }

    var string: String? { if case .string(let value) = self { value } else { nil } }

    var double: Double? {
        switch self {
        case .integer(let value): Double(value)
        case .unsigned(let value): Double(value)
        case .number(let value): value
        default: nil
        }
    }

    /// Integers, and numbers such as `3.0` that are one.
    var int: Int? {
        switch self {
        case .integer(let value): value
        case .number(let value): Int(exactly: value)
        default: nil
        }
    }

    var bool: Bool? { if case .bool(let value) = self { value } else { nil } }

    /// The member of that name; nil if this is no object or the member is missing or null.
    subscript(_ name: String) -> JSONValue? {
        guard case .object(let members) = self, let value = members[name], value != .null else { return nil }
        return value
    }

    /// Reads one JSON text.
    init(parsing bytes: some Sequence<UInt8>) throws(APIError) {
        do {
            self = try JSONDecoder().decode(JSONValue.self, from: Data(bytes))
        } catch {
            throw .invalid(nil, "the request is not valid JSON", code: "invalid_json")
        }
    }

    /// Itself as JSON text on one line, members sorted.
    var text: String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(self) else { return "null" }
        return String(decoding: data, as: UTF8.self)
    }
}
