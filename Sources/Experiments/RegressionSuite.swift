import AudioFiles
public import Qwen3TTS
public import SpeechEngine
import Tensors

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Speaks every text with every voice, streamed and at once, and judges what comes: against itself, and against a
/// folder of an earlier run.
public struct RegressionSuite: Sendable {
    /// How much is run.
    public enum Mode: String, Sendable, CaseIterable {
        /// The first two texts and the first voice.
        case fast
        /// All.
        case full
    }

    /// What passes.
    public struct Gates: Sendable, Codable, Equatable {
        /// Milliseconds by which streamed audio may be longer or shorter than audio made at once.
        public var durationMs = 500.0
        /// Decibels of signal by noise against the baseline.
        public var signalToNoise = 15.0
        /// Milliseconds to the first audio; nil judges no time.
        public var firstAudioMs: Double? = 350
        /// Level under which audio counts as empty.
        public var level = 1e-4
        /// Frames of a segment that must not come twice.
        public var repeatedFrames = 8

        /// The runbook's.
        public init() {}
    }

    /// One text with one voice.
    public struct Case: Sendable, Codable, Equatable {
        /// Text and voice.
        public let name: String
        /// Seconds of streamed audio and of audio made at once.
        public let streamSeconds: Double, offlineSeconds: Double
        /// Whether both have the same codes and the same samples, to the bit.
        public let isSameCodes: Bool, isSameSamples: Bool
        /// Milliseconds to the first audio, streamed.
        public let firstAudioMs: Double?
        /// Computing time by speaking time, streamed.
        public let realTimeFactor: Double
        /// Level of the audio, samples at full scale, packet borders that click.
        public let level: Double, clippedSamples: Int, clicks: Int
        /// Frames of the longest segment that comes twice; 0 if none is long enough to count, nil if the server keeps no
        /// codes to see it in.
        public let repeatedFrames: Int?
        /// Against the baseline: decibels (nil without a baseline, or where nothing differs), mel distance, seconds.
        public let signalToNoise: Double?, melDistance: Double?, baselineSeconds: Double?
        /// Whether the samples are the baseline's, as 16-bit numbers; nil without a baseline.
        public let isSameAsBaseline: Bool?
        /// What does not pass.
        public let failures: [String]

        enum CodingKeys: String, CodingKey {
            case name, level, clicks, failures
            case streamSeconds = "stream_s"
            case offlineSeconds = "offline_s"
            case isSameCodes = "codes_equal"
            case isSameSamples = "pcm_equal"
            case firstAudioMs = "ttfa_ms"
            case realTimeFactor = "rtf"
            case clippedSamples = "clipped_samples"
            case repeatedFrames = "repeated_frames"
            case signalToNoise = "snr_db"
            case melDistance = "mel_distance"
            case baselineSeconds = "baseline_s"
            case isSameAsBaseline = "equals_baseline"
        }
    }

    /// `summary.json`.
    public struct Summary: Sendable, Codable, Equatable {
        /// The model's folder or the server's address, the mode, the baseline's folder.
        public let model: String, mode: String, baseline: String?
        /// `in_process` or `http`; nil in files of before.
        public let source: String?
        /// What passes.
        public let gates: Gates
        /// Case by case.
        public let cases: [Case]
        /// Whether all pass.
        public var pass: Bool { cases.allSatisfy(\.failures.isEmpty) }

        enum CodingKeys: String, CodingKey { case model, source, mode, baseline, gates, cases, pass }

        init(model: String, source: String, mode: String, baseline: String?, gates: Gates, cases: [Case]) {
            self.model = model
            self.source = source
            self.mode = mode
            self.baseline = baseline
            self.gates = gates
            self.cases = cases
        }

        /// Reads a summary.
        public init(from decoder: any Decoder) throws {
            let container = try decoder.container(keyedBy: CodingKeys.self)
            model = try container.decode(String.self, forKey: .model)
            source = try container.decodeIfPresent(String.self, forKey: .source)
            mode = try container.decode(String.self, forKey: .mode)
            baseline = try container.decodeIfPresent(String.self, forKey: .baseline)
            gates = try container.decode(Gates.self, forKey: .gates)
            cases = try container.decode([Case].self, forKey: .cases)
        }

