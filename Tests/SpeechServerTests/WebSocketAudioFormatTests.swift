import AudioFiles
import Testing

@testable import SpeechServer

@Suite struct WebSocketAudioFormatTests {
    /// Packets of any size give the bits that the whole gives.
    @Test(arguments: [8_000, 16_000, 22_050, 32_000, 44_100, 48_000])
    func packetsEqualTheWhole(rate: Int) throws {
        var state: UInt32 = 1
        let samples = (0..<5_000).map { _ -> Float in
            state = state &* 1_664_525 &+ 1_013_904_223
            return Float(Int32(bitPattern: state)) / 2_147_483_648
        }
        let whole = try Resampler(from: 24_000, to: rate).resample(samples)
        for sizes in [[1_920], [1, 7, 480, 3_000], [5_000], [64]] {
            var resampler = try PacketResampler(from: 24_000, to: rate)
            var pieces: [Float] = []
            var (at, turn) = (0, 0)
            while at < samples.count {
                let end = min(samples.count, at + sizes[turn % sizes.count])
                pieces += resampler.add(Array(samples[at..<end]))
                (at, turn) = (end, turn + 1)
            }
            pieces += resampler.finish()
            #expect(pieces == whole, "packets of \(sizes)")
        }
    }

    /// Values of Python's `audioop`; there, as here, mu-law is symmetric but for rounding of negative values.
    @Test func companding() {
        let samples: [Int16] = [0, 1, 15, 16, 100, 131, 132, 500, 1_000, 8_000, 20_000, 32_124, 32_635, 32_767]
        let ulaw: [UInt8] = [255, 255, 253, 253, 242, 239, 239, 220, 206, 160, 140, 128, 128, 128]
        let alaw: [UInt8] = [213, 213, 213, 212, 211, 221, 221, 202, 250, 138, 166, 170, 170, 170]
        #expect(samples.map(G711.ulaw) == ulaw)
        #expect(samples.map(G711.alaw) == alaw)
        #expect(samples.dropFirst().map { G711.ulaw(-$0) } == ulaw.dropFirst().map { $0 ^ 0x80 })
        let negative: [Int16] = [-32_768, -32_124, -20_000, -8_000, -1_000, -500, -132, -100, -16, -1]
        #expect(negative.map(G711.alaw) == [42, 42, 38, 10, 122, 74, 93, 83, 85, 85])
        #expect(G711.ulaw(.min) == 0)
    }

    @Test func names() {
        #expect(WebSocketAudioFormat(name: "pcm", modelRate: 24_000)?.description == "pcm_24000")
        #expect(WebSocketAudioFormat(name: "ulaw_8000", modelRate: 24_000)?.encoding == .ulaw)
        #expect(WebSocketAudioFormat(name: "flac", modelRate: 24_000)?.description == "flac")
        for name in ["", "pcm_1", "mp3_24000", "mp3_44100_128", "pcm_24000 ", "PCM"] {
            #expect(WebSocketAudioFormat(name: name, modelRate: 24_000) == nil)
        }
    }
}
