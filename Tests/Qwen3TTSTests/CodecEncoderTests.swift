import Foundation
import Tensors
import TestSupport
import Testing

@testable import Qwen3TTS

/// The encoder against the Python reference's codes and stages.
@Suite struct CodecEncoderTests {
    static func load(threads: Int = 2, isa: InstructionSet? = nil) throws -> CodecEncoder {
        try CodecEncoder(
            Fixture.base.codecWeights(),
            configuration: Configuration.load(directory: Fixture.base.directory).codec,
            compute: Compute(instructionSet: isa, threads: threads))
    }

    @Test func stagesAndCodesMatchReference() throws {
        let golden = try Fixture.base.golden("encoder.safetensors")
        var errors: [String: Float] = [:]
        let codes = try Self.load().encode(golden.array("wav")) { stage, values, channels in
            guard let expected = try? golden.array(stage) else { return }
            let columns = values.count / channels
            let channelFirst = (0..<values.count).map { values[$0 % columns * channels + $0 / columns] }
            errors[stage] = maxDifference(channelFirst, expected) / max(1, expected.map { abs($0) }.max() ?? 1)
        }
        #expect(codes == (try golden.integers("codes").values.map { Int32($0) }))
        #expect(Set(errors.keys) == ["seanet", "transformer", "downsample"])
        #expect(errors.values.allSatisfy { $0 < 1e-4 }, "\(errors)")
    }

    /// A recording that ends inside a column of every layer, cut into pieces of all sorts.
    @Test(arguments: [1, 2, 3, 5, 1000])
    func everyPieceLengthGivesTheSameBits(columnsPerPiece: Int) throws {
        let wav = Array(try Fixture.base.golden("encoder.safetensors").array("wav")[..<7_777])
        func columns(_ columnsPerPiece: Int) throws -> [Float] {
            var seen: [Float] = []
            _ = try Self.load().encode(wav, columnsPerPiece: columnsPerPiece) { stage, values, _ in
                if stage == "seanet" { seen = Array(values) }
            }
            return seen
        }
        #expect(try columns(columnsPerPiece) == columns(4))
    }

    @Test(arguments: [1, 3, 4])
    func everyThreadCountGivesTheSameBits(threads: Int) throws {
        let wav = Array(try Fixture.base.golden("encoder.safetensors").array("wav")[..<20_001])
        func last(_ threads: Int) throws -> (codes: [Int32], downsampled: [Float]) {
            var seen: [Float] = []
            let codes = try Self.load(threads: threads).encode(wav) { _, values, _ in seen = Array(values) }
            return (codes, seen)
        }
        let (two, other) = (try last(2), try last(threads))
        #expect(two.codes == other.codes)
        #expect(two.downsampled == other.downsampled)
    }

    /// One encoder hears several recordings: nothing of the first remains.
    @Test func recordingsDoNotTouchEachOther() throws {
        let wav = try Fixture.base.golden("encoder.safetensors").array("wav")
        let encoder = try Self.load()
        let (one, two) = (Array(wav[..<9_000]), Array(wav[20_000..<25_000]))
        let alone = try encoder.encode(two)
        _ = try encoder.encode(one)
        #expect(try encoder.encode(two) == alone)
    }

    @Test(arguments: [(1, 1), (959, 1), (1920, 1), (1921, 2), (3840, 2), (3841, 3)])
    func framesAreCountedUp(samples: Int, frames: Int) throws {
        let encoder = try Self.load()
        let codes = try encoder.encode([Float](repeating: 0.25, count: samples))
        #expect(codes.count == frames * encoder.codeGroups)
        #expect(codes.allSatisfy { (0..<128).contains($0) })
    }

    @Test func unusableRecordingsAreRefused() throws {
        let encoder = try Self.load()
        #expect(throws: ModelError.self) { try encoder.encode([]) }
        #expect(throws: ModelError.self) { try encoder.encode([0, .nan, 0]) }
        #expect(throws: ModelError.self) { try encoder.encode([0, -.infinity, 0]) }
        #expect(throws: ModelError.self) { try encoder.encode([1e30]) }
        #expect(throws: ModelError.self) {
            try encoder.encode([Float](repeating: 0, count: CodecEncoder.longestSeconds * 24_000 + 1))
        }
        // The loudest that is taken still gives codes.
        #expect(try encoder.encode([Float](repeating: 1e4, count: 2_000)).allSatisfy { (0..<128).contains($0) })
    }

    @Test func aDecodeOnlyCodecSaysSo() throws {
        var configuration = try Configuration.load(directory: Fixture.base.directory).codec
        configuration.encoder = nil
        #expect(throws: TensorError.self) {
            try CodecEncoder(Fixture.base.codecWeights(), configuration: configuration, compute: Compute(threads: 1))
        }
    }
}

/// The quantiser against plain distances in double.
@Suite struct CodecEncoderQuantizerTests {
    /// One hidden channel a codebook dimension, so that the input is the residual.
    private func quantizer(entries: [[Float]]) throws -> CodecEncoderQuantizer {
        let (size, dimension) = (entries.count, entries[0].count)
        let identity = (0..<(dimension * dimension)).map { Float($0 / dimension == $0 % dimension ? 1 : 0) }
        var writer = SafetensorsWriter()
        for part in ["semantic", "acoustic"] {
            let p = "encoder.quantizer.\(part)_residual_vector_quantizer."
            writer.add(p + "input_proj.weight", identity, shape: [dimension, dimension, 1])
            writer.add(p + "layers.0.codebook.embed_sum", entries.flatMap { $0 }, shape: [size, dimension])
            writer.add(
                p + "layers.0.codebook.cluster_usage", [Float](repeating: 1, count: size), shape: [size])
        }
        let path = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString).path
        defer { try? FileManager.default.removeItem(atPath: path) }
        try writer.write(to: path)
        var c = try #require(Configuration.load(directory: Fixture.base.directory).codec.encoder)
        c.transformer = TransformerShape(
            layers: 1, hidden: dimension, intermediate: 1, heads: 1, keyValueHeads: 1, headDimension: 2,
            ropeTheta: 1, normEpsilon: 1, window: nil)
        c.codebookDimension = dimension
        c.codebookSize = size
        c.usedCodebooks = 2
        return try CodecEncoderQuantizer(
            SafetensorsFile(path: path), configuration: c, compute: Compute(threads: 2))
    }

    @Test func theFirstOfEquallyNearEntriesWins() throws {
        let q = try quantizer(entries: [[9, 9], [1, 0], [-1, 0], [1, 0]])
        #expect(q.run([0, 5, 1, 1, -2, 0], frames: 3) == [1, 1, 1, 1, 2, 2])
    }

    /// Entries far from the origin and close together, where products in float32 cannot tell them apart.
    @Test func entriesThatProductsCannotTellApartAreToldApart() throws {
        let random = Philox(seed: 5)
        let dimension = 8
        func point(_ index: Int) -> [Float] {
            (0..<dimension).map { 1000 + 0.02 * random.uniform(frame: index, codebook: $0) }
        }
        let entries = (0..<200).map(point)
        let q = try quantizer(entries: entries)
        for index in 200..<220 {
            let x = point(index)
            let distances = entries.map { entry in
                zip(entry, x).reduce(0.0) { $0 + (Double($1.0) - Double($1.1)) * (Double($1.0) - Double($1.1)) }
            }
            let expected = Int32(distances.firstIndex(of: try #require(distances.min())) ?? -1)
            #expect(q.run(x, frames: 1) == [expected, expected])
        }
    }
}
