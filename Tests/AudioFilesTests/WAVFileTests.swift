import AudioFiles
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Files made by libsndfile and sox, with the mono samples that soundfile and numpy read from them.
@Suite struct WAVFileTests {
    @Test(arguments: [
        ("pcm8-mono-8000", SampleEncoding.uint8, 1, 8_000),
        ("pcm16-stereo-44100", .int16, 2, 44_100),
        ("pcm24-mono-48000", .int24, 1, 48_000),
        ("pcm32-mono-16000", .int32, 1, 16_000),
        ("float32-stereo-22050", .float32, 2, 22_050),
        ("float64-mono-11025", .float64, 1, 11_025),
        ("wavex-pcm24-6ch-96000", .int24, 6, 96_000),
        ("wavex-float-stereo-24000", .float32, 2, 24_000),
        ("rf64-pcm16-stereo-32000", .int16, 2, 32_000),
        ("sox-pipe-pcm16-mono-24000", .int16, 1, 24_000),
        ("sox-pcm8-odd-comment-24000", .uint8, 1, 24_000),
    ])
    func golden(_ name: String, _ encoding: SampleEncoding, _ channels: Int, _ rate: Int) throws {
        let url = fixtures.appendingPathComponent("\(name).wav")
        let clip = try WAVFile.read(path: url.path)
        #expect(clip.sampleRate == rate)
        #expect(clip.samples == (try goldenFloats("\(name).f32")))
        let bytes = [UInt8](try Data(contentsOf: url))
        #expect(try WAVFile.decode(bytes) == clip)
        let format = WAVFormat(encoding: encoding, channels: channels, sampleRate: rate, frames: 301)
        #expect(try WAVFile.format(of: bytes) == format)
    }

    @Test(arguments: [
        (UInt32(0), UInt32(0)), (.max, .max), (0x7FFF_F024, 0x7FFF_F000), (0, .max), (.max, 0), (36, 0),
    ])
    func streamedSizes(_ riff: UInt32, _ data: UInt32) throws {
        let body = WAVBytes.chunk("data", size: data, WAVBytes.samples([1, -2, 3]) + [9], pad: false)
        let clip = try WAVFile.decode(WAVBytes(size: riff, chunks: [WAVBytes.format(), body]).bytes)
        #expect(clip.samples.map { $0 * 32768 } == [1, -2, 3])
    }

    @Test func unknownAndOddChunksAreSkipped() throws {
        let chunks = [
            WAVBytes.chunk("LIST", [1, 2, 3]), WAVBytes.format(), WAVBytes.chunk("zzzz", []),
            WAVBytes.chunk("bext", [UInt8](repeating: 7, count: 601)),
            WAVBytes.chunk("data", WAVBytes.samples([16384])), WAVBytes.chunk("id3 ", [0]),
        ]
        #expect(try WAVFile.decode(WAVBytes(chunks: chunks).bytes).samples == [0.5])
    }

