import AudioFiles
import Synchronization

/// FLAC (RFC 9639) of mono 16-bit samples: blocks of 80 ms, fixed predictors, Rice-coded residuals. Lossless: decoded, it
/// is the PCM that the fingerprint names.
///
/// The stream's length and MD5 are stated as unknown, as nothing can be written at its beginning afterwards.
final class FLACEncoder: AudioEncoder {
    private let sampleRate: Int
    private let blockSize: Int
    private let state: Mutex<State>

    private struct State {
        var pending: [Int16] = []
        var blocks = 0
        var hasBegun = false
    }

    init(sampleRate: Int) {
        self.sampleRate = sampleRate
        blockSize = min(sampleRate * 80 / 1000, 65_535)
        state = Mutex(State())
    }

    func encode(_ samples: [Float]) -> [UInt8] {
        state.withLock { state in
            state.pending += samples.map { PCM16.convert($0) }
            return take(&state, last: false)
        }
    }

    func finish() -> [UInt8] { state.withLock { take(&$0, last: true) } }

    private func take(_ state: inout State, last: Bool) -> [UInt8] {
        var bytes: [UInt8] = []
        if !state.hasBegun {
            state.hasBegun = true
            bytes += streamHeader
        }
        var start = 0
        while state.pending.count - start >= blockSize || (last && state.pending.count > start) {
            let end = min(start + blockSize, state.pending.count)
            bytes += FLACFrame(samples: state.pending[start..<end], number: state.blocks, sampleRate: sampleRate).bytes
            state.blocks += 1
            start = end
        }
        state.pending.removeFirst(start)
        return bytes
    }

    /// The marker and the STREAMINFO block (section 8.2).
    private var streamHeader: [UInt8] {
        var bits = BitWriter()
        for byte in "fLaC".utf8 { bits.put(UInt64(byte), 8) }
        bits.put(0x80, 8)
        bits.put(34, 24)
        bits.put(UInt64(blockSize), 16)
        bits.put(UInt64(blockSize), 16)
        // Sizes of the frames: unknown.
        bits.put(0, 48)
        bits.put(UInt64(sampleRate), 20)
        // One channel, 16 bits; samples and MD5 unknown.
        bits.put(0, 3)
        bits.put(15, 5)
        bits.put(0, 36)
        bits.put(0, 64)
        bits.put(0, 64)
        return bits.bytes
    }
}

/// One block of samples as a frame (section 9).
private struct FLACFrame {
    let bytes: [UInt8]

    init(samples: ArraySlice<Int16>, number: Int, sampleRate: Int) {
        var bits = BitWriter()
        // Sync code, blocks of one size.
        bits.put(0xFFF8, 16)
        // Block size in 16 bits behind the number; rate 24 kHz or as the stream header says.
        bits.put(0b0111, 4)
        bits.put(sampleRate == 24_000 ? 0b0111 : 0, 4)
        // One channel, 16 bits.
        bits.put(0b0000_100_0, 8)
        bits.putCodedNumber(UInt64(number))
        bits.put(UInt64(samples.count - 1), 16)
        bits.put(UInt64(CRC.crc8(bits.bytes)), 8)
        Self.putSubframe(samples.map { Int32($0) }, &bits)
        bits.align()
        let crc = CRC.crc16(bits.bytes)
        bits.put(UInt64(crc), 16)
        bytes = bits.bytes
    }

    private static let maxOrder = 4

    private static func putSubframe(_ samples: [Int32], _ bits: inout BitWriter) {
        if samples.allSatisfy({ $0 == samples[0] }) {
            bits.put(0b0000_0000, 8)
            bits.put(UInt64(UInt16(truncatingIfNeeded: samples[0])), 16)
            return
        }
        // The predictor whose residual is smallest.
        var residual = samples
        var best = (order: 0, residual: samples, sum: samples.reduce(0) { $0 + Int($1.magnitude) })
        for order in 1...maxOrder where order < samples.count {
            residual = zip(residual.dropFirst(), residual).map { $0 - $1 }
            let sum = residual.reduce(0) { $0 + Int($1.magnitude) }
            if sum < best.sum { best = (order, residual, sum) }
        }
        let coding = RiceCoding(best.residual, blockSize: samples.count, order: best.order)
        if coding.bitCount + 16 * best.order >= 16 * samples.count {
            bits.put(0b0000_0010, 8)
            for sample in samples { bits.put(UInt64(UInt16(truncatingIfNeeded: sample)), 16) }
            return
        }
        bits.put(UInt64(0b0001_0000 | best.order << 1), 8)
        for sample in samples.prefix(best.order) { bits.put(UInt64(UInt16(truncatingIfNeeded: sample)), 16) }
        coding.put(best.residual, &bits)
    }
}

/// How a residual is cut into partitions, each with its Rice parameter (section 9.2.7).
private struct RiceCoding {
    private let order: Int
    private let partitionOrder: Int
    private let blockSize: Int
    private let parameters: [Int]
    let bitCount: Int

    private static let maxPartitionOrder = 6
    private static let maxParameter = 14

