import CKernels
import Tensors

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Sizes of a decoder stack.
public struct TransformerShape: Sendable, Equatable {
    /// Decoder layers.
    public let layers: Int
    /// Width of the residual stream.
    public let hidden: Int
    /// Width of the gated feed-forward layer.
    public let intermediate: Int
    /// Query heads.
    public let heads: Int
    /// Key and value heads, each shared by `heads / keyValueHeads` query heads.
    public let keyValueHeads: Int
    /// Width of a head.
    public let headDimension: Int
    /// Base of the rotary frequencies.
    public let ropeTheta: Double
    /// Added to the mean square in RMSNorm.
    public let normEpsilon: Float
    /// Keys that a query sees, itself included; nil for all.
    public let window: Int?

    /// Width of all queries.
    public var queryWidth: Int { heads * headDimension }
    /// Width of all keys, and of all values.
    public var keyWidth: Int { keyValueHeads * headDimension }
}

/// The pre-norm decoder that the talker, the code predictor and the codec's pre-transformer share
/// (specification, sections 3.1, 4 and 5.3).
///
/// A call brings any number of rows of any number of sequences; every weight is read once for all of them. Each row's
/// result depends on its own sequence only.
///
/// `@unchecked Sendable`: weights are immutable; the scratch memory belongs to the one thread that drives the stage.
final class TransformerStack: @unchecked Sendable {
    struct Layer {
        let inputNorm: FloatBuffer
        let query: Linear
        let key: Linear
        let value: Linear
        let output: Linear
        /// Per-head norms of queries and keys; the codec has none.
        let queryNorm: FloatBuffer?
        let keyNorm: FloatBuffer?
        let postNorm: FloatBuffer
        let gate: Linear
        let up: Linear
        let down: Linear
        /// Per-channel factors of both residual branches; only the codec has them.
        let attentionScale: FloatBuffer?
        let feedForwardScale: FloatBuffer?

        var weightBytes: Int {
            [query, key, value, output, gate, up, down].reduce(0) { $0 + $1.weightBytes }
        }
    }

    /// Consecutive rows of one sequence; they get the positions after those in `cache`.
    struct Segment {
        let cache: KVCache
        let rows: Int
    }

    /// Asks one query head where the last row of each segment looks.
    struct Focus {
        let head: AlignmentHead
        /// The positions in question of each segment; empty asks nothing of it.
        let positions: [Range<Int>]
    }

    let shape: TransformerShape
    private let layers: [Layer]
    private let norm: FloatBuffer
    private let compute: Compute
    private let inverseFrequencies: [Float]
    private var scratch = Scratch()
    private var prepared = Scratch()

    init(shape: TransformerShape, layers: [Layer], norm: FloatBuffer, compute: Compute) {
        self.shape = shape
        self.layers = layers
        self.norm = norm
        self.compute = compute
        let half = shape.headDimension / 2
        inverseFrequencies = (0..<half).map { m in
            Float(1 / pow(shape.ropeTheta, Double(2 * m) / Double(shape.headDimension)))
        }
    }

    /// Bytes of weights that one call reads.
    var weightBytes: Int { layers.reduce(0) { $0 + $1.weightBytes } }

    /// Multiply-adds of one row, attention aside.
    var multiplyAdds: Int {
        let s = shape
        return s.layers * s.hidden * (2 * s.queryWidth + 2 * s.keyWidth + 3 * s.intermediate)
    }

    /// Memory that parallel parts of one call share.
    private struct Workspace {
        let hidden, query, key, value, attention, gate, up, cosines, sines, states: UnsafeMutablePointer<Float>
    }

    private func workspace(rows: Int) -> Workspace {
        let s = shape
        let sizes = [
            rows * max(s.hidden, s.queryWidth), rows * s.queryWidth, rows * s.keyWidth, rows * s.keyWidth,
            rows * s.queryWidth, rows * s.intermediate, rows * s.intermediate, rows * s.headDimension / 2,
            rows * s.headDimension / 2, rows * s.heads * (s.headDimension + 2),
        ].map { ($0 + 15) & ~15 }
        var next = scratch.reserve(sizes.reduce(0, +))
        let parts = sizes.map { size in
            defer { next += size }
            return next
        }
        return Workspace(
            hidden: parts[0], query: parts[1], key: parts[2], value: parts[3], attention: parts[4], gate: parts[5],
            up: parts[6], cosines: parts[7], sines: parts[8], states: parts[9])
    }

