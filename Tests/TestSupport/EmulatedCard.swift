import CCUDA
import CUDABackend
import CUDAEmulator

/// An NVIDIA card of the emulator: the CUDA back end without a GPU, on the calling thread.
public struct EmulatedCard: Sendable {
    /// The driver of all emulated cards.
    public static let driver = makeDriver { _ in }

    /// One that cannot record launches, as drivers older than CUDA 11.4.
    public static let driverWithoutGraphs = makeDriver { $0.capture_begin = nil }

    /// A driver with some of its functions changed.
    public static func makeDriver(_ change: (inout mk_cuda_driver) -> Void) -> CUDADriver {
        var table = mk_cuda_driver()
        mk_emulator_driver(&table)
        change(&table)
        guard let driver = try? CUDADriver(table, bringsKernels: true) else { fatalError("the emulator has no driver") }
        return driver
    }

    /// Names of the kernels that the emulator has.
    public static var kernels: [String] {
        var names: [String] = []
        guard var entry = mk_emulator_kernels() else { return names }
        while let name = entry.pointee {
            names.append(String(cString: name))
            entry += 1
        }
        return names
    }

    /// Its number, as in `cuda:3`.
    public let index: Int

    /// A new card.
    /// - Parameters:
    ///   - memory: bytes that can be allocated.
    ///   - seed: 0 for threads, warps and blocks in order; others for other orders.
    public init(multiprocessors: Int = 3, memory: Int = 8 << 30, seed: UInt32 = 0) {
        index = Int(
            mk_emulator_add_card(
                mk_emulated_card(multiprocessors: Int32(multiprocessors), memory: memory, seed: seed)))
    }

    /// Sets how many bytes can be allocated.
    public func setMemory(_ bytes: Int) { mk_emulator_set_memory(Int32(index), bytes) }

    /// Lets the launch after the next `launches` fail with an error of the driver.
    public func failLaunch(after launches: Int, code: Int) {
        mk_emulator_fail_launch(Int32(index), Int32(launches), Int32(code))
    }

    /// Launches so far, those of graphs among them.
    public var launches: Int { mk_emulator_launches(Int32(index)) }

    /// Graphs launched so far.
    public var graphLaunches: Int { mk_emulator_graph_launches(Int32(index)) }
}
