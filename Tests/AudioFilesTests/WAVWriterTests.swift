import AudioFiles
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif
#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

@Suite struct WAVWriterTests {
    private func contents(_ path: String) throws -> [UInt8] {
        [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
    }

    private func names(_ folder: String) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: folder).sorted()
    }

    @Test func file() throws {
        try withTemporaryFolder { folder in
            let path = "\(folder)/out.wav"
            var writer = try WAVWriter(path: path)
            try writer.write([0, 0.5])
            try writer.write([Float(-1), 1][...])
            #expect(writer.sampleCount == 4)
            #expect(try names(folder).filter { $0 == "out.wav" }.isEmpty)
            try writer.finish()
            #expect(try names(folder) == ["out.wav"])
            // The header as the format's definition gives it: sizes 36 + 8 and 8, 24 kHz, 48 000 bytes a second.
            let header: [UInt8] =
                Array("RIFF".utf8) + [44, 0, 0, 0] + Array("WAVEfmt ".utf8) + [16, 0, 0, 0, 1, 0, 1, 0]
                + [0xC0, 0x5D, 0, 0, 0x80, 0xBB, 0, 0, 2, 0, 16, 0] + Array("data".utf8) + [8, 0, 0, 0]
            #expect(try contents(path) == header + [0, 0, 0x00, 0x40, 0x01, 0x80, 0xFF, 0x7F])
        }
    }

    @Test func readsBack() throws {
        try withTemporaryFolder { folder in
            let golden = try goldenFloats("pcm16-stereo-44100.f32")
            var writer = try WAVWriter(path: "\(folder)/a.wav", sampleRate: 44_100)
            for start in stride(from: 0, to: golden.count, by: 50) {
                try writer.write(golden[start..<min(golden.count, start + 50)])
            }
            try writer.finish()
            let clip = try WAVFile.read(path: "\(folder)/a.wav")
            #expect(clip.sampleRate == 44_100 && clip.samples.count == golden.count)
            #expect(zip(clip.samples, golden).allSatisfy { abs($0 - $1) < 1.6 / 32768 })
        }
    }

    @Test func unfinishedLeavesNothing() throws {
        try withTemporaryFolder { folder in
            let path = "\(folder)/out.wav"
            try Data("before".utf8).write(to: URL(fileURLWithPath: path))
            do {
                var writer = try WAVWriter(path: path)
                try writer.write([Float](repeating: 0.1, count: 10_000))
                #expect(try names(folder).count == 2)
            }
            #expect(try names(folder) == ["out.wav"])
            #expect(try contents(path) == Array("before".utf8))
        }
    }

    @Test func cancelledTaskLeavesNothing() async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let path = folder.appendingPathComponent("out.wav").path
        let task = Task {
            var writer = try WAVWriter(path: path)
            while true {
                try writer.write([0.25])
                try await Task.sleep(for: .milliseconds(1))
            }
        }
        try await Task.sleep(for: .milliseconds(20))
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
        #expect(try names(folder.path).isEmpty)
    }

    @Test func replacesWhatALinkPointsTo() throws {
        try withTemporaryFolder { folder in
            try Data("old".utf8).write(to: URL(fileURLWithPath: "\(folder)/real.wav"))
            #expect(chmod("\(folder)/real.wav", 0o640) == 0)
            #expect(symlink("real.wav", "\(folder)/link.wav") == 0)
            try WAVWriter(path: "\(folder)/link.wav", container: .rawPCM).finish()
            #expect(try names(folder) == ["link.wav", "real.wav"])
            #expect(try contents("\(folder)/real.wav").isEmpty)
            var status = stat()
            #expect(lstat("\(folder)/link.wav", &status) == 0 && status.st_mode & S_IFMT == S_IFLNK)
            #expect(stat("\(folder)/real.wav", &status) == 0 && status.st_mode & 0o777 == 0o640)
        }
    }

    @Test func streamToAPipe() throws {
        var ends: [Int32] = [0, 0]
        #expect(pipe(&ends) == 0)
        var writer = try WAVWriter(descriptor: ends[1], container: .wav)
        try writer.write([0.5])
        try writer.finish()
        _ = close(ends[1])
        var bytes = [UInt8](repeating: 0, count: 100)
        let count = read(ends[0], &bytes, bytes.count)
        _ = close(ends[0])
        bytes = Array(bytes.prefix(count))
        #expect(count == 46)
        #expect(Array(bytes[4..<8]) == [255, 255, 255, 255] && Array(bytes[40..<44]) == [255, 255, 255, 255])
        #expect(try WAVFile.decode(bytes).samples == [16384 / 32768])
    }

    @Test func errorsNameThePath() throws {
        try withTemporaryFolder { folder in
            let path = "\(folder)/no/x.wav"
            let missing = try #require(throws: AudioFileError.self) { try WAVWriter(path: path).finish() }
            #expect(missing.description == "\(path) cannot be written: No such file or directory")
            let directory = try #require(throws: AudioFileError.self) { try WAVWriter(path: folder).finish() }
            #expect(directory.description.contains("Is a directory"))
        }
    }

    #if os(Linux)
        @Test func fullDisk() throws {
            #expect(throws: AudioFileError(path: "/dev/full", .diskFull)) { try WAVWriter(path: "/dev/full").finish() }
            var writer = try WAVWriter(path: "/dev/null")
            try writer.write([0, 1])
            try writer.finish()
            var status = stat()
            #expect(stat("/dev/null", &status) == 0 && status.st_mode & S_IFMT == S_IFCHR)
        }
    #endif

    /// Values, ties and random samples as numpy's `rint(clip(x, -1, 1) * float32(32767))` gives them.
    @Test func sixteenBits() throws {
        let golden = [UInt8](try Data(contentsOf: fixtures.appendingPathComponent("s16-output.s16")))
        #expect(PCM16.bytes(try goldenFloats("s16-input.f32")) == golden)
        #expect(PCM16.convert(.nan) == 0 && PCM16.convert(.infinity) == 32767 && PCM16.convert(-2) == -32767)
    }
}
