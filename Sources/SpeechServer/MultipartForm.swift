/// A body of `multipart/form-data` (RFC 7578).
struct MultipartForm: Sendable {
    private var parts: [String: [UInt8]] = [:]

    /// Parts at most.
    private static let maxParts = 64

    /// - Throws: if the body is not one.
    init(body: [UInt8], contentType: String) throws(APIError) {
        guard contentType.lowercased().hasPrefix("multipart/form-data"),
            let boundary = Self.parameter("boundary", of: contentType), (1...70).contains(boundary.utf8.count)
        else {
            throw .invalid(
                nil, "the content type is not multipart/form-data with a boundary", code: "invalid_content_type")
        }
        let delimiter = Array("--\(boundary)".utf8)
        let separator = [UInt8(ascii: "\r"), UInt8(ascii: "\n")] + delimiter
        let broken = APIError.invalid(nil, "the form is damaged or cut off", code: "invalid_form")
        // The first delimiter has a line's end before it only if there is a preamble.
        var position: Int
        if body.starts(with: delimiter) {
            position = delimiter.count
        } else if let start = Self.find(separator, in: body, from: 0) {
            position = start + separator.count
        } else {
            throw broken
        }
        let dashes: [UInt8] = [UInt8(ascii: "-"), UInt8(ascii: "-")]
        for _ in 0...Self.maxParts {
            if body[position...].starts(with: dashes) { return }
            guard let lineEnd = Self.find([13, 10], in: body, from: position),
                let end = Self.find(separator, in: body, from: lineEnd)
            else { throw broken }
            guard let headEnd = Self.find([13, 10, 13, 10], in: body, from: lineEnd), headEnd <= end else {
                throw broken
            }
            let head = String(decoding: body[lineEnd..<headEnd], as: UTF8.self)
            for line in head.split(whereSeparator: \.isNewline)
            where line.lowercased().hasPrefix("content-disposition:") {
                guard let name = Self.parameter("name", of: String(line)) else { continue }
                parts[name] = Array(body[min(headEnd + 4, end)..<end])
            }
            position = end + separator.count
        }
        throw .invalid(nil, "the form has more than \(Self.maxParts) parts", code: "invalid_form")
    }

    /// A part's bytes.
    subscript(_ name: String) -> [UInt8]? { parts[name] }

    /// A part as text; nil if it is none.
    func text(_ name: String) -> String? { parts[name].flatMap { String(validating: $0, as: UTF8.self) } }

    /// A parameter such as `; name="voice"`.
    private static func parameter(_ name: String, of header: String) -> String? {
        for part in header.split(separator: ";").dropFirst() {
            let pair = part.split(separator: "=", maxSplits: 1)
            guard pair.count == 2, pair[0].filter({ !$0.isWhitespace }).lowercased() == name else { continue }
            var value = pair[1][...]
            while value.first?.isWhitespace == true { value.removeFirst() }
            while value.last?.isWhitespace == true { value.removeLast() }
            if value.count >= 2, value.first == "\"", value.last == "\"" { value = value.dropFirst().dropLast() }
            return String(value)
        }
        return nil
    }

    /// Where `pattern` begins first at or after `start`.
    private static func find(_ pattern: [UInt8], in bytes: [UInt8], from start: Int) -> Int? {
        bytes.withUnsafeBufferPointer { bytes in
            pattern.withUnsafeBufferPointer { pattern in
                var index = start
                let last = bytes.count - pattern.count
                search: while index <= last {
                    guard bytes[index] == pattern[0] else {
                        index += 1
                        continue
                    }
                    for offset in 1..<max(1, pattern.count) where bytes[index + offset] != pattern[offset] {
                        index += 1
                        continue search
                    }
                    return index
                }
                return nil
            }
        }
    }
}
