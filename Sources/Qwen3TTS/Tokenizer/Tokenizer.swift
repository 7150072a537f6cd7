/// Whether the control tokens of the model (`<|im_end|>`, `<tts_pad>`, …) are recognised in text.
public enum ControlTokens: String, Hashable, Sendable, Codable {
    /// Their spelling is ordinary text: a caller cannot steer the model with it.
    case plainText
    /// Their spelling makes the control token, as in the Python reference.
    case recognized
}

/// Qwen2's byte-level BPE: text to token ids (section 2.1).
///
/// Text is cut at control tokens if they are recognised, brought into Unicode form C, cut into pieces (words with the
/// blank before them, single digits, punctuation, white space), and each piece's bytes are merged. Nothing is added
/// before or after.
public struct Tokenizer: Sendable {
    let tables: TokenizerTables

    /// Reads `vocab.json`, `merges.txt` and `tokenizer_config.json`.
    ///
    /// - Parameter directory: path of the model folder.
    /// - Throws: ``ModelError/missingFile(path:)``, ``ModelError/unreadable(path:reason:)`` or
    ///   ``ModelError/badTokenizer(file:problem:)``.
    public init(directory: String) throws(ModelError) {
        tables = try TokenizerTables(TokenizerFiles(directory: directory))
    }

    init(vocabulary: [UInt8], merges: [UInt8], settings: [UInt8]) throws(ModelError) {
        tables = try TokenizerTables(TokenizerFiles(vocabulary: vocabulary, merges: merges, settings: settings))
    }

    /// Ids are below this.
    public var idLimit: Int { Int(max(tables.vocabulary.highestId, tables.controlTokens.last?.id ?? -1)) + 1 }

    /// The id of a control token by its spelling, or nil.
    public func id(ofControlToken text: String) -> Int32? { tables.controlIds[text] }

    /// Token ids of a text.
    public func encode(_ text: String, controlTokens: ControlTokens = .plainText) -> [Int32] {
        var encoder = TokenEncoder(tables, controlTokens)
        var ids: [Int32] = []
        for scalar in text.unicodeScalars { encoder.append(scalar.value, to: &ids) }
        encoder.finish(to: &ids)
        return ids
    }

    /// The UTF-8 bytes of a token of text; none for control tokens and unknown ids.
    public func bytes(of id: Int32) -> [UInt8] { tables.vocabulary.bytes(of: id).map(Array.init) ?? [] }

    /// The text of token ids; bytes that are not UTF-8 and unknown ids become U+FFFD. For looking at prompts.
    public func decode(_ ids: some Sequence<Int32>) -> String {
        let control = Dictionary(tables.controlTokens.map { ($0.id, $0.text) }) { first, _ in first }
        var bytes: [UInt8] = []
        for id in ids {
            if let text = control[id] {
                bytes.append(contentsOf: text.utf8)
            } else if let token = tables.vocabulary.bytes(of: id) {
                bytes.append(contentsOf: token)
            } else {
                bytes.append(contentsOf: "\u{FFFD}".utf8)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

/// What a tokenizer knows, shared by its copies.
final class TokenizerTables: Sendable {
    let vocabulary: Vocabulary
    let merges: BytePairMerges
    let controlTokens: [TokenizerFiles.ControlToken]
    let controlIds: [String: Int32]
    /// First scalars of control tokens.
    let controlStarts: Set<UInt32>
    let startOfMessage: Int32
    let endOfMessage: Int32
    /// `assistant`, line break.
    let assistantRole: [Int32]

    init(_ files: TokenizerFiles) throws(ModelError) {
        vocabulary = files.vocabulary
        merges = files.merges
        controlTokens = files.controlTokens
        controlStarts = Set(controlTokens.map { $0.scalars[0] })
        controlIds = Dictionary(controlTokens.map { ($0.text, $0.id) }) { first, _ in first }
        guard let start = controlIds["<|im_start|>"], let end = controlIds["<|im_end|>"] else {
            throw .badTokenizer(
                file: "tokenizer_config.json", problem: "<|im_start|> and <|im_end|> are not among the added tokens")
        }
        startOfMessage = start
        endOfMessage = end
        var role: [Int32] = []
        merges.encode(Array("assistant".utf8)[...], into: &role)
        guard role.count == 1 else {
            throw .badTokenizer(
                file: "merges.txt", problem: "\"assistant\" makes \(role.count) tokens; the prompt needs it to be one")
        }
        merges.encode([UInt8(ascii: "\n")], into: &role)
        assistantRole = role
    }
}
