import AudioFiles
import Qwen3TTS
import SpeechEngine

/// One way of speaking one text: what comes of it, wherever it was made.
struct RegressionLeg {
    /// In -1…1.
    let samples: [Float]
    /// Samples per second.
    let sampleRate: Int
    /// [frames, groups]; nil if a server keeps none.
    let codes: [Int32]?
    /// Codes of a frame.
    let groups: Int
    /// SHA-256 of the codes and of the samples.
    let codesHash: String, samplesHash: String
    /// Samples at which packets meet.
    let borders: [Int]
    /// Frames.
    let frames: Int
    /// Milliseconds to the first sample.
    let firstAudioMs: Double?
    /// Computing time by speaking time.
    let realTimeFactor: Double
    /// Why it ended.
    let finishReason: String

    var seconds: Double { Double(samples.count) / Double(sampleRate) }
}

extension RegressionSuite {
    /// Speaks a text streamed and at once.
    func legs(
        _ source: SpeechSource, _ text: ExperimentText, _ voice: ExperimentVoice, name: String
    ) async throws(ExperimentError) -> (stream: RegressionLeg, offline: RegressionLeg) {
        switch source {
        case .engine(let engine):
            let request = try engine.model.experimentRequest(text, voice, sampling: sampling, rules: rules)
            let stream = try await EngineRun.make(engine, request, packet: packet)
            let offline = try await EngineRun.make(engine, request, packet: 1 << 20)
            return (leg(stream, of: engine.model), leg(offline, of: engine.model))
        case .server(let client):
            let tag = "regress-" + String(name.map { $0.isASCII && ($0.isLetter || $0.isNumber) ? $0 : "-" })
            var request = RemoteRequest(
                text, voice, sampling: sampling, rules: rules, packet: packet, tag: String(tag.prefix(100)))
            let stream = try await client.stream(request)
            let kept = try await client.codes(tag: String(tag.prefix(100)))?.record()
            request.packetTokens = nil
            request.tag = nil
            let offline = try await client.synthesize(request)
            return (leg(stream, codes: kept), leg(offline, codes: nil))
        }
    }

    private func leg(_ run: EngineRun, of model: SpeechModel) -> RegressionLeg {
        RegressionLeg(
            samples: run.samples, sampleRate: model.sampleRate, codes: run.codes, groups: run.groups,
            codesHash: run.summary.fingerprint.codes, samplesHash: run.summary.fingerprint.pcm,
            borders: run.packets.dropLast().reduce(into: [Int]()) { borders, frames in
                borders.append((borders.last ?? 0) + frames * model.samplesPerFrame)
            }, frames: run.frames, firstAudioMs: run.summary.firstAudio.map { 1000 * $0 },
            realTimeFactor: run.summary.realTimeFactor, finishReason: run.summary.finishReason.rawValue)
    }

    private func leg(_ run: RemoteRun, codes: CodeRecord?) -> RegressionLeg {
        let samples = run.samples
        let perPacket = run.frames > 0 ? samples.count / run.frames * packet : 0
        return RegressionLeg(
            samples: samples, sampleRate: run.sampleRate, codes: codes?.codes, groups: codes?.groups ?? 1,
            codesHash: run.codesHash, samplesHash: run.samplesHash,
            borders: perPacket > 0 ? Array(stride(from: perPacket, to: samples.count, by: perPacket)) : [],
            frames: run.frames, firstAudioMs: run.firstAudioMs, realTimeFactor: run.realTimeFactor,
            finishReason: run.isIntact ? run.finishReason : "a broken answer")
    }
}
