/// Mono audio in memory.
public struct AudioClip: Equatable, Sendable {
    /// The samples, `[T]` float32, nominally in -1...1.
    public var samples: [Float]
    /// Samples per second.
    public var sampleRate: Int

    /// Makes a clip of `samples` (`[T]` float32) at `sampleRate` Hz.
    public init(samples: [Float], sampleRate: Int) {
        self.samples = samples
        self.sampleRate = sampleRate
    }

    /// The length in seconds.
    public var seconds: Double { Double(samples.count) / Double(sampleRate) }

    /// The same audio at another rate, `ceil(T · rate / sampleRate)` samples; see ``Resampler``.
    public func resampled(to rate: Int) throws(AudioFileError) -> AudioClip {
        AudioClip(samples: try Resampler(from: sampleRate, to: rate).resample(samples), sampleRate: rate)
    }
}
