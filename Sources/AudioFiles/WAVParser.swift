/// Walks the chunks of a RIFF, RF64 or BW64 file. Every size is compared with the bytes that are there before use.
/// Format: Microsoft "Multimedia Programming Interface" RIFF WAVE, WAVEFORMATEXTENSIBLE, EBU Tech 3306 (RF64).
struct WAVParser<Source: ByteSource & ~Copyable>: ~Copyable {
    let source: Source
    let path: String?

    /// Where the samples are and how they are stored.
    struct Layout {
        var format: WAVFormat
        var dataOffset: UInt64
    }

    /// 64-bit sizes of an RF64 or BW64 file.
    private struct LongSizes {
        var riff: UInt64
        var data: UInt64
        var others: [(name: String, size: UInt64)]
    }

    /// What the `fmt ` chunk says.
    private struct Encoded {
        var encoding: SampleEncoding
        var channels: Int
        var sampleRate: Int
    }

    /// From here on a 32-bit size is a writer's "not known": sox writes 0x7FFFEFFF and 0x7FFFF000 to pipes.
    private let unknownSize: UInt64 = 0x7FFF_E000

    func layout() throws(AudioFileError) -> Layout {
        let riffSize = try checkMagic()
        let isLong = riffSize.isLong
        var riffEnd = riffSize.value
        var sizes: LongSizes?
        var format: Encoded?
        var offset: UInt64 = 12
        while source.count - offset >= 8 {
            let header = try source.read(at: offset, length: 8)
            let name = chunkName(header)
            var size = UInt64(header.u32(4))
            let body = offset + 8
            let present = source.count - body
            if let sizes, size == 0xFFFF_FFFF, name != "data",
                let entry = sizes.others.first(where: { $0.name == name })
            {
                size = entry.size
            }
            if name == "data" {
                guard let format else { throw fail(.malformed("the 'data' chunk comes before the 'fmt ' chunk")) }
                return try dataLayout(format, stated: size, long: sizes, body: body, riffEnd: riffEnd)
            }
            guard size <= present else { throw fail(.truncated(chunk: name, stated: size, present: present)) }
            if let end = riffEnd, body + size > end + 1 {
                throw fail(.malformed("its '\(name)' chunk reaches beyond the end that the RIFF header states"))
            }
            switch name {
            case "ds64" where isLong && sizes == nil:
                sizes = try longSizes(at: body, size: size)
                riffEnd = sizes.flatMap { $0.riff == 0 || $0.riff >= UInt64(Int64.max) ? nil : $0.riff + 8 }
            case "fmt ":
                guard format == nil else { throw fail(.malformed("it has two 'fmt ' chunks")) }
                format = try encoded(at: body, size: size)
            default: break
            }
            let next = body + size + size % 2
            guard next <= source.count else { break }
            offset = next
        }
        throw format == nil ? fail(.malformed("it has no 'fmt ' chunk")) : fail(.malformed("it has no 'data' chunk"))
    }

    private func fail(_ problem: AudioFileError.Problem) -> AudioFileError { AudioFileError(path: path, problem) }

    /// The end of the RIFF body where the header states a believable one, and whether sizes have 64 bits.
    private func checkMagic() throws(AudioFileError) -> (value: UInt64?, isLong: Bool) {
        guard source.count > 0 else { throw fail(.empty) }
        let start = try source.read(at: 0, length: Int(min(12, source.count)))
        let magic = start.count >= 4 ? chunkName(start) : ""
        guard start.count == 12, ["RIFF", "RF64", "BW64"].contains(magic) else {
            throw fail(.notWAV(otherFormat(start)))
        }
        let kind = chunkName(start[8...])
        guard kind == "WAVE" else { throw fail(.notWAV("a RIFF file of kind '\(kind)'")) }
        let size = UInt64(start.u32(4))
        let known = magic == "RIFF" && size != 0 && size < unknownSize
        return (known ? size + 8 : nil, magic != "RIFF")
    }

    private func otherFormat(_ start: [UInt8]) -> String {
        if start.count >= 4 {
            switch chunkName(start) {
            case "RIFX": return "a big-endian RIFX file"
            case "FORM": return "an AIFF file"
            case "fLaC": return "a FLAC file"
            case "OggS": return "an Ogg file"
            case ".snd": return "an AU file"
            case let name where name.hasPrefix("ID3"): return "an MP3 file"
            default: break
            }
            if start[0] == 0xFF && start[1] >= 0xE0 { return "an MP3 or AAC file" }
        }
        return "it does not start with RIFF, RF64 or BW64"
    }

    private func longSizes(at body: UInt64, size: UInt64) throws(AudioFileError) -> LongSizes {
        guard size >= 24 else { throw fail(.malformed("its 'ds64' chunk has \(size) bytes, at least 24 are needed")) }
        let fixed = try source.read(at: body, length: Int(min(size, 28)))
        let entries = fixed.count >= 28 ? UInt64(fixed.u32(24)) : 0
        guard entries * 12 <= size - min(size, 28) else {
            throw fail(.malformed("its 'ds64' table claims \(entries) entries in \(size) bytes"))
        }
        guard entries <= 1024 else { throw fail(.malformed("its 'ds64' table claims \(entries) entries")) }
        let table = try source.read(at: body + min(size, 28), length: Int(entries) * 12)
        let others = (0..<Int(entries)).map { (chunkName(table[($0 * 12)...]), table.u64($0 * 12 + 4)) }
        return LongSizes(riff: fixed.u64(0), data: fixed.u64(8), others: others)
    }

