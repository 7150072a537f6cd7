import CKernels

/// How a linear layer's weights are stored in memory.
public enum WeightFormat: String, Sendable, CaseIterable {
    /// As in the checkpoint: bfloat16 stays memory-mapped, float32 is packed once.
    case bf16
    /// 8 bits with one scale per 32 weights along the inputs.
    case q8
    /// 4 bits, likewise.
    case q4
}

/// y = W x (+ bias), W [outputs, inputs].
///
/// `@unchecked Sendable`: immutable after `init`; pointers lie in memory that `owner` keeps.
public final class Linear: @unchecked Sendable {
    /// Width of y.
    public let outputs: Int
    /// Width of x.
    public let inputs: Int
    /// Bytes of weights that one pass reads.
    public let weightBytes: Int

    private let storage: Storage
    private let bias: FloatBuffer?

    private enum Storage {
        case compact(mk_format, UnsafeRawPointer, owner: AnyObject)
        case panels(FloatBuffer)
    }

    /// Weights of a checkpoint, in its own precision: bfloat16 stays in the mapped file, F32 and F16 become float32
    /// panels.
    public init(_ view: TensorView, owner: SafetensorsFile, bias: FloatBuffer? = nil) throws(TensorError) {
        guard view.shape.count == 2 else {
            throw .mismatch(name: view.name, expected: "a matrix", found: view.summary)
        }
        outputs = view.shape[0]
        inputs = view.shape[1]
        self.bias = bias
        let aligned = Int(bitPattern: view.bytes.baseAddress) % 2 == 0
        if view.type == .bfloat16, aligned, let base = view.bytes.baseAddress {
            storage = .compact(MK_BF16, base, owner: owner)
            weightBytes = view.bytes.count
        } else {
            let dense = FloatBuffer(count: view.count)
            guard view.convert(into: dense.pointer) else {
                throw .mismatch(name: view.name, expected: "floating point", found: view.summary)
            }
            let packed = Linear.pack(dense, outputs: outputs, inputs: inputs)
            storage = .panels(packed)
            weightBytes = packed.count * 4
        }
    }

    /// Dense float32 weights [outputs, inputs].
    public init(_ dense: FloatBuffer, outputs: Int, inputs: Int, bias: FloatBuffer? = nil) {
        precondition(dense.count == outputs * inputs)
        self.outputs = outputs
        self.inputs = inputs
        self.bias = bias
        let packed = Linear.pack(dense, outputs: outputs, inputs: inputs)
        storage = .panels(packed)
        weightBytes = packed.count * 4
    }

    /// Weights quantised earlier by `quantize`, lying in memory that `owner` keeps.
    public init(
        quantized bytes: UnsafeRawBufferPointer, format: WeightFormat, outputs: Int, inputs: Int, owner: AnyObject,
        bias: FloatBuffer? = nil
    ) {
        precondition(bytes.count == Linear.quantizedSize(format, outputs: outputs, inputs: inputs))
        self.outputs = outputs
        self.inputs = inputs
        self.bias = bias
        weightBytes = bytes.count
        storage = .compact(format.tag, bytes.baseAddress.unsafelyUnwrapped, owner: owner)
    }

    private static func pack(_ dense: FloatBuffer, outputs: Int, inputs: Int) -> FloatBuffer {
        let packed = FloatBuffer(count: mk_packed_size(outputs, inputs))
        mk_pack_panels(dense.pointer, inputs, Array(0..<inputs), outputs, inputs, packed.pointer)
        return packed
    }

    /// Bytes of a quantised matrix.
    public static func quantizedSize(_ format: WeightFormat, outputs: Int, inputs: Int) -> Int {
        mk_quantized_size(format.tag, outputs, inputs)
    }

