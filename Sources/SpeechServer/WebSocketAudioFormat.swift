import AudioFiles

/// How samples are put on a connection: 16-bit little-endian PCM at some rate, G.711 at 8 kHz, or a file of each utterance.
///
/// Raw ones are named as ElevenLabs names them: `pcm_24000`, `ulaw_8000`, `alaw_8000`; files as in the speech API.
struct WebSocketAudioFormat: Equatable, Sendable, CustomStringConvertible {
    enum Encoding: String, Sendable {
        case pcm
        case ulaw
        case alaw
        case mp3, opus, aac, flac, wav
    }

    let encoding: Encoding
    let sampleRate: Int

    private static let pcmRates = [8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000]

    private static let files: [Encoding] = [.mp3, .opus, .aac, .flac, .wav]

    /// All raw ones.
    static let raw =
        pcmRates.map { Self(encoding: .pcm, sampleRate: $0) }
        + [Self(encoding: .ulaw, sampleRate: 8_000), Self(encoding: .alaw, sampleRate: 8_000)]

    init(encoding: Encoding, sampleRate: Int) {
        self.encoding = encoding
        self.sampleRate = sampleRate
    }

    /// The format of that name; `pcm` alone is the model's own rate. Nil if it is not offered.
    init?(name: String, modelRate: Int) {
        if name == "pcm" {
            self.init(encoding: .pcm, sampleRate: modelRate)
            return
        }
        if let file = Encoding(rawValue: name), Self.files.contains(file) {
            self.init(encoding: file, sampleRate: modelRate)
            return
        }
        guard let format = Self.raw.first(where: { $0.description == name }) else { return nil }
        self = format
    }

    var description: String { fileFormat?.rawValue ?? "\(encoding.rawValue)_\(sampleRate)" }

    /// The names of all that there are.
    static let names = raw.map(\.description) + files.map(\.rawValue)

    /// The file that each utterance becomes; nil for raw samples.
    fileprivate var fileFormat: AudioFormat? { encoding == .pcm ? nil : AudioFormat(rawValue: encoding.rawValue) }
}

/// Turns the samples of one utterance into bytes of a format, packet by packet.
struct WebSocketAudioEncoder: Sendable {
    private let format: WebSocketAudioFormat
    private var resampler: PacketResampler?
    private let file: (any AudioEncoder)?

    /// - Throws: an error that names the package to install, where the format's library is missing.
    init(_ format: WebSocketAudioFormat, modelRate: Int) throws(APIError) {
        self.format = format
        file = try format.fileFormat?.makeEncoder(sampleRate: modelRate)
        guard format.sampleRate != modelRate else { return }
        do throws(AudioFileError) {
            resampler = try PacketResampler(from: modelRate, to: format.sampleRate)
        } catch {
            throw .server("\(error)")
        }
    }

    /// Bytes of the samples so far that were not given before.
    mutating func encode(_ samples: [Float], pcm: [UInt8]) throws(APIError) -> [UInt8] {
        if let file { return try file.encode(samples) }
        guard resampler != nil else { return format.encoding == .pcm ? pcm : bytes(samples) }
        return bytes(resampler?.add(samples) ?? [])
    }

    /// Bytes that were held back for the samples after them.
    mutating func finish() throws(APIError) -> [UInt8] {
        if let file { return try file.finish() }
        return bytes(resampler?.finish() ?? [])
    }

    private func bytes(_ samples: [Float]) -> [UInt8] {
        switch format.encoding {
        case .pcm, .mp3, .opus, .aac, .flac, .wav: PCM16.bytes(samples)
        case .ulaw: samples.map { G711.ulaw(PCM16.convert($0)) }
        case .alaw: samples.map { G711.alaw(PCM16.convert($0)) }
        }
    }
}

/// Resamples a stream piece by piece, with the samples that ``AudioFiles/Resampler`` gives for the whole.
struct PacketResampler: Sendable {
    private let resampler: Resampler
    private let outputsPerPeriod: Int
    private let inputsPerPeriod: Int
    /// Input samples on each side of an output that may count: the filter's half width, at the lower rate.
    private let reach: Int
    /// Input from position `start`, a whole number of periods.
    private var input: [Float] = []
    private var start = 0
    private var given = 0

    init(from: Int, to: Int) throws(AudioFileError) {
        resampler = try Resampler(from: from, to: to)
        var (a, b) = (from, to)
        while b != 0 { (a, b) = (b, a % b) }
        outputsPerPeriod = to / a
        inputsPerPeriod = from / a
        reach = Int((100 * max(1, Double(from) / Double(to))).rounded(.up)) + 1
    }

    /// Takes samples `[n]`; gives the output that they settle.
    mutating func add(_ samples: [Float]) -> [Float] {
        input += samples
        let settled = (start + input.count - reach) * outputsPerPeriod / inputsPerPeriod
        return take(settled)
    }

    /// The rest, with silence after the end.
    mutating func finish() -> [Float] { take(resampler.outputCount(start + input.count)) }

    private mutating func take(_ end: Int) -> [Float] {
        guard end > given else { return [] }
        let first = start / inputsPerPeriod * outputsPerPeriod
        let output = Array(resampler.resample(input)[(given - first)..<(end - first)])
        given = end
        let needed = max(0, given * inputsPerPeriod / outputsPerPeriod - reach)
        let dropped = needed / inputsPerPeriod * inputsPerPeriod - start
        if dropped > 0 {
            input.removeFirst(dropped)
            start += dropped
        }
        return output
    }
}

/// Companding of telephony, ITU-T G.711.
enum G711 {
    /// A sample in µ-law.
    static func ulaw(_ sample: Int16) -> UInt8 {
        let sign: UInt8 = sample < 0 ? 0x80 : 0
        let magnitude = min(abs(Int(sample)), 32_635) + 132
        let exponent = Int.bitWidth - 1 - magnitude.leadingZeroBitCount - 7
        let mantissa = UInt8((magnitude >> (exponent + 3)) & 15)
        return ~(sign | UInt8(exponent) << 4 | mantissa)
    }

    /// A sample in A-law.
    static func alaw(_ sample: Int16) -> UInt8 {
        let sign: UInt8 = sample < 0 ? 0 : 0x80
        // Negative values are shifted by one, as the standard's ones' complement has it.
        let magnitude = sample < 0 ? -Int(sample) - 1 : Int(sample)
        let exponent = max(0, Int.bitWidth - 1 - magnitude.leadingZeroBitCount - 7)
        let mantissa = UInt8((magnitude >> (exponent == 0 ? 4 : exponent + 3)) & 15)
        return (sign | UInt8(exponent) << 4 | mantissa) ^ 0x55
    }
}