    private func encoded(at body: UInt64, size: UInt64) throws(AudioFileError) -> Encoded {
        guard size >= 16 else { throw fail(.malformed("its 'fmt ' chunk has \(size) bytes, at least 16 are needed")) }
        let chunk = try source.read(at: body, length: Int(min(size, 40)))
        var tag = Int(chunk.u16(0))
        let channels = Int(chunk.u16(2))
        let rate = Int(chunk.u32(4))
        let blockAlign = Int(chunk.u16(12))
        let bits = Int(chunk.u16(14))
        if tag == 0xFFFE {
            tag = try extensibleTag(chunk, bits: bits)
        }
        let encoding: SampleEncoding
        switch (tag, bits) {
        case (1, 8): encoding = .uint8
        case (1, 16): encoding = .int16
        case (1, 24): encoding = .int24
        case (1, 32): encoding = .int32
        case (3, 32): encoding = .float32
        case (3, 64): encoding = .float64
        default: throw fail(.unsupported("WAV of \(tagName(tag)), \(bits) bits a sample,"))
        }
        guard 1...256 ~= channels else { throw fail(.malformed("it states \(channels) channels, 1 to 256 are read")) }
        guard AudioLimits.sampleRates ~= rate else {
            throw fail(.malformed("it states a sample rate of \(rate) Hz, 1000 to 768000 are read"))
        }
        guard blockAlign == channels * encoding.byteCount else {
            throw fail(
                .malformed(
                    "it states \(blockAlign) bytes a frame; "
                        + "\(channels) channels of \(bits) bits take \(channels * encoding.byteCount)"))
        }
        return Encoded(encoding: encoding, channels: channels, sampleRate: rate)
    }

    /// The format tag inside a WAVE_FORMAT_EXTENSIBLE chunk: the first two bytes of the sub-format GUID.
    private func extensibleTag(_ chunk: [UInt8], bits: Int) throws(AudioFileError) -> Int {
        guard chunk.count >= 40, chunk.u16(16) >= 22 else {
            throw fail(.malformed("its extensible 'fmt ' chunk has \(chunk.count) bytes, 40 are needed"))
        }
        let validBits = Int(chunk.u16(18))
        guard validBits <= bits else {
            throw fail(.malformed("it states \(validBits) valid bits in samples of \(bits)"))
        }
        let tail: [UInt8] = [0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xAA, 0, 0x38, 0x9B, 0x71]
        guard chunk[26..<40].elementsEqual(tail) else {
            throw fail(.unsupported("WAV of an unknown extensible sub-format"))
        }
        return Int(chunk.u16(24))
    }

    private func tagName(_ tag: Int) -> String {
        switch tag {
        case 1: "integer PCM"
        case 2, 17: "ADPCM"
        case 3: "IEEE float"
        case 6: "A-law"
        case 7: "mu-law"
        case 0x55: "MP3"
        default: "format \(tag)"
        }
    }

    private func dataLayout(
        _ format: Encoded, stated: UInt64, long: LongSizes?, body: UInt64, riffEnd: UInt64?
    ) throws(AudioFileError) -> Layout {
        let present = source.count - body
        let frameBytes = UInt64(format.channels * format.encoding.byteCount)
        var size: UInt64? = stated
        if let long, stated == 0xFFFF_FFFF {
            size = long.data == 0 || long.data == .max ? nil : long.data
        } else if stated == 0xFFFF_FFFF || (stated >= unknownSize && riffEnd == nil && stated > present) {
            size = nil
        } else if stated == 0 && (riffEnd == nil || riffEnd! < body || riffEnd! + 1 < source.count) {
            size = nil
        }
        let bytes: UInt64
        if let size {
            guard size <= present else { throw fail(.truncated(chunk: "data", stated: size, present: present)) }
            if let end = riffEnd, body + size > end + 1 {
                throw fail(.malformed("its 'data' chunk reaches beyond the end that the RIFF header states"))
            }
            guard size % frameBytes == 0 else {
                throw fail(.malformed("its 'data' chunk of \(size) bytes is not whole frames of \(frameBytes) bytes"))
            }
            bytes = size
        } else {
            bytes = present - present % frameBytes
        }
        guard bytes > 0 else { throw fail(.empty) }
        return Layout(
            format: WAVFormat(
                encoding: format.encoding, channels: format.channels, sampleRate: format.sampleRate,
                frames: Int(bytes / frameBytes)),
            dataOffset: body)
    }
}

/// Four characters, those that cannot be printed shown as '?'.
private func chunkName(_ bytes: some Collection<UInt8>) -> String {
    String(bytes.prefix(4).map { 32...126 ~= $0 ? Character(UnicodeScalar($0)) : "?" })
}

extension [UInt8] {
    /// The little-endian 16-bit number at `offset`.
    func u16(_ offset: Int) -> UInt16 { UInt16(self[offset]) | UInt16(self[offset + 1]) << 8 }
    /// The little-endian 32-bit number at `offset`.
    func u32(_ offset: Int) -> UInt32 { UInt32(u16(offset)) | UInt32(u16(offset + 2)) << 16 }
    /// The little-endian 64-bit number at `offset`.
    func u64(_ offset: Int) -> UInt64 { UInt64(u32(offset)) | UInt64(u32(offset + 4)) << 32 }
}
