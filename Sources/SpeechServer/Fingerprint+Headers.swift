import HTTPTypes
import Qwen3TTS
import SpeechEngine

extension HTTPField.Name {
    static let martletSeed = HTTPField.Name("X-Martlet-Seed").unsafelyUnwrapped
    static let martletFrames = HTTPField.Name("X-Martlet-Frames").unsafelyUnwrapped
    static let martletFinishReason = HTTPField.Name("X-Martlet-Finish-Reason").unsafelyUnwrapped
    static let martletCodes = HTTPField.Name("X-Martlet-Codes-SHA256").unsafelyUnwrapped
    static let martletPCM = HTTPField.Name("X-Martlet-PCM-SHA256").unsafelyUnwrapped
    static let martletFirstAudio = HTTPField.Name("X-Martlet-First-Audio-Ms").unsafelyUnwrapped
    static let martletFirstPacket = HTTPField.Name("X-Martlet-First-Packet-SHA256").unsafelyUnwrapped
    static let martletCodeTime = HTTPField.Name("X-Martlet-Code-Ms").unsafelyUnwrapped
    static let martletDecodeTime = HTTPField.Name("X-Martlet-Decode-Ms").unsafelyUnwrapped
    static let martletFirstDecode = HTTPField.Name("X-Martlet-First-Decode-Ms").unsafelyUnwrapped
    static let martletRealTimeFactor = HTTPField.Name("X-Martlet-RTF").unsafelyUnwrapped
}

extension SpeechSummary {
    /// The names of `trailers`, for the `Trailer` header.
    static let trailerNames =
        "X-Martlet-Seed, X-Martlet-Frames, X-Martlet-Finish-Reason, X-Martlet-Codes-SHA256, X-Martlet-PCM-SHA256, "
        + "X-Martlet-First-Audio-Ms, X-Martlet-RTF, X-Martlet-First-Packet-SHA256, X-Martlet-Code-Ms, "
        + "X-Martlet-Decode-Ms, X-Martlet-First-Decode-Ms"

    /// The fingerprint and what else is known at the end, as HTTP fields.
    /// - Parameters:
    ///   - firstCodes: codes of the first packet.
    ///   - firstTimes: when the first packet was made.
    func trailers(firstCodes: [Int32], firstTimes: PacketTimes?) -> HTTPFields {
        func milliseconds(_ seconds: Double) -> String { "\((seconds * 1e6).rounded() / 1000)" }
        var fields = HTTPFields()
        var builder = FingerprintBuilder()
        builder.add(codes: firstCodes)
        fields[.martletFirstPacket] = builder.fingerprint.codes
        fields[.martletCodeTime] = milliseconds(stages.talker + stages.codePredictor)
        fields[.martletDecodeTime] = milliseconds(stages.decoder)
        if let firstTimes { fields[.martletFirstDecode] = milliseconds(firstTimes.decodeEnd - firstTimes.decodeStart) }
        fields[.martletSeed] = "\(seed)"
        fields[.martletFrames] = "\(frames)"
        fields[.martletFinishReason] = finishReason.rawValue
        fields[.martletCodes] = fingerprint.codes
        fields[.martletPCM] = fingerprint.pcm
        if let firstAudio { fields[.martletFirstAudio] = "\(Int((firstAudio * 1000).rounded()))" }
        fields[.martletRealTimeFactor] = "\((realTimeFactor * 1000).rounded() / 1000)"
        return fields
    }

    /// The same as JSON; `words` where the model can tell when they begin.
    var json: JSONValue {
        var members: [String: JSONValue] = [
            "seed": seed <= UInt64(Int.max) ? .integer(Int(seed)) : .unsigned(seed),
            "frames": .integer(frames),
            "seconds": .number(seconds),
            "finish_reason": .string(finishReason.rawValue),
            "codes_sha256": .string(fingerprint.codes),
            "pcm_sha256": .string(fingerprint.pcm),
            "first_audio_seconds": firstAudio.map { .number($0) } ?? .null,
            "elapsed_seconds": .number(elapsed),
            "underruns": .integer(underruns),
            "warnings": .array(warnings.map { .string($0) }),
        ]
        if !words.isEmpty { members["words"] = .array(words.map(\.json)) }
        return .object(members)
    }
}

extension SpokenWord {
    /// The word and when it begins, in seconds.
    var json: JSONValue { .object(["word": .string(word), "start": .number((start * 1000).rounded() / 1000)]) }
}
