import AudioFiles
public import Qwen3TTS
public import SpeechEngine
import Tensors

/// Runs one text again and again: dumps of codes, and times to the first audio.
public struct CodeRuns: Sendable {
    /// What is run.
    public var text: ExperimentText
    /// With which voice.
    public var voice = ExperimentVoice()
    /// How codes are chosen.
    public var sampling = SamplingOptions()
    /// What holds for the request besides.
    public var rules = RequestRules()
    /// How often.
    public var count = 1
    /// Codec frames of a packet.
    public var packet = 4
    /// Tags are this, an underscore and the run's number.
    public var tagPrefix: String
    /// Runs that are not counted, before the others.
    public var warmUp = 0
    /// A disturbance.
    public var drift: InjectedDrift?
    /// The run that is disturbed, counted from 0; nil for the last.
    public var driftRun: Int?
    /// Settings that the reports name beside what they know themselves.
    public var settings: [String: String] = [:]
    /// Which steps' best choices are recorded; nil for none.
    public var choices: TopChoicesOptions?

    /// Runs of a text.
    public init(text: ExperimentText) {
        self.text = text
        tagPrefix = text.id
    }

    /// One run of a series.
    public struct Run: Sendable, Codable, Equatable {
        /// Names the run.
        public var tag: String
        /// Whether it gave audio and ended by itself or at its limit.
        public var isGood: Bool
        /// Milliseconds from the request to the first packet.
        public var firstAudioMs: Double?
        /// Milliseconds of code generation, all frames.
        public var codeMs: Double
        /// Milliseconds of decoding, all packets.
        public var decodeMs: Double
        /// Milliseconds that decoding the first packet took.
        public var decodeFirstMs: Double?
        /// Milliseconds from the request to the end.
        public var totalMs: Double
        /// Frames.
        public var frames: Int
        /// Computing time by speaking time.
        public var realTimeFactor: Double
        /// SHA-256 of all codes, of the first packet's, and of the samples.
        public var hash: String, firstPacketHash: String, samplesHash: String

        enum CodingKeys: String, CodingKey {
            case tag, frames, hash
            case isGood = "ok"
            case firstAudioMs = "ttfa_ms"
            case codeMs = "code_ms"
            case decodeMs = "decode_ms"
            case decodeFirstMs = "decode_first_ms"
            case totalMs = "total_ms"
            case realTimeFactor = "rtf"
            case firstPacketHash = "first_packet_hash"
            case samplesHash = "pcm_hash"
        }
    }

    /// A distribution of milliseconds.
    public struct Distribution: Sendable, Codable, Equatable {
        /// Half, 95 and 99 of a hundred are below.
        public let p50: Double, p95: Double, p99: Double

        init(_ values: [Double]) {
            p50 = percentile(values, 0.5)
            p95 = percentile(values, 0.95)
            p99 = percentile(values, 0.99)
        }
    }

    /// All runs of a series.
    public struct Report: Sendable, Codable, Equatable {
        /// What was run, on which model.
        public let textID: String, model: String
        /// `in_process` or `http`; nil in files of before.
        public let source: String?
        /// Codec frames of a packet.
        public let packet: Int
        /// Run by run.
        public let runs: [Run]
        /// Milliseconds to the first audio.
        public let firstAudio: Distribution
        /// Real-time factors.
        public let realTimeFactor: Distribution
        /// Different hashes of all codes, of the first packet's, and of the samples: 1 each if all runs are equal.
        public let hashUnique: Int, firstPacketHashUnique: Int, samplesHashUnique: Int
        /// Runs that went wrong.
        public let failCount: Int
        /// Runs without a meta file; nil if none were to be written.
        public let metaMissing: Int?
        /// What was set.
        public let switches: [String: String]

        enum CodingKeys: String, CodingKey {
            case model, source, runs, switches
            case textID = "text_id"
            case packet = "packet_tokens"
            case firstAudio = "ttfa_ms"
            case realTimeFactor = "rtf"
            case hashUnique = "hash_unique"
            case firstPacketHashUnique = "first_packet_hash_unique"
            case samplesHashUnique = "pcm_hash_unique"
            case failCount = "fail_count"
            case metaMissing = "meta_missing"
        }
    }

    /// Makes the runs, one after the other, in this process or on a server.
    /// - Parameters:
    ///   - folder: where codes and meta files go, which a server must keep then; nil writes none.
    ///   - progress: called after each run.
    public func make(
        _ source: SpeechSource, folder: String?, progress: (Run) -> Void = { _ in }
    ) async throws(ExperimentError) -> Report {
        switch source {
        case .engine(let engine): try await make(engine, folder: folder, progress: progress)
        case .server(let client): try await make(client, folder: folder, progress: progress)
        }
    }

