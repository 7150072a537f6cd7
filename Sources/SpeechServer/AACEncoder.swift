import AudioFiles

/// The functions of the Fraunhofer FDK AAC library that are used.
struct FDKAACLibrary: Sendable {
    typealias Handle = OpaquePointer

    /// `AACENC_BufDesc`.
    struct Buffers {
        var count: Int32
        var pointers: UnsafeMutablePointer<UnsafeMutableRawPointer?>?
        var identifiers: UnsafeMutablePointer<Int32>?
        var sizes: UnsafeMutablePointer<Int32>?
        var elementSizes: UnsafeMutablePointer<Int32>?
    }

    /// `AACENC_InArgs`.
    struct InArguments {
        var samples: Int32
        var ancillaryBytes: Int32 = 0
    }

    /// `AACENC_OutArgs`, with room for what later versions add.
    struct OutArguments {
        var bytes: Int32 = 0
        var samplesTaken: Int32 = 0
        var ancillaryBytes: Int32 = 0
        var reservoir: Int32 = 0
        var spare: (Int64, Int64) = (0, 0)
    }

    let open: @convention(c) (UnsafeMutablePointer<Handle?>, UInt32, UInt32) -> Int32
    let set: @convention(c) (Handle, Int32, UInt32) -> Int32
    let encode:
        @convention(c) (
            Handle, UnsafeRawPointer?, UnsafeRawPointer?, UnsafeRawPointer?, UnsafeMutableRawPointer?
        ) -> Int32
    let close: @convention(c) (UnsafeMutablePointer<Handle?>) -> Int32

    /// Nil if it is not installed.
    static let shared = FDKAACLibrary()

    private init?() {
        guard let library = SharedLibrary(["libfdk-aac.so.2", "libfdk-aac.dylib", "libfdk-aac.2.dylib"]),
            let open = library.function(
                "aacEncOpen", as: (@convention(c) (UnsafeMutablePointer<Handle?>, UInt32, UInt32) -> Int32).self),
            let set = library.function(
                "aacEncoder_SetParam", as: (@convention(c) (Handle, Int32, UInt32) -> Int32).self),
            let encode = library.function(
                "aacEncEncode",
                as: (@convention(c) (
                    Handle, UnsafeRawPointer?, UnsafeRawPointer?, UnsafeRawPointer?, UnsafeMutableRawPointer?
                ) -> Int32).self),
            let close = library.function(
                "aacEncClose", as: (@convention(c) (UnsafeMutablePointer<Handle?>) -> Int32).self)
        else { return nil }
        self.open = open
        self.set = set
        self.encode = encode
        self.close = close
    }
}

/// AAC-LC in ADTS frames by FDK AAC: mono, 96 kbit/s.
///
/// `@unchecked Sendable`: one task at a time uses it, as ``AudioEncoder`` says.
final class AACEncoder: AudioEncoder, @unchecked Sendable {
    private let library: FDKAACLibrary
    private var handle: FDKAACLibrary.Handle?
    private var pending: [Int16] = []

    /// Parameters of `aacEncoder_SetParam`, by their numbers in `aacenc_lib.h`.
    private enum Parameter {
        static let objectType: Int32 = 0x0100
        static let bitRate: Int32 = 0x0101
        static let sampleRate: Int32 = 0x0103
        static let channelMode: Int32 = 0x0106
        static let afterburner: Int32 = 0x0200
        static let transport: Int32 = 0x0300
    }
    private static let inputIdentifier: Int32 = 0
    private static let outputIdentifier: Int32 = 3
    private static let endOfFile: Int32 = 0x80

    init(sampleRate: Int) throws(APIError) {
        guard let library = FDKAACLibrary.shared else {
            throw .missingEncoder(.aac, debian: "libfdk-aac2 (non-free)", homebrew: "fdk-aac")
        }
        self.library = library
        var handle: FDKAACLibrary.Handle?
        guard library.open(&handle, 0, 1) == 0, let opened = handle else {
            throw .server("the AAC encoder cannot be started")
        }
        self.handle = opened
        let values: [(Int32, UInt32)] = [
            (Parameter.objectType, 2), (Parameter.sampleRate, UInt32(sampleRate)), (Parameter.channelMode, 1),
            (Parameter.bitRate, 96_000), (Parameter.transport, 2), (Parameter.afterburner, 1),
        ]
        for (parameter, value) in values where library.set(opened, parameter, value) != 0 {
            throw .server("the AAC encoder does not take \(value) for parameter \(parameter)")
        }
        guard library.encode(opened, nil, nil, nil, nil) == 0 else { throw .server("the AAC encoder cannot be set up") }
    }

    deinit { _ = library.close(&handle) }

    func encode(_ samples: [Float]) throws(APIError) -> [UInt8] {
        pending += samples.map { PCM16.convert($0) }
        var bytes: [UInt8] = []
        while !pending.isEmpty {
            let (made, taken, _) = try step(pending.count)
            bytes += made
            pending.removeFirst(taken)
            if taken == 0 && made.isEmpty { break }
        }
        return bytes
    }

    func finish() throws(APIError) -> [UInt8] {
        var bytes: [UInt8] = []
        while true {
            let (made, taken, code) = try step(pending.isEmpty ? -1 : pending.count)
            bytes += made
            pending.removeFirst(taken)
            if code == Self.endOfFile || (taken == 0 && made.isEmpty) { return bytes }
        }
    }

    /// One call of the encoder; `count` samples are offered, -1 says that none will follow.
    private func step(_ count: Int) throws(APIError) -> (bytes: [UInt8], taken: Int, code: Int32) {
        guard let handle else { return ([], 0, Self.endOfFile) }
        var code: Int32 = 0
        var out = FDKAACLibrary.OutArguments()
        var arguments = FDKAACLibrary.InArguments(samples: Int32(count))
        let bytes = [UInt8](unsafeUninitializedCapacity: 8192) { buffer, written in
            pending.withUnsafeMutableBufferPointer { samples in
                var input = UnsafeMutableRawPointer(samples.baseAddress)
                var output = UnsafeMutableRawPointer(buffer.baseAddress)
                var inputID = Self.inputIdentifier, outputID = Self.outputIdentifier
                var inputSize = Int32(max(0, count) * 2), outputSize = Int32(buffer.count)
                var inputElement: Int32 = 2, outputElement: Int32 = 1
                withUnsafeMutablePointer(to: &input) { input in
                    withUnsafeMutablePointer(to: &inputID) { inputID in
                        withUnsafeMutablePointer(to: &inputSize) { inputSize in
                            withUnsafeMutablePointer(to: &inputElement) { inputElement in
                                withUnsafeMutablePointer(to: &output) { output in
                                    withUnsafeMutablePointer(to: &outputID) { outputID in
                                        withUnsafeMutablePointer(to: &outputSize) { outputSize in
                                            withUnsafeMutablePointer(to: &outputElement) { outputElement in
                                                var source = FDKAACLibrary.Buffers(
                                                    count: 1, pointers: input, identifiers: inputID, sizes: inputSize,
                                                    elementSizes: inputElement)
                                                var target = FDKAACLibrary.Buffers(
                                                    count: 1, pointers: output, identifiers: outputID,
                                                    sizes: outputSize, elementSizes: outputElement)
                                                code = library.encode(handle, &source, &target, &arguments, &out)
                                            }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
            written = max(0, min(Int(out.bytes), buffer.count))
        }
        guard code == 0 || code == Self.endOfFile else { throw .server("the AAC encoder failed with code \(code)") }
        return (bytes, max(0, min(Int(out.samplesTaken), pending.count)), code)
    }
}
