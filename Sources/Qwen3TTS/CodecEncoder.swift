import CKernels
import Tensors

/// The codec encoder: 24 kHz samples → 16 codes a frame of 1920 samples (specification, section 6.1). It hears the
/// reference recording of an in-context clone; nothing else of speech synthesis needs it.
///
/// It takes a whole recording at a time. The reference pads each layer's input on the right, so that a recording's last
/// codes differ from those of a longer one; encode one recording a call.
///
/// `@unchecked Sendable`: weights are immutable; the work memory belongs to the one thread that drives the stage.
public final class CodecEncoder: @unchecked Sendable {
    /// Samples of one frame.
    public let samplesPerFrame: Int
    /// Codes of one frame.
    public let codeGroups: Int
    /// Samples per second of what it hears.
    public let sampleRate: Int

    /// The longest recording it takes, in seconds: attention looks at all pairs of 40 ms columns.
    public static let longestSeconds = 600

    /// Sees the output of a stage (`seanet`, `transformer`, `downsample`): channel-last values [columns, channels].
    public typealias Observer = (_ stage: String, _ values: UnsafeBufferPointer<Float>, _ channels: Int) -> Void

    private let convolutions: CodecEncoderConvolutions
    private let transformer: CodecEncoderTransformer
    private let downsample: Convolution
    private let quantizer: CodecEncoderQuantizer
    private let compute: Compute

    private static let downsampleStride = CodecEncoderConfiguration.downsampleStride

    /// Loads the encoder from `speech_tokenizer/model.safetensors`.
    /// - Throws: ``TensorError``, also if the configuration has no `encoder_config`.
    public init(_ file: SafetensorsFile, configuration codec: CodecConfiguration, compute: Compute)
        throws(TensorError)
    {
        guard let c = codec.encoder else {
            throw .unreadable(
                path: file.path, reason: "the config.json beside it has no encoder_config: this codec only decodes")
        }
        self.compute = compute
        samplesPerFrame = codec.samplesPerFrame
        codeGroups = c.usedCodebooks
        sampleRate = codec.sampleRate
        convolutions = try CodecEncoderConvolutions(file, configuration: c, compute: compute)
        transformer = try CodecEncoderTransformer(file, shape: c.transformer, compute: compute)
        let hidden = c.transformer.hidden
        downsample = try Convolution(
            file, "encoder.downsample.conv", taps: 2 * Self.downsampleStride, channels: hidden, outputs: hidden,
            stride: Self.downsampleStride, bias: false)
        quantizer = try CodecEncoderQuantizer(file, configuration: c, compute: compute)
    }

    /// Encodes a recording.
    /// - Parameters:
    ///   - samples: mono float32 at `sampleRate`, in -1…1; at least one, at most `longestSeconds`.
    ///   - observe: sees the stages.
    /// - Returns: codes [frames, codeGroups], frames = ceil(samples / samplesPerFrame).
    /// - Throws: ``ModelError/badInput(_:)``.
    public func encode(_ samples: [Float], observe: Observer? = nil) throws(ModelError) -> [Int32] {
        try encode(samples, columnsPerPiece: max(1, sampleRate / convolutions.stride), observe: observe)
    }

    /// - Parameter columnsPerPiece: columns that the convolutions make at a time; it changes no bit.
    func encode(_ samples: [Float], columnsPerPiece: Int, observe: Observer? = nil) throws(ModelError) -> [Int32] {
        try ModelError.checkRecording(samples, sampleRate: sampleRate, longestSeconds: Self.longestSeconds)
        let hidden = convolutions.hidden
        let columns = convolutions.columns(samples: samples.count)
        func note(_ stage: String, _ values: UnsafePointer<Float>, columns: Int) {
            observe?(stage, UnsafeBufferPointer(start: values, count: columns * hidden), hidden)
        }

        // The downsampling convolution's input: the columns, and copies of the outermost ones where it reaches beyond.
        let stride = Self.downsampleStride
        let frames = (columns + stride - 1) / stride
        let padded = FloatBuffer(count: (stride + frames * stride) * hidden)
        let x = padded.pointer + stride * hidden
        samples.withUnsafeBufferPointer { convolutions.run($0, columnsPerPiece: columnsPerPiece, into: x) }
        note("seanet", x, columns: columns)
        transformer.forward(x, rows: columns)
        note("transformer", x, columns: columns)
        for column in 0..<stride { (padded.pointer + column * hidden).update(from: x, count: hidden) }
        for column in columns..<(frames * stride) {
            (x + column * hidden).update(from: x + (columns - 1) * hidden, count: hidden)
        }
        let downsampled = FloatBuffer(count: frames * hidden)
        downsample.run(
            padded.pointer, columns: frames, epilogue: mk_epilogue(raw: downsampled.pointer, stride: hidden),
            compute: compute)
        note("downsample", downsampled.pointer, columns: frames)
        let codes = quantizer.run(downsampled.pointer, frames: frames)
        return withExtendedLifetime((padded, downsampled)) { codes }
    }
}

extension ModelError {
    /// Checks what both encoders ask of a recording.
    static func checkRecording(_ samples: [Float], sampleRate: Int, longestSeconds: Int) throws(ModelError) {
        guard !samples.isEmpty else { throw .badInput("the recording is empty: it has no samples") }
        guard samples.count <= longestSeconds * sampleRate else {
            throw .badInput(
                "the recording lasts \(samples.count / sampleRate) s, at most \(longestSeconds) s are taken: "
                    + "use a shorter part of it")
        }
        guard let odd = samples.firstIndex(where: { !($0.magnitude <= loudest) }) else { return }
        throw .badInput(
            "sample \(odd) of the recording is \(samples[odd]): samples are numbers from -1 to 1")
    }

    /// Far above full scale, yet low enough that no sum overflows.
    private static let loudest: Float = 1e4
}
