/// The forms of audio that clients may ask for.
enum AudioFormat: String, CaseIterable, Sendable {
    case mp3, opus, aac, flac, wav, pcm

    /// Its media type.
    func contentType(sampleRate: Int) -> String {
        switch self {
        case .mp3: "audio/mpeg"
        case .opus: "audio/ogg; codecs=opus"
        case .aac: "audio/aac"
        case .flac: "audio/flac"
        case .wav: "audio/wav"
        case .pcm: "audio/pcm; rate=\(sampleRate); channels=1; format=s16le"
        }
    }

    /// Makes an encoder for one stream.
    /// - Throws: an error that names the package to install, where the format's library is missing.
    func makeEncoder(sampleRate: Int) throws(APIError) -> any AudioEncoder {
        switch self {
        case .mp3: try MP3Encoder(sampleRate: sampleRate)
        case .opus: try OpusEncoder(sampleRate: sampleRate)
        case .aac: try AACEncoder(sampleRate: sampleRate)
        case .flac: FLACEncoder(sampleRate: sampleRate)
        case .wav: WAVEncoder(sampleRate: sampleRate)
        case .pcm: PCMEncoder()
        }
    }

    /// Whether an encoder can be made.
    var isAvailable: Bool {
        switch self {
        case .mp3: LameLibrary.shared != nil
        case .opus: OpusLibrary.shared != nil
        case .aac: FDKAACLibrary.shared != nil
        case .flac, .wav, .pcm: true
        }
    }
}

/// Turns mono samples into bytes of a format, as they come. Used by one task at a time.
protocol AudioEncoder: AnyObject, Sendable {
    /// Takes samples, `[n]` float32 in -1…1; gives the bytes that are complete.
    func encode(_ samples: [Float]) throws(APIError) -> [UInt8]
    /// Gives the rest.
    func finish() throws(APIError) -> [UInt8]
}