    /// Quantises a checkpoint's matrix into `out`, which has `quantizedSize` bytes.
    public static func quantize(
        _ view: TensorView, format: WeightFormat, into out: UnsafeMutableRawPointer, pool: ThreadPool
    ) throws(TensorError) {
        guard view.shape.count == 2 else {
            throw .mismatch(name: view.name, expected: "a matrix", found: view.summary)
        }
        let (outputs, inputs) = (view.shape[0], view.shape[1])
        guard view.type == .bfloat16 || view.type == .float32 || view.type == .float16 else {
            throw .mismatch(name: view.name, expected: "floating point", found: view.summary)
        }
        let rowBytes = inputs * view.type.byteWidth
        pool.split(outputs, grain: 16) { range in
            let rows = FloatBuffer(count: inputs * range.count)
            let part = TensorView(
                name: view.name, type: view.type, shape: [range.count, inputs],
                bytes: UnsafeRawBufferPointer(
                    rebasing: view.bytes[(range.lowerBound * rowBytes)..<(range.upperBound * rowBytes)]))
            _ = part.convert(into: rows.pointer)
            withExtendedLifetime(rows) {
                mk_quantize(
                    format.tag, rows.pointer, inputs, outputs, inputs, range.lowerBound, range.upperBound, out)
            }
        }
    }
}

extension WeightFormat {
    fileprivate var tag: mk_format {
        switch self {
        case .bf16: MK_BF16
        case .q8: MK_Q8
        case .q4: MK_Q4
        }
    }
}

/// Activations x [rows, inputs], brought once into the order that a layer's weights want.
public struct Activations {
    fileprivate let x: UnsafePointer<Float>
    fileprivate let stride: Int
    fileprivate let prepared: UnsafePointer<Float>?
    /// Rows of x.
    public let rows: Int
}

extension Linear {
    /// Prepares x [rows, inputs] for this layer and every other of the same format and width.
    /// - Parameter scratch: holds the prepared copy; valid as long as it is not reserved again.
    public func prepare(
        _ x: UnsafePointer<Float>, stride: Int? = nil, rows: Int, scratch: inout Scratch, compute: Compute
    ) -> Activations {
        let stride = stride ?? inputs
        guard case .compact(let format, _, _) = storage else {
            return Activations(x: x, stride: stride, prepared: nil, rows: rows)
        }
        let size = compute.kernels.prepared_size(format, inputs)
        let out = scratch.reserve(size * rows)
        let width = inputs
        compute.forRows(rows, cost: width) { range in
            compute.kernels.prepare(
                format, x + range.lowerBound * stride, stride, range.count, width, out + range.lowerBound * size)
        }
        return Activations(x: x, stride: stride, prepared: out, rows: rows)
    }

    /// Computes outputs `range` of y [rows, stride] for prepared activations. `range` starts at a multiple of 16 and
    /// ends at one or at `outputs`.
    public func apply(
        _ a: Activations, range: Range<Int>, into y: UnsafeMutablePointer<Float>, stride: Int, compute: Compute
    ) {
        switch storage {
        case .compact(let format, let weights, _):
            compute.kernels.linear(
                format, weights, inputs, range.lowerBound, range.upperBound, a.prepared, a.rows, y, stride)
            if let bias {
                for row in 0..<a.rows {
                    let out = y + row * stride
                    for o in range { out[o] += bias.pointer[o] }
                }
            }
        case .panels(let weights):
            var epilogue = mk_epilogue()
            epilogue.bias = bias.map { UnsafePointer($0.pointer) }
            epilogue.raw = y
            epilogue.ld_raw = stride
            compute.kernels.conv_f32(
                weights.pointer, 1, inputs, outputs, a.x, a.stride, 0, a.rows, range.lowerBound / panelWidth,
                (range.upperBound + panelWidth - 1) / panelWidth, &epilogue)
        }
    }

    /// y [rows, outputs] = W x (+ bias), in parallel.
    public func callAsFunction(
        _ x: UnsafePointer<Float>, rows: Int, into y: UnsafeMutablePointer<Float>, scratch: inout Scratch,
        compute: Compute
    ) {
        let a = prepare(x, rows: rows, scratch: &scratch, compute: compute)
        compute.pool.split(outputs, grain: panelWidth) { range in
            apply(a, range: range, into: y, stride: outputs, compute: compute)
        }
    }
}

/// Output channels of one weight panel: the grain in which outputs are split among threads.
public let panelWidth = Int(MK_PANEL)
