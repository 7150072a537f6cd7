/// Tokenises a text that arrives in pieces.
///
/// Ids come out as soon as nothing that follows can change them; the ids of all calls together are those of
/// ``Tokenizer/encode(_:controlTokens:)`` for the whole text, however it was split, even inside a character.
/// Like the plain templates, it leaves out line breaks at the start of the text unless control tokens are recognised.
public struct IncrementalTokenizer: Sendable {
    private var encoder: TokenEncoder
    /// The start of a character whose other bytes have not arrived.
    private var partial: [UInt8] = []
    /// White space at the start of the text, or nil once something else came.
    private var leadingSpace: [UInt32]?
    private var byteCount = 0

    /// - Parameter controlTokens: whether control tokens are recognised in the text.
    public init(_ tokenizer: Tokenizer, controlTokens: ControlTokens = .plainText) {
        encoder = TokenEncoder(tokenizer.tables, controlTokens)
        leadingSpace = controlTokens == .plainText ? [] : nil
    }

    /// Takes more text; returns the ids that are now certain.
    ///
    /// - Throws: ``ModelError/badInput(_:)`` if bytes of an unfinished character are waiting.
    public mutating func append(_ text: String) throws(ModelError) -> [Int32] {
        try append(utf8: text.utf8)
    }

    /// Takes more text as UTF-8, cut anywhere; returns the ids that are now certain.
    ///
    /// - Throws: ``ModelError/badInput(_:)`` at the first byte that is not UTF-8. The text before it has been taken;
    ///   nothing can follow it.
    public mutating func append(utf8 bytes: some Sequence<UInt8>) throws(ModelError) -> [Int32] {
        var ids: [Int32] = []
        for byte in bytes {
            if partial.isEmpty, byte < 0x80 {
                take(UInt32(byte), to: &ids)
            } else {
                partial.append(byte)
                switch Self.state(of: partial) {
                case .complete(let scalar):
                    partial.removeAll(keepingCapacity: true)
                    take(scalar, to: &ids)
                case .incomplete: break
                case .invalid: throw .badInput("the text is not UTF-8: byte \(byteCount) cannot stand where it is")
                }
            }
            byteCount += 1
        }
        return ids
    }

    /// The text is complete; returns the rest of the ids.
    ///
    /// - Throws: ``ModelError/badInput(_:)`` if the text ends inside a character.
    public mutating func finish() throws(ModelError) -> [Int32] {
        guard partial.isEmpty else { throw .badInput("the text is not UTF-8: it ends inside a character") }
        var ids: [Int32] = []
        releaseLeadingSpace(to: &ids)
        encoder.finish(to: &ids)
        return ids
    }

    private mutating func take(_ scalar: UInt32, to ids: inout [Int32]) {
        if leadingSpace != nil {
            let kind = ScalarKind(scalar)
            if kind == .lineBreak {
                leadingSpace = []
                return
            }
            if kind == .space {
                leadingSpace?.append(scalar)
                return
            }
            releaseLeadingSpace(to: &ids)
        }
        encoder.append(scalar, to: &ids)
    }

    private mutating func releaseLeadingSpace(to ids: inout [Int32]) {
        for scalar in leadingSpace ?? [] { encoder.append(scalar, to: &ids) }
        leadingSpace = nil
    }

    private enum Decoded {
        case complete(UInt32), incomplete, invalid
    }

    /// What the bytes of one character say so far (The Unicode Standard, table 3-7).
    private static func state(of bytes: [UInt8]) -> Decoded {
        let length: Int
        var second: ClosedRange<UInt8> = 0x80...0xBF
        switch bytes[0] {
        case 0xC2...0xDF: length = 2
        case 0xE0: (length, second) = (3, 0xA0...0xBF)
        case 0xED: (length, second) = (3, 0x80...0x9F)
        case 0xE1...0xEF: length = 3
        case 0xF0: (length, second) = (4, 0x90...0xBF)
        case 0xF4: (length, second) = (4, 0x80...0x8F)
        case 0xF1...0xF3: length = 4
        default: return .invalid
        }
        if bytes.count > 1, !second.contains(bytes[1]) { return .invalid }
        if bytes.count > 2, bytes[bytes.count - 1] & 0xC0 != 0x80 { return .invalid }
        if bytes.count < length { return .incomplete }
        var scalar = UInt32(bytes[0]) & (0xFF >> UInt32(length + 1))
        for byte in bytes.dropFirst() { scalar = scalar << 6 | UInt32(byte & 0x3F) }
        return .complete(scalar)
    }
}
