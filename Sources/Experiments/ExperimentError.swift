public import Qwen3TTS
public import Tensors

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Why an experiment could not be made.
public enum ExperimentError: Error, Sendable, CustomStringConvertible {
    /// A file that an experiment needs cannot be read, or one that it makes cannot be written.
    case file(path: String, reason: String)
    /// A file is there but does not hold what it should.
    case malformed(path: String, reason: String)
    /// The model refused.
    case model(ModelError)
    /// A checkpoint or recording of codes is damaged.
    case tensors(TensorError)
    /// A server cannot be used or gave something else.
    case server(url: String, reason: String)
    /// A setting makes no sense.
    case badSetting(String)

    /// One line for a person.
    public var description: String {
        switch self {
        case .file(let path, let reason): "\(path): \(reason)"
        case .malformed(let path, let reason): "\(path) is not what was expected: \(reason)"
        case .model(let error): error.description
        case .tensors(let error): error.description
        case .server(let url, let reason): "\(url): \(reason)"
        case .badSetting(let problem): problem
        }
    }

    /// Runs `body`, whose errors get the words of an experiment.
    static func wrap<Value>(_ path: String, _ body: () throws -> Value) throws(ExperimentError) -> Value {
        do { return try body() } catch let error as ExperimentError { throw error } catch let error as ModelError {
            throw .model(error)
        } catch let error as TensorError { throw .tensors(error) } catch let error as DecodingError {
            throw .malformed(path: path, reason: error.place)
        } catch { throw .file(path: path, reason: (error as? CocoaError)?.word ?? "\(error)") }
    }
}

extension DecodingError {
    /// What is wrong and where, on one line.
    fileprivate var place: String {
        let context: Context
        switch self {
        case .typeMismatch(_, let c), .valueNotFound(_, let c), .dataCorrupted(let c): context = c
        case .keyNotFound(let key, let c):
            return "the key \(key.stringValue) is missing in \(c.codingPath.map(\.stringValue).joined(separator: "."))"
        @unknown default: return "\(self)"
        }
        let at = context.codingPath.map(\.stringValue).joined(separator: ".")
        return at.isEmpty ? context.debugDescription : "\(at): \(context.debugDescription)"
    }
}

extension CocoaError {
    /// The system's word for a file error.
    fileprivate var word: String {
        switch code {
        case .fileNoSuchFile, .fileReadNoSuchFile: "no such file"
        case .fileReadNoPermission, .fileWriteNoPermission: "permission denied"
        case .fileWriteOutOfSpace: "no space left on the disk"
        default: underlying.map { "\($0)" } ?? "file error \(code.rawValue)"
        }
    }
}

/// Reads a JSON file.
func readJSON<Value: Decodable>(_ type: Value.Type, _ path: String) throws(ExperimentError) -> Value {
    try ExperimentError.wrap(path) {
        try JSONDecoder().decode(type, from: Data(contentsOf: URL(fileURLWithPath: path)))
    }
}