        /// Writes the cases and whether all pass.
        public func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(model, forKey: .model)
            try container.encodeIfPresent(source, forKey: .source)
            try container.encode(mode, forKey: .mode)
            try container.encodeIfPresent(baseline, forKey: .baseline)
            try container.encode(gates, forKey: .gates)
            try container.encode(cases, forKey: .cases)
            try container.encode(pass, forKey: .pass)
        }
    }

    /// What is spoken.
    public var texts: [ExperimentText]
    /// With which voices.
    public var voices: [ExperimentVoice]
    /// How much of it.
    public var mode = Mode.fast
    /// How codes are chosen.
    public var sampling = SamplingOptions()
    /// What holds for each request besides.
    public var rules = RequestRules()
    /// Codec frames of a streamed packet.
    public var packet = 2
    /// What passes.
    public var gates = Gates()
    /// A folder of an earlier run, with its WAV files; nil for none.
    public var baseline: String?

    /// A suite of texts and voices.
    public init(texts: [ExperimentText], voices: [ExperimentVoice]) {
        self.texts = texts
        self.voices = voices
    }

    /// Runs the suite into a new folder below `root`, which the link `latest` then names.
    /// - Parameters:
    ///   - source: an engine, or a server: streamed by `/tts/stream`, at once by `/synthesize`.
    ///   - name: of the new folder.
    ///   - progress: called after each case.
    /// - Returns: the summary, and the folder.
    public func run(
        _ source: SpeechSource, root: String, name: String, progress: (Case) -> Void = { _ in }
    ) async throws(ExperimentError) -> (summary: Summary, folder: String) {
        let folder = "\(root)/\(name)"
        try ExperimentError.wrap(folder) {
            try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        }
        if let baseline, !FileManager.default.fileExists(atPath: baseline) {
            throw .file(path: baseline, reason: "there is no such folder to compare with")
        }
        var cases: [Case] = []
        for voice in mode == .fast ? Array(voices.prefix(1)) : voices {
            for text in mode == .fast ? Array(texts.prefix(2)) : texts {
                let result = try await run(source, text, voice, folder: folder)
                cases.append(result)
                progress(result)
            }
        }
        let model: String
        switch source {
        case .engine(let engine): model = engine.model.directory
        case .server(let client): model = client.url
        }
        let summary = Summary(
            model: model, source: source.label, mode: mode.rawValue, baseline: baseline, gates: gates, cases: cases)
        try writeJSON(summary, to: folder + "/summary.json")
        let link = root + "/latest"
        try ExperimentError.wrap(link) {
            // A link that leads nowhere exists all the same, so it is removed without being asked for.
            if (try? FileManager.default.destinationOfSymbolicLink(atPath: link)) != nil {
                try FileManager.default.removeItem(atPath: link)
            }
            try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: name)
        }
        return (summary, folder)
    }

    private func run(
        _ source: SpeechSource, _ text: ExperimentText, _ voice: ExperimentVoice, folder: String
    ) async throws(ExperimentError) -> Case {
        let name = "\(text.id)-\(voice.label)"
        let (stream, offline) = try await legs(source, text, voice, name: name)
        try ExperimentError.wrap("\(folder)/\(name).wav") {
            var writer = try WAVWriter(path: "\(folder)/\(name).wav", sampleRate: stream.sampleRate)
            try writer.write(stream.samples)
            try writer.finish()
        }
        let difference = 1000 * (stream.seconds - offline.seconds).magnitude
        let clicks = AudioChecks.clicks(stream.samples, borders: stream.borders, sampleRate: stream.sampleRate)
        let level = AudioChecks.level(stream.samples)
        let repeated = stream.codes.map {
            AudioChecks.repeatedSegment($0, groups: stream.groups, shortest: gates.repeatedFrames)
        }
        let isSameCodes = stream.codesHash == offline.codesHash
        let isSameSamples = stream.samplesHash == offline.samplesHash && stream.samples == offline.samples

        var failures: [String] = []
        if stream.frames == 0 { failures.append("no audio") }
        if stream.frames > 0, level < gates.level { failures.append("silence") }
        if difference > gates.durationMs { failures.append("streamed audio differs by \(Int(difference)) ms") }
        if !isSameCodes { failures.append("streamed codes differ") }
        if !isSameSamples { failures.append("streamed samples differ") }
        if let repeated = repeated ?? nil {
            failures.append("frames \(repeated.first) on come again at \(repeated.second), \(repeated.frames) of them")
        }
        if !clicks.isEmpty { failures.append("\(clicks.count) packet borders click") }
        if let limit = gates.firstAudioMs, let firstAudio = stream.firstAudioMs, firstAudio > limit {
            failures.append("first audio after \(Int(firstAudio)) ms")
        }
        if !["stop", "length"].contains(stream.finishReason) { failures.append("ended by \(stream.finishReason)") }
        var (noise, mel, length, same): (Double?, Double?, Double?, Bool?)
        if let baseline {
            let earlier = try read("\(baseline)/\(name).wav", sampleRate: stream.sampleRate)
            let samples = stream.samples.map { Float(PCM16.convert($0)) / 32_768 }
            let ratio = AudioChecks.signalToNoise(samples, reference: earlier)
            noise = ratio.flatMap { $0.isFinite ? $0 : nil }
            mel = AudioChecks.melDistance(samples, earlier, sampleRate: stream.sampleRate, compute: compute(source))
            length = Double(earlier.count) / Double(stream.sampleRate)
            same = samples == earlier
            if let ratio, ratio < gates.signalToNoise {
                failures.append("\(ratio.isFinite ? "\(Int(ratio))" : "-∞") dB to the baseline")
            }
            if 1000 * (stream.seconds - (length ?? 0)).magnitude > gates.durationMs {
                failures.append("the baseline has another length")
            }
        }
        return Case(
            name: name, streamSeconds: stream.seconds, offlineSeconds: offline.seconds, isSameCodes: isSameCodes,
            isSameSamples: isSameSamples, firstAudioMs: stream.firstAudioMs, realTimeFactor: stream.realTimeFactor,
            level: level, clippedSamples: AudioChecks.clipped(stream.samples), clicks: clicks.count,
            repeatedFrames: repeated.map { $0?.frames ?? 0 }, signalToNoise: noise, melDistance: mel,
            baselineSeconds: length, isSameAsBaseline: same, failures: failures)
    }

    /// What the measures compute with.
    private func compute(_ source: SpeechSource) -> Compute {
        if case .engine(let engine) = source { engine.model.compute } else { Compute() }
    }

    private func read(_ path: String, sampleRate: Int) throws(ExperimentError) -> [Float] {
        do { return try WAVFile.read(path: path).resampled(to: sampleRate).samples } catch {
            throw .file(path: path, reason: error.description)
        }
    }
}
