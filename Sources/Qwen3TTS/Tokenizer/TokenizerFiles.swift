#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// The contents of `vocab.json`, `merges.txt` and `tokenizer_config.json`, checked.
struct TokenizerFiles {
    /// A token that is matched as a whole string instead of being made by merges.
    struct ControlToken: Sendable {
        var text: String
        var scalars: [UInt32]
        var id: Int32
    }

    var vocabulary: Vocabulary
    var merges: BytePairMerges
    /// Sorted by id.
    var controlTokens: [ControlToken]

    private static let limit = 64 << 20

    init(directory: String) throws(ModelError) {
        try self.init(
            vocabulary: ModelFolder.read("vocab.json", in: directory, limit: Self.limit),
            merges: ModelFolder.read("merges.txt", in: directory, limit: Self.limit),
            settings: ModelFolder.read("tokenizer_config.json", in: directory, limit: Self.limit))
    }

    init(vocabulary: [UInt8], merges: [UInt8], settings: [UInt8]) throws(ModelError) {
        self.vocabulary = try Vocabulary(json: vocabulary)
        self.controlTokens = try Self.controlTokens(settings, self.vocabulary)
        self.merges = try Self.merges(merges, self.vocabulary, controlTokens)
    }

    private struct Settings: Decodable {
        struct AddedToken: Decodable {
            var content: String
            var lstrip, rstrip, single_word, normalized: Bool?
        }
        var added_tokens_decoder: [String: AddedToken]?
        var add_prefix_space, add_bos_token, add_eos_token: Bool?
        var tokenizer_class: String?
    }

    private static func controlTokens(
        _ settings: [UInt8], _ vocabulary: Vocabulary
    ) throws(ModelError) -> [ControlToken] {
        func bad(_ problem: String) -> ModelError { .badTokenizer(file: "tokenizer_config.json", problem: problem) }
        guard let parsed = try? JSONDecoder().decode(Settings.self, from: Data(settings)) else {
            throw bad("not valid JSON, or a value has the wrong type")
        }
        if let name = parsed.tokenizer_class, name != "Qwen2Tokenizer", name != "Qwen2TokenizerFast" {
            throw bad("tokenizer_class is \(ModelError.quoted(name)), expected \"Qwen2Tokenizer\"")
        }
        if parsed.add_prefix_space == true || parsed.add_bos_token == true || parsed.add_eos_token == true {
            throw bad("add_prefix_space, add_bos_token and add_eos_token have to be false")
        }
        var tokens: [ControlToken] = []
        var seen: Set<String> = []
        for (key, token) in parsed.added_tokens_decoder ?? [:] {
            guard let id = Int32(key), (0..<Vocabulary.idLimit).contains(id) else {
                throw bad("added token id \(ModelError.quoted(key)) is not a number below \(Vocabulary.idLimit)")
            }
            let shown = ModelError.quoted(token.content)
            guard !token.content.isEmpty, token.content.utf8.count <= 1024 else {
                throw bad("added token \(id) is empty or longer than 1024 bytes")
            }
            if [token.lstrip, token.rstrip, token.single_word, token.normalized].contains(true) {
                throw bad("added token \(shown): lstrip, rstrip, single_word and normalized have to be false")
            }
            guard seen.insert(token.content).inserted else { throw bad("added token \(shown) occurs twice") }
            if let other = vocabulary.bytes(of: id), !other.elementsEqual(token.content.utf8) {
                throw bad("added token \(shown) has id \(id), which vocab.json gives to another token")
            }
            tokens.append(
                ControlToken(text: token.content, scalars: token.content.unicodeScalars.map(\.value), id: id))
        }
        return tokens.sorted { $0.id < $1.id }
    }

