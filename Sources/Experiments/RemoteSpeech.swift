import AudioFiles
import NIOHTTP1
public import Qwen3TTS
public import SpeechEngine

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Where an experiment's speech comes from.
public enum SpeechSource: Sendable {
    /// An engine in this process.
    case engine(SpeechEngine)
    /// A server.
    case server(SpeechClient)

    /// The engine's model; nil behind a server.
    public var model: SpeechModel? {
        if case .engine(let engine) = self { engine.model } else { nil }
    }

    /// As reports have it.
    public var label: String {
        switch self {
        case .engine: "in_process"
        case .server: "http"
        }
    }
}

/// One utterance that a server spoke.
struct RemoteRun: Sendable {
    /// Samples as they came, and in -1…1.
    let pcm: [UInt8]
    var samples: [Float] {
        stride(from: 0, to: pcm.count - 1, by: 2).map { at in
            Float(Int16(bitPattern: UInt16(pcm[at]) | UInt16(pcm[at + 1]) << 8)) / 32_767
        }
    }
    /// Samples per second.
    let sampleRate: Int
    /// SHA-256 of the codes as the server tells it, and of the samples as they came.
    let codesHash: String, samplesHash: String
    /// SHA-256 of the first packet's codes, as the server tells it.
    let firstPacketHash: String
    /// Frames, and why it ended.
    let frames: Int, finishReason: String
    /// Milliseconds from the request to the first sample and to the end, as the client saw them.
    let firstAudioMs: Double?, totalMs: Double
    /// Milliseconds of generation, of decoding, and of decoding the first packet, as the server tells them.
    let codeMs: Double, decodeMs: Double, decodeFirstMs: Double?
    /// Computing time by speaking time, as the server tells it.
    let realTimeFactor: Double
    /// Whether all came that was to come, and the samples are those that the server meant.
    let isIntact: Bool
}

/// What is asked of a server.
struct RemoteRequest: Encodable {
    var text: String
    var speaker: String?
    var language: String?
    var instruct: String?
    var tag: String?
    var seed: UInt64
    var greedy: Bool?
    var temperature: Double?
    var topK: Int?
    var topP: Double?
    var repetitionPenalty: Double?
    var maxNewTokens: Int?
    var packetTokens: Int?

    enum CodingKeys: String, CodingKey {
        case text, speaker, language, instruct, tag, seed, greedy, temperature
        case topK = "top_k"
        case topP = "top_p"
        case repetitionPenalty = "repetition_penalty"
        case maxNewTokens = "max_new_tokens"
        case packetTokens = "packet_tokens"
    }

    /// The request that `SpeechModel.experimentRequest` makes for an engine in the process.
    init(
        _ text: ExperimentText, _ voice: ExperimentVoice, sampling: SamplingOptions, rules: RequestRules, packet: Int?,
        tag: String?
    ) {
        self.text = text.text
        speaker = voice.speaker
        language = text.language ?? voice.language
        instruct = voice.instruct
        self.tag = tag
        seed = sampling.seed
        if rules.seedMode == .content {
            var request = SpeechRequest(text: text.text)
            if let speaker { request.voice = .named(speaker) }
            request.language = language ?? "auto"
            request.instruction = instruct
            seed = request.contentSeed(sampling.seed)
        }
        greedy = sampling.greedy ? true : nil
        temperature = sampling.temperature
        topK = sampling.topK
        topP = sampling.topP
        repetitionPenalty = sampling.repetitionPenalty
        maxNewTokens = sampling.maxNewTokens
        packetTokens = packet
    }

    func json() throws(ExperimentError) -> [UInt8] {
        do { return Array(try JSONEncoder().encode(self)) } catch { throw .badSetting("\(error)") }
    }
}

extension SpeechClient {
    /// `POST /tts/stream`, to its end.
    func stream(_ request: RemoteRequest) async throws(ExperimentError) -> RemoteRun {
        let start = ContinuousClock.now
        let reply = try await exchange(.POST, "/tts/stream", json: request.json())
        guard reply.status == 200 else { throw .server(url: url, reason: reply.message) }
        let total = (ContinuousClock.now - start) / .milliseconds(1)
        return try run(reply, pcm: reply.body, totalMs: total)
    }

    /// `POST /synthesize`: the whole WAV.
    func synthesize(_ request: RemoteRequest) async throws(ExperimentError) -> RemoteRun {
        let start = ContinuousClock.now
        let reply = try await exchange(.POST, "/synthesize", json: request.json())
        guard reply.status == 200 else { throw .server(url: url, reason: reply.message) }
        let total = (ContinuousClock.now - start) / .milliseconds(1)
        guard reply.body.starts(with: Array("RIFF".utf8)), reply.body.count >= 44 else {
            throw .server(url: url, reason: "/synthesize gave no WAV file")
        }
        return try run(reply, pcm: Array(reply.body.dropFirst(44)), totalMs: total)
    }

    private func run(_ reply: Reply, pcm: [UInt8], totalMs: Double) throws(ExperimentError) -> RemoteRun {
        guard let codes = reply.field("X-Martlet-Codes-SHA256") else {
            throw .server(
                url: url,
                reason: reply.isComplete
                    ? "the answer has no X-Martlet-Codes-SHA256: is it a Martlet server?"
                    : "the answer broke off after \(pcm.count) bytes")
        }
        func number(_ name: String) -> Double? { reply.field(name).flatMap { Double($0) } }
        var builder = FingerprintBuilder()
        builder.add(pcm: pcm)
        let samplesHash = builder.fingerprint.pcm
        return RemoteRun(
            pcm: pcm, sampleRate: reply.field("X-Sample-Rate").flatMap { Int($0) } ?? 24_000, codesHash: codes,
            samplesHash: samplesHash, firstPacketHash: reply.field("X-Martlet-First-Packet-SHA256") ?? "",
            frames: Int(number("X-Martlet-Frames") ?? 0), finishReason: reply.field("X-Martlet-Finish-Reason") ?? "",
            firstAudioMs: reply.arrivals.first.map { 1000 * $0.seconds }, totalMs: totalMs,
            codeMs: number("X-Martlet-Code-Ms") ?? 0, decodeMs: number("X-Martlet-Decode-Ms") ?? 0,
            decodeFirstMs: number("X-Martlet-First-Decode-Ms"), realTimeFactor: number("X-Martlet-RTF") ?? 0,
            isIntact: reply.isComplete && samplesHash == reply.field("X-Martlet-PCM-SHA256"))
    }

    /// The codes that the server kept of a request; nil if it keeps none.
    func codes(tag: String) async throws(ExperimentError) -> CodeDump.Document? {
        let reply = try await exchange(.GET, "/v1/codes/\(tag)")
        if reply.status == 404 { return nil }
        guard reply.status == 200 else { throw .server(url: url, reason: reply.message) }
        return try ExperimentError.wrap("\(url)/v1/codes/\(tag)") {
            try JSONDecoder().decode(CodeDump.Document.self, from: Data(reply.body))
        }
    }

    /// The figures of `/metrics`, by name and labels as they stand there.
    func metrics() async throws(ExperimentError) -> [String: Double] {
        let reply = try await exchange(.GET, "/metrics")
        guard reply.status == 200 else { throw .server(url: url, reason: reply.message) }
        var figures: [String: Double] = [:]
        for line in String(decoding: reply.body, as: UTF8.self).split(separator: "\n") where !line.hasPrefix("#") {
            guard let space = line.lastIndex(of: " ") else { continue }
            figures[String(line[..<space])] = Double(line[line.index(after: space)...])
        }
        return figures
    }
}
