import Tensors

/// A small checkpoint with outputs of the Python reference, in `Tests/Fixtures`.
public struct Fixture: Sendable {
    /// The checkpoint's folder.
    public let directory: String

    /// The fixture of that folder name.
    public init(_ name: String) {
        directory = #filePath.split(separator: "/").dropLast(2).reduce("") { $0 + "/" + $1 } + "/Fixtures/" + name
    }

    /// All kinds: CustomVoice and Base with `small_to_mtp_projection`, VoiceDesign without.
    public static let customVoice = Fixture("tiny-custom-voice")
    /// With speaker encoder and codec encoder.
    public static let base = Fixture("tiny-base")

    /// A file of reference outputs.
    public func golden(_ name: String) throws -> SafetensorsFile {
        try SafetensorsFile(path: directory + "/golden/" + name)
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