    @Test func longSizes() throws {
        func file(riff: UInt64, data: UInt64, entries: UInt32 = 0) -> [UInt8] {
            let table = little(riff) + little(data) + little(UInt64(1)) + little(entries)
            let body = WAVBytes.chunk("data", size: .max, WAVBytes.samples([8192]))
            return WAVBytes(
                magic: "RF64", size: .max, chunks: [WAVBytes.chunk("ds64", table), WAVBytes.format(), body]
            ).bytes
        }
        #expect(try WAVFile.decode(file(riff: 74, data: 2)).samples == [0.25])
        #expect(try WAVFile.decode(file(riff: 0, data: 0)).samples == [0.25])
        #expect(try WAVFile.decode(file(riff: .max, data: .max)).samples == [0.25])
        let huge: UInt64 = 100 << 30
        #expect(throws: AudioFileError(.truncated(chunk: "data", stated: huge, present: 2))) {
            try WAVFile.decode(file(riff: huge + 72, data: huge))
        }
        #expect(throws: AudioFileError.self) { try WAVFile.decode(file(riff: 74, data: 2, entries: .max)) }
    }

    @Test(arguments: [1, 2, 3, 11])
    func short(_ count: Int) throws {
        #expect(throws: AudioFileError.self) { try WAVFile.decode([UInt8](repeating: 0x52, count: count)) }
    }

    /// Each wrong file with words its error must have.
    static let wrong: [(String, [UInt8])] = {
        let data = WAVBytes.chunk("data", WAVBytes.samples([1, 2, 3, 4]))
        func file(_ chunks: [UInt8]...) -> [UInt8] { WAVBytes(chunks: chunks).bytes }
        func float(_ values: [Float]) -> [UInt8] {
            file(
                WAVBytes.format(tag: 3, channels: 2, bits: 32),
                WAVBytes.chunk("data", values.flatMap { little($0.bitPattern) }))
        }
        let extensible = WAVBytes.chunk(
            "fmt ",
            little(UInt16(0xFFFE)) + little(UInt16(1)) + little(UInt32(24_000)) + little(UInt32(48_000))
                + little(UInt16(2)) + little(UInt16(16)) + little(UInt16(22)) + little(UInt16(20))
                + [UInt8](repeating: 0, count: 20))
        return [
            ("no audio", []),
            ("FLAC", Array("fLaC00000000".utf8)),
            ("MP3", Array("ID3\u{3}00000000".utf8)),
            ("AIFF", Array("FORM0000AIFF".utf8)),
            ("kind 'AVI '", Array("RIFF0000AVI ".utf8)),
            ("no 'fmt ' chunk", file()),
            ("no 'data' chunk", file(WAVBytes.format())),
            ("before the 'fmt '", file(data, WAVBytes.format())),
            ("two 'fmt '", file(WAVBytes.format(), WAVBytes.format(), data)),
            ("no audio", file(WAVBytes.format(), WAVBytes.chunk("data", []))),
            ("claims 100 bytes, 8 are", file(WAVBytes.format(), WAVBytes.chunk("data", size: 100, data.suffix(8)))),
            ("claims 4000000000", file(WAVBytes.chunk("junk", size: 4_000_000_000, []), WAVBytes.format(), data)),
            (
                "beyond the end",
                WAVBytes(size: 30, chunks: [WAVBytes.format(), data, WAVBytes.chunk("tail", [1, 2])]).bytes
            ),
            ("4 bytes a frame", file(WAVBytes.format(blockAlign: 4), data)),
            ("0 bytes a frame", file(WAVBytes.format(blockAlign: 0), data)),
            ("whole frames", file(WAVBytes.format(channels: 3), data)),
            ("0 channels", file(WAVBytes.format(channels: 0), data)),
            ("257 channels", file(WAVBytes.format(channels: 257), data)),
            ("999 Hz", file(WAVBytes.format(rate: 999), data)),
            ("4294967295 Hz", file(WAVBytes.format(rate: .max), data)),
            ("integer PCM, 12 bits", file(WAVBytes.format(bits: 12), data)),
            ("IEEE float, 16 bits", file(WAVBytes.format(tag: 3), data)),
            ("ADPCM", file(WAVBytes.format(tag: 2, bits: 4), data)),
            ("mu-law", file(WAVBytes.format(tag: 7, bits: 8), data)),
            ("at least 16", file(WAVBytes.chunk("fmt ", [1, 0]), data)),
            ("40 are needed", file(WAVBytes.format(tag: 0xFFFE), data)),
            ("20 valid bits", file(extensible, data)),
            ("not a number (frame 1, channel 0)", float([0, 0, .nan, 0])),
            ("not a number (frame 0, channel 1)", float([0, .infinity, 0, 0])),
        ]
    }()

    @Test(arguments: wrong)
    func oneClearLine(_ words: String, _ bytes: [UInt8]) throws {
        let error = try #require(throws: AudioFileError.self) { try WAVFile.decode(bytes, name: "x.wav") }
        #expect(error.description.contains(words), "\(error)")
        #expect(error.description.hasPrefix("x.wav ") && !error.description.contains("\n"))
    }

    @Test func missingFileAndFolder() throws {
        try withTemporaryFolder { folder in
            let missing = try #require(throws: AudioFileError.self) { try WAVFile.read(path: "\(folder)/no.wav") }
            #expect(missing.description == "\(folder)/no.wav cannot be read: No such file or directory")
            let directory = try #require(throws: AudioFileError.self) { try WAVFile.read(path: folder) }
            #expect(directory.description.contains("Is a directory"))
            try Data().write(to: URL(fileURLWithPath: "\(folder)/empty.wav"))
            #expect(throws: AudioFileError(path: "\(folder)/empty.wav", .empty)) {
                try WAVFile.read(path: "\(folder)/empty.wav")
            }
        }
    }

    @Test func tooLong() throws {
        let bytes = WAVBytes(chunks: [WAVBytes.format(), WAVBytes.chunk("data", WAVBytes.samples([1, 2, 3]))]).bytes
        #expect(throws: AudioFileError(.tooLong(frames: 3, limit: 2))) {
            try WAVFile.decode(bytes, maximumFrames: 2)
        }
    }

    @Test func mutationsNeverCrash() throws {
        let names = ["rf64-pcm16-stereo-32000", "wavex-pcm24-6ch-96000", "float32-stereo-22050", "pcm8-mono-8000"]
        let seeds = try names.map { [UInt8](try Data(contentsOf: fixtures.appendingPathComponent("\($0).wav"))) }
        var random = SeededGenerator(state: 20_26)
        var (read, refused) = (0, 0)
        for round in 0..<500 {
            var bytes = seeds[round % seeds.count]
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let header = Int.random(in: 0..<min(120, bytes.count), using: &random)
                switch Int.random(in: 0..<6, using: &random) {
                case 0: bytes[header] = UInt8.random(in: 0...255, using: &random)
                case 1: bytes[header] ^= 1 << UInt8.random(in: 0..<8, using: &random)
                case 2:
                    let size = [UInt32.max, 0, 1, 0x7FFF_FFFF, 0x8000_0000].randomElement(using: &random)!
                    for (index, byte) in little(size).enumerated() where header + index < bytes.count {
                        bytes[header + index] = byte
                    }
                case 3: bytes.removeLast(Int.random(in: 0..<bytes.count, using: &random))
                case 4: bytes.insert(contentsOf: bytes.prefix(header), at: header)
                default: bytes.removeSubrange(header..<min(bytes.count, header + 4))
                }
                if bytes.isEmpty { break }
            }
            do throws(AudioFileError) {
                let clip = try WAVFile.decode(bytes)
                #expect(clip.samples.allSatisfy { $0.isFinite } && clip.samples.count <= bytes.count)
                read += 1
            } catch {
                #expect(!error.description.isEmpty)
                refused += 1
            }
        }
        #expect(read > 20 && refused > 200, "\(read) read, \(refused) refused")
    }
}
