/// The functions of libopus that are used.
struct OpusLibrary: Sendable {
    typealias Handle = OpaquePointer

    let create: @convention(c) (Int32, Int32, Int32, UnsafeMutablePointer<Int32>?) -> Handle?
    let encode: @convention(c) (Handle, UnsafePointer<Float>?, Int32, UnsafeMutablePointer<UInt8>?, Int32) -> Int32
    let destroy: @convention(c) (Handle) -> Void

    /// Nil if it is not installed.
    static let shared = OpusLibrary()

    private init?() {
        guard let library = SharedLibrary(["libopus.so.0", "libopus.dylib", "libopus.0.dylib"]),
            let create = library.function(
                "opus_encoder_create",
                as: (@convention(c) (Int32, Int32, Int32, UnsafeMutablePointer<Int32>?) -> Handle?).self),
            let encode = library.function(
                "opus_encode_float",
                as: (@convention(c) (
                    Handle, UnsafePointer<Float>?, Int32, UnsafeMutablePointer<UInt8>?, Int32
                ) -> Int32).self),
            let destroy = library.function("opus_encoder_destroy", as: (@convention(c) (Handle) -> Void).self)
        else { return nil }
        self.create = create
        self.encode = encode
        self.destroy = destroy
    }
}

/// Opus in Ogg (RFC 7845): mono, frames of 20 ms, at the bit rate that libopus takes for speech at 24 kHz (27 kbit/s).
///
/// `@unchecked Sendable`: one task at a time uses it, as ``AudioEncoder`` says.
final class OpusEncoder: AudioEncoder, @unchecked Sendable {
    private let opus: OpusLibrary
    private let handle: OpusLibrary.Handle
    private let sampleRate: Int
    private let frameSize: Int
    private var ogg = OggWriter(serial: 1)
    private var pending: [Float] = []
    private var samplesTaken = 0
    private var framesMade = 0
    private var hasBegun = false
    /// The latest packet is held back: the last one must be marked as such.
    private var held: [UInt8]?

    private static let applicationAudio: Int32 = 2049
    /// Samples at 48 kHz that a decoder leaves out at the beginning: libopus's look-ahead of 6.5 ms.
    private static let preSkip = 312
    /// Samples of a frame at 48 kHz, the rate of Ogg's positions.
    private static let granulesPerFrame = 960

    init(sampleRate: Int) throws(APIError) {
        guard let opus = OpusLibrary.shared else {
            throw .missingEncoder(.opus, debian: "libopus0", homebrew: "opus")
        }
        var error: Int32 = 0
        guard [8_000, 12_000, 16_000, 24_000, 48_000].contains(sampleRate),
            let handle = opus.create(Int32(sampleRate), 1, Self.applicationAudio, &error), error == 0
        else { throw .server("the Opus encoder does not take \(sampleRate) Hz") }
        self.opus = opus
        self.handle = handle
        self.sampleRate = sampleRate
        frameSize = sampleRate / 50
    }

    deinit { opus.destroy(handle) }

    func encode(_ samples: [Float]) throws(APIError) -> [UInt8] {
        var bytes = headers()
        samplesTaken += samples.count
        pending += samples
        while pending.count >= frameSize { bytes += try encodeFrame() }
        return bytes
    }

    func finish() throws(APIError) -> [UInt8] {
        var bytes = headers()
        // Silence behind the end pushes what the encoder holds back out; the last position cuts it off again.
        let end = samplesTaken * 48_000 / sampleRate + Self.preSkip
        while framesMade * Self.granulesPerFrame < end {
            pending += [Float](repeating: 0, count: max(0, frameSize - pending.count))
            bytes += try encodeFrame()
        }
        bytes += ogg.page([held ?? []], position: UInt64(end), isFirst: false, isLast: true)
        held = nil
        return bytes
    }

    private func encodeFrame() throws(APIError) -> [UInt8] {
        var result: Int32 = 0
        let packet = [UInt8](unsafeUninitializedCapacity: 1500) { buffer, count in
            result = pending.withUnsafeBufferPointer {
                opus.encode(handle, $0.baseAddress, Int32(frameSize), buffer.baseAddress, Int32(buffer.count))
            }
            count = max(0, Int(result))
        }
        guard result >= 0 else { throw .server("the Opus encoder failed with code \(result)") }
        pending.removeFirst(frameSize)
        defer {
            held = packet
            framesMade += 1
        }
        guard let held else { return [] }
        return ogg.page(
            [held], position: UInt64(framesMade * Self.granulesPerFrame), isFirst: false, isLast: false)
    }

    private func headers() -> [UInt8] {
        guard !hasBegun else { return [] }
        hasBegun = true
        let rate = UInt32(sampleRate)
        let head =
            Array("OpusHead".utf8)
            + [1, 1, UInt8(Self.preSkip & 0xFF), UInt8(Self.preSkip >> 8)]
            + (0..<4).map { UInt8(truncatingIfNeeded: rate >> (8 * $0)) } + [0, 0, 0]
        let vendor = Array("martlet".utf8)
        let tags = Array("OpusTags".utf8) + [UInt8(vendor.count), 0, 0, 0] + vendor + [0, 0, 0, 0]
        return ogg.page([head], position: 0, isFirst: true, isLast: false)
            + ogg.page([tags], position: 0, isFirst: false, isLast: false)
    }
}

/// Pages of one logical Ogg stream (RFC 3533).
struct OggWriter {
    private let serial: UInt32
    private var pages: UInt32 = 0

    init(serial: UInt32) { self.serial = serial }

    /// A page of whole packets, of less than 255 segments in all.
    mutating func page(_ packets: [[UInt8]], position: UInt64, isFirst: Bool, isLast: Bool) -> [UInt8] {
        var segments: [UInt8] = []
        for packet in packets {
            segments += Array(repeating: 255, count: packet.count / 255) + [UInt8(packet.count % 255)]
        }
        var page = Array("OggS".utf8) + [0, (isFirst ? 2 : 0) | (isLast ? 4 : 0)]
        page += (0..<8).map { UInt8(truncatingIfNeeded: position >> (8 * $0)) }
        for value in [serial, pages, 0] { page += (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }
        page += [UInt8(segments.count)] + segments + packets.joined()
        let crc = CRC.crc32(page)
        for index in 0..<4 { page[22 + index] = UInt8(truncatingIfNeeded: crc >> (8 * UInt32(index))) }
        pages += 1
        return page
    }
}
