/// The members of a request's JSON object, read by name; what is wrong is named in the error. Unknown ones are ignored.
struct RequestFields: Sendable {
    private let members: [String: JSONValue]

    /// - Throws: if `value` is no object.
    init(_ value: JSONValue) throws(APIError) {
        guard case .object(let members) = value else {
            throw .invalid(nil, "the request is \(value.kind), expected a JSON object", code: "invalid_type")
        }
        self.members = members
    }

    /// Its value; nil if it is missing or null.
    subscript(_ name: String) -> JSONValue? {
        guard let value = members[name], value != .null else { return nil }
        return value
    }

    /// The first that is there of several names for one field.
    func string(_ names: String...) throws(APIError) -> String? {
        for name in names {
            if let value = try read(name, expected: "a string", \.string) { return value }
        }
        return nil
    }

    func bool(_ name: String) throws(APIError) -> Bool? {
        try read(name, expected: "true or false", \.bool)
    }

    func number(_ name: String, in range: ClosedRange<Double>) throws(APIError) -> Double? {
        guard let value = try read(name, expected: "a number", \.double) else { return nil }
        guard range.contains(value) else {
            throw .invalid(name, "\(name) is \(value), expected \(range.lowerBound) to \(range.upperBound)")
        }
        return value
    }

    func integer(_ name: String, in range: ClosedRange<Int>) throws(APIError) -> Int? {
        guard let value = try read(name, expected: "an integer", \.int) else { return nil }
        guard range.contains(value) else {
            throw .invalid(
                name,
                range.upperBound == .max
                    ? "\(name) is \(value), expected at least \(range.lowerBound)"
                    : "\(name) is \(value), expected \(range.lowerBound) to \(range.upperBound)")
        }
        return value
    }

    func unsigned(_ name: String) throws(APIError) -> UInt64? {
        if case .unsigned(let value) = self[name] { return value }
        return try integer(name, in: 0...Int.max).map { UInt64($0) }
    }

    /// One of the raw values of `type`, whatever the case of its letters.
    func choice<Choice: RawRepresentable<String> & CaseIterable>(
        _ name: String, of type: Choice.Type
    ) throws(APIError) -> Choice? {
        guard let text = try string(name) else { return nil }
        if let choice = type.allCases.first(where: { $0.rawValue.lowercased() == text.lowercased() }) { return choice }
        let known = type.allCases.map(\.rawValue).joined(separator: ", ")
        throw .invalid(name, "\(name) is \(text.prefix(40).debugDescription), expected one of \(known)")
    }

    private func read<Value>(
        _ name: String, expected: String, _ value: (JSONValue) -> Value?
    ) throws(APIError) -> Value? {
        guard let found = self[name] else { return nil }
        guard let value = value(found) else {
            throw .invalid(name, "\(name) is \(found.kind), expected \(expected)", code: "invalid_type")
        }
        return value
    }
}
