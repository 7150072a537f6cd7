/// Writes mono signed 16-bit PCM while it is generated, as a WAV file or raw.
///
/// A file is written under a temporary name beside its target and renamed by ``finish()``; when the writer goes away
/// before that (an error, a cancelled task), the temporary file is removed and the target is as it was. Pipes, devices
/// and descriptors cannot be patched afterwards: their WAV header states 0xFFFFFFFF for both sizes, the convention for
/// "until the end". Samples become bytes by ``PCM16``.
public struct WAVWriter: ~Copyable, Sendable {
    /// What surrounds the samples.
    public enum Container: Sendable {
        /// A 44-byte RIFF header, then the samples.
        case wav
        /// Samples only.
        case rawPCM
    }

    /// Samples written so far.
    public private(set) var sampleCount = 0

    private let output: Output
    private let container: Container
    private let sampleRate: Int
    private var buffer: [UInt8] = []

    /// The most samples a RIFF header can state.
    private static let maximumSamples = (0xFFFF_FFFF - 36) / 2

    /// Begins a file at `path`, replacing what is there only when finished. A path that is a pipe or a device is written
    /// directly.
    public init(path: String, container: Container = .wav, sampleRate: Int = 24_000) throws(AudioFileError) {
        let output = try Output(path: path)
        try Self.begin(output, container, sampleRate)
        self.output = output
        self.container = container
        self.sampleRate = sampleRate
    }

    /// Begins a stream on an open descriptor, such as standard output. The descriptor stays open at the end.
    public init(
        descriptor: Int32, container: Container, sampleRate: Int = 24_000, name: String = "standard output"
    ) throws(AudioFileError) {
        let output = Output(descriptor: descriptor, name: name)
        try Self.begin(output, container, sampleRate)
        self.output = output
        self.container = container
        self.sampleRate = sampleRate
    }

    /// Appends samples, `[T]` float32, and hands them to the operating system at once.
    public mutating func write(_ samples: some Collection<Float>) throws(AudioFileError) {
        let limit = container == .wav && output.isFile ? Self.maximumSamples : Int.max
        guard samples.count <= limit - sampleCount else {
            throw AudioFileError(path: output.path, .unwritable("a WAV file ends at 4 GiB"))
        }
        buffer.removeAll(keepingCapacity: true)
        PCM16.append(samples, to: &buffer)
        try output.append(buffer)
        sampleCount += samples.count
    }

    /// Completes the file: states the sizes in the header and puts the file in its place.
    public consuming func finish() throws(AudioFileError) {
        guard output.isFile else { return }
        if container == .wav {
            try output.rewrite(Self.header(sampleRate: sampleRate, sampleCount: sampleCount))
        }
        try output.publish()
    }

    /// The 44 bytes before the samples of a mono 16-bit WAV. Without `sampleCount`, or with one that a RIFF header cannot
    /// state, the header of a stream.
    public static func header(sampleRate: Int = 24_000, sampleCount: Int? = nil) -> [UInt8] {
        let dataBytes = sampleCount.flatMap { 0...maximumSamples ~= $0 ? UInt32($0 * 2) : nil }
        var header: [UInt8] = []
        func put(_ text: String) { header += Array(text.utf8) }
        func put(_ value: UInt32) { header += (0..<4).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) } }
        put("RIFF")
        put(dataBytes.map { $0 + 36 } ?? 0xFFFF_FFFF)
        put("WAVEfmt ")
        put(16 as UInt32)
        put(1 | 1 << 16)
        put(UInt32(sampleRate))
        put(UInt32(sampleRate * 2))
        put(2 | 16 << 16)
        put("data")
        put(dataBytes ?? 0xFFFF_FFFF)
        return header
    }

    private static func begin(
        _ output: borrowing Output, _ container: Container, _ sampleRate: Int
    ) throws(AudioFileError) {
        guard container == .wav else { return }
        try output.append(header(sampleRate: sampleRate, sampleCount: output.isFile ? 0 : nil))
    }
}
