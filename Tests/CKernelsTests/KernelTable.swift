import CKernels
import Testing

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// An instruction set that this build and this processor have.
struct KernelTable: Sendable, CustomTestStringConvertible {
    private let isa: UInt32

    var kernels: mk_kernels { mk_kernels_for(mk_isa(rawValue: isa)).unsafelyUnwrapped.pointee }
    var testDescription: String { String(cString: kernels.name) }

    static let scalar = KernelTable(isa: MK_SCALAR.rawValue)
    /// Every table there is, the scalar one first.
    static let available = [MK_SCALAR, MK_AVX2, MK_AVX512, MK_NEON]
        .filter { mk_kernels_for($0) != nil }.map { KernelTable(isa: $0.rawValue) }
    /// Those that are compared with the scalar one.
    static let vectorised = Array(available.dropFirst())
}

/// Memory that ends where an unreadable page begins: a kernel that reads or writes past its operand crashes the test.
/// Its start has the alignment that its size gives it, which is odd more often than not. It is never freed, so that a
/// pointer into it is good wherever a test takes it.
struct Guarded<Element: BitwiseCopyable> {
    let pointer: UnsafeMutablePointer<Element>
    let count: Int

    init(count: Int, filledWith value: Element) {
        let page = Int(sysconf(Int32(_SC_PAGESIZE)))
        let bytes = count * MemoryLayout<Element>.stride
        let room = (bytes + page - 1) / page * page
        guard let base = mmap(nil, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
            base != MAP_FAILED, mprotect(base + room, page, PROT_NONE) == 0
        else { preconditionFailure("no memory for a test") }
        pointer = (base + (room - bytes)).bindMemory(to: Element.self, capacity: count)
        pointer.initialize(repeating: value, count: count)
        self.count = count
    }

    init(_ values: [Element]) {
        self.init(count: values.count, filledWith: values.first.unsafelyUnwrapped)
        for (i, value) in values.enumerated() { pointer[i] = value }
    }

    var array: [Element] { Array(UnsafeBufferPointer(start: pointer, count: count)) }
}

extension Guarded where Element == Float {
    /// What a kernel must overwrite shows if it does not.
    init(unset count: Int) { self.init(count: count, filledWith: .nan) }

    var bits: [UInt32] { array.map(\.bitPattern) }
    /// Whether nothing was written.
    var isUnset: Bool { array.allSatisfy(\.isNaN) }
}

/// Numbers for tests: a linear congruential generator, so that a failure repeats.
struct TestNumbers {
    private var state: UInt64

    init(seed: UInt64) { state = seed &* 0x9E37_79B9_7F4A_7C15 &+ 1 }

    mutating func bits() -> UInt32 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return UInt32(truncatingIfNeeded: state >> 32)
    }

    /// Uniform in -1…1.
    mutating func float() -> Float { Float(Int32(bitPattern: bits())) * 0x1p-31 }

    mutating func floats(_ count: Int, times factor: Float = 1) -> [Float] { (0..<count).map { _ in float() * factor } }

    /// Roughly normal: sums of four.
    mutating func normals(_ count: Int) -> [Float] { (0..<count).map { _ in float() + float() + float() + float() } }
}

func bfloat16(_ value: Float) -> UInt16 { UInt16(truncatingIfNeeded: value.bitPattern >> 16) }
func float(bfloat16 bits: UInt16) -> Float { Float(bitPattern: UInt32(bits) << 16) }

/// The largest excess of |value - expected| over its tolerance; above 0 is a failure, and so is anything not a number.
func worstExcess(_ values: [Float], _ expected: [Double], tolerance: (Int) -> Double) -> Double {
    guard values.count == expected.count else { return .infinity }
    var worst = -Double.infinity
    for i in values.indices {
        let excess = abs(Double(values[i]) - expected[i]) - tolerance(i)
        if excess.isNaN { return .infinity }
        worst = max(worst, excess)
    }
    return worst
}
