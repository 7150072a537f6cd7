/// What can go wrong while tensors are read, checked or written.
public enum TensorError: Error, Hashable, Sendable, CustomStringConvertible {
    /// A file that cannot be opened, mapped or read; `reason` is the system's own word.
    case unreadable(path: String, reason: String)
    /// A file that is not what its own header claims.
    case malformed(path: String, reason: String)
    /// A tensor that the model needs and the file lacks.
    case missing(name: String, path: String)
    /// A tensor of another shape or type than the configuration says.
    case mismatch(name: String, expected: String, found: String)
    /// A file that cannot be written; `reason` is the system's own word.
    case unwritable(path: String, reason: String)

    /// One line: what is wrong with which file or tensor.
    public var description: String {
        switch self {
        case .unreadable(let path, let reason): "cannot read \(path): \(reason)"
        case .malformed(let path, let reason): "\(path) is not a valid safetensors file: \(reason)"
        case .missing(let name, let path): "\(path) lacks the tensor '\(name)'"
        case .mismatch(let name, let expected, let found):
            "tensor '\(name)' should be \(expected), but the file has \(found)"
        case .unwritable(let path, let reason): "cannot write \(path): \(reason)"
        }
    }
}
