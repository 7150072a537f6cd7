import CKernels
import Tensors

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Attentive statistics pooling: frames → mean and deviation of each channel, weighted over time by an attention of the
/// channel's own (specification, section 6.3; `AttentiveStatisticsPooling`).
final class SpeakerPooling: Sendable {
    /// Channels of a frame.
    let channels: Int

    private let inner: Int
    /// The part of `asp.tdnn` that sees the frame, [inner, channels].
    private let frameWeights: Convolution
    /// The parts that see the plain mean and deviation, [inner, channels] each, and the bias. They are the same for all
    /// frames, so the frames are not copied together with them.
    private let meanWeights: FloatBuffer, deviationWeights: FloatBuffer, bias: FloatBuffer
    private let attention: Convolution
    private let compute: Compute

    init(_ file: SafetensorsFile, channels: Int, inner: Int, compute: Compute) throws(TensorError) {
        self.channels = channels
        self.inner = inner
        self.compute = compute
        let weights = try file.floats("speaker_encoder.asp.tdnn.conv.weight", shape: [inner, 3 * channels, 1])
        func part(_ index: Int) -> FloatBuffer {
            let part = FloatBuffer(count: inner * channels)
            for o in 0..<inner {
                (part.pointer + o * channels).update(
                    from: weights.pointer + (3 * o + index) * channels, count: channels)
            }
            return part
        }
        frameWeights = Convolution(dense: part(0), taps: 1, channels: channels, outputs: inner, bias: nil)
        (meanWeights, deviationWeights) = (part(1), part(2))
        bias = try file.floats("speaker_encoder.asp.tdnn.conv.bias", shape: [inner])
        attention = try Convolution(
            file, "speaker_encoder.asp.conv", taps: 1, channels: inner, outputs: channels)
    }

    /// Pools x [frames, channels] to mean and deviation [2 · channels] in `out`.
    /// - Parameter logits: work memory [frames, channels].
    func run(
        _ x: UnsafePointer<Float>, frames: Int, logits: UnsafeMutablePointer<Float>,
        into out: UnsafeMutablePointer<Float>
    ) {
        plainStatistics(x, frames: frames, into: out)
        let common = FloatBuffer(count: inner)
        for o in 0..<inner {
            let (mean, deviation) = (meanWeights.pointer + o * channels, deviationWeights.pointer + o * channels)
            var sum = Double(bias.pointer[o])
            for c in 0..<channels {
                sum += Double(mean[c]) * Double(out[c]) + Double(deviation[c]) * Double(out[channels + c])
            }
            common.pointer[o] = Float(sum)
        }
        let hidden = FloatBuffer(count: frames * inner)
        var epilogue = mk_epilogue(raw: hidden.pointer, stride: inner)
        epilogue.residual = UnsafePointer(common.pointer)
        epilogue.ld_residual = 0
        frameWeights.run(x, columns: frames, epilogue: epilogue, compute: compute)
        compute.forRows(frames, cost: 8 * inner) { range in
            for i in (range.lowerBound * inner)..<(range.upperBound * inner) {
                hidden.pointer[i] = tanhf(max(0, hidden.pointer[i]))
            }
        }
        attention.run(
            hidden.pointer, columns: frames, epilogue: mk_epilogue(raw: logits, stride: channels), compute: compute)
        weightedStatistics(x, logits: logits, frames: frames, into: out)
        withExtendedLifetime((hidden, common)) {}
    }

    private static let leastVariance = 1e-12

    private func plainStatistics(_ x: UnsafePointer<Float>, frames: Int, into out: UnsafeMutablePointer<Float>) {
        compute.pool.split(channels, grain: 16) { range in
            for c in range {
                var sum = 0.0
                for frame in 0..<frames { sum += Double(x[frame * channels + c]) }
                let mean = sum / Double(frames)
                var squares = 0.0
                for frame in 0..<frames {
                    let difference = Double(x[frame * channels + c]) - mean
                    squares += difference * difference
                }
                out[c] = Float(mean)
                out[channels + c] = Float(max(squares / Double(frames), Self.leastVariance).squareRoot())
            }
        }
    }

    /// Softmax of `logits` over time, in place, then the statistics under these weights.
    private func weightedStatistics(
        _ x: UnsafePointer<Float>, logits: UnsafeMutablePointer<Float>, frames: Int,
        into out: UnsafeMutablePointer<Float>
    ) {
        compute.pool.split(channels, grain: 16) { range in
            for c in range {
                var largest = -Float.infinity
                for frame in 0..<frames { largest = max(largest, logits[frame * channels + c]) }
                var (total, sum) = (0.0, 0.0)
                for frame in 0..<frames {
                    let weight = expf(logits[frame * channels + c] - largest)
                    logits[frame * channels + c] = weight
                    total += Double(weight)
                    sum += Double(weight) * Double(x[frame * channels + c])
                }
                let mean = sum / total
                var squares = 0.0
                for frame in 0..<frames {
                    let difference = Double(x[frame * channels + c]) - mean
                    squares += Double(logits[frame * channels + c]) * difference * difference
                }
                out[c] = Float(mean)
                out[channels + c] = Float(max(squares / total, Self.leastVariance).squareRoot())
            }
        }
    }
}
