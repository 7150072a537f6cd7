import Tensors

/// What can be wrong with a model folder or with what a caller asks of the model.
///
/// Every case carries what was found and what was expected; ``description`` is one line for a person.
public enum ModelError: Error, Hashable, Sendable {
    /// A file the model needs is not there.
    case missingFile(path: String)
    /// A file is there but cannot be read: not a regular file, too big for what it should hold, no permission.
    case unreadable(path: String, reason: String)
    /// The folder holds another kind of model.
    case wrongArchitecture(file: String, field: String, expected: String, found: String)
    /// A value in a configuration file is missing, of the wrong type or out of bounds.
    case badConfiguration(file: String, field: String, expected: String, found: String)
    /// The tokenizer's files do not describe a Qwen2 byte-level BPE.
    case badTokenizer(file: String, problem: String)
    /// A tensor is missing, or its type or shape is not what the configuration asks for.
    case badTensor(name: String, expected: String, found: String)
    /// The model has no voice of this name.
    case unknownVoice(String, known: [String])
    /// The model does not offer this language.
    case unknownLanguage(String, known: [String])
    /// The model's kind does not do what was asked.
    case unsupported(String, by: ModelKind)
    /// Text, instruction and reference together need more positions than the model has.
    case textTooLong(positions: Int, limit: Int)
    /// A weights file is missing something or is damaged.
    case tensors(TensorError)
    /// A value given by the caller is not usable.
    case badInput(String)
}

extension ModelError: CustomStringConvertible {
    /// One line: what was wrong, what was expected, and what to do where that is known.
    public var description: String {
        switch self {
        case .missingFile(let path):
            "\(path) is missing: a model folder holds config.json, model.safetensors, vocab.json, merges.txt, "
                + "tokenizer_config.json and speech_tokenizer/"
        case .unreadable(let path, let reason):
            "cannot read \(path): \(reason)"
        case .wrongArchitecture(let file, let field, let expected, let found):
            "\(file) describes another model: \(field) is \(found), expected \(expected)"
        case .badConfiguration(let file, let field, let expected, let found):
            "\(file): \(field) is \(found), expected \(expected)"
        case .badTokenizer(let file, let problem):
            "\(file): \(problem)"
        case .badTensor(let name, let expected, let found):
            "tensor \(name) is \(found), expected \(expected)"
        case .unknownVoice(let name, let known):
            known.isEmpty
                ? "unknown voice \(Self.quoted(name)): this model has no named voices"
                : "unknown voice \(Self.quoted(name)): this model has \(known.joined(separator: ", "))"
        case .unknownLanguage(let name, let known):
            "unknown language \(Self.quoted(name)): this model has \(known.joined(separator: ", "))"
        case .unsupported(let what, let kind):
            "a \(kind.rawValue) model does not take \(what)"
        case .textTooLong(let positions, let limit):
            "the text is too long: with its prompt it takes \(positions) positions, the model has \(limit); "
                + "speak it in parts"
        case .tensors(let error): error.description
        case .badInput(let problem):
            problem
        }
    }

    /// A value from outside as it is shown in an error: on one line, in quotation marks, cut to 80 characters.
    static func quoted(_ text: String) -> String {
        var shown = "\""
        for (index, scalar) in text.unicodeScalars.prefix(81).enumerated() {
            if index == 80 {
                shown += "…"
            } else {
                shown += scalar.escaped(asASCII: false)
            }
        }
        return shown + "\""
    }
}