    /// Runs all layers and the final norm.
    /// - Parameters:
    ///   - x: [rows, hidden], overwritten by the un-normed residual stream.
    ///   - segments: whose rows these are; their caches advance.
    ///   - y: receives the normed output [rows, hidden]; may be `x`.
    ///   - observe: sees the input of every layer and then the normed output.
    func forward(
        _ x: UnsafeMutablePointer<Float>, segments: [Segment], into y: UnsafeMutablePointer<Float>,
        observe: ((UnsafeMutablePointer<Float>) -> Void)? = nil
    ) {
        _ = forward(x, segments: segments, into: y, focus: nil, observe: observe)
    }

    /// The same, and answers where a head looks.
    /// - Returns: for each segment, at which of its positions most, or nil; empty without a question.
    func forward(
        _ x: UnsafeMutablePointer<Float>, segments: [Segment], into y: UnsafeMutablePointer<Float>,
        focus: Focus?, observe: ((UnsafeMutablePointer<Float>) -> Void)? = nil
    ) -> [Int?] {
        var looks: [Int?] = []
        let s = shape
        let rows = segments.reduce(0) { $0 + $1.rows }
        let kernels = compute.kernels
        let w = workspace(rows: rows)
        let positions = rowPositions(segments)
        for segment in segments { segment.cache.reserve(segment.rows) }
        fillRotations(positions, w)

        for (index, layer) in layers.enumerated() {
            observe?(x)
            normalize(x, layer.inputNorm, rows: rows, into: w.hidden)
            var a = layer.query.prepare(w.hidden, rows: rows, scratch: &prepared, compute: compute)
            let (keyStart, valueStart) = (padded(s.queryWidth), padded(s.queryWidth) + padded(s.keyWidth))
            let projections = [
                (layer.query, w.query, 0), (layer.key, w.key, keyStart), (layer.value, w.value, valueStart),
            ]
            compute.pool.split(valueStart + padded(s.keyWidth), grain: panelWidth) { range in
                for (linear, out, start) in projections {
                    let part = range.clamped(to: start..<(start + linear.outputs))
                    if part.isEmpty { continue }
                    linear.apply(
                        a, range: (part.lowerBound - start)..<(part.upperBound - start), into: out,
                        stride: linear.outputs, compute: compute)
                }
            }

            attend(layer: index, layer, segments: segments, positions: positions, w)
            if let focus, focus.head.layer == index { looks = answer(focus, segments, w) }

            a = layer.output.prepare(w.attention, rows: rows, scratch: &prepared, compute: compute)
            compute.pool.split(s.hidden, grain: panelWidth) { range in
                layer.output.apply(a, range: range, into: w.hidden, stride: s.hidden, compute: compute)
                addResidual(w.hidden, layer.attentionScale, range: range, rows: rows, to: x)
            }

            normalize(x, layer.postNorm, rows: rows, into: w.hidden)
            a = layer.gate.prepare(w.hidden, rows: rows, scratch: &prepared, compute: compute)
            compute.pool.split(s.intermediate, grain: panelWidth) { range in
                layer.gate.apply(a, range: range, into: w.gate, stride: s.intermediate, compute: compute)
                layer.up.apply(a, range: range, into: w.up, stride: s.intermediate, compute: compute)
                for row in 0..<rows {
                    let at = row * s.intermediate + range.lowerBound
                    kernels.silu_mul(w.gate + at, w.up + at, range.count, w.gate + at)
                }
            }
            a = layer.down.prepare(w.gate, rows: rows, scratch: &prepared, compute: compute)
            compute.pool.split(s.hidden, grain: panelWidth) { range in
                layer.down.apply(a, range: range, into: w.hidden, stride: s.hidden, compute: compute)
                addResidual(w.hidden, layer.feedForwardScale, range: range, rows: rows, to: x)
            }
        }
        for segment in segments { segment.cache.advance(segment.rows) }
        normalize(x, norm, rows: rows, into: y)
        observe?(y)
        return looks
    }

    /// Outputs rounded up to whole panels, so that concatenated projections are cut at panel borders only.
    private func padded(_ outputs: Int) -> Int { (outputs + panelWidth - 1) / panelWidth * panelWidth }

    private func rowPositions(_ segments: [Segment]) -> [(cache: KVCache, position: Int)] {
        segments.flatMap { segment in
            (0..<segment.rows).map { (segment.cache, segment.cache.length + $0) }
        }
    }

    /// cos and sin of every row's angles, computed as the reference does: frequencies and angles in float32.
    private func fillRotations(_ positions: [(cache: KVCache, position: Int)], _ w: Workspace) {
        let half = shape.headDimension / 2
        for (row, entry) in positions.enumerated() {
            for m in 0..<half {
                let angle = Float(entry.position) * inverseFrequencies[m]
                w.cosines[row * half + m] = cosf(angle)
                w.sines[row * half + m] = sinf(angle)
            }
        }
    }

