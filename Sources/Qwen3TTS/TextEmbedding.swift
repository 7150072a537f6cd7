import CKernels
import Tensors

/// Text ids to talker rows: embedding, then a two-layer projection per token (specification, section 2.3).
///
/// `@unchecked Sendable`: weights are immutable; work memory belongs to the one thread that drives the stage.
final class TextEmbedding: @unchecked Sendable {
    private let table: EmbeddingTable
    private let expand: Linear
    private let contract: Linear
    private let compute: Compute
    private var rows = Scratch()
    private var inner = Scratch()
    private var prepared = Scratch()
    private var projected: [Int32: FloatBuffer] = [:]
    private let pinned: Set<Int32>

    /// - Parameter pinned: ids whose projected rows are kept for good.
    init(_ file: SafetensorsFile, configuration c: TalkerConfiguration, pinned: Set<Int32>, compute: Compute)
        throws(TensorError)
    {
        self.pinned = pinned
        let weights = Weights(file: file, format: .bf16, quantized: nil)
        table = try EmbeddingTable(
            file, "talker.model.text_embedding.weight", count: c.textVocabularySize, width: c.textHidden)
        expand = try weights.linear(
            "talker.text_projection.linear_fc1", inputs: c.textHidden, outputs: c.textHidden, bias: true)
        contract = try weights.linear(
            "talker.text_projection.linear_fc2", inputs: c.textHidden, outputs: c.shape.hidden, bias: true)
        self.compute = compute
    }

    /// Adds the rows of `ids` to `out` [ids, talker hidden]; nil adds nothing.
    ///
    /// Projected rows are kept for ids that come again and again (PAD, BOS, EOS and the template's), so that a frame
    /// after the text's end costs a copy.
    func add(_ ids: [Int32?], to out: UnsafeMutablePointer<Float>) {
        let missing = Array(Set(ids.compactMap { $0 }.filter { projected[$0] == nil })).sorted()
        for start in stride(from: 0, to: missing.count, by: Self.rowsPerPass) {
            project(Array(missing[start..<min(start + Self.rowsPerPass, missing.count)]))
        }
        let width = contract.outputs
        for (row, id) in ids.enumerated() {
            guard let id, let source = projected[id] else { continue }
            compute.kernels.add_scaled(source.pointer, nil, width, out + row * width)
        }
        if projected.count > Self.keptRows { projected = projected.filter { pinned.contains($0.key) } }
    }

    private static let rowsPerPass = 64
    /// Rows kept: 8 MB at the released 1.7B width.
    private static let keptRows = 1024

    private func project(_ ids: [Int32]) {
        let width = table.width
        let x = rows.reserve(ids.count * width)
        for (row, id) in ids.enumerated() { table.copy(Int(id), to: x + row * width, compute: compute) }
        let h = inner.reserve(ids.count * width)
        expand(x, rows: ids.count, into: h, scratch: &prepared, compute: compute)
        compute.kernels.silu(h, ids.count * width, h)
        let y = rows.reserve(ids.count * contract.outputs)
        contract(h, rows: ids.count, into: y, scratch: &prepared, compute: compute)
        for (row, id) in ids.enumerated() {
            let kept = FloatBuffer(count: contract.outputs)
            kept.pointer.update(from: y + row * contract.outputs, count: contract.outputs)
            projected[id] = kept
        }
    }
}
