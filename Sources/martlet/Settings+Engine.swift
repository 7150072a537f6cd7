import Experiments
import Qwen3TTS
import Settings
import SpeechEngine
import SpeechServer
import Tensors

extension Settings {
    /// What an engine is started with, its devices aside.
    private func ownOptions() -> EngineOptions {
        var options = EngineOptions()
        let context = integer(.leftContext) ?? 25
        options.decoding = text(.decodeMode) == "windowed" ? .windowed(leftContext: context) : .incremental
        options.decoderStages = text(.dummyDecoder).flatMap { DecoderStages(rawValue: $0) } ?? .all
        if text(.dummyDecoder) == "none" { options.decoderStages = .all }
        options.decodeEvery = integer(.decodeEvery) ?? 1
        options.syncMode = syncMode
        options.prefillPackets = integer(.prefillPackets) ?? 1
        options.workerProcess = isOn(.workerProcess)
        options.log = { printError("note: " + $0) }
        func limit(_ setting: Setting) -> Double? { number(setting).flatMap { $0 > 0 ? $0 : nil } }
        options.workerTimeout = limit(.workerTimeout)
        options.workerLoadTimeout = limit(.workerLoadTimeout)
        options.runaway = runawayLimits()
        if isOn(.starterCache) { options.starterCache = StarterCacheLimits() }
        if let seconds = number(.idleTimeout), seconds > 0 {
            options.readerTimeout = seconds
            options.textTimeout = seconds
        }
        return options
    }

    /// What the engine of a model is started with, loaded on the devices that hold.
    /// - Parameters:
    ///   - generates: whether this process may have to generate though a worker process is set.
    ///   - change: what the caller decides.
    func engineOptions(
        _ model: SpeechModel, generates: Bool = false, _ change: (inout EngineOptions) -> Void = { _ in }
    ) throws -> EngineOptions {
        var options = ownOptions()
        change(&options)
        if !conflicts().isEmpty { options.syncMode = .none }
        try devices().load(model, into: &options, generates: generates || !options.workerProcess)
        if isOn(.backendTrace) { printError(backendLine(options.description(of: model))) }
        return options
    }

    /// Storage of the language model's weights.
    var weights: WeightFormat { text(.weights).flatMap { WeightFormat(rawValue: $0) } ?? .bf16 }

    /// How packets are cut by a server.
    var packets: PacketPolicy { integer(.packetTokens).map { .fixed($0) } ?? .growing }

    /// Frames of a packet in an experiment.
    var packetTokens: Int { integer(.packetTokens) ?? 4 }

    private func runawayLimits() -> RunawayLimits {
        var limits = RunawayLimits()
        if let packets = integer(.silencePackets) { limits.silentFrames = packets == 0 ? .max : packets * packetTokens }
        limits.silenceRMS = number(.silenceRMS).map { Float($0) }
        return limits
    }

    /// What holds for every request.
    var rules: RequestRules {
        var rules = RequestRules()
        rules.seedMode = text(.seedMode) == "content" ? .content : .fixed
        rules.maxSecondsPerCharacter = number(.maxSecondsPerCharacter)
        if let seconds = number(.maxSecondsMinimum) { rules.maxSecondsMinimum = seconds }
        return rules
    }

    /// Settings that need something this engine does not have yet.
    func check(weights: WeightFormat) throws {
        if isOn(.codegenFP32), weights != .bf16 {
            throw CommandError(
                "codegen-fp32 is 1 (\(value(.codegenFP32).source.label)) and weights are \(weights.rawValue): full "
                    + "precision needs --weights bf16")
        }
    }

    /// What is set, or what a device is best at: a GPU fills one side's gaps with the other's work, the CPU has none.
    private var syncMode: SyncMode {
        let isOnGPU = text(.device).map { $0 != "cpu" } ?? false
        return text(.syncMode).flatMap { SyncMode(rawValue: $0) } ?? (isOnGPU ? .none : .sync)
    }

    /// Switches that cannot hold together, line by line, as they are said once at the start.
    func conflicts() -> [String] {
        guard text(.syncMode) == "phase", isOn(.codegenBlocking) else { return [] }
        return ["phase sync disabled: codegen-blocking is 1; generation and decoding overlap"]
    }