    private static func merges(
        _ text: [UInt8], _ vocabulary: Vocabulary, _ controlTokens: [ControlToken]
    ) throws(ModelError) -> BytePairMerges {
        func bad(_ problem: String) -> ModelError { .badTokenizer(file: "merges.txt", problem: problem) }
        var byteTokens: [Int32] = []
        for byte in UInt8.min...UInt8.max {
            guard let id = vocabulary.id(of: [byte]) else {
                throw .badTokenizer(file: "vocab.json", problem: "there is no token for byte \(byte)")
            }
            byteTokens.append(id)
        }
        let controlIds = Set(controlTokens.map(\.id))
        let lines = text.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
        var merges: [BytePairMerges.Merge] = []
        merges.reserveCapacity(lines.count)
        var pair: [UInt8] = []
        for (index, whole) in lines.enumerated() {
            let line = whole.last == UInt8(ascii: "\r") ? whole.dropLast() : whole
            if line.isEmpty || (index == 0 && line.starts(with: "#version:".utf8)) { continue }
            guard let blank = line.firstIndex(of: UInt8(ascii: " ")) else {
                throw bad("line \(index + 1) is not two tokens with a blank between them")
            }
            pair.removeAll(keepingCapacity: true)
            guard vocabulary.appendBytes(of: line[..<blank], to: &pair), case let middle = pair.count, middle > 0,
                vocabulary.appendBytes(of: line[(blank + 1)...], to: &pair), pair.count > middle
            else { throw bad("line \(index + 1) is not two byte-level tokens with a blank between them") }
            guard let left = vocabulary.id(of: pair[..<middle]), let right = vocabulary.id(of: pair[middle...]),
                let merged = vocabulary.id(of: pair[...])
            else { throw bad("line \(index + 1) names a token that is not in vocab.json") }
            // Otherwise text could spell a control token.
            guard !controlIds.contains(merged) else {
                throw bad("line \(index + 1) makes the added token \(merged) out of ordinary text")
            }
            merges.append(BytePairMerges.Merge(left: left, right: right, merged: merged))
        }
        return BytePairMerges(byteTokens: byteTokens, merges: merges)
    }
}

/// Byte-level tokens and their ids, from `vocab.json`.
struct Vocabulary: Sendable {
    /// Ids are below this.
    static let idLimit: Int32 = 1 << 21

    /// The bytes of all tokens, one after the other.
    private var storage: [UInt8] = []
    /// Where the token with an id lies in ``storage``; empty for ids that vocab.json does not give.
    private var places: [Range<UInt32>] = []
    /// Open addressing by bytes: lower half of the hash · 2³² + id; all ones where empty.
    private var table: [UInt64] = []
    /// The highest id, or -1.
    var highestId: Int32 { Int32(places.count) - 1 }

    init(json: [UInt8]) throws(ModelError) {
        try json.withUnsafeBufferPointer { buffer throws(ModelError) in
            var parser = VocabularyParser(text: buffer)
            try parser.parse()
            storage = parser.storage
            guard let highest = parser.entries.map(\.id).max() else { throw parser.bad("there are no tokens") }
            places = Array(repeating: 0..<0, count: Int(highest) + 1)
            var size = 16
            while size < parser.entries.count * 2 { size *= 2 }
            table = Array(repeating: .max, count: size)
            for entry in parser.entries {
                guard places[Int(entry.id)].isEmpty else { throw parser.bad("id \(entry.id) occurs twice") }
                places[Int(entry.id)] = entry.place
                // Tokens with other characters than those that stand for bytes cannot be made from text.
                guard entry.isByteLevel else { continue }
                let hash = Self.hash(bytes(of: entry.id)!)
                let slot = slot(of: bytes(of: entry.id)!, hash: hash)
                guard table[slot] == .max else {
                    throw parser.bad("tokens \(UInt32(truncatingIfNeeded: table[slot])) and \(entry.id) are the same")
                }
                table[slot] = hash << 32 | UInt64(entry.id)
            }
        }
    }

