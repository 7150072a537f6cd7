import CKernels

/// The instruction sets that have kernels.
public enum InstructionSet: String, Sendable, CaseIterable {
    case scalar, avx2, avx512, neon

    fileprivate var tag: mk_isa {
        switch self {
        case .scalar: MK_SCALAR
        case .avx2: MK_AVX2
        case .avx512: MK_AVX512
        case .neon: MK_NEON
        }
    }

    /// Whether this build has the kernels and this processor runs them.
    public var isAvailable: Bool { mk_kernels_for(tag) != nil }
}

/// What a CPU stage computes with: one kernel table and one thread pool.
///
/// `@unchecked Sendable`: the kernel table is constant; the pool guards itself.
public final class Compute: @unchecked Sendable {
    /// The kernels, all of one instruction set.
    public let kernels: mk_kernels
    /// The threads that share each stage's work.
    public let pool: ThreadPool

    /// - Parameters:
    ///   - instructionSet: nil chooses the fastest (or what `MARTLET_ISA` names); one that is not available counts as nil, a
    ///     name in `MARTLET_ISA` that is not available as scalar.
    ///   - threads: threads of the pool, the caller included.
    public init(instructionSet: InstructionSet? = nil, threads: Int = ThreadPool.defaultThreadCount) {
        let table = instructionSet.flatMap { mk_kernels_for($0.tag) } ?? mk_kernels_best() ?? mk_kernels_for(MK_SCALAR)
        kernels = table.unsafelyUnwrapped.pointee
        pool = ThreadPool(threads: threads)
    }

    /// The instruction set in use.
    public var instructionSet: InstructionSet {
        InstructionSet(rawValue: String(cString: kernels.name)) ?? .scalar
    }

    /// Runs `body` over ranges of `rows`, in parallel when the work is worth a barrier.
    /// - Parameter cost: floats touched per row.
    public func forRows(_ rows: Int, cost: Int, _ body: (Range<Int>) -> Void) {
        if rows * cost < 32_768 { body(0..<rows) } else { pool.split(rows, grain: 1, body) }
    }
}
