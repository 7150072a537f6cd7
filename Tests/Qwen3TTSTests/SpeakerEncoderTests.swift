import Foundation
import Tensors
import TestSupport
import Testing

@testable import Qwen3TTS

/// The speaker encoder against the Python reference.
@Suite struct SpeakerEncoderTests {
    static func load(threads: Int = 2, isa: InstructionSet? = nil) throws -> SpeakerEncoder {
        let configuration = try Configuration.load(directory: Fixture.base.directory)
        return try SpeakerEncoder(
            SafetensorsFile(path: Fixture.base.directory + "/model.safetensors"),
            configuration: #require(configuration.speakerEncoder),
            compute: Compute(instructionSet: isa, threads: threads))
    }

    @Test func vectorMatchesReference() throws {
        let golden = try Fixture.base.golden("encoder.safetensors")
        let expected = try golden.array("speaker_embedding")
        let vector = try Self.load().encode(golden.array("wav"))
        let largest = try #require(expected.map { abs($0) }.max())
        #expect(maxDifference(vector, expected) < 1e-4 * max(1, largest))
    }

    @Test func theMelSpectrogramIsSeen() throws {
        let golden = try Fixture.base.golden("encoder.safetensors")
        var seen = 0
        _ = try Self.load().encode(golden.array("wav")) { seen = $0.count }
        #expect(try seen == golden.array("mel").count)
    }

    @Test(arguments: [1, 3, 4])
    func everyThreadCountGivesTheSameBits(threads: Int) throws {
        let wav = try Fixture.base.golden("encoder.safetensors").array("wav")
        #expect(try Self.load(threads: threads).encode(wav) == Self.load().encode(wav))
    }

    @Test func recordingsDoNotTouchEachOther() throws {
        let wav = try Fixture.base.golden("encoder.safetensors").array("wav")
        let encoder = try Self.load()
        let short = Array(wav[..<5_000])
        let alone = try encoder.encode(short)
        _ = try encoder.encode(wav)
        #expect(try encoder.encode(short) == alone)
    }

    /// Mirroring needs five frames of the mel spectrogram: the reference fails on less, with an error of its
    /// convolutions.
    @Test func theShortestRecording() throws {
        let encoder = try Self.load()
        #expect(encoder.shortest == 5 * 256)
        let wav = try Fixture.base.golden("encoder.safetensors").array("wav")
        #expect(try encoder.encode(Array(wav[..<1280])).allSatisfy { $0.isFinite })
        #expect(throws: ModelError.self) { try encoder.encode(Array(wav[..<1279])) }
    }

    @Test func unusableRecordingsAreRefused() throws {
        let encoder = try Self.load()
        #expect(throws: ModelError.self) { try encoder.encode([]) }
        #expect(throws: ModelError.self) { try encoder.encode([Float](repeating: .nan, count: 5000)) }
        #expect(throws: ModelError.self) { try encoder.encode([Float](repeating: 1e30, count: 5000)) }
        #expect(try encoder.encode([Float](repeating: 0, count: 5000)).allSatisfy { $0.isFinite })
        #expect(try encoder.encode([Float](repeating: 1e4, count: 5000)).allSatisfy { $0.isFinite })
    }

    @Test func aModelWithoutOneSaysSo() throws {
        let configuration = try #require(Configuration.load(directory: Fixture.base.directory).speakerEncoder)
        #expect(throws: TensorError.self) {
            try SpeakerEncoder(
                SafetensorsFile(path: Fixture.customVoice.directory + "/model.safetensors"),
                configuration: configuration, compute: Compute(threads: 1))
        }
    }
}
