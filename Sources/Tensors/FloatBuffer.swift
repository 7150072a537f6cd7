#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Owned float32 memory, zeroed, aligned to 64 bytes.
///
/// `@unchecked Sendable`: the memory is either written once while a model loads and then only read, or belongs to a
/// stage or session that one thread drives at a time; parallel sections write disjoint ranges.
public final class FloatBuffer: @unchecked Sendable {
    /// Start of the memory.
    public let pointer: UnsafeMutablePointer<Float>
    /// Number of floats.
    public let count: Int

    /// Allocates `count` zeros.
    public init(count: Int) {
        precondition(count >= 0)
        self.count = count
        let bytes = max(64, (count * 4 + 63) & ~63)
        let raw = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 64)
        memset(raw, 0, bytes)
        pointer = raw.bindMemory(to: Float.self, capacity: bytes / 4)
    }

    /// Copies `values`.
    public convenience init(_ values: [Float]) {
        self.init(count: values.count)
        values.withUnsafeBufferPointer { source in
            if let base = source.baseAddress { pointer.update(from: base, count: source.count) }
        }
    }

    deinit { UnsafeMutableRawPointer(pointer).deallocate() }

    /// Sets every element to zero.
    public func zero() { memset(pointer, 0, count * 4) }

    /// The contents as an array.
    public var array: [Float] { Array(UnsafeBufferPointer(start: pointer, count: count)) }
}

/// Float memory that grows when a stage meets a larger call, and never shrinks.
public struct Scratch {
    private var buffer = FloatBuffer(count: 0)

    /// No memory yet.
    public init() {}

    /// At least `count` floats with undefined contents; valid until the next call.
    public mutating func reserve(_ count: Int) -> UnsafeMutablePointer<Float> {
        if buffer.count < count { buffer = FloatBuffer(count: count + count / 4) }
        return buffer.pointer
    }

    /// Bytes held.
    public var byteCount: Int { buffer.count * 4 }
}
