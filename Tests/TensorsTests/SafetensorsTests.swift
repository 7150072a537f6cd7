import Foundation
import Tensors
import Testing

private let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent().path + "/Fixtures"

/// A file that lives as long as the test's scope.
final class TemporaryFile {
    let path = FileManager.default.temporaryDirectory.path + "/tensors-\(UUID().uuidString).safetensors"

    init() {}
    init(_ bytes: Data) throws { try bytes.write(to: URL(fileURLWithPath: path)) }
    /// A header's text and data bytes, with the true header length.
    convenience init(header: String, data: Int = 0) throws {
        try self.init(TemporaryFile.bytes(header: header, data: data))
    }
    deinit { unlink(path) }

    static func bytes(header: String, data: Int) -> Data {
        let length = withUnsafeBytes(of: UInt64(header.utf8.count).littleEndian) { Data($0) }
        return length + Data(header.utf8) + Data(repeating: 0x3F, count: data)
    }
}

@Suite struct SafetensorsTests {
    /// A file of the Python package; Fixtures/make.py says how it was made.
    @Test func readsWhatPythonWrites() throws {
        let file = try SafetensorsFile(path: fixtures + "/python.safetensors")
        #expect(file.metadata == ["format": "np", "note": "ü and \"quotes\""])
        let names = [
            "bool", "empty", "f16", "f32", "f64", "i16", "i32", "i64", "odd \"name\"/ü", "scalar", "u16", "u8",
        ]
        #expect(file.names == names)
        #expect(try file.floats("f32", shape: [2, 3]).array == [1.5, -2.25, 3e-20, 4, .infinity, 0])
        #expect(try file.floats("f16", shape: [4]).array == [1.5, -2, 0x1p-24, 65504])
        #expect(try file.floats("f64", shape: [2]).array == [0.1, -.infinity])
        #expect(try file.floats("scalar", shape: []).array == [0.75])
        #expect(try file.floats("empty", shape: [0, 4]).count == 0)
        #expect(try file.floats("odd \"name\"/ü", shape: [1]).array == [2])
        #expect(try file.integers("i64").values == [-5, 1 << 40])
        #expect(try file.integers("i64").shape == [2, 1])
        #expect(try file.integers("i32").values == [-7, Int(Int32.max)])
        #expect(try file.integers("i16").values == [-32768])
        #expect(try file.integers("u16").values == [65535])
        #expect(try file.integers("u8").values == [0, 255, 7])
        #expect(file["bool"]?.type == .bool)
        #expect(file["nothing"] == nil)
    }

