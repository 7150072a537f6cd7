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

/// One tensor inside a mapped file. The memory lives as long as its `SafetensorsFile`.
public struct TensorView: @unchecked Sendable {
    /// Name in the file.
    public let name: String
    /// Element type.
    public let type: DataType
    /// Dimensions, outermost first.
    public let shape: [Int]
    /// The elements, row-major, little endian; any alignment.
    public let bytes: UnsafeRawBufferPointer

    /// Number of elements.
    public var count: Int { shape.reduce(1, *) }

    /// `BF16 [1024, 2048]`, for messages.
    public var summary: String { "\(type.rawValue) \(shape)" }
}

/// A memory-mapped safetensors file, checked before anything in it is trusted.
///
/// Format: 8 bytes little-endian header length, a JSON header `{name: {dtype, shape, data_offsets}}`, then the data.
/// (https://huggingface.co/docs/safetensors)
///
/// `@unchecked Sendable`: the mapping is read-only and private.
public final class SafetensorsFile: @unchecked Sendable {
    /// Where it lies.
    public let path: String
    /// Free-form strings of the header's `__metadata__`.
    public let metadata: [String: String]
    /// Names of all tensors, sorted.
    public let names: [String]
    /// Bytes of the whole file.
    public let byteCount: Int

    private let mapping: UnsafeRawBufferPointer
    private let views: [String: TensorView]

    /// The largest header that is believed: a million tensors need less.
    private static let headerLimit = 100 << 20

    private struct Entry: Decodable {
        let dtype: String
        let shape: [Int]
        let data_offsets: [Int]
    }

    private struct Header: Decodable {
        var metadata: [String: String] = [:]
        var hasMetadata = false
        var entries: [String: Entry] = [:]

        struct Key: CodingKey {
            let stringValue: String
            var intValue: Int? { nil }
            init(stringValue: String) { self.stringValue = stringValue }
            init?(intValue: Int) { nil }
        }

        init(from decoder: any Decoder) throws {
            let container = try decoder.container(keyedBy: Key.self)
            for key in container.allKeys {
                if key.stringValue == "__metadata__" {
                    metadata = try container.decode([String: String].self, forKey: key)
                    hasMetadata = true
                } else {
                    entries[key.stringValue] = try container.decode(Entry.self, forKey: key)
                }
            }
        }
    }

