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

/// Writes safetensors files: whole or not at all, by a temporary file beside the target that is renamed at the end.
public struct SafetensorsWriter {
    private struct Item {
        let name: String
        let type: DataType
        let shape: [Int]
        let data: Data
    }

    private var items: [Item] = []
    private let metadata: [String: String]

    /// An empty file with free-form `metadata`.
    public init(metadata: [String: String] = [:]) { self.metadata = metadata }

    /// Adds float32 `values` of that shape.
    public mutating func add(_ name: String, _ values: [Float], shape: [Int]) {
        precondition(shape.reduce(1, *) == values.count)
        items.append(Item(name: name, type: .float32, shape: shape, data: values.withUnsafeBytes { Data($0) }))
    }

    /// Adds `values` as int32.
    public mutating func add(_ name: String, _ values: [Int32], shape: [Int]) {
        precondition(shape.reduce(1, *) == values.count)
        items.append(Item(name: name, type: .int32, shape: shape, data: values.withUnsafeBytes { Data($0) }))
    }

    /// Adds raw bytes as U8 without copying them; `owner` keeps them alive.
    public mutating func add(_ name: String, bytes: UnsafeRawBufferPointer, owner: any AnyObject & Sendable) {
        let data = Data(
            bytesNoCopy: UnsafeMutableRawPointer(mutating: bytes.baseAddress.unsafelyUnwrapped), count: bytes.count,
            deallocator: .custom { _, _ in withExtendedLifetime(owner) {} })
        items.append(Item(name: name, type: .uint8, shape: [bytes.count], data: data))
    }

    private struct Entry: Encodable {
        let dtype: String
        let shape: [Int]
        let data_offsets: [Int]
    }

    /// The 8-byte length and the JSON header, padded so that the data starts at a multiple of 64 bytes.
    private func encodedHeader() -> Data {
        var header = "{"
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        func json(_ value: some Encodable) -> String {
            // Strings, integers and arrays of them always encode.
            String(decoding: (try? encoder.encode(value)) ?? Data(), as: UTF8.self)
        }
        if !metadata.isEmpty { header += "\"__metadata__\":\(json(metadata))," }
        var offset = 0
        for item in items {
            let entry = Entry(
                dtype: item.type.rawValue, shape: item.shape, data_offsets: [offset, offset + item.data.count])
            header += "\(json(item.name)):\(json(entry)),"
            offset += item.data.count
        }
        if header.last == "," { header.removeLast() }
        header += "}"
        var bytes = Data(header.utf8)
        bytes.append(contentsOf: repeatElement(UInt8(ascii: " "), count: (64 - (bytes.count + 8) % 64) % 64))
        return withUnsafeBytes(of: UInt64(bytes.count).littleEndian) { Data($0) } + bytes
    }

    /// Writes the file at `path`, replacing what is there.
    public func write(to path: String) throws(TensorError) {
        let temporary = path + ".partial-\(getpid())"
        func failure() -> TensorError {
            let reason = String(cString: strerror(errno))
            unlink(temporary)
            return .unwritable(path: path, reason: reason)
        }
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw failure() }
        let complete = ([encodedHeader()] + items.map(\.data)).allSatisfy { part in
            part.withUnsafeBytes { writeAll(descriptor, $0) }
        }
        guard complete, fsync(descriptor) == 0 else {
            let error = failure()
            close(descriptor)
            throw error
        }
        guard close(descriptor) == 0, rename(temporary, path) == 0 else { throw failure() }
    }
}

/// Writes all of `bytes`, however many calls that takes; false with `errno` set if the system refuses.
private func writeAll(_ descriptor: Int32, _ bytes: UnsafeRawBufferPointer) -> Bool {
    var done = 0
    while done < bytes.count {
        let written = write(descriptor, bytes.baseAddress.unsafelyUnwrapped + done, bytes.count - done)
        if written < 0 && errno == EINTR { continue }
        guard written > 0 else { return false }
        done += written
    }
    return true
}
