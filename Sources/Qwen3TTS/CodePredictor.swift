import CKernels
import Tensors

/// Makes codes 1… of a frame from the talker's hidden state and code 0, one pass each (specification, section 4).
///
/// `@unchecked Sendable`: weights are immutable; work memory and caches belong to the one thread that drives the stage.
final class CodePredictor: @unchecked Sendable {
    let configuration: CodePredictorConfiguration
    private let talkerHidden: Int
    private let stack: TransformerStack
    private let projection: Linear?
    private let heads: [Linear]
    /// Tables of groups 1…; the last is used only for the talker's next input.
    let embeddings: [EmbeddingTable]
    private let codecEmbedding: EmbeddingTable
    private let compute: Compute
    private var caches: [KVCache] = []
    private var input = Scratch()
    private var output = Scratch()
    private var scores = Scratch()
    private var prepared = Scratch()

    init(_ weights: Weights, configuration: Configuration, codecEmbedding: EmbeddingTable, compute: Compute)
        throws(TensorError)
    {
        let c = configuration.codePredictor
        let p = "talker.code_predictor."
        self.configuration = c
        self.compute = compute
        self.codecEmbedding = codecEmbedding
        talkerHidden = configuration.talker.shape.hidden
        stack = try TransformerStack(weights, prefix: p + "model.", shape: c.shape, compute: compute)
        let name = p + "small_to_mtp_projection"
        if weights.file[name + ".weight"] != nil || c.shape.hidden != talkerHidden {
            projection = try weights.linear(name, inputs: talkerHidden, outputs: c.shape.hidden, bias: true)
        } else {
            projection = nil
        }
        var heads: [Linear] = []
        var embeddings: [EmbeddingTable] = []
        for group in 0..<(c.codeGroups - 1) {
            heads.append(
                try weights.linear(p + "lm_head.\(group)", inputs: c.shape.hidden, outputs: c.vocabularySize))
            embeddings.append(
                try EmbeddingTable(
                    weights.file, p + "model.codec_embedding.\(group).weight", count: c.vocabularySize,
                    width: talkerHidden))
        }
        self.heads = heads
        self.embeddings = embeddings
    }

    /// Bytes of weights that one frame reads.
    var weightBytes: Int {
        let passes = configuration.codeGroups - 1
        return passes * (stack.weightBytes + (projection?.weightBytes ?? 0)) + heads.reduce(0) { $0 + $1.weightBytes }
    }

    /// Multiply-adds of one frame, attention aside.
    var multiplyAdds: Int {
        let rows = configuration.codeGroups
        return rows * (stack.multiplyAdds + (projection.map { $0.inputs * $0.outputs } ?? 0))
            + heads.reduce(0) { $0 + $1.inputs * $1.outputs }
    }

    /// Completes one frame of each sequence.
    /// - Parameters:
    ///   - hidden: the talker's normed hidden states [batch, talker hidden].
    ///   - code0: the first code of each frame.
    ///   - choose: picks a code for (sequence, group 1…) from logits that it may overwrite.
    /// - Returns: codes 1… of each sequence's frame.
    func frames(
        hidden: UnsafePointer<Float>, code0: [Int32],
        choose: (_ sequence: Int, _ group: Int, _ logits: UnsafeMutableBufferPointer<Float>) -> Int32
    ) -> [[Int32]] {
        let batch = code0.count
        let width = talkerHidden
        let inner = configuration.shape.hidden
        let vocabulary = configuration.vocabularySize
        while caches.count < batch { caches.append(KVCache(shape: configuration.shape)) }
        for cache in caches.prefix(batch) { cache.reset() }
        var codes = Array(repeating: [Int32](), count: batch)
        let rows = input.reserve(2 * batch * width)
        for b in 0..<batch {
            (rows + 2 * b * width).update(from: hidden + b * width, count: width)
            codecEmbedding.copy(Int(code0[b]), to: rows + (2 * b + 1) * width, compute: compute)
        }
        var rowsPerSequence = 2
        for group in 1..<configuration.codeGroups {
            let count = rowsPerSequence * batch
            var x = rows
            let y = output.reserve(2 * batch * inner)
            if let projection {
                projection(rows, rows: count, into: y, scratch: &prepared, compute: compute)
                x = y
            }
            stack.forward(
                x, segments: caches.prefix(batch).map { .init(cache: $0, rows: rowsPerSequence) }, into: y)
            if rowsPerSequence == 2 {
                // Position 0 only feeds the caches.
                for b in 0..<batch { (y + b * inner).update(from: y + (2 * b + 1) * inner, count: inner) }
            }
            let logits = scores.reserve(batch * vocabulary)
            heads[group - 1](y, rows: batch, into: logits, scratch: &prepared, compute: compute)
            for b in 0..<batch {
                let row = UnsafeMutableBufferPointer(start: logits + b * vocabulary, count: vocabulary)
                let code = choose(b, group, row)
                codes[b].append(code)
                if group + 1 < configuration.codeGroups {
                    embeddings[group - 1].copy(Int(code), to: rows + b * width, compute: compute)
                }
            }
            rowsPerSequence = 1
        }
        return codes
    }
}