    private func normalize(
        _ x: UnsafePointer<Float>, _ weight: FloatBuffer, rows: Int, into y: UnsafeMutablePointer<Float>
    ) {
        let n = shape.hidden
        compute.forRows(rows, cost: n) { range in
            compute.kernels.rms_norm(
                x + range.lowerBound * n, n, weight.pointer, shape.normEpsilon, range.count, n,
                y + range.lowerBound * n, n)
        }
    }

    private func addResidual(
        _ branch: UnsafePointer<Float>, _ scale: FloatBuffer?, range: Range<Int>, rows: Int,
        to x: UnsafeMutablePointer<Float>
    ) {
        for row in 0..<rows {
            let at = row * shape.hidden + range.lowerBound
            compute.kernels.add_scaled(
                branch + at, scale.map { UnsafePointer($0.pointer + range.lowerBound) }, range.count, x + at)
        }
    }

    /// Norms and rotates queries and keys, stores keys and values, and attends: w.query, w.key, w.value → w.attention.
    private func attend(
        layer index: Int, _ layer: Layer, segments: [Segment], positions: [(cache: KVCache, position: Int)],
        _ w: Workspace
    ) {
        let s = shape
        let dim = s.headDimension
        let kernels = compute.kernels
        let rows = positions.count
        compute.forRows(rows, cost: 2 * s.queryWidth) { range in
            for row in range {
                let (cosines, sines) = (w.cosines + row * dim / 2, w.sines + row * dim / 2)
                let (query, key) = (w.query + row * s.queryWidth, w.key + row * s.keyWidth)
                kernels.norm_rope(
                    query, s.heads, dim, layer.queryNorm.map { UnsafePointer($0.pointer) }, s.normEpsilon, cosines,
                    sines)
                kernels.norm_rope(
                    key, s.keyValueHeads, dim, layer.keyNorm.map { UnsafePointer($0.pointer) }, s.normEpsilon,
                    cosines, sines)
                let (cache, position) = positions[row]
                for head in 0..<s.keyValueHeads {
                    let slot = cache.keys(layer: index, head: head, position: position)
                    slot.update(from: key + head * dim, count: dim)
                    (slot + cache.valueOffset).update(from: w.value + row * s.keyWidth + head * dim, count: dim)
                }
            }
        }
        let visible = positions.map { min($0.position + 1, s.window ?? Int.max) }
        let work = visible.reduce(0, +) * s.queryWidth
        let items = rows * s.keyValueHeads
        let body: (Range<Int>) -> Void = { range in
            for item in range {
                self.attendGroup(
                    layer: index, row: item / s.keyValueHeads, keyHead: item % s.keyValueHeads, positions: positions,
                    w)
            }
        }
        if work < 100_000 { body(0..<items) } else { compute.pool.split(items, grain: 1, body) }
    }

    /// The queries and the cache hold normed and rotated values by now.
    private func answer(_ focus: Focus, _ segments: [Segment], _ w: Workspace) -> [Int?] {
        let (head, dim) = (focus.head.head, shape.headDimension)
        let keyHead = head / (shape.heads / shape.keyValueHeads)
        var rows = 0
        return zip(segments, focus.positions).map { segment, positions in
            rows += segment.rows
            let query = w.query + (rows - 1) * shape.queryWidth + head * dim
            var best: (position: Int, score: Float)?
            for position in positions {
                let key = segment.cache.keys(layer: focus.head.layer, head: keyHead, position: position)
                var score: Float = 0
                for i in 0..<dim { score += query[i] * key[i] }
                if score > best?.score ?? -.infinity { best = (position, score) }
            }
            return best?.position
        }
    }

    /// The query heads of one row that share a key head.
    private func attendGroup(
        layer: Int, row: Int, keyHead: Int, positions: [(cache: KVCache, position: Int)], _ w: Workspace
    ) {
        let s = shape
        let dim = s.headDimension
        let (cache, position) = positions[row]
        let group = s.heads / s.keyValueHeads
        let scale = 1 / Float(dim).squareRoot()
        for head in (keyHead * group)..<((keyHead + 1) * group) {
            let state = w.states + (row * s.heads + head) * (dim + 2)
            state.update(repeating: 0, count: dim + 2)
            state[0] = -.infinity
            var start = s.window.map { max(0, position - $0 + 1) } ?? 0
            while start <= position {
                let end = min(position + 1, (start / KVCache.blockLength + 1) * KVCache.blockLength)
                let keys = cache.keys(layer: layer, head: keyHead, position: start)
                compute.kernels.attend(
                    w.query + row * s.queryWidth + head * dim, keys, keys + cache.valueOffset, dim, end - start, dim,
                    scale, state)
                start = end
            }
            let out = w.attention + row * s.queryWidth + head * dim
            let inverse = 1 / state[1]
            for i in 0..<dim { out[i] = state[2 + i] * inverse }
        }
    }
}