    /// Makes the runs, one after the other.
    /// - Parameters:
    ///   - folder: where codes and meta files go; nil writes none.
    ///   - progress: called after each run.
    public func make(
        _ engine: SpeechEngine, folder: String?, progress: (Run) -> Void = { _ in }
    ) async throws(ExperimentError) -> Report {
        guard count >= 1 else { throw .badSetting("the count is \(count), expected at least 1") }
        let model = engine.model
        let identity = try? model.identity
        var runs: [Run] = []
        var written = 0
        for index in -warmUp..<count {
            let isDisturbed = drift != nil && index == driftRun ?? count - 1
            let tag = "\(tagPrefix)_\(index + 1)"
            var request = try model.experimentRequest(text, voice, sampling: sampling, rules: rules)
            let tap = try logitTap(isDisturbed ? drift : nil, choices, of: model)
            request.logitTap = tap
            let run = try await EngineRun.make(engine, request, packet: packet)
            if index < 0 { continue }
            var switches = self.switches(engine)
            if isDisturbed, let drift { switches["inject_drift"] = drift.label }
            let record = CodeRecord(
                tag: tag, run, of: model, identity: identity, text: text, voice: voice, packet: packet,
                switches: switches)
            if let folder {
                try record.write(to: folder)
                written += 1
                if let tap, choices != nil {
                    try writeJSON(TopChoices(tag: tag, steps: tap.choices), to: "\(folder)/topk_\(tag).json")
                }
            }
            let summary = run.summary
            let result = Run(
                tag: tag, isGood: run.isGood, firstAudioMs: run.firstAudioMs, codeMs: run.codeMs,
                decodeMs: 1000 * summary.stages.decoder, decodeFirstMs: run.decodeFirstMs,
                totalMs: 1000 * summary.elapsed, frames: run.frames, realTimeFactor: summary.realTimeFactor,
                hash: summary.fingerprint.codes, firstPacketHash: run.firstPacketHash(packet),
                samplesHash: summary.fingerprint.pcm)
            runs.append(result)
            progress(result)
        }
        return report(
            runs, model: model.directory, written: folder.map { _ in written }, switches: switches(engine),
            source: .engine(engine))
    }

    /// - Parameter written: meta files; nil if none were to be written.
    func report(
        _ runs: [Run], model: String, written: Int?, switches: [String: String], source: SpeechSource
    ) -> Report {
        Report(
            textID: text.id, model: model, source: source.label, packet: packet, runs: runs,
            firstAudio: Distribution(runs.compactMap(\.firstAudioMs)),
            realTimeFactor: Distribution(runs.map(\.realTimeFactor)), hashUnique: Set(runs.map(\.hash)).count,
            firstPacketHashUnique: Set(runs.map(\.firstPacketHash)).count,
            samplesHashUnique: Set(runs.map(\.samplesHash)).count, failCount: runs.count { !$0.isGood },
            metaMissing: written.map { runs.count - $0 }, switches: switches)
    }

    /// What was set, by the names of the settings.
    private func switches(_ engine: SpeechEngine) -> [String: String] {
        let machine = engine.description
        let all = [
            "packet_tokens": "\(packet)", "weights": machine.weights, "threads": "\(machine.threads)",
            "instruction_set": machine.generation.instructionSet, "decode_mode": "incremental",
            "device": machine.device,
        ]
        return all.merging(requestSwitches) { _, set in set }.merging(settings) { _, set in set }
    }

    /// What each request says of how codes are chosen.
    var requestSwitches: [String: String] {
        var all = ["deterministic_policy": sampling.greedy ? "greedy" : "seeded", "seed": "\(sampling.seed)"]
        all["temperature"] = sampling.temperature.map { "\($0)" }
        all["top_k"] = sampling.topK.map { "\($0)" }
        all["top_p"] = sampling.topP.map { "\($0)" }
        all["repetition_penalty"] = sampling.repetitionPenalty.map { "\($0)" }
        all["max_new_tokens"] = sampling.maxNewTokens.map { "\($0)" }
        return all
    }
}

/// Codes without a decoder, straight from the model: is it generation that stalls?
public struct CodesOnlyRun: Sendable, Codable, Equatable {
    /// `in_process`: a server always decodes. Nil in files of before.
    public let source: String?
    /// Milliseconds to the frames of the first packet, and to the end.
    public let firstPacketMs: Double, totalMs: Double
    /// Frames.
    public let frames: Int
    /// Median and 95th percentile of milliseconds a frame.
    public let frameMs: CodeRuns.Distribution
    /// SHA-256 of all codes.
    public let hash: String
    /// Why it ended.
    public let finishReason: String

    enum CodingKeys: String, CodingKey {
        case source, frames, hash
        case firstPacketMs = "first_packet_ms"
        case totalMs = "total_ms"
        case frameMs = "frame_ms"
        case finishReason = "finish_reason"
    }

    /// Generates all codes of a request.
    /// - Parameter options: where; the decoder is left out.
    public static func make(
        _ model: SpeechModel, _ request: SpeechRequest, packet: Int, options: EngineOptions = EngineOptions()
    ) async throws(ExperimentError) -> CodesOnlyRun {
        try await generate(model, request, packet: packet, options: options).run
    }