    /// Maps and checks the file at `path`.
    public init(path: String) throws(TensorError) {
        self.path = path
        func malformed(_ reason: String) -> TensorError { .malformed(path: path, reason: reason) }

        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw .unreadable(path: path, reason: String(cString: strerror(errno))) }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else {
            throw .unreadable(path: path, reason: String(cString: strerror(errno)))
        }
        guard status.st_mode & S_IFMT == S_IFREG else { throw .unreadable(path: path, reason: "not a regular file") }
        let size = Int(status.st_size)
        guard size >= 10 else { throw malformed("it has \(size) bytes, too few for a header") }
        guard let base = mmap(nil, size, PROT_READ, MAP_PRIVATE, descriptor, 0), base != MAP_FAILED else {
            throw .unreadable(path: path, reason: String(cString: strerror(errno)))
        }
        let mapping = UnsafeRawBufferPointer(start: base, count: size)
        do throws(TensorError) {
            let declared = UInt64(littleEndian: mapping.loadUnaligned(as: UInt64.self))
            guard declared >= 2, declared <= UInt64(min(size - 8, Self.headerLimit)) else {
                throw malformed("the header claims \(declared) bytes, the file has \(size)")
            }
            let dataStart = 8 + Int(declared)
            let header: Header
            do {
                header = try JSONDecoder().decode(Header.self, from: Data(mapping[8..<dataStart]))
            } catch {
                throw malformed("the header is not the expected JSON")
            }
            var views: [String: TensorView] = [:]
            var extents: [(begin: Int, end: Int, name: String)] = []
            for (name, entry) in header.entries {
                guard let type = DataType(rawValue: entry.dtype) else {
                    throw malformed("tensor '\(name)' has the unknown type \(entry.dtype)")
                }
                var bytes = type.byteWidth
                for dimension in entry.shape {
                    let (product, overflow) = bytes.multipliedReportingOverflow(by: dimension)
                    guard dimension >= 0, !overflow else {
                        throw malformed("tensor '\(name)' has the impossible shape \(entry.shape)")
                    }
                    bytes = product
                }
                let offsets = entry.data_offsets
                guard offsets.count == 2, offsets[0] >= 0, offsets[0] <= offsets[1], offsets[1] <= size - dataStart
                else {
                    throw malformed("tensor '\(name)' lies at \(offsets), outside the \(size - dataStart) data bytes")
                }
                guard offsets[1] - offsets[0] == bytes else {
                    throw malformed(
                        "tensor '\(name)' (\(entry.dtype) \(entry.shape)) needs \(bytes) bytes, its offsets give "
                            + "\(offsets[1] - offsets[0])")
                }
                views[name] = TensorView(
                    name: name, type: type, shape: entry.shape,
                    bytes: UnsafeRawBufferPointer(
                        rebasing: mapping[(dataStart + offsets[0])..<(dataStart + offsets[1])]))
                if bytes > 0 { extents.append((offsets[0], offsets[1], name)) }
            }
            let keys = header.entries.count + (header.hasMetadata ? 1 : 0)
            guard Self.topLevelKeys(mapping[8..<dataStart]) == keys else { throw malformed("a name occurs twice") }
            // The format knows no gaps: what no tensor claims was meant for one that the header lost.
            extents.sort { $0.begin < $1.begin }
            var end = 0
            for (index, extent) in extents.enumerated() {
                if extent.begin < end {
                    throw malformed("tensors '\(extents[index - 1].name)' and '\(extent.name)' overlap")
                }
                guard extent.begin == end else {
                    throw malformed("no tensor claims the \(extent.begin - end) bytes before '\(extent.name)'")
                }
                end = extent.end
            }
            guard end == size - dataStart else {
                throw malformed("no tensor claims the last \(size - dataStart - end) bytes")
            }
            self.mapping = mapping
            self.views = views
            names = views.keys.sorted()
            metadata = header.metadata
            byteCount = size
        } catch {
            munmap(UnsafeMutableRawPointer(mutating: base), size)
            throw error
        }
    }

    /// Names in the outermost object of valid JSON, with repetitions, which a decoder hides.
    private static func topLevelKeys(_ json: Slice<UnsafeRawBufferPointer>) -> Int {
        var (depth, keys) = (0, 0)
        var (isString, isEscaped) = (false, false)
        for byte in json {
            if isString {
                if !isEscaped && byte == UInt8(ascii: "\"") { isString = false }
                isEscaped = !isEscaped && byte == UInt8(ascii: "\\")
                continue
            }
            switch byte {
            case UInt8(ascii: "\""): isString = true
            case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
            case UInt8(ascii: "}"), UInt8(ascii: "]"): depth -= 1
            case UInt8(ascii: ":") where depth == 1: keys += 1
            default: break
            }
        }
        return keys
    }

    deinit { munmap(UnsafeMutableRawPointer(mutating: mapping.baseAddress), mapping.count) }

    /// The tensor of that name, or nil.
    public subscript(name: String) -> TensorView? { views[name] }

    /// The tensor of that name with exactly this shape.
    /// - Throws: `missing` or `mismatch`.
    public func tensor(_ name: String, shape: [Int]) throws(TensorError) -> TensorView {
        guard let view = views[name] else { throw .missing(name: name, path: path) }
        guard view.shape == shape else {
            throw .mismatch(name: name, expected: "\(shape)", found: view.summary)
        }
        return view
    }

    /// The tensor as float32, converted from F32, F16, BF16 or F64.
    /// - Throws: `missing`, or `mismatch` for another shape or a type that is no floating-point type.
    public func floats(_ name: String, shape: [Int]) throws(TensorError) -> FloatBuffer {
        let view = try tensor(name, shape: shape)
        let buffer = FloatBuffer(count: view.count)
        guard view.convert(into: buffer.pointer) else {
            throw .mismatch(name: name, expected: "floating point", found: view.summary)
        }
        return buffer
    }

    /// The tensor as integers, converted from I32, I64, U8, I16 or U16.
    public func integers(_ name: String) throws(TensorError) -> (values: [Int], shape: [Int]) {
        guard let view = views[name] else { throw .missing(name: name, path: path) }
        let raw = view.bytes
        let values: [Int]
        switch view.type {
        case .int32: values = (0..<view.count).map { Int(raw.loadUnaligned(fromByteOffset: $0 * 4, as: Int32.self)) }
        case .int64: values = (0..<view.count).map { Int(raw.loadUnaligned(fromByteOffset: $0 * 8, as: Int64.self)) }
        case .int16: values = (0..<view.count).map { Int(raw.loadUnaligned(fromByteOffset: $0 * 2, as: Int16.self)) }
        case .uint16: values = (0..<view.count).map { Int(raw.loadUnaligned(fromByteOffset: $0 * 2, as: UInt16.self)) }
        case .uint8: values = raw.map { Int($0) }
        default: throw .mismatch(name: name, expected: "integers", found: view.summary)
        }
        return (values, view.shape)
    }
}

extension TensorView {
    /// Writes the elements as float32; false if the type is no floating-point type.
    func convert(into out: UnsafeMutablePointer<Float>) -> Bool {
        switch type {
        case .float32:
            UnsafeMutableRawPointer(out).copyMemory(from: bytes.baseAddress.unsafelyUnwrapped, byteCount: count * 4)
        case .bfloat16:
            for i in 0..<count {
                out[i] = floatFromBFloat16(bytes.loadUnaligned(fromByteOffset: i * 2, as: UInt16.self))
            }
        case .float16:
            for i in 0..<count { out[i] = floatFromHalf(bytes.loadUnaligned(fromByteOffset: i * 2, as: UInt16.self)) }
        case .float64:
            for i in 0..<count { out[i] = Float(bytes.loadUnaligned(fromByteOffset: i * 8, as: Double.self)) }
        default: return false
        }
        return true
    }
}
