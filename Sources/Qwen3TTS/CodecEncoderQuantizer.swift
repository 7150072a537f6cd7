import CKernels
import Tensors

/// The residual vector quantiser of the codec encoder: a column → the codes of a frame
/// (specification, section 6.1; `encoder.quantizer`).
///
/// The semantic codebook and the chain of acoustic codebooks quantise the same column, each after a projection of its
/// own. A code is the entry at the least Euclidean distance, the first one on ties, exactly: float32 products choose
/// the candidates, distances in double decide among them.
///
/// `@unchecked Sendable`: weights are immutable; the scratch memory belongs to the one thread that drives the stage.
final class CodecEncoderQuantizer: @unchecked Sendable {
    private struct Codebook {
        /// Entries [codebookSize, dimension].
        let entries: FloatBuffer
        /// r → e·r - |e|²/2 for each entry e: the larger, the nearer.
        let scores: Convolution
        /// Largest Euclidean norm of an entry.
        let largestNorm: Float
    }

    private struct Chain {
        let projection: Convolution
        let codebooks: [Codebook]
        /// Index of its first code within a frame.
        let firstGroup: Int
    }

    /// Codes of a frame.
    let groups: Int

    private let hidden: Int
    private let dimension: Int
    private let size: Int
    private let chains: [Chain]
    private let compute: Compute
    private var residuals = Scratch()
    private var scores = Scratch()

    /// Frames quantised together: bounds the memory of scores.
    private static let framesPerPass = 128

    init(_ file: SafetensorsFile, configuration c: CodecEncoderConfiguration, compute: Compute) throws(TensorError) {
        self.compute = compute
        groups = c.usedCodebooks
        hidden = c.transformer.hidden
        dimension = c.codebookDimension
        size = c.codebookSize
        var chains: [Chain] = []
        for (part, firstGroup, count) in [("semantic", 0, 1), ("acoustic", 1, c.usedCodebooks - 1)] {
            let p = "encoder.quantizer.\(part)_residual_vector_quantizer."
            var codebooks: [Codebook] = []
            for level in 0..<count {
                let name = p + "layers.\(level).codebook."
                let entries = try file.floats(name + "embed_sum", shape: [size, dimension])
                let usage = try file.floats(name + "cluster_usage", shape: [size])
                let halfSquares = FloatBuffer(count: size)
                var largest: Float = 0
                for entry in 0..<size {
                    let values = entries.pointer + entry * dimension
                    let divisor = max(usage.pointer[entry], 1e-5)
                    var square = 0.0
                    for i in 0..<dimension {
                        values[i] /= divisor
                        square += Double(values[i]) * Double(values[i])
                    }
                    halfSquares.pointer[entry] = Float(-square / 2)
                    largest = max(largest, Float(square.squareRoot()))
                }
                codebooks.append(
                    Codebook(
                        entries: entries,
                        scores: Convolution(
                            dense: entries, taps: 1, channels: dimension, outputs: size, bias: halfSquares),
                        largestNorm: largest))
            }
            chains.append(
                Chain(
                    projection: try Convolution(
                        file, p + "input_proj", taps: 1, channels: hidden, outputs: dimension, bias: false),
                    codebooks: codebooks, firstGroup: firstGroup))
        }
        self.chains = chains
    }

    /// Quantises columns x [frames, hidden] to codes [frames, groups].
    func run(_ x: UnsafePointer<Float>, frames: Int) -> [Int32] {
        var codes = [Int32](repeating: 0, count: frames * groups)
        codes.withUnsafeMutableBufferPointer { out in
            guard let out = out.baseAddress else { return }
            for start in stride(from: 0, to: frames, by: Self.framesPerPass) {
                let count = min(Self.framesPerPass, frames - start)
                for chain in chains {
                    run(chain, x + start * hidden, frames: count, into: out + start * groups + chain.firstGroup)
                }
            }
        }
        return codes
    }

    private func run(
        _ chain: Chain, _ x: UnsafePointer<Float>, frames: Int, into codes: UnsafeMutablePointer<Int32>
    ) {
        let residual = residuals.reserve(frames * dimension)
        chain.projection.run(
            x, columns: frames, epilogue: mk_epilogue(raw: residual, stride: dimension), compute: compute)
        let scores = scores.reserve(frames * size)
        for (level, codebook) in chain.codebooks.enumerated() {
            codebook.scores.run(
                residual, columns: frames, epilogue: mk_epilogue(raw: scores, stride: size), compute: compute)
            compute.forRows(frames, cost: size) { range in
                for frame in range {
                    let rest = residual + frame * dimension
                    let code = nearest(codebook, rest, scores: scores + frame * size)
                    codes[frame * groups + level] = Int32(code)
                    let entry = codebook.entries.pointer + code * dimension
                    for i in 0..<dimension { rest[i] -= entry[i] }
                }
            }
        }
    }

    /// The entry nearest to `residual`: of all entries whose score is within rounding of the best, the one at the
    /// least distance computed in double.
    private func nearest(_ codebook: Codebook, _ residual: UnsafePointer<Float>, scores: UnsafePointer<Float>) -> Int {
        var best = -Float.infinity
        for entry in 0..<size { best = max(best, scores[entry]) }
        var square: Float = 0
        for i in 0..<dimension { square += residual[i] * residual[i] }
        // Twice the bound n·2⁻²⁴·|e||r| on the error of a product of n terms, and as much for |e|²/2.
        let bound = codebook.largestNorm * (square.squareRoot() + codebook.largestNorm)
        let threshold = best - Float(dimension + 8) * 0x1p-22 * bound
        var nearest = 0
        var least = Double.infinity
        for entry in 0..<size where !(scores[entry] < threshold) {
            let values = codebook.entries.pointer + entry * dimension
            var distance = 0.0
            for i in 0..<dimension {
                let difference = Double(residual[i]) - Double(values[i])
                distance += difference * difference
            }
            if distance < least { (nearest, least) = (entry, distance) }
        }
        return nearest
    }
}