    private static func hash(_ bytes: ArraySlice<UInt8>) -> UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        bytes.withUnsafeBufferPointer { for byte in $0 { hash = (hash ^ UInt64(byte)) &* 0x9E37_79B9_7F4A_7C15 } }
        return (hash ^ hash >> 32) &* 0xD6E8_FEB8_6659_FD93
    }

    private func slot(of bytes: ArraySlice<UInt8>, hash: UInt64) -> Int {
        var slot = Int(truncatingIfNeeded: hash >> 32) & (table.count - 1)
        while case let entry = table[slot], entry != .max {
            if entry >> 32 == hash & 0xFFFF_FFFF, self.bytes(of: Int32(truncatingIfNeeded: entry)) == bytes { break }
            slot = (slot + 1) & (table.count - 1)
        }
        return slot
    }

    /// The id of a byte-level token.
    func id(of bytes: ArraySlice<UInt8>) -> Int32? {
        let entry = table[slot(of: bytes, hash: Self.hash(bytes))]
        return entry == .max ? nil : Int32(truncatingIfNeeded: entry)
    }

    /// The bytes of a token; nil if vocab.json has no such id.
    func bytes(of id: Int32) -> ArraySlice<UInt8>? {
        guard places.indices.contains(Int(id)), case let place = places[Int(id)], !place.isEmpty else { return nil }
        return storage[Int(place.lowerBound)..<Int(place.upperBound)]
    }

    /// Appends the bytes that a token written in byte-level characters stands for; false if it has other characters.
    func appendBytes(of written: ArraySlice<UInt8>, to bytes: inout [UInt8]) -> Bool {
        let table = ByteCharacters.table
        var index = written.startIndex
        while index < written.endIndex {
            var scalar = UInt32(written[index])
            index += 1
            if scalar >= 0xC0 {
                guard scalar < 0xE0, index < written.endIndex, written[index] & 0xC0 == 0x80 else { return false }
                scalar = (scalar & 0x1F) << 6 | UInt32(written[index] & 0x3F)
                index += 1
            }
            guard let byte = table.byte(scalar) else { return false }
            bytes.append(byte)
        }
        return true
    }
}

/// The characters that stand for bytes in `vocab.json` and `merges.txt` (GPT-2's table): a printable one for itself,
/// the others for U+0100 upward.
struct ByteCharacters {
    static let table = ByteCharacters()

    private let bytes: [Int16]

    private init() {
        var bytes = [Int16](repeating: -1, count: 0x144)
        var next = 0x100
        for byte in 0..<256 {
            switch byte {
            case 33...126, 161...172, 174...255: bytes[byte] = Int16(byte)
            default:
                bytes[next] = Int16(byte)
                next += 1
            }
        }
        self.bytes = bytes
    }

    /// The byte that a character stands for.
    func byte(_ scalar: UInt32) -> UInt8? {
        guard scalar < 0x144, case let byte = bytes[Int(scalar)], byte >= 0 else { return nil }
        return UInt8(byte)
    }
}

/// Reads `vocab.json`: one object from token to id. A general JSON decoder takes seconds for 151 643 keys.
private struct VocabularyParser {
    struct Entry {
        var id: Int32
        var place: Range<UInt32>
        var isByteLevel: Bool
    }

    var storage: [UInt8] = []
    var entries: [Entry] = []
    private let text: UnsafeBufferPointer<UInt8>
    private var position = 0
    private let characters = ByteCharacters.table
    /// The token being read.
    private var scalars: [UInt32] = []

    init(text: UnsafeBufferPointer<UInt8>) {
        self.text = text
        storage.reserveCapacity(text.count / 2)
    }

    func bad(_ problem: String) -> ModelError { .badTokenizer(file: "vocab.json", problem: problem) }

    private func malformed(_ expected: String) -> ModelError { bad("expected \(expected) at byte \(position)") }

    private var next: UInt8? { position < text.count ? text[position] : nil }

    private mutating func skipSpace() {
        while let byte = next, byte == 0x20 || (0x09...0x0D).contains(byte) { position += 1 }
    }

    private mutating func accept(_ character: Unicode.Scalar) -> Bool {
        skipSpace()
        guard next == UInt8(ascii: character) else { return false }
        position += 1
        return true
    }

    mutating func parse() throws(ModelError) {
        guard accept("{") else { throw malformed("{") }
        if !accept("}") {
            repeat {
                guard accept("\"") else { throw malformed("a token in quotation marks") }
                let (place, isByteLevel) = try token()
                guard accept(":") else { throw malformed(":") }
                entries.append(Entry(id: try number(), place: place, isByteLevel: isByteLevel))
            } while accept(",")
            guard accept("}") else { throw malformed(", or }") }
        }
        skipSpace()
        guard position == text.count else { throw malformed("the end") }
    }

