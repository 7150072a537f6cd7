/// How the samples of a WAV file are stored.
public enum SampleEncoding: String, Equatable, Sendable {
    /// Unsigned 8-bit PCM, 128 is silence.
    case uint8
    /// Signed 16-bit PCM.
    case int16
    /// Signed 24-bit PCM in 3 bytes.
    case int24
    /// Signed 32-bit PCM.
    case int32
    /// IEEE 754 float of 32 bits.
    case float32
    /// IEEE 754 float of 64 bits.
    case float64

    /// Bytes one sample of one channel takes.
    public var byteCount: Int {
        switch self {
        case .uint8: 1
        case .int16: 2
        case .int24: 3
        case .int32, .float32: 4
        case .float64: 8
        }
    }
}

/// What the header of a WAV file says, after every check.
public struct WAVFormat: Equatable, Sendable {
    /// How a sample is stored.
    public var encoding: SampleEncoding
    /// Channels, 1...256.
    public var channels: Int
    /// Sample frames per second, 1 000...768 000.
    public var sampleRate: Int
    /// Sample frames in the file.
    public var frames: Int

    /// Makes a description of `frames` sample frames of `channels` channels.
    public init(encoding: SampleEncoding, channels: Int, sampleRate: Int, frames: Int) {
        self.encoding = encoding
        self.channels = channels
        self.sampleRate = sampleRate
        self.frames = frames
    }
}
