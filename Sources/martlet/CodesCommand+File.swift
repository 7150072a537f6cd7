import ArgumentParser
import Experiments

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

/// Codec codes in a file.
struct CodeFile: Equatable {
    /// The codes, [frames, groups] frame by frame.
    let codes: [Int32]
    /// Codes of a frame.
    let groups: Int

    var frames: Int { codes.count / groups }

    /// How the file is written.
    enum Format {
        case safetensors, json

        /// By the name's ending.
        init(path: String) throws {
            if path.hasSuffix(".safetensors") {
                self = .safetensors
            } else if path.hasSuffix(".json") {
                self = .json
            } else {
                throw ValidationError("\(path) should end in .safetensors or .json: that says how codes are written.")
            }
        }
    }

    /// - Parameter codes: a whole number of frames, at least one.
    init(codes: [Int32], groups: Int) {
        precondition(groups > 0 && !codes.isEmpty && codes.count % groups == 0)
        self.codes = codes
        self.groups = groups
    }

    /// What a JSON file holds; more keys than these are welcome.
    private struct Document: Codable {
        let codes: [[Int32]]
    }

    /// Reads a file.
    init(path: String) throws {
        switch try Format(path: path) {
        case .safetensors:
            let record = try CodeRecord.read(file: path, tag: "")
            guard record.frames > 0 else { throw CommandError("\(path) has no frame of codes") }
            (codes, groups) = (record.codes, record.groups)
        case .json:
            let size = try? FileManager.default.attributesOfItem(atPath: path)[.size] as? Int
            if let size, size > CodeRecord.sizeLimit {
                throw CommandError("\(path) has \(size) bytes, at most \(CodeRecord.sizeLimit) are read")
            }
            let data = Data(try readFile(path))
            guard let document = try? JSONDecoder().decode(Document.self, from: data) else {
                throw CommandError("\(path) is not JSON of the form {\"codes\": [[1, 2, …], …]} with whole numbers")
            }
            guard let first = document.codes.first, !first.isEmpty,
                document.codes.allSatisfy({ $0.count == first.count })
            else { throw CommandError("\(path): the frames of 'codes' should be lists of equal length, at least one") }
            codes = document.codes.flatMap { $0 }
            groups = first.count
        }
    }

    /// Checks the codes against a codec.
    func check(groups expected: Int, codebookSize: Int) throws {
        guard groups == expected else {
            throw CommandError("the frames have \(groups) codes, the model's have \(expected)")
        }
        if let odd = codes.firstIndex(where: { $0 < 0 || $0 >= codebookSize }) {
            throw CommandError(
                "code \(odd % groups) of frame \(odd / groups) is \(codes[odd]), the model has 0 to \(codebookSize - 1)"
            )
        }
    }

    /// Writes the file whole or not at all.
    func write(to path: String) throws {
        switch try Format(path: path) {
        case .safetensors:
            try CodeRecord(tag: "", codes: codes, groups: groups).writeCodes(to: path)
        case .json:
            let rows = (0..<frames).map { Array(codes[($0 * groups)..<(($0 + 1) * groups)]) }
            let data = try JSONEncoder().encode(Document(codes: rows))
            try Self.write(data, to: path)
        }
    }

    private static func write(_ data: Data, to path: String) throws {
        let temporary = path + ".partial-\(getpid())"
        func failure() -> CommandError {
            let reason = String(cString: strerror(errno))
            unlink(temporary)
            return CommandError("cannot write \(path): \(reason)")
        }
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw failure() }
        var rest = data[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { pwrite(descriptor, $0.baseAddress, $0.count, off_t(rest.startIndex)) }
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else {
                let error = failure()
                close(descriptor)
                throw error
            }
            rest = rest.dropFirst(count)
        }
        guard close(descriptor) == 0, rename(temporary, path) == 0 else { throw failure() }
    }
}
