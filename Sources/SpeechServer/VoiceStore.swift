import Qwen3TTS
import Synchronization

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif
#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A voice that a client has uploaded.
struct SavedVoice: Sendable {
    /// As it is named in requests: lower case.
    let name: String
    let prompt: ClonePrompt
    /// Seconds since 1970.
    let createdAt: Int
}

/// The voices that clients have uploaded, in a folder of the model that they were made for.
///
/// A voice is two files, `NAME.voice` with the clone prompt and `NAME.wav` with the recording; both get their names when
/// both are whole. Names are letters, digits,
/// `-` and `_`, so that none can leave the folder, and lower case, as some file systems do not tell cases apart.
final class VoiceStore: Sendable {
    private let directory: String?
    private let limit: Int
    private let voices: Mutex<[String: SavedVoice]>
    /// Files that were there and could not be used, and why.
    let problems: [String]

    /// Reads what earlier runs have saved.
    /// - Parameters:
    ///   - directory: the folder of all models' voices, made when first needed; nil keeps none.
    ///   - identity: the model's, see `ModelIdentity`.
    ///   - limit: voices at most.
    init(directory: String?, identity: String, limit: Int) {
        self.limit = limit
        self.directory = directory.map { $0 + "/" + identity }
        var found: [String: SavedVoice] = [:]
        var problems: [String] = []
        if let folder = self.directory {
            let files = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
            for file in files.sorted() where file.hasSuffix(".voice") && found.count < limit {
                let name = String(file.dropLast(".voice".count))
                guard Self.isValid(name) else { continue }
                let path = folder + "/" + file
                do {
                    let prompt = try ClonePrompt.load(from: path, expectedIdentity: identity)
                    found[name] = SavedVoice(name: name, prompt: prompt, createdAt: Self.modificationTime(path))
                } catch {
                    problems.append("\(error)")
                }
            }
        }
        voices = Mutex(found)
        self.problems = problems
    }

    /// Whether uploads can be kept.
    var takesVoices: Bool { directory != nil }

    /// Sorted.
    var names: [String] { voices.withLock { $0.keys.sorted() } }

    /// Sorted by name.
    var all: [SavedVoice] { voices.withLock { $0.values.sorted { $0.name < $1.name } } }

    /// The voice of that name, whatever the case of its letters.
    subscript(_ name: String) -> SavedVoice? { voices.withLock { $0[name.lowercased()] } }

    /// Whether a name can be one: 1 to 64 of `a-z`, `0-9`, `-` and `_`, beginning with a letter or digit.
    static func isValid(_ name: String) -> Bool {
        let bytes = Array(name.utf8)
        guard (1...64).contains(bytes.count), bytes[0] != UInt8(ascii: "-"), bytes[0] != UInt8(ascii: "_") else {
            return false
        }
        return bytes.allSatisfy {
            switch $0 {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"),
                UInt8(ascii: "_"):
                true
            default: false
            }
        }
    }

    /// Saves a voice, replacing one of the same name. Writes files: not for an event loop.
    func save(name: String, prompt: ClonePrompt, recording: [UInt8]) throws(APIError) -> SavedVoice {
        guard let directory else {
            throw .invalid(nil, "this server keeps no voices: start it with --voices-dir", code: "unsupported_value")
        }
        let name = name.lowercased()
        guard Self.isValid(name) else {
            throw .invalid(
                "name", "a voice's name is 1 to 64 letters, digits, '-' and '_', and begins with a letter or digit")
        }
        guard voices.withLock({ $0[name] != nil || $0.count < limit }) else {
            throw .invalid("name", "\(limit) voices are kept already: delete one first", code: "too_many_voices")
        }
        let place = directory + "/" + name
        do {
            try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
            try Data(recording).write(to: URL(filePath: place + ".wav.new"))
            try prompt.save(to: place + ".voice.new")
            for suffix in [".wav", ".voice"] where rename(place + suffix + ".new", place + suffix) != 0 {
                throw POSIXError(POSIXErrorCode(rawValue: errno) ?? .EIO)
            }
        } catch {
            for suffix in [".wav.new", ".voice.new"] { unlink(place + suffix) }
            let isFull = Self.isOutOfSpace(error)
            var refusal = APIError.server(
                "the voice cannot be saved: \(isFull ? "there is no space for it" : "the server's log says more")",
                detail: "the voice \(name) cannot be saved: \(error)")
            refusal.status = isFull ? .init(code: 507, reasonPhrase: "Insufficient Storage") : .internalServerError
            throw refusal
        }
        let voice = SavedVoice(
            name: name, prompt: prompt, createdAt: Self.modificationTime(place + ".voice"))
        voices.withLock { $0[name] = voice }
        return voice
    }

    /// Whether a disk is full, a quota is used up, or a file would exceed the limit on sizes.
    private static func isOutOfSpace(_ error: any Error) -> Bool {
        let codes = [ENOSPC, EDQUOT, EFBIG]
        if let error = error as? CocoaError {
            let underlying = (error.underlying as? POSIXError)?.code.rawValue
            return error.code == .fileWriteOutOfSpace || underlying.map { codes.contains($0) } ?? false
        }
        return codes.contains { "\(error)".contains(String(cString: strerror($0))) }
    }

    /// Removes a voice and its files; false if there is none of that name.
    func delete(_ name: String) throws(APIError) -> Bool {
        let name = name.lowercased()
        guard let directory, voices.withLock({ $0.removeValue(forKey: name) }) != nil else { return false }
        do {
            try FileManager.default.removeItem(atPath: directory + "/" + name + ".voice")
        } catch {
            throw .server("the voice's file cannot be removed: \(error)")
        }
        // Voices of other origin have no recording.
        try? FileManager.default.removeItem(atPath: directory + "/" + name + ".wav")
        return true
    }

    private static func modificationTime(_ path: String) -> Int {
        let attributes = try? FileManager.default.attributesOfItem(atPath: path)
        return (attributes?[.modificationDate] as? Date).map { Int($0.timeIntervalSince1970) } ?? 0
    }
}