    private mutating func number() throws(ModelError) -> Int32 {
        skipSpace()
        var value: Int32 = 0
        let start = position
        while let byte = next, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) {
            value = value * 10 + Int32(byte - UInt8(ascii: "0"))
            position += 1
            guard value < Vocabulary.idLimit else { throw malformed("an id below \(Vocabulary.idLimit)") }
        }
        guard position > start else { throw malformed("an id") }
        return value
    }

    /// Reads a string after its opening mark. Appends its bytes, or its UTF-8 where it is not written in byte-level
    /// characters.
    private mutating func token() throws(ModelError) -> (place: Range<UInt32>, isByteLevel: Bool) {
        let start = storage.count
        var isByteLevel = true
        scalars.removeAll(keepingCapacity: true)
        while true {
            guard let byte = next else { throw malformed("the end of a token") }
            position += 1
            let scalar: UInt32
            switch byte {
            case UInt8(ascii: "\""):
                guard !scalars.isEmpty else { throw malformed("a token that is not empty") }
                if isByteLevel {
                    for scalar in scalars { storage.append(characters.byte(scalar)!) }
                } else {
                    for scalar in scalars { storage.append(contentsOf: UTF8.encode(Unicode.Scalar(scalar)!)!) }
                }
                return (UInt32(start)..<UInt32(storage.count), isByteLevel)
            case UInt8(ascii: "\\"): scalar = try escaped()
            case ..<0x20: throw malformed("a token without control characters")
            case ..<0x80: scalar = UInt32(byte)
            default: scalar = try multibyte(byte)
            }
            if isByteLevel, characters.byte(scalar) == nil { isByteLevel = false }
            scalars.append(scalar)
        }
    }

    private mutating func multibyte(_ lead: UInt8) throws(ModelError) -> UInt32 {
        let length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2
        guard lead >= 0xC2, position + length - 1 <= text.count else { throw malformed("UTF-8") }
        var scalar = UInt32(lead) & (length == 2 ? 0x1F : length == 3 ? 0x0F : 0x07)
        for _ in 1..<length {
            guard text[position] & 0xC0 == 0x80 else { throw malformed("UTF-8") }
            scalar = scalar << 6 | UInt32(text[position] & 0x3F)
            position += 1
        }
        guard Unicode.Scalar(scalar) != nil, UTF8.width(Unicode.Scalar(scalar)!) == length else {
            throw malformed("UTF-8")
        }
        return scalar
    }

    private mutating func escaped() throws(ModelError) -> UInt32 {
        guard let byte = next else { throw malformed("the end of a token") }
        position += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return UInt32(byte)
        case UInt8(ascii: "b"): return 0x08
        case UInt8(ascii: "f"): return 0x0C
        case UInt8(ascii: "n"): return 0x0A
        case UInt8(ascii: "r"): return 0x0D
        case UInt8(ascii: "t"): return 0x09
        case UInt8(ascii: "u"):
            let unit = try hexadecimal()
            if UTF16.isLeadSurrogate(unit) {
                guard next == UInt8(ascii: "\\") else { throw malformed("the second half of a surrogate pair") }
                position += 1
                guard next == UInt8(ascii: "u") else { throw malformed("the second half of a surrogate pair") }
                position += 1
                let second = try hexadecimal()
                guard UTF16.isTrailSurrogate(second) else { throw malformed("the second half of a surrogate pair") }
                return 0x10000 + (UInt32(unit) - 0xD800) << 10 + (UInt32(second) - 0xDC00)
            }
            guard !UTF16.isTrailSurrogate(unit) else { throw malformed("the first half of a surrogate pair") }
            return UInt32(unit)
        default: throw malformed("an escape that JSON has")
        }
    }

    private mutating func hexadecimal() throws(ModelError) -> UInt16 {
        var value: UInt16 = 0
        for _ in 0..<4 {
            guard let byte = next, let digit = Character(Unicode.Scalar(byte)).hexDigitValue else {
                throw malformed("four hexadecimal digits")
            }
            value = value << 4 | UInt16(digit)
            position += 1
        }
        return value
    }
}