    /// Generates all codes of a request and keeps them, [frames, groups].
    static func generate(
        _ model: SpeechModel, _ request: SpeechRequest, packet: Int, options: EngineOptions
    ) async throws(ExperimentError) -> (run: CodesOnlyRun, codes: [Int32]) {
        var options = options
        (options.decoderStages, options.syncMode, options.runaway) = (.none, .sync, nil)
        options.workerProcess = false
        let run = try await EngineRun.make(SpeechEngine(model: model, options: options), request, packet: 1)
        let summary = run.summary
        let firstPacket = run.times.prefix(max(1, packet)).last?.generationEnd ?? summary.elapsed
        let result = CodesOnlyRun(
            source: "in_process", firstPacketMs: 1000 * firstPacket, totalMs: 1000 * summary.elapsed,
            frames: run.frames,
            frameMs: CodeRuns.Distribution(
                run.times.dropFirst().map { 1000 * ($0.generationEnd - $0.generationStart) }),
            hash: summary.fingerprint.codes, finishReason: summary.finishReason.rawValue)
        return (result, run.codes)
    }
}

/// Decoding of dumped codes, without any generation: is it the decoder that stalls?
public struct CodesReplay: Sendable, Codable, Equatable {
    /// How the decoder remembers.
    public enum Mode: String, Sendable, Codable, CaseIterable {
        /// It carries its state from packet to packet.
        case incremental
        /// Each packet is decoded anew after some frames of context.
        case windowed
    }

    /// The run.
    public let tag: String
    /// Codec frames of a packet, and frames of context.
    public let packet: Int, leftContext: Int
    /// How the decoder remembered.
    public let mode: Mode
    /// Calls of the decoder.
    public let calls: Int
    /// Samples that came, and that should have.
    public let samplesTotal: Int, samplesExpected: Int
    /// Calls that gave another number of samples than their frames have, and that gave only zeros.
    public let badLengthCalls: Int, zeroCalls: Int
    /// Milliseconds of a call.
    public let decodeMs: CodeRuns.Distribution
    /// The largest difference to decoding everything in one call; 0 if equal to the bit.
    public let maxDifference: Float
    /// SHA-256 of the samples.
    public let samplesHash: String

    enum CodingKeys: String, CodingKey {
        case tag, mode, calls
        case packet = "packet_tokens"
        case leftContext = "left_context"
        case samplesTotal = "samples_total"
        case samplesExpected = "samples_expected"
        case badLengthCalls = "bad_len_calls"
        case zeroCalls = "zero_calls"
        case decodeMs = "decode_ms"
        case maxDifference = "max_abs_to_whole"
        case samplesHash = "pcm_sha256"
    }

    /// Whether every sample came.
    public var isComplete: Bool { samplesTotal == samplesExpected && badLengthCalls == 0 }

    /// Decodes a record packet by packet.
    /// - Parameter options: where, and how the decoder remembers.
    public static func make(
        _ model: SpeechModel, _ record: CodeRecord, packet: Int, options: EngineOptions = EngineOptions()
    ) throws(ExperimentError) -> (report: CodesReplay, samples: [Float]) {
        guard packet >= 1 else { throw .badSetting("a packet has at least one frame") }
        guard record.groups == model.codeGroups else {
            throw .badSetting(
                "\(record.tag) has frames of \(record.groups) codes, the model's have \(model.codeGroups)")
        }
        let codebookSize = model.configuration.codec.decoder.codebookSize
        if let odd = record.codes.first(where: { $0 < 0 || $0 >= Int32(codebookSize) }) {
            throw .badSetting("\(record.tag) has the code \(odd), the model has 0 to \(codebookSize - 1)")
        }
        func decode(_ codes: [Int32], _ player: CodesPlayer) throws(ExperimentError) -> [Float] {
            do { return try player.decode(codes) } catch { throw .badSetting(error.description) }
        }
        let player = CodesPlayer(model, options: options)
        var (samples, times): ([Float], [Double]) = ([], [])
        var (bad, zero) = (0, 0)
        for start in stride(from: 0, to: record.frames, by: packet) {
            let end = min(start + packet, record.frames)
            let begin = ContinuousClock.now
            let part = try decode(Array(record.codes[(start * record.groups)..<(end * record.groups)]), player)
            times.append((ContinuousClock.now - begin) / .milliseconds(1))
            if part.count != (end - start) * model.samplesPerFrame { bad += 1 }
            if part.allSatisfy({ $0 == 0 }) { zero += 1 }
            samples += part
        }
        var wholeOptions = options
        wholeOptions.decoding = .incremental
        let whole = try decode(record.codes, CodesPlayer(model, options: wholeOptions))
        var (mode, leftContext) = (Mode.incremental, 0)
        if case .windowed(let frames) = options.decoding { (mode, leftContext) = (.windowed, frames) }
        var builder = FingerprintBuilder()
        builder.add(pcm: PCM16.bytes(samples))
        let report = CodesReplay(
            tag: record.tag, packet: packet, leftContext: leftContext, mode: mode,
            calls: times.count, samplesTotal: samples.count,
            samplesExpected: record.frames * model.samplesPerFrame, badLengthCalls: bad, zeroCalls: zero,
            decodeMs: CodeRuns.Distribution(times),
            maxDifference: zip(samples, whole).reduce(0) { max($0, ($1.0 - $1.1).magnitude) },
            samplesHash: builder.fingerprint.pcm)
        return (report, samples)
    }
}
