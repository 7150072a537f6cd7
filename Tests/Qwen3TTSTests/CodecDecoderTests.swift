import Tensors
import TestSupport
import Testing

@testable import Qwen3TTS

/// The decoder against the Python reference's samples and stages.
@Suite struct CodecDecoderTests {
    static func load(_ fixture: Fixture = .customVoice, threads: Int = 2, isa: InstructionSet? = nil) throws
        -> CodecDecoder
    {
        try CodecDecoder(
            fixture.codecWeights(), configuration: Configuration.load(directory: fixture.directory).codec,
            compute: Compute(instructionSet: isa, threads: threads))
    }

    static func goldenCodes(_ fixture: Fixture = .customVoice) throws -> (file: SafetensorsFile, codes: [Int32]) {
        let file = try fixture.golden("decoder.safetensors")
        return (file, try file.integers("codes").values.map { Int32($0) })
    }

    /// Decodes `codes` in packets of the given sizes, in turn.
    static func stream(_ decoder: CodecDecoder, _ codes: [Int32], packets: [Int]) -> [Float] {
        let state = decoder.makeState()
        let groups = decoder.codeGroups
        let frames = codes.count / groups
        let pcm = FloatBuffer(count: frames * decoder.samplesPerFrame)
        var (at, turn) = (0, 0)
        while at < frames {
            let count = min(packets[turn % packets.count], frames - at)
            decoder.decode([
                .init(
                    state: state, codes: Array(codes[(at * groups)..<((at + count) * groups)]), frames: count,
                    pcm: pcm.pointer + at * decoder.samplesPerFrame)
            ])
            (at, turn) = (at + count, turn + 1)
        }
        return pcm.array
    }

    @Test func wholeStreamMatchesReference() throws {
        let decoder = try Self.load()
        let (golden, codes) = try Self.goldenCodes()
        let pcm = Self.stream(decoder, codes, packets: [codes.count / decoder.codeGroups])
        #expect(maxDifference(pcm, try golden.array("pcm")) < 3e-5)
    }

    @Test func windowedDecodingMatchesReference() throws {
        let decoder = try Self.load()
        let (golden, codes) = try Self.goldenCodes()
        let pcm = decoder.decodeWindowed(
            codes, frames: codes.count / decoder.codeGroups, chunk: 10, leftContext: 4)
        #expect(maxDifference(pcm, try golden.array("pcm_chunked")) < 3e-5)
    }

    @Test func stagesMatchReference() throws {
        let decoder = try Self.load()
        let (golden, codes) = try Self.goldenCodes()
        let frames = 5
        let pcm = FloatBuffer(count: frames * decoder.samplesPerFrame)
        var checked: Set<String> = []
        var failures: [String] = []
        decoder.decode(
            [
                .init(
                    state: decoder.makeState(), codes: Array(codes[..<(frames * decoder.codeGroups)]), frames: frames,
                    pcm: pcm.pointer)
            ]
        ) { stage, values, channels in
            guard let expected = try? golden.array("stage.\(stage)") else { return }
            checked.insert(stage)
            let columns = values.count / channels
            let channelFirst = (0..<values.count).map { values[$0 % columns * channels + $0 / columns] }
            let scale = max(1, expected.map { abs($0) }.max() ?? 1)
            let error = maxDifference(channelFirst, expected)
            if !(error < 1e-4 * scale) { failures.append("\(stage): \(error)") }
        }
        #expect(failures.isEmpty, "\(failures)")
        let stages = golden.names.filter { $0.hasPrefix("stage.") && $0 != "stage.pcm" }.map { String($0.dropFirst(6)) }
        #expect(checked == Set(stages))
    }

    @Test(arguments: [[1], [2], [3], [4], [8], [1, 4, 2, 7]])
    func everySplitGivesTheSameBytes(packets: [Int]) throws {
        let decoder = try Self.load()
        let (_, codes) = try Self.goldenCodes()
        let whole = Self.stream(decoder, codes, packets: [codes.count / decoder.codeGroups])
        #expect(Self.stream(decoder, codes, packets: packets) == whole)
    }

    @Test(arguments: [1, 3, 4])
    func everyThreadCountGivesTheSameBytes(threads: Int) throws {
        let (_, codes) = try Self.goldenCodes()
        let two = Self.stream(try Self.load(threads: 2), codes, packets: [3])
        #expect(Self.stream(try Self.load(threads: threads), codes, packets: [3]) == two)
    }

    @Test func sessionsDecodedTogetherGiveTheSameBytesAsAlone() throws {
        let decoder = try Self.load()
        let (_, codes) = try Self.goldenCodes()
        let groups = decoder.codeGroups
        let sequences = [codes, Array(codes.reversed()), Array(codes[(5 * groups)...]) + codes[..<(5 * groups)]]
        let alone = sequences.map { Self.stream(decoder, $0, packets: [2]) }
        let states = sequences.map { _ in decoder.makeState() }
        let outputs = alone.map { FloatBuffer(count: $0.count) }
        var positions = [0, 0, 0]
        for turn in 0... {
            var packets: [CodecDecoder.Packet] = []
            for i in sequences.indices {
                // Different sessions bring packets of different sizes, and sometimes none.
                let count = min((turn + i) % 4, sequences[i].count / groups - positions[i])
                if count == 0 { continue }
                packets.append(
                    .init(
                        state: states[i],
                        codes: Array(sequences[i][(positions[i] * groups)..<((positions[i] + count) * groups)]),
                        frames: count, pcm: outputs[i].pointer + positions[i] * decoder.samplesPerFrame))
                positions[i] += count
            }
            if packets.isEmpty && zip(positions, sequences).allSatisfy({ $0 * groups == $1.count }) { break }
            decoder.decode(packets)
        }
        for i in sequences.indices { #expect(outputs[i].array == alone[i]) }
    }

    @Test func aResetStateIsAFreshOne() throws {
        let decoder = try Self.load()
        let (_, codes) = try Self.goldenCodes()
        let frames = 4
        let pcm = FloatBuffer(count: frames * decoder.samplesPerFrame)
        let state = decoder.makeState()
        let packet = CodecDecoder.Packet(
            state: state, codes: Array(codes[..<(frames * decoder.codeGroups)]), frames: frames, pcm: pcm.pointer)
        decoder.decode([packet])
        let first = pcm.array
        state.reset()
        decoder.decode([packet])
        #expect(pcm.array == first)
    }
}
