/// What went wrong with an audio file: which file, what was found, what was expected.
public struct AudioFileError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The kinds of trouble a WAV file or its writing can give.
    public enum Problem: Equatable, Sendable {
        /// The file cannot be opened or read; the operating system's reason.
        case unreadable(String)
        /// The bytes are not a WAV file; what they look like instead.
        case notWAV(String)
        /// A WAV file of a kind that is not read (compressed, too many channels, an odd sample rate); what it is.
        case unsupported(String)
        /// The header contradicts itself or the format.
        case malformed(String)
        /// A chunk claims more bytes than the file has after the chunk's header.
        case truncated(chunk: String, stated: UInt64, present: UInt64)
        /// There is not one sample in it.
        case empty
        /// More audio than the caller allows, in frames (samples of one channel).
        case tooLong(frames: UInt64, limit: UInt64)
        /// A sample is NaN or infinite.
        case notFinite(frame: Int, channel: Int)
        /// The output cannot be created, written or renamed; the operating system's reason.
        case unwritable(String)
        /// The disk is full.
        case diskFull
        /// The reader of a pipe went away.
        case closedPipe
    }

    /// The file, where one is known.
    public var path: String?
    /// What was wrong.
    public var problem: Problem

    /// Makes an error about `path`, or about bytes in memory when it is nil.
    public init(path: String? = nil, _ problem: Problem) {
        self.path = path
        self.problem = problem
    }

    /// One line for people: the file, what was wrong, what to do.
    public var description: String {
        let text =
            switch problem {
            case .unreadable(let reason): "cannot be read: \(reason)"
            case .notWAV(let found): "is not a WAV file (\(found)); convert it to WAV first"
            case .unsupported(let found):
                "\(found) is not supported; use PCM of 8, 16, 24 or 32 bits or float of 32 or 64 bits"
            case .malformed(let reason): "is a damaged WAV file: \(reason)"
            case .truncated(let chunk, let stated, let present):
                "is a truncated WAV file: its '\(chunk)' chunk claims \(stated) bytes, \(present) are there"
            case .empty: "has no audio in it"
            case .tooLong(let frames, let limit): "is too long: \(frames) sample frames, at most \(limit) are allowed"
            case .notFinite(let frame, let channel):
                "has a sample that is not a number (frame \(frame), channel \(channel))"
            case .unwritable(let reason): "cannot be written: \(reason)"
            case .diskFull: "cannot be written: the disk is full"
            case .closedPipe: "cannot be written: its reader has gone"
            }
        return "\(path ?? "audio") \(text)"
    }
}
