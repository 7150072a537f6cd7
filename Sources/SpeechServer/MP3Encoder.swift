/// The functions of LAME that are used.
struct LameLibrary: Sendable {
    typealias Handle = OpaquePointer

    let create: @convention(c) () -> Handle?
    let setInputRate: @convention(c) (Handle, Int32) -> Int32
    let setOutputRate: @convention(c) (Handle, Int32) -> Int32
    let setChannels: @convention(c) (Handle, Int32) -> Int32
    let setMode: @convention(c) (Handle, Int32) -> Int32
    let setBitRate: @convention(c) (Handle, Int32) -> Int32
    let setQuality: @convention(c) (Handle, Int32) -> Int32
    let setVBRTag: @convention(c) (Handle, Int32) -> Int32
    let disableReservoir: @convention(c) (Handle, Int32) -> Int32
    let initialize: @convention(c) (Handle) -> Int32
    let encode:
        @convention(c) (
            Handle, UnsafePointer<Float>?, UnsafePointer<Float>?, Int32, UnsafeMutablePointer<UInt8>?, Int32
        ) -> Int32
    let flush: @convention(c) (Handle, UnsafeMutablePointer<UInt8>?, Int32) -> Int32
    let destroy: @convention(c) (Handle) -> Int32

    /// Nil if it is not installed.
    static let shared = LameLibrary()

    private init?() {
        typealias Setter = @convention(c) (Handle, Int32) -> Int32
        guard let library = SharedLibrary(["libmp3lame.so.0", "libmp3lame.dylib", "libmp3lame.0.dylib"]),
            let create = library.function("lame_init", as: (@convention(c) () -> Handle?).self),
            let setInputRate = library.function("lame_set_in_samplerate", as: Setter.self),
            let setOutputRate = library.function("lame_set_out_samplerate", as: Setter.self),
            let setChannels = library.function("lame_set_num_channels", as: Setter.self),
            let setMode = library.function("lame_set_mode", as: Setter.self),
            let setBitRate = library.function("lame_set_brate", as: Setter.self),
            let setQuality = library.function("lame_set_quality", as: Setter.self),
            let setVBRTag = library.function("lame_set_bWriteVbrTag", as: Setter.self),
            let disableReservoir = library.function("lame_set_disable_reservoir", as: Setter.self),
            let initialize = library.function(
                "lame_init_params", as: (@convention(c) (Handle) -> Int32).self),
            let encode = library.function(
                "lame_encode_buffer_ieee_float",
                as: (@convention(c) (
                    Handle, UnsafePointer<Float>?, UnsafePointer<Float>?, Int32, UnsafeMutablePointer<UInt8>?, Int32
                ) -> Int32).self),
            let flush = library.function(
                "lame_encode_flush",
                as: (@convention(c) (Handle, UnsafeMutablePointer<UInt8>?, Int32) -> Int32).self),
            let destroy = library.function("lame_close", as: (@convention(c) (Handle) -> Int32).self)
        else { return nil }
        self.create = create
        self.setInputRate = setInputRate
        self.setOutputRate = setOutputRate
        self.setChannels = setChannels
        self.setMode = setMode
        self.setBitRate = setBitRate
        self.setQuality = setQuality
        self.setVBRTag = setVBRTag
        self.disableReservoir = disableReservoir
        self.initialize = initialize
        self.encode = encode
        self.flush = flush
        self.destroy = destroy
    }
}

/// MP3 by LAME: mono, 96 kbit/s, each frame complete in itself so that it can be sent at once.
///
/// `@unchecked Sendable`: one task at a time uses it, as ``AudioEncoder`` says.
final class MP3Encoder: AudioEncoder, @unchecked Sendable {
    private let lame: LameLibrary
    private let handle: LameLibrary.Handle

    private static let monoMode: Int32 = 3
    private static let kilobitsPerSecond: Int32 = 96

    init(sampleRate: Int) throws(APIError) {
        guard let lame = LameLibrary.shared else {
            throw .missingEncoder(.mp3, debian: "libmp3lame0", homebrew: "lame")
        }
        guard let handle = lame.create() else { throw .server("the MP3 encoder cannot be started") }
        let rate = Int32(sampleRate)
        let results = [
            lame.setInputRate(handle, rate), lame.setOutputRate(handle, rate), lame.setChannels(handle, 1),
            lame.setMode(handle, Self.monoMode), lame.setBitRate(handle, Self.kilobitsPerSecond),
            lame.setQuality(handle, 5), lame.setVBRTag(handle, 0), lame.disableReservoir(handle, 1),
            lame.initialize(handle),
        ]
        guard results.allSatisfy({ $0 >= 0 }) else {
            _ = lame.destroy(handle)
            throw .server("the MP3 encoder does not take \(sampleRate) Hz")
        }
        self.lame = lame
        self.handle = handle
    }

    deinit { _ = lame.destroy(handle) }

    func encode(_ samples: [Float]) throws(APIError) -> [UInt8] {
        // The size that LAME's manual asks for.
        try collect(capacity: samples.count * 5 / 4 + 7200) { bytes in
            samples.withUnsafeBufferPointer {
                lame.encode(
                    handle, $0.baseAddress, $0.baseAddress, Int32($0.count), bytes.baseAddress, Int32(bytes.count))
            }
        }
    }

    func finish() throws(APIError) -> [UInt8] {
        try collect(capacity: 7200) { lame.flush(handle, $0.baseAddress, Int32($0.count)) }
    }

    private func collect(
        capacity: Int, _ body: (UnsafeMutableBufferPointer<UInt8>) -> Int32
    ) throws(APIError) -> [UInt8] {
        var result: Int32 = 0
        let bytes = [UInt8](unsafeUninitializedCapacity: capacity) { buffer, count in
            result = body(buffer)
            count = max(0, Int(result))
        }
        guard result >= 0 else { throw .server("the MP3 encoder failed with code \(result)") }
        return bytes
    }
}
