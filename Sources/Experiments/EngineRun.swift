public import Qwen3TTS
public import SpeechEngine

/// One request through an engine: what it gave and when.
public struct EngineRun: Sendable {
    /// All codes, [frames, groups].
    public let codes: [Int32]
    /// Codes of a frame.
    public let groups: Int
    /// All samples.
    public let samples: [Float]
    /// Frames of each packet.
    public let packets: [Int]
    /// Samples of each packet.
    public let sampleCounts: [Int]
    /// When each packet was generated and decoded.
    public let times: [PacketTimes]
    /// Seconds from the request to each packet.
    public let arrivals: [Double]
    /// What the engine said at the end.
    public let summary: SpeechSummary

    /// Frames.
    public var frames: Int { codes.count / groups }

    /// Whether it gave audio and ended by itself or at its limit.
    public var isGood: Bool { frames > 0 && [.stop, .length].contains(summary.finishReason) }

    /// Milliseconds from the request to the first packet.
    public var firstAudioMs: Double? { summary.firstAudio.map { 1000 * $0 } }
    /// Milliseconds of code generation, all frames.
    public var codeMs: Double { 1000 * (summary.stages.talker + summary.stages.codePredictor) }
    /// Milliseconds that decoding the first packet took.
    public var decodeFirstMs: Double? { times.first.map { 1000 * ($0.decodeEnd - $0.decodeStart) } }

    /// SHA-256 of the codes of the first packet.
    func firstPacketHash(_ packet: Int) -> String { codesHash(codes.prefix(packet * groups)) }

    /// Speaks a request to its end.
    /// - Parameter packet: codec frames a packet.
    public static func make(
        _ engine: SpeechEngine, _ request: SpeechRequest, packet: Int
    ) async throws(ExperimentError) -> EngineRun {
        let start = ContinuousClock.now
        let stream = try Self.start(engine, request, packet: packet)
        var (codes, samples, packets, arrivals): ([Int32], [Float], [Int], [Double]) = ([], [], [], [])
        var (sampleCounts, times): ([Int], [PacketTimes]) = ([], [])
        for await event in stream {
            switch event {
            case .packet(let packet):
                codes += packet.codes
                samples += packet.samples
                packets.append(packet.frames.count)
                sampleCounts.append(packet.samples.count)
                times.append(packet.times)
                arrivals.append((ContinuousClock.now - start) / .seconds(1))
            case .end(let summary):
                return EngineRun(
                    codes: codes, groups: engine.model.codeGroups, samples: samples, packets: packets,
                    sampleCounts: sampleCounts, times: times, arrivals: arrivals, summary: summary)
            }
        }
        throw .badSetting("the engine went away before the utterance ended")
    }

    static func start(
        _ engine: SpeechEngine, _ request: SpeechRequest, packet: Int
    ) throws(ExperimentError) -> SpeechStream {
        do { return try engine.speak(request, packets: .fixed(packet)) } catch {
            if case .request(let problem) = error { throw .model(problem) }
            throw .badSetting(error.description)
        }
    }
}

extension SpeechModel {
    /// The request for a text of an experiment. A Base model, whose voices come from recordings, gets a stand-in.
    public func experimentRequest(
        _ text: ExperimentText, _ voice: ExperimentVoice, sampling: SamplingOptions,
        rules: RequestRules = RequestRules()
    ) throws(ExperimentError) -> SpeechRequest {
        var request = SpeechRequest(text: text.text)
        request.sampling = sampling
        let language = text.language ?? voice.language ?? "auto"
        // A model that does not know the language takes the text all the same.
        request.language = configuration.languages.contains(language) ? language : "auto"
        request.instruction = voice.instruct
        if configuration.kind == .base {
            request.voice = .clone(ClonePrompt(speakerVector: try StageBench.standInVoice(self)))
        } else if let speaker = voice.speaker {
            request.voice = .named(speaker)
        }
        rules.apply(to: &request, of: self)
        return request
    }
}

/// SHA-256 of codes, as fingerprints have it.
func codesHash(_ codes: some Collection<Int32>) -> String {
    var builder = FingerprintBuilder()
    builder.add(codes: Array(codes))
    return builder.fingerprint.codes
}
