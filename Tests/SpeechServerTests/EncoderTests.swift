import Testing

@testable import SpeechServer

@Suite struct EncoderTests {
    private func tone(_ count: Int, hertz: Double = 220, rate: Double = 24_000) -> [Float] {
        var phase = 0.0
        return (0..<count).map { index in
            // A triangle: exact in float, no mathematics library.
            phase += hertz / rate
            let part = phase - phase.rounded(.down)
            let loudness = 0.1 + 0.6 * Double(index % 4000) / 4000
            return Float(loudness * (part < 0.5 ? 4 * part - 1 : 3 - 4 * part))
        }
    }

    @Test func stretchedSpeechHasTheLengthThatWasAskedFor() {
        for speed in [0.25, 0.9, 2, 4] {
            let samples = tone(8_000)
            var whole = TimeStretch(speed: speed, sampleRate: 24_000)
            let once = whole.add(samples) + whole.finish()
            #expect(once.count == Int((8_000 / speed).rounded()))
            var pieces = TimeStretch(speed: speed, sampleRate: 24_000)
            var output: [Float] = []
            for start in stride(from: 0, to: samples.count, by: 1920) {
                output += pieces.add(Array(samples[start..<min(start + 1920, samples.count)]))
            }
            output += pieces.finish()
            #expect(output == once)
        }
    }

    @Test func stretchedSpeechKeepsItsPitch() {
        for speed in [0.5, 1.5] {
            var stretch = TimeStretch(speed: speed, sampleRate: 24_000)
            let output = stretch.add(tone(24_000)) + stretch.finish()
            let middle = output[2_000..<(output.count - 2_000)]
            let crossings = zip(middle, middle.dropFirst()).count { $0 < 0 && $1 >= 0 }
            let hertz = Double(crossings) / Double(middle.count) * 24_000
            #expect(abs(hertz - 220) < 3)
        }
    }

    @Test func anEmptyStreamIsAFileStill() throws {
        for format in AudioFormat.allCases where format.isAvailable && format != .pcm && format != .aac {
            let encoder = try format.makeEncoder(sampleRate: 24_000)
            let bytes = try encoder.encode([]) + encoder.finish()
            if format != .mp3 { #expect(!bytes.isEmpty, "\(format)") }
        }
    }

    @Test func packetsDoNotChangeTheBytes() throws {
        let samples = tone(24_000 + 77)
        for format in AudioFormat.allCases where format.isAvailable {
            let whole = try format.makeEncoder(sampleRate: 24_000)
            let once = try whole.encode(samples) + whole.finish()
            let pieces = try format.makeEncoder(sampleRate: 24_000)
            var bytes: [UInt8] = []
            for start in stride(from: 0, to: samples.count, by: 1920) {
                bytes += try pieces.encode(Array(samples[start..<min(start + 1920, samples.count)]))
            }
            bytes += try pieces.finish()
            #expect(bytes == once, "\(format)")
        }
    }
}
