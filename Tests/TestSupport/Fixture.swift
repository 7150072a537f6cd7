import Foundation
import Tensors

/// A small checkpoint with outputs of the Python reference, in `Tests/Fixtures`.
public struct Fixture: Sendable {
    /// The checkpoint's folder.
    public let directory: String

    /// The fixture of that folder name.
    public init(_ name: String) {
        directory = Self.tests + "/Fixtures/" + name
    }

    /// The fixture in a folder.
    private init(path: String) { directory = path }

    private static let tests = #filePath.split(separator: "/").dropLast(2).reduce("") { $0 + "/" + $1 }

    /// The folder of the voice that ships, the one checkpoint here that was trained.
    public static let shippedVoice = tests + "/../Voices/aviary"
    /// What the reference makes of it: `scripts/reference/voice_goldens.py`.
    public static let shippedVoiceGoldens = tests + "/Fixtures/aviary.json"

    /// All kinds: CustomVoice and Base with `small_to_mtp_projection`, VoiceDesign without.
    public static let customVoice = Fixture("tiny-custom-voice")
    /// With speaker encoder and codec encoder.
    public static let base = Fixture("tiny-base")

    /// A copy whose talker has an alignment head, in a temporary folder, beside which its caller puts nothing.
    public func withAlignmentHead(layer: Int, head: Int) throws -> Fixture {
        let files = FileManager.default
        let folder = files.temporaryDirectory.appendingPathComponent("martlet-\(UUID().uuidString)")
        try files.createDirectory(at: folder, withIntermediateDirectories: true)
        for name in try files.contentsOfDirectory(atPath: directory) where name != "config.json" {
            try files.createSymbolicLink(
                at: folder.appendingPathComponent(name),
                withDestinationURL: URL(fileURLWithPath: directory).appendingPathComponent(name))
        }
        var text = try String(contentsOfFile: directory + "/config.json", encoding: .utf8)
        text.insert(
            contentsOf: #""martlet_alignment_head": {"layer": \#(layer), "head": \#(head)},"#,
            at: text.index(after: text.firstIndex(of: "{") ?? text.startIndex))
        try text.write(to: folder.appendingPathComponent("config.json"), atomically: true, encoding: .utf8)
        return Fixture(path: folder.path)
    }

    /// A file of reference outputs.
    public func golden(_ name: String) throws -> SafetensorsFile {
        try SafetensorsFile(path: directory + "/golden/" + name)
    }

    /// A part of `golden/golden.json`.
    public func decodeGolden<Value: Decodable>(_ type: Value.Type) throws -> Value {
        let data = try Data(contentsOf: URL(fileURLWithPath: directory + "/golden/golden.json"))
        return try JSONDecoder().decode(type, from: data)
    }

    /// The codec's weights.
    public func codecWeights() throws -> SafetensorsFile {
        try SafetensorsFile(path: directory + "/speech_tokenizer/model.safetensors")
    }
}

extension SafetensorsFile {
    /// A tensor as float32, whatever its shape.
    public func array(_ name: String) throws -> [Float] {
        guard let view = self[name] else { throw TensorError.missing(name: name, path: path) }
        return try floats(name, shape: view.shape).array
    }
}

/// The largest absolute difference; infinite for different lengths or a NaN.
public func maxDifference(_ a: [Float], _ b: [Float]) -> Float {
    guard a.count == b.count else { return .infinity }
    var largest: Float = 0
    for (x, y) in zip(a, b) {
        let difference = abs(x - y)
        if difference.isNaN { return .infinity }
        largest = max(largest, difference)
    }
    return largest
}

/// The cases of a fixture, as `golden.json` describes them.
public struct FixtureCases {
    /// One case: how the reference was called and what it gave.
    public struct Case: Decodable {
        /// Arguments of the reference's public call.
        public struct Arguments: Decodable {
            /// What is spoken.
            public let text: String
            /// `auto` or a language.
            public let language: String
            /// A named voice.
            public let speaker: String?
            /// Style, or a description of the voice.
            public let instruct: String?
            /// Whether the whole text is in the prefill.
            public let non_streaming_mode: Bool?
            /// What is said in the reference recording.
            public let ref_text: String?
            /// Whether only the speaker vector is used.
            public let x_vector_only_mode: Bool?
        }
        /// The reference's public call.
        public let method: String
        /// Its arguments.
        public let arguments: Arguments
    }

    private struct File: Decodable {
        let cases: [String: Case]
        let frames_requested: Int
    }

    /// By name.
    public let cases: [String: Case]
    /// Frames that the reference was asked for.
    public let framesRequested: Int

    /// Reads `golden/golden.json`.
    public init(_ fixture: Fixture) throws {
        let file = try fixture.decodeGolden(File.self)
        cases = file.cases
        framesRequested = file.frames_requested
    }

    /// Sorted names.
    public var names: [String] { cases.keys.sorted() }
}
