#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// Reads WAV files: RIFF, RF64 and BW64, plain and extensible headers, PCM of 8, 16, 24 and 32 bits, IEEE float of 32
/// and 64 bits, 1 to 256 channels, 1 kHz to 768 kHz.
///
/// Files written to a pipe, whose sizes are 0 or 0xFFFFFFFF, end where the file ends. Any other size that does not fit
/// the file is an error. Integer samples are divided by 2^(bits - 1); float samples are taken as they are; channels are
/// averaged (sum in double, then one division), as librosa's `to_mono` does.
public enum WAVFile {
    /// Reads the file at `path` as mono float32.
    ///
    /// A pipe or device is read to its end. Files with more than `maximumFrames` sample frames are refused.
    public static func read(
        path: String, maximumFrames: Int = AudioLimits.frames
    ) throws(AudioFileError) -> AudioClip {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw AudioFileError(path: path, .unreadable(systemErrorText(errno))) }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT != S_IFDIR else {
            let reason = systemErrorText(status.st_mode & S_IFMT == S_IFDIR ? EISDIR : errno)
            _ = close(descriptor)
            throw AudioFileError(path: path, .unreadable(reason))
        }
        guard status.st_mode & S_IFMT == S_IFREG else {
            let result = Result { () throws(AudioFileError) in
                try readToEnd(descriptor, path: path, limit: 1 << 30)
            }
            _ = close(descriptor)
            return try decode(MemorySource(bytes: result.get()), path: path, maximumFrames: maximumFrames)
        }
        let source = FileSource(descriptor: descriptor, count: UInt64(max(0, status.st_size)), path: path)
        return try decode(source, path: path, maximumFrames: maximumFrames)
    }

    /// Reads a WAV file in memory as mono float32. `name` is what errors call it.
    public static func decode(
        _ bytes: [UInt8], name: String? = nil, maximumFrames: Int = AudioLimits.frames
    ) throws(AudioFileError) -> AudioClip {
        try decode(MemorySource(bytes: bytes), path: name, maximumFrames: maximumFrames)
    }

    /// What the header of a WAV file in memory says.
    public static func format(of bytes: [UInt8], name: String? = nil) throws(AudioFileError) -> WAVFormat {
        try WAVParser(source: MemorySource(bytes: bytes), path: name).layout().format
    }

    private static func decode<Source: ByteSource & ~Copyable>(
        _ source: consuming Source, path: String?, maximumFrames: Int
    ) throws(AudioFileError) -> AudioClip {
        let parser = WAVParser(source: source, path: path)
        let layout = try parser.layout()
        let format = layout.format
        guard format.frames <= maximumFrames else {
            throw AudioFileError(
                path: path, .tooLong(frames: UInt64(format.frames), limit: UInt64(max(0, maximumFrames))))
        }
        let frameBytes = format.channels * format.encoding.byteCount
        let framesPerBlock = max(1, (1 << 16) / frameBytes)
        var samples: [Float] = []
        samples.reserveCapacity(format.frames)
        while samples.count < format.frames {
            let count = min(framesPerBlock, format.frames - samples.count)
            let block = try parser.source.read(
                at: layout.dataOffset + UInt64(samples.count * frameBytes), length: count * frameBytes)
            if let channel = appendMono(block, format, frames: count, to: &samples) {
                throw AudioFileError(path: path, .notFinite(frame: samples.count, channel: channel))
            }
        }
        return AudioClip(samples: samples, sampleRate: format.sampleRate)
    }

    /// Appends `frames` frames of `block`. Stops at a sample that is not finite and returns its channel.
    private static func appendMono(
        _ block: [UInt8], _ format: WAVFormat, frames: Int, to samples: inout [Float]
    ) -> Int? {
        switch format.encoding {
        case .uint8: appendMono(block, format, frames, &samples) { (Double($0[$1]) - 128) / 128 }
        case .int16: appendMono(block, format, frames, &samples) { Double(Int16(bitPattern: $0.u16($1))) / 32768 }
        case .int24:
            appendMono(block, format, frames, &samples) {
                let high = Int32(bitPattern: UInt32($0.u16($1)) << 8 | UInt32($0[$1 + 2]) << 24)
                return Double(high) / 2_147_483_648
            }
        case .int32:
            appendMono(block, format, frames, &samples) { Double(Int32(bitPattern: $0.u32($1))) / 2_147_483_648 }
        case .float32: appendMono(block, format, frames, &samples) { Double(Float(bitPattern: $0.u32($1))) }
        case .float64: appendMono(block, format, frames, &samples) { Double(bitPattern: $0.u64($1)) }
        }
    }

    @inline(__always)
    private static func appendMono(
        _ block: [UInt8], _ format: WAVFormat, _ frames: Int, _ samples: inout [Float],
        _ sample: ([UInt8], Int) -> Double
    ) -> Int? {
        let step = format.encoding.byteCount
        var offset = 0
        for _ in 0..<frames {
            var sum = 0.0
            for channel in 0..<format.channels {
                let value = sample(block, offset)
                // A float64 beyond float32's range is as useless as an infinity.
                guard abs(value) <= Double(Float.greatestFiniteMagnitude) else { return channel }
                sum += value
                offset += step
            }
            samples.append(Float(sum / Double(format.channels)))
        }
        return nil
    }
}
