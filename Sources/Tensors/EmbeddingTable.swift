import CKernels

/// Rows of float32 or bfloat16 numbers, looked up by id.
///
/// `@unchecked Sendable`: immutable after `init`.
public final class EmbeddingTable: @unchecked Sendable {
    /// Number of rows.
    public let count: Int
    /// Width of a row.
    public let width: Int

    private enum Storage {
        case bf16(UnsafePointer<UInt16>, owner: SafetensorsFile)
        case float(FloatBuffer)
    }
    private let storage: Storage

    /// The table `name` [count, width] of a checkpoint; bfloat16 stays in the mapped file.
    public init(_ file: SafetensorsFile, _ name: String, count: Int, width: Int) throws(TensorError) {
        self.count = count
        self.width = width
        let view = try file.tensor(name, shape: [count, width])
        if view.type == .bfloat16, let base = view.bytes.baseAddress, Int(bitPattern: base) % 2 == 0 {
            storage = .bf16(base.assumingMemoryBound(to: UInt16.self), owner: file)
        } else {
            storage = .float(try file.floats(name, shape: [count, width]))
        }
    }

    /// Writes row `id` to `out` [width].
    public func copy(_ id: Int, to out: UnsafeMutablePointer<Float>, compute: Compute) {
        precondition(id >= 0 && id < count)
        switch storage {
        case .bf16(let rows, _): compute.kernels.copy_bf16(rows + id * width, width, out)
        case .float(let rows): out.update(from: rows.pointer + id * width, count: width)
        }
    }

    /// Adds row `id` to `out` [width].
    public func add(_ id: Int, to out: UnsafeMutablePointer<Float>, compute: Compute) {
        precondition(id >= 0 && id < count)
        switch storage {
        case .bf16(let rows, _): compute.kernels.add_bf16(rows + id * width, width, out)
        case .float(let rows): compute.kernels.add_scaled(rows.pointer + id * width, nil, width, out)
        }
    }
}
