public import Tensors

/// What this machine can do at best, measured: what the floors of a stage are taken from.
public struct MachineSpeed: Sendable, Codable, Equatable {
    /// Bytes read from memory in a second by all threads together.
    public let bytesPerSecond: Double
    /// Multiply-adds in a second by all threads together: the float32 matrix kernel on data that stays in the caches
    /// next to the cores.
    public let multiplyAddsPerSecond: Double

    /// Measures for about a second; the best of several runs counts.
    /// - Parameter compute: kernels and threads of the stages that are compared with this.
    public static func measure(_ compute: Compute) -> MachineSpeed {
        MachineSpeed(
            bytesPerSecond: memoryBandwidth(compute.pool), multiplyAddsPerSecond: multiplyAddRate(compute))
    }

    /// The least seconds for reading `bytes` and computing `multiplyAdds`, done at the same time.
    public func floor(bytes: Int, multiplyAdds: Int) -> Double {
        max(Double(bytes) / bytesPerSecond, Double(multiplyAdds) / multiplyAddsPerSecond)
    }

    /// Reads memory that no cache holds, each thread a stretch of its own.
    private static func memoryBandwidth(_ pool: ThreadPool) -> Double {
        let bytes = 512 << 20
        let memory = FloatBuffer(count: bytes / 4)
        let words = bytes / MemoryLayout<SIMD8<UInt64>>.size
        let start = UnsafeRawPointer(memory.pointer).assumingMemoryBound(to: SIMD8<UInt64>.self)
        let sums = FloatBuffer(count: pool.threadCount * 16)
        var best = 0.0
        for _ in 0..<5 {
            let seconds = time {
                pool.run(pool.threadCount) { thread in
                    let range = (words * thread / pool.threadCount)..<(words * (thread + 1) / pool.threadCount)
                    var (a, b) = (SIMD8<UInt64>.zero, SIMD8<UInt64>.zero)
                    for i in stride(from: range.lowerBound, to: range.upperBound - 1, by: 2) {
                        a |= start[i]
                        b |= start[i + 1]
                    }
                    // Stored, so that the reads cannot be left out.
                    sums.pointer[thread * 16] = Float((a | b).wrappedSum() & 1)
                }
            }
            best = max(best, Double(bytes) / seconds)
        }
        return withExtendedLifetime((memory, sums)) { best }
    }

    /// A small matrix product again and again, each thread by itself.
    private static func multiplyAddRate(_ compute: Compute) -> Double {
        let (outputs, inputs, rows) = (2 * panelWidth, 128, 96)
        let linear = Linear(
            FloatBuffer([Float](repeating: 0.5, count: outputs * inputs)), outputs: outputs, inputs: inputs)
        let x = FloatBuffer([Float](repeating: 0.25, count: rows * inputs))
        let threads = compute.pool.threadCount
        let y = FloatBuffer(count: threads * rows * outputs)
        var scratch = Scratch()
        let rounds = 1000
        var best = 0.0
        withExtendedLifetime((x, y)) {
            let activations = linear.prepare(x.pointer, rows: rows, scratch: &scratch, compute: compute)
            for _ in 0..<5 {
                let seconds = time {
                    compute.pool.run(threads) { thread in
                        let out = y.pointer + thread * rows * outputs
                        for _ in 0..<rounds {
                            linear.apply(
                                activations, range: 0..<outputs, into: out, stride: outputs, compute: compute)
                        }
                    }
                }
                best = max(best, Double(threads * rounds * outputs * inputs * rows) / seconds)
            }
        }
        return best
    }
}

/// Seconds that `body` takes.
func time(_ body: () -> Void) -> Double {
    let start = ContinuousClock.now
    body()
    return (ContinuousClock.now - start) / .seconds(1)
}