    @Test func namesWhatIsWrongWithATensor() throws {
        let file = try SafetensorsFile(path: fixtures + "/python.safetensors")
        #expect(throws: TensorError.missing(name: "w", path: file.path)) { try file.floats("w", shape: [1]) }
        #expect(throws: TensorError.mismatch(name: "f32", expected: "[3, 2]", found: "F32 [2, 3]")) {
            try file.tensor("f32", shape: [3, 2])
        }
        #expect(throws: TensorError.mismatch(name: "u8", expected: "floating point", found: "U8 [3]")) {
            try file.floats("u8", shape: [3])
        }
        #expect(throws: TensorError.mismatch(name: "f32", expected: "integers", found: "F32 [2, 3]")) {
            try file.integers("f32")
        }
    }

    /// The bytes that the format's description asks for, which the Python package reads; see Fixtures/make.py.
    @Test func writesTheFormat() throws {
        var writer = SafetensorsWriter(metadata: ["b": "two/2", "a": "1"])
        writer.add("second", [0.5, -1.5, 2, 3.25, -4, 1e-30] as [Float], shape: [2, 3])
        writer.add("first", [-2, Int32.max], shape: [2])
        let raw = RawBytes([1, 2, 3, 4, 255])
        writer.add("raw", bytes: raw.bytes, owner: raw)
        let out = TemporaryFile()
        try writer.write(to: out.path)
        let expected = try Data(contentsOf: URL(fileURLWithPath: fixtures + "/layout.safetensors"))
        #expect(try Data(contentsOf: URL(fileURLWithPath: out.path)) == expected)
    }

    private final class RawBytes: @unchecked Sendable {
        let bytes: UnsafeRawBufferPointer
        init(_ values: [UInt8]) {
            let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: values.count, alignment: 1)
            memory.copyBytes(from: values)
            bytes = UnsafeRawBufferPointer(memory)
        }
        deinit { bytes.deallocate() }
    }

    @Test func replacesAFileWholeOrNotAtAll() throws {
        let folder = FileManager.default.temporaryDirectory.path + "/tensors-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        var writer = SafetensorsWriter()
        writer.add("x", [1, 2] as [Float], shape: [2])
        try writer.write(to: folder + "/a")
        try writer.write(to: folder + "/a")
        #expect(try SafetensorsFile(path: folder + "/a").floats("x", shape: [2]).array == [1, 2])
        // A folder cannot be replaced by a file, nor can one be written into a folder that is not there.
        try FileManager.default.createDirectory(atPath: folder + "/b", withIntermediateDirectories: false)
        for target in ["/b", "/c/d"] {
            let error = #expect(throws: TensorError.self) { try writer.write(to: folder + target) }
            guard case .unwritable(let path, _)? = error else {
                Issue.record("\(String(describing: error))")
                continue
            }
            #expect(path == folder + target)
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder).sorted() == ["a", "b"])
    }

    @Test func unreadableFiles() throws {
        for (path, reason) in [("/nowhere/x", "No such file or directory"), ("/", "not a regular file")] {
            #expect(throws: TensorError.unreadable(path: path, reason: reason)) { try SafetensorsFile(path: path) }
        }
    }

    /// Headers that lie, and the word that the message must have.
    static let lies: [(header: String, data: Int, says: String)] = [
        ("{}", 1, "last 1 bytes"), ("[]", 0, "JSON"), ("{  ", 0, "JSON"), ("12345678", 0, "JSON"), ("nul", 0, "JSON"),
        (#"{"a":{"dtype":"F32","shape":[1]}}"#, 4, "JSON"),
        (#"{"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}}"#, 4, "JSON"),
        (#"{"a":{"dtype":"F32","shape":["1"],"data_offsets":[0,4]}}"#, 4, "JSON"),
        (#"{"a":{"dtype":"F32","shape":1,"data_offsets":[0,4]}}"#, 4, "JSON"),
        (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,99999999999999999999]}}"#, 4, "JSON"),
        (#"{"__metadata__":{"a":1}}"#, 0, "JSON"),
        (#"{"a":{"dtype":"Q7","shape":[1],"data_offsets":[0,4]}}"#, 4, "unknown type Q7"),
        (#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, 4, "impossible shape"),
        (#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#, 4, "impossible shape"),
        (#"{"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#, 4, "impossible shape"),
        (#"{"a":{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]}}"#, 4, "impossible shape"),
        (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}"#, 8, "lies at"),
        (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[]}}"#, 4, "lies at"),
        (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}"#, 4, "lies at"),
        (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#, 4, "lies at"),
        (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 7, "lies at"),
        (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[9223372036854775803,9223372036854775807]}}"#, 4, "lies at"),
        (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, 4, "needs 8 bytes"),
        (#"{"a":{"dtype":"F32","shape":[],"data_offsets":[0,8]}}"#, 8, "needs 4 bytes"),
        (
            #"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}}"#,
            7, "overlap"
        ),
        (
            #"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[5,9]}}"#,
            9, "claims the 1 bytes before 'b'"
        ),
        (
            #"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"I8","shape":[4],"data_offsets":[0,4]}}"#,
            4, "twice"
        ),
        (
            #"{"a\"":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a\u0022":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#,
            0, "twice"
        ),
    ]

    @Test(arguments: lies.indices)
    func lyingHeader(index: Int) throws {
        let (header, data, says) = Self.lies[index]
        let file = try TemporaryFile(header: header, data: data)
        let error = #expect(throws: TensorError.self) { try SafetensorsFile(path: file.path) }
        guard case .malformed(let path, let reason)? = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(path == file.path)
        #expect(reason.contains(says), "\(reason)")
    }

    @Test func lyingLength() throws {
        let whole = TemporaryFile.bytes(header: #"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#, data: 4)
        for declared in [0, 1, UInt64(whole.count - 7), 1 << 32, UInt64(Int64.max), UInt64(Int64.max) + 1, .max] {
            var bytes = whole
            bytes.replaceSubrange(0..<8, with: withUnsafeBytes(of: declared.littleEndian) { Data($0) })
            let file = try TemporaryFile(bytes)
            let error = #expect(throws: TensorError.self) { try SafetensorsFile(path: file.path) }
            #expect(error?.description.contains("header claims \(declared) bytes") == true)
        }
        for length in 0..<whole.count {
            let file = try TemporaryFile(whole.prefix(length))
            #expect(throws: TensorError.self) { try SafetensorsFile(path: file.path) }
        }
    }

    /// Dimensions of 0 stand beside ones that would overflow.
    @Test func emptyTensors() throws {
        let header = #"{"a":{"dtype":"F32","shape":[0,4611686018427387904,8],"data_offsets":[0,0]}}"#
        let temporary = try TemporaryFile(header: header)
        #expect(try SafetensorsFile(path: temporary.path)["a"]?.count == 0)
    }

    /// 600 seeded mutations of a good file: each is read or refused with an error, and what is read lies in the file.
    @Test func mutations() throws {
        let original = try Data(contentsOf: URL(fileURLWithPath: fixtures + "/python.safetensors"))
        let headerEnd = 8 + Int(original.prefix(8).withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) })
        var state: UInt64 = 42
        func next(_ limit: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int((state >> 33) % UInt64(limit))
        }
        let digits = Array("0123456789-\"{}[]:,eE.\\u".utf8)
        let file = TemporaryFile()
        var refused = 0
        for _ in 0..<600 {
            var bytes = original
            for _ in 0...next(3) {
                let at = next(headerEnd)
                switch next(5) {
                case 0: bytes[at] = UInt8(next(256))
                case 1: bytes[8 + next(headerEnd - 8)] = digits[next(digits.count)]
                case 2: bytes.insert(digits[next(10)], at: at)
                case 3: bytes.remove(at: at)
                default: bytes = bytes.prefix(bytes.count - next(40))
                }
                if bytes.count < headerEnd { break }
            }
            try bytes.write(to: URL(fileURLWithPath: file.path))
            do {
                let read = try SafetensorsFile(path: file.path)
                for name in read.names {
                    let view = try #require(read[name])
                    #expect(view.bytes.count == view.count * view.type.byteWidth)
                    _ = view.bytes.reduce(0) { $0 &+ $1 }
                    _ = try? read.floats(name, shape: view.shape)
                    _ = try? read.integers(name)
                }
            } catch is TensorError {
                refused += 1
            }
        }
        #expect(refused > 400)
    }
}