    /// What was set, by the runbook's names, for reports and meta files.
    var switches: [String: String] {
        var all: [String: String] = [:]
        for value in values where Self.switchNames.contains(value.setting.name) {
            let name = value.setting.name.map { $0 == "-" ? "_" : String($0) }.joined()
            all[name] = value.text
        }
        all["sync_mode"] = syncMode.rawValue
        return all
    }

    private static let switchNames: Set<String> = Set(
        [
            Setting.workerProcess, .packetTokens, .leftContext, .decodeMode, .prefillPackets, .syncMode,
            .codegenBlocking, .device, .codegenDevice, .codegenFP32, .decoderFP32, .dummyDecoder, .decodeEvery, .policy,
            .seedMode, .seed, .silencePackets, .silenceRMS, .maxSecondsPerCharacter, .maxSecondsMinimum,
        ].map(\.name))

    /// One line that says what the back end is and what is switched on.
    private func backendLine(_ engine: EngineDescription) -> String {
        let on = values.filter { value in
            if case .none = value.setting.effect { return false }
            return value.source != .standard
        }.compactMap { value in
            value.text.map { "\(value.setting.name)=\($0)" }
        }
        func words(_ side: EngineDescription.Side) -> String {
            "\(side.device)\(side.card.map { " (\($0))" } ?? ""), \(side.instructionSet) kernels, \(side.arithmetic)"
                + (side.launches.map { ", " + $0 } ?? "")
        }
        return
            "back end: martlet \(Martlet.configuration.version); generation on \(words(engine.generation)); decoding on "
            + "\(words(engine.decoding)); \(engine.threads) threads; set: "
            + (on.isEmpty ? "nothing" : on.joined(separator: " "))
    }
}

extension Settings {
    /// An engine with these options; what cannot hold is said on standard error.
    func engine(_ model: SpeechModel, _ change: (inout EngineOptions) -> Void = { _ in }) throws -> SpeechEngine {
        let engine = SpeechEngine(model: model, options: try engineOptions(model, change))
        for note in conflicts() + engine.notes { printError("note: " + note) }
        return engine
    }

    /// What the server is started with.
    func apply(to options: inout ServerOptions) {
        if let host = text(.host) { options.host = host }
        if let port = integer(.port) { options.port = port }
        options.defaultSeed = unsigned(.seed) ?? 0
        options.isGreedy = text(.policy) == "greedy"
        options.rules = rules
        options.packets = packets
        options.decodeMode = text(.decodeMode) ?? "incremental"
        let traces: [(Setting, RequestTrace)] = [
            (.packetTrace, .packets), (.metrics, .metrics), (.traceTiming, .timing),
        ]
        options.traces = Set(traces.filter { isOn($0.0) }.map(\.1))
        if let milliseconds = number(.streamChunk) { options.streamChunkMilliseconds = milliseconds }
        if let seconds = number(.requestTimeout), seconds > 0 { options.requestTimeout = seconds }
        if let seconds = number(.idleTimeout), seconds > 0 { options.writeTimeout = seconds }
        if isOn(.starterCache) { options.starterTexts = list(.starterTexts) }
    }

    /// What keeps the codes of an engine's utterances; nil if they are not to be kept.
    /// - Parameter switches: what the meta files say that was set.
    func codeDump(_ model: SpeechModel, switches: [String: String]) throws -> CodeDump? {
        let choices = try topChoices()
        guard isOn(.codeDump) || choices != nil else { return nil }
        return CodeDump(
            model: model, folder: text(.codeDumpDirectory) ?? "codes", switches: switches, choices: choices,
            failed: { printError("error: " + $0) })
    }

    /// Which steps' likeliest codes are kept.
    func topChoices() throws -> TopChoicesOptions? {
        guard isOn(.topK) else { return nil }
        let (first, last) = (integer(.topKStart) ?? 0, integer(.topKEnd) ?? 100)
        guard first <= last else {
            throw CommandError(
                "debug-topk-step-start is \(first) and debug-topk-step-end \(last): the first step comes before the last"
            )
        }
        var options = TopChoicesOptions()
        options.count = integer(.topKCount) ?? 2
        options.frames = first...last
        return options
    }
}
