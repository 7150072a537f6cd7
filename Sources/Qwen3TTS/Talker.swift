import CKernels
import Tensors

/// The language model that makes code 0 of each frame (specification, section 3).
///
/// `@unchecked Sendable`: weights are immutable; work memory belongs to the one thread that drives the stage.
final class Talker: @unchecked Sendable {
    let configuration: TalkerConfiguration
    /// Code 0, control ids, languages and speakers.
    let codecEmbedding: EmbeddingTable
    /// The head that tells what is being spoken.
    private let alignmentHead: AlignmentHead?
    private let stack: TransformerStack
    private let head: Linear
    private let compute: Compute
    private var normed = Scratch()
    private var lastRows = Scratch()
    private var scores = Scratch()
    private var prepared = Scratch()

    init(
        _ weights: Weights, configuration c: TalkerConfiguration, alignmentHead: AlignmentHead? = nil, compute: Compute
    ) throws(TensorError) {
        configuration = c
        self.alignmentHead = alignmentHead
        self.compute = compute
        codecEmbedding = try EmbeddingTable(
            weights.file, "talker.model.codec_embedding.weight", count: c.vocabularySize, width: c.shape.hidden)
        stack = try TransformerStack(weights, prefix: "talker.model.", shape: c.shape, compute: compute)
        head = try weights.linear("talker.codec_head", inputs: c.shape.hidden, outputs: c.vocabularySize)
    }

    /// Bytes of weights that one call reads.
    var weightBytes: Int { stack.weightBytes + head.weightBytes }

    /// Multiply-adds of one row, attention aside.
    var multiplyAdds: Int { stack.multiplyAdds + head.inputs * head.outputs }

    func makeCache() -> KVCache { KVCache(shape: configuration.shape) }

    /// Runs rows of several sequences.
    /// - Parameters:
    ///   - x: input rows [rows, hidden], overwritten.
    ///   - segments: whose rows these are.
    ///   - results: for each segment, where its last position's normed hidden state and raw logits go, or nil if that is
    ///     not its prompt's end.
    ///   - observe: sees every layer's input and the normed output.
    func forward(
        _ x: UnsafeMutablePointer<Float>, segments: [TransformerStack.Segment],
        results: [(hidden: FloatBuffer, logits: FloatBuffer)?],
        observe: ((UnsafeMutablePointer<Float>) -> Void)? = nil
    ) {
        _ = forward(x, segments: segments, results: results, text: [], observe: observe)
    }

    /// The same, and tells what is being spoken.
    /// - Parameter positions: of each segment, where its text stands; none if that is not asked.
    /// - Returns: for each segment, the position of the text that its last row looks at; empty if the model cannot tell.
    func forward(
        _ x: UnsafeMutablePointer<Float>, segments: [TransformerStack.Segment],
        results: [(hidden: FloatBuffer, logits: FloatBuffer)?], text positions: [Range<Int>],
        observe: ((UnsafeMutablePointer<Float>) -> Void)? = nil
    ) -> [Int?] {
        let width = configuration.shape.hidden
        let vocabulary = configuration.vocabularySize
        let rows = segments.reduce(0) { $0 + $1.rows }
        let y = normed.reserve(rows * width)
        let focus = alignmentHead.map { TransformerStack.Focus(head: $0, positions: positions) }
        let looks = stack.forward(
            x, segments: segments, into: y, focus: positions.isEmpty ? nil : focus, observe: observe)

        let wanted = results.compactMap { $0 }
        guard !wanted.isEmpty else { return looks }
        let last = lastRows.reserve(wanted.count * width)
        var (row, slot) = (0, 0)
        for (segment, result) in zip(segments, results) {
            row += segment.rows
            guard let result else { continue }
            (last + slot * width).update(from: y + (row - 1) * width, count: width)
            result.hidden.pointer.update(from: y + (row - 1) * width, count: width)
            slot += 1
        }
        let logits = scores.reserve(wanted.count * vocabulary)
        head(last, rows: wanted.count, into: logits, scratch: &prepared, compute: compute)
        for (index, result) in wanted.enumerated() {
            result.logits.pointer.update(from: logits + index * vocabulary, count: vocabulary)
        }
        return looks
    }
}
