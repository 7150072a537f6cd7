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

    init(_ weights: Weights, configuration c: TalkerConfiguration, compute: Compute) throws(TensorError) {
        table = try EmbeddingTable(
            weights.file, "talker.model.text_embedding.weight", count: c.textVocabularySize, width: c.textHidden)
        expand = try weights.linear(
            "talker.text_projection.linear_fc1", inputs: c.textHidden, outputs: c.textHidden, bias: true)
        contract = try weights.linear(
            "talker.text_projection.linear_fc2", inputs: c.textHidden, outputs: c.shape.hidden, bias: true)
        self.compute = compute
    }

    /// Writes the rows of `ids` to `out` [ids, talker hidden].
    func embed(_ ids: [Int32], into out: UnsafeMutablePointer<Float>) {
        let width = table.width
        let x = rows.reserve(ids.count * width)
        for (row, id) in ids.enumerated() { table.copy(Int(id), to: x + row * width, compute: compute) }
        let h = inner.reserve(ids.count * width)
        expand(x, rows: ids.count, into: h, scratch: &prepared, compute: compute)
        compute.kernels.silu(h, ids.count * width, h)
        contract(h, rows: ids.count, into: out, scratch: &prepared, compute: compute)
    }
}