    init(_ residual: [Int32], blockSize: Int, order: Int) {
        self.order = order
        self.blockSize = blockSize
        var best: (partitionOrder: Int, parameters: [Int], bits: Int)?
        for partitionOrder in 0...Self.maxPartitionOrder
        where blockSize % (1 << partitionOrder) == 0 && blockSize >> partitionOrder > order {
            var bits = 6
            var parameters: [Int] = []
            for range in Self.partitions(partitionOrder, blockSize, order) {
                let (parameter, count) = Self.bestParameter(residual[range])
                parameters.append(parameter)
                bits += 4 + count
            }
            if bits < best?.bits ?? .max { best = (partitionOrder, parameters, bits) }
        }
        partitionOrder = best?.partitionOrder ?? 0
        parameters = best?.parameters ?? []
        bitCount = best?.bits ?? .max / 2
    }

    private static func partitions(_ partitionOrder: Int, _ blockSize: Int, _ order: Int) -> [Range<Int>] {
        let size = blockSize >> partitionOrder
        return (0..<(1 << partitionOrder)).map { max(0, $0 * size - order)..<(($0 + 1) * size - order) }
    }

    private static func bestParameter(_ residual: ArraySlice<Int32>) -> (parameter: Int, bits: Int) {
        let sum = residual.reduce(0) { $0 + Int(zigzag($1)) }
        // The best one is near the logarithm of the mean.
        let mean = max(1, sum / max(1, residual.count))
        let guess = min(maxParameter, Int.bitWidth - 1 - mean.leadingZeroBitCount)
        var best = (parameter: 0, bits: Int.max)
        for parameter in max(0, guess - 1)...min(maxParameter, guess + 1) {
            let bits = residual.reduce(0) { $0 + Int(zigzag($1) >> UInt32(parameter)) + 1 + parameter }
            if bits < best.bits { best = (parameter, bits) }
        }
        return best
    }

    private static func zigzag(_ value: Int32) -> UInt32 { UInt32(bitPattern: value << 1 ^ value >> 31) }

    func put(_ residual: [Int32], _ bits: inout BitWriter) {
        bits.put(0, 2)
        bits.put(UInt64(partitionOrder), 4)
        for (parameter, range) in zip(parameters, Self.partitions(partitionOrder, blockSize, order)) {
            bits.put(UInt64(parameter), 4)
            for value in residual[range] {
                let folded = Self.zigzag(value)
                var zeros = Int(folded >> UInt32(parameter))
                while zeros > 32 {
                    bits.put(0, 32)
                    zeros -= 32
                }
                bits.put(1, zeros + 1)
                bits.put(UInt64(folded) & (1 << UInt64(parameter) - 1), parameter)
            }
        }
    }
}

/// Bits, most significant first.
private struct BitWriter {
    private(set) var bytes: [UInt8] = []
    private var held: UInt64 = 0
    private var heldBits = 0

    /// Appends the lowest `count` bits, up to 64.
    mutating func put(_ value: UInt64, _ count: Int) {
        if count > 32 {
            put(value >> 32, count - 32)
            put(value & 0xFFFF_FFFF, 32)
            return
        }
        held = held << UInt64(count) | value
        heldBits += count
        while heldBits >= 8 {
            heldBits -= 8
            bytes.append(UInt8(truncatingIfNeeded: held >> UInt64(heldBits)))
        }
        held &= 1 << UInt64(heldBits) - 1
    }

    /// Fills the last byte with zeros.
    mutating func align() { if heldBits > 0 { put(0, 8 - heldBits) } }

    /// A number as UTF-8 would code it, up to 36 bits (section 9.1.5).
    mutating func putCodedNumber(_ number: UInt64) {
        if number < 0x80 {
            put(number, 8)
            return
        }
        var count = 2
        while count < 7, number >> UInt64(5 * count + 1) != 0 { count += 1 }
        let lead: UInt64 = 0xFF << UInt64(8 - count) & 0xFF
        put(lead | number >> UInt64(6 * (count - 1)), 8)
        for index in (0..<(count - 1)).reversed() { put(0x80 | number >> UInt64(6 * index) & 0x3F, 8) }
    }
}

/// The checksums of FLAC frames and Ogg pages.
enum CRC {
    private static let table16 = (0..<256).map { (index: Int) -> UInt16 in
        (0..<8).reduce(UInt16(index) << 8) { crc, _ in crc & 0x8000 != 0 ? crc << 1 ^ 0x8005 : crc << 1 }
    }
    private static let table8 = (0..<256).map { (index: Int) -> UInt8 in
        (0..<8).reduce(UInt8(index)) { crc, _ in crc & 0x80 != 0 ? crc << 1 ^ 0x07 : crc << 1 }
    }
    private static let table32 = (0..<256).map { (index: Int) -> UInt32 in
        (0..<8).reduce(UInt32(index) << 24) { crc, _ in crc & 0x8000_0000 != 0 ? crc << 1 ^ 0x04C1_1DB7 : crc << 1 }
    }

    /// Polynomial 0x07.
    static func crc8(_ bytes: [UInt8]) -> UInt8 { bytes.reduce(0) { table8[Int($0 ^ $1)] } }

    /// Polynomial 0x8005.
    static func crc16(_ bytes: [UInt8]) -> UInt16 {
        bytes.reduce(0) { $0 << 8 ^ table16[Int(UInt8(truncatingIfNeeded: $0 >> 8) ^ $1)] }
    }

    /// Polynomial 0x04C11DB7, unreflected.
    static func crc32(_ bytes: [UInt8]) -> UInt32 {
        bytes.reduce(0) { $0 << 8 ^ table32[Int(UInt8(truncatingIfNeeded: $0 >> 24) ^ $1)] }
    }
}
