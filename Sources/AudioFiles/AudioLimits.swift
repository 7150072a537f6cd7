/// What is accepted of audio.
public enum AudioLimits {
    /// Sample rates that are read and resampled, in Hz.
    public static let sampleRates = 1_000...768_000
    /// Sample frames read by default: 2^28, 93 minutes at 48 kHz, 1 GiB as float32.
    public static let frames = 1 << 28
}
