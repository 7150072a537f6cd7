#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

extension JSONValue {
    /// How the value is shown in an error: short, on one line.
    var shown: String {
        switch self {
        case .null: "null"
        case .bool(let value): "\(value)"
        case .integer(let value): "\(value)"
        case .unsigned(let value): "\(value)"
        case .number(let value): "\(value)"
        case .string(let value): ModelError.quoted(value)
        case .array(let values):
            "[" + values.prefix(8).map(\.shown).joined(separator: ", ") + (values.count > 8 ? ", …]" : "]")
        case .object(let members): "an object of \(members.count) keys"
        }
    }
}

/// Reads and checks the values of one object in a configuration file. A key that is null counts as missing.
struct ConfigurationReader {
    let file: String
    private let path: String
    private let members: [String: JSONValue]

    /// Reads a JSON file whose top is an object.
    init(directory: String, file: String) throws(ModelError) {
        let bytes = try ModelFolder.read(file, in: directory, limit: 4 << 20)
        try self.init(file: file, json: bytes)
    }

    /// Parses the bytes of a JSON file whose top is an object.
    init(file: String, json: [UInt8]) throws(ModelError) {
        let value: JSONValue
        do {
            value = try JSONDecoder().decode(JSONValue.self, from: Data(json))
        } catch {
            throw .badConfiguration(file: file, field: "the file", expected: "JSON", found: "not valid JSON")
        }
        guard case .object(let members) = value else {
            throw .badConfiguration(file: file, field: "the top", expected: "an object", found: value.shown)
        }
        self.init(file: file, members: members)
    }

    /// An object that has been parsed; `path` is what its keys are shown with.
    init(file: String, path: String = "", members: [String: JSONValue]) {
        self.file = file
        self.path = path
        self.members = members
    }

    /// The error for one of this object's keys.
    func bad(_ key: String, expected: String, found: String) -> ModelError {
        .badConfiguration(file: file, field: path + key, expected: expected, found: found)
    }

    private func value(_ key: String) -> JSONValue? {
        guard let value = members[key], value != .null else { return nil }
        return value
    }

    /// A model of another kind is told apart from a damaged file.
    func checkArchitecture(_ key: String, _ expected: String) throws(ModelError) {
        guard value(key) == .string(expected) else {
            throw .wrongArchitecture(
                file: file, field: key, expected: ModelError.quoted(expected), found: value(key)?.shown ?? "missing")
        }
    }

    func section(_ key: String, orEmpty: Bool = false) throws(ModelError) -> ConfigurationReader {
        switch value(key) {
        case .object(let inner):
            return ConfigurationReader(file: file, path: path + key + ".", members: inner)
        case nil where orEmpty:
            return ConfigurationReader(file: file, path: path + key + ".", members: [:])
        case let other:
            throw bad(key, expected: "an object", found: other?.shown ?? "missing")
        }
    }

    func has(_ key: String) -> Bool { value(key) != nil }

    func integer(_ key: String, default fallback: Int? = nil, in range: ClosedRange<Int>) throws(ModelError) -> Int {
        try integer(key, fallback, range, "an integer from \(range.lowerBound) to \(range.upperBound)")
    }

    /// A row of a table whose size another key states.
    func id(_ key: String, default fallback: Int, below size: (key: String, value: Int)) throws(ModelError) -> Int32 {
        Int32(try integer(key, fallback, 0...(size.value - 1), Self.idBelow(size)))
    }

    private static func idBelow(_ size: (key: String, value: Int)) -> String { "an id below \(size.key) \(size.value)" }

    private func integer(
        _ key: String, _ fallback: Int?, _ range: ClosedRange<Int>, _ expected: String
    ) throws(ModelError) -> Int {
        switch value(key) {
        case .integer(let found) where range.contains(found): return found
        case .number(let found) where found == found.rounded() && abs(found) < 1e15 && range.contains(Int(found)):
            return Int(found)
        case nil:
            if let fallback, range.contains(fallback) { return fallback }
            throw bad(key, expected: expected, found: "missing" + (fallback.map { ", by default \($0)" } ?? ""))
        case let other?: throw bad(key, expected: expected, found: other.shown)
        }
    }

    func number(_ key: String, default fallback: Double, in range: ClosedRange<Double>) throws(ModelError) -> Double {
        let expected = "a number from \(range.lowerBound) to \(range.upperBound)"
        let found: Double
        switch value(key) {
        case .integer(let value): found = Double(value)
        case .number(let value): found = value
        case nil: found = fallback
        case let other?: throw bad(key, expected: expected, found: other.shown)
        }
        guard range.contains(found) else { throw bad(key, expected: expected, found: "\(found)") }
        return found
    }

    func boolean(_ key: String, default fallback: Bool) throws(ModelError) -> Bool {
        switch value(key) {
        case .bool(let value): return value
        case nil: return fallback
        case let other?: throw bad(key, expected: "true or false", found: other.shown)
        }
    }

    func optionalString(_ key: String) throws(ModelError) -> String? {
        switch value(key) {
        case .string(let value): return value
        case nil: return nil
        case let other?: throw bad(key, expected: "a string", found: other.shown)
        }
    }

    func string(_ key: String) throws(ModelError) -> String {
        guard let value = try optionalString(key) else { throw bad(key, expected: "a string", found: "missing") }
        return value
    }

    /// A list of at least one and at most 64 integers.
    func integers(_ key: String, default fallback: [Int], in range: ClosedRange<Int>) throws(ModelError) -> [Int] {
        let expected = "a list of 1 to 64 integers from \(range.lowerBound) to \(range.upperBound)"
        guard let found = value(key) else { return fallback }
        guard case .array(let values) = found, (1...64).contains(values.count) else {
            throw bad(key, expected: expected, found: found.shown)
        }
        var result: [Int] = []
        for value in values {
            guard case .integer(let number) = value, range.contains(number) else {
                throw bad(key, expected: expected, found: found.shown)
            }
            result.append(number)
        }
        return result
    }

    /// A map from lower-case name to id; an id may also be written as a list of one.
    func ids(_ key: String, below size: (key: String, value: Int)) throws(ModelError) -> [String: Int32] {
        guard let found = value(key) else { return [:] }
        guard case .object(let entries) = found else {
            throw bad(key, expected: "a map from name to id", found: found.shown)
        }
        var result: [String: Int32] = [:]
        for (name, entry) in entries {
            var id = entry
            if case .array(let list) = entry, list.count == 1 { id = list[0] }
            guard case .integer(let number) = id, (0..<size.value).contains(number) else {
                throw bad("\(key).\(name)", expected: Self.idBelow(size), found: entry.shown)
            }
            result[name.lowercased()] = Int32(number)
        }
        return result
    }

    /// A map from lower-case name to a string, `false` entries left out.
    func stringsOrFalse(_ key: String) throws(ModelError) -> [String: String] {
        guard let found = value(key) else { return [:] }
        guard case .object(let entries) = found else {
            throw bad(key, expected: "a map from name to false or a dialect", found: found.shown)
        }
        var result: [String: String] = [:]
        for (name, entry) in entries {
            switch entry {
            case .string(let value): result[name.lowercased()] = value.lowercased()
            case .bool(false), .null: break
            default: throw bad("\(key).\(name)", expected: "false or a dialect", found: entry.shown)
            }
        }
        return result
    }

    /// For switches and choices of which this engine implements one: anything else is refused, not ignored.
    func require(_ key: String, _ expected: JSONValue) throws(ModelError) {
        guard let found = value(key) else { return }
        guard found == expected else { throw bad(key, expected: expected.shown, found: found.shown) }
    }

    /// As ``require(_:_:)`` for every element of a list.
    func requireEach(_ key: String, _ expected: JSONValue) throws(ModelError) {
        guard let found = value(key) else { return }
        guard case .array(let values) = found, values.allSatisfy({ $0 == expected }) else {
            throw bad(key, expected: "a list of \(expected.shown)", found: found.shown)
        }
    }
}
