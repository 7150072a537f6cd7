public import Qwen3TTS
import Tensors

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// How a bench is made.
public struct BenchOptions: Sendable {
    /// Frames that are timed.
    public var frames = 32
    /// Frames that go before them.
    public var warmUp = 4
    /// Codec frames of a packet.
    public var packet = 1
    /// How often the first audio of a prompt that is known is timed.
    public var firstAudioRuns = 3
    /// What floors are taken from; nil measures it.
    public var machine: MachineSpeed?

    /// The defaults.
    public init() {}
}

/// Times of one stage beside what the machine could do at best.
public struct StageTiming: Sendable, Codable, Equatable {
    /// `prefill`, `talker`, `predictor` or `decoder`.
    public let name: String
    /// Median milliseconds: of a whole prefill, or of a frame.
    public let ms: Double
    /// The fastest.
    public let minMs: Double
    /// Bytes of weights read.
    public let weightBytes: Int
    /// Floating-point operations, two for each multiply-add.
    public let operations: Int
    /// Milliseconds that reading and computing take at the least, on this machine, measured in the same run.
    public let floorMs: Double
    /// `ms` by `floorMs`.
    public let ratio: Double

    enum CodingKeys: String, CodingKey {
        case name, ms, operations, ratio
        case minMs = "min_ms"
        case weightBytes = "weight_bytes"
        case floorMs = "floor_ms"
    }

    init(_ name: String, seconds: [Double], cost: StageCost, share: Int = 1, speed: MachineSpeed) {
        self.name = name
        ms = 1000 * median(seconds)
        minMs = 1000 * (seconds.min() ?? 0)
        weightBytes = cost.weightBytes / share
        operations = 2 * cost.multiplyAdds / share
        floorMs = 1000 * speed.floor(bytes: cost.weightBytes, multiplyAdds: cost.multiplyAdds) / Double(share)
        ratio = floorMs > 0 ? ms / floorMs : 0
    }
}

/// How fast a model is on this machine.
public struct BenchReport: Sendable, Codable, Equatable {
    /// The model's folder.
    public let model: String
    /// How the language model's weights are stored.
    public let weights: String
    /// `scalar`, `avx2`, `avx512` or `neon`.
    public let instructionSet: String
    /// Threads of the stages.
    public let threads: Int
    /// Codec frames of a packet.
    public let packet: Int
    /// Frames timed.
    public let frames: Int
    /// What the floors are taken from.
    public let machine: MachineSpeed
    /// The load of the machine when the run began: beside much other work, figures are worthless.
    public let load: Double
    /// Milliseconds a frame.
    public let stages: [StageTiming]
    /// A whole new prompt, once.
    public let prefill: StageTiming
    /// Rows of that prompt.
    public let prefillRows: Int
    /// Milliseconds from a new request to its first samples, and the median where its prompt has been read before.
    public let firstAudioMs: Double, firstAudioKnownMs: Double
    /// Median milliseconds of a frame: all stages, sampling and bookkeeping.
    public let frameMs: Double
    /// The sum of the floors.
    public let floorMs: Double
    /// `frameMs` by the milliseconds that a frame sounds: below 1 is faster than real time.
    public let realTimeFactor: Double
    /// The most memory that the process had, mapped weights included.
    public let peakMemoryBytes: Int

    enum CodingKeys: String, CodingKey {
        case model, weights, threads, packet, frames, machine, load, stages, prefill
        case instructionSet = "instruction_set"
        case prefillRows = "prefill_rows"
        case firstAudioMs = "first_audio_ms"
        case firstAudioKnownMs = "first_audio_known_ms"
        case frameMs = "frame_ms"
        case floorMs = "floor_ms"
        case realTimeFactor = "rtf"
        case peakMemoryBytes = "peak_memory_bytes"
    }
}

/// Times the stages of a model.
public enum StageBench {
    /// What is spoken.
    static let text = "The quick brown fox jumps over the lazy dog while the kettle sings."

    /// Runs the bench: the first audio, then frame after frame, then the machine's own speed.
    public static func run(_ model: SpeechModel, options: BenchOptions = BenchOptions()) throws(ExperimentError)
        -> BenchReport
    {
        guard options.frames >= 1, options.packet >= 1, options.warmUp >= 0 else {
            throw .badSetting("a bench needs at least one frame and packets of at least one frame")
        }
        let load = loadAverage()
        let costs = try StageCosts(model, packet: options.packet)
        let prepared = try prepare(model, language: "auto")
        let rows = try promptRows(model)

        // The first run meets memory that is not there yet. It names a language, which changes the first row behind the
        // template's own, so that the model, which keeps what it has read of prompts, knows nothing of the next one.
        if let other = model.configuration.languages.dropFirst().first {
            _ = firstPacket(model, try prepare(model, language: other), frames: options.packet)
        }
        let (firstAudio, prefill) = firstPacket(model, prepared, frames: options.packet)
        let known = (0..<max(1, options.firstAudioRuns)).map { _ in
            firstPacket(model, prepared, frames: options.packet).seconds
        }

        var (talker, predictor, whole, decoder): ([Double], [Double], [Double], [Double]) = ([], [], [], [])
        var (utterance, voice) = (model.makeUtterance(prepared), model.makeDecoder(prepared))
        var (made, decoded) = (0, 0)
        while talker.count < options.frames || decoder.count * options.packet < options.frames {
            if utterance.finishReason != nil {
                // A model that ends its speech begins again; the prompt's step is not a frame's.
                (utterance, voice, decoded) = (model.makeUtterance(prepared), model.makeDecoder(prepared), 0)
            }
            let isPrompt = utterance.frames == 0
            var times = StageTimes()
            var result = StepResult.finished
            let seconds = time { result = model.step([utterance], times: &times)[0] }
            guard result == .frame else { continue }
            made += 1
            if made > options.warmUp, !isPrompt {
                talker.append(times.talker)
                predictor.append(times.codePredictor)
                whole.append(seconds)
            }
            if utterance.frames - decoded == options.packet {
                let codes = Array(utterance.codes.suffix(options.packet * model.codeGroups))
                let seconds = time { _ = model.decode([.init(voice, codes: codes)]) }
                decoded = utterance.frames
                if made > options.warmUp { decoder.append(seconds / Double(options.packet)) }
            }
        }
        // Before the machine is measured, which takes memory of its own.
        let memory = peakMemory()
        let speed = options.machine ?? MachineSpeed.measure(model.compute)
        let stages = [
            StageTiming("talker", seconds: talker, cost: costs.talker, speed: speed),
            StageTiming("predictor", seconds: predictor, cost: costs.codePredictor, speed: speed),
            StageTiming("decoder", seconds: decoder, cost: costs.decoder, share: options.packet, speed: speed),
        ]
        let frame = 1000 * (median(whole) + median(decoder))
        return BenchReport(
            model: model.directory, weights: model.weightFormat.rawValue,
            instructionSet: model.compute.instructionSet.rawValue, threads: model.compute.pool.threadCount,
            packet: options.packet, frames: talker.count, machine: speed, load: load, stages: stages,
            prefill: StageTiming(
                "prefill", seconds: [prefill], cost: costs.prefill(rows: rows), speed: speed),
            prefillRows: rows, firstAudioMs: 1000 * firstAudio, firstAudioKnownMs: 1000 * median(known),
            frameMs: frame,
            floorMs: stages.reduce(0) { $0 + $1.floorMs }, realTimeFactor: frame / 1000 / model.secondsPerFrame,
            peakMemoryBytes: memory)
    }

    /// Seconds from a new utterance to the samples of its first packet, and the talker's part of its prompt.
    private static func firstPacket(
        _ model: SpeechModel, _ prepared: PreparedRequest, frames: Int
    ) -> (seconds: Double, prefill: Double) {
        var times = StageTimes()
        var prefill = 0.0
        let seconds = time {
            let utterance = model.makeUtterance(prepared)
            while utterance.frames < frames, utterance.finishReason == nil {
                _ = model.step([utterance], times: &times)
                if utterance.frames <= 1 { prefill = times.talker }
            }
            _ = model.decode([.init(model.makeDecoder(prepared), codes: utterance.codes)])
        }
        return (seconds, prefill)
    }

    /// The request that is timed: any voice, sampled.
    private static func prepare(_ model: SpeechModel, language: String) throws(ExperimentError) -> PreparedRequest {
        var request = SpeechRequest(text: text)
        request.language = language
        request.sampling.seed = 1
        request.sampling.maxNewTokens = 1 << 20
        if model.configuration.kind == .base {
            request.voice = .clone(ClonePrompt(speakerVector: try standInVoice(model)))
        }
        do { return try model.prepare(request) } catch { throw .model(error) }
    }

    /// A speaker vector of the right width, for a model whose voices come from recordings.
    static func standInVoice(_ model: SpeechModel) throws(ExperimentError) -> [Float] {
        let file = try mainWeights(model)
        let width = file["talker.model.norm.weight"]?.count ?? 0
        return (0..<width).map { 0.02 * Float($0 % 7 - 3) }
    }

    private static func promptRows(_ model: SpeechModel) throws(ExperimentError) -> Int {
        let configuration = model.configuration
        let voice: PromptVoice =
            configuration.kind == .base ? .vector : configuration.voices.first.map { .named($0) } ?? .none
        do throws(ModelError) {
            return try Prompt(
                SpeechText(template: model.tokenizer.speechTemplate(text)), voice: voice, language: "auto",
                instruction: [], layout: Prompt.defaultLayout(configuration.kind), configuration: configuration
            ).rows.count
        } catch {
            throw .model(error)
        }
    }

    static func mainWeights(_ model: SpeechModel) throws(ExperimentError) -> SafetensorsFile {
        do { return try SafetensorsFile(path: model.directory + "/model.safetensors") } catch { throw .tensors(error) }
    }
}

/// Costs of all stages.
struct StageCosts {
    let talker, codePredictor, decoder: StageCost

    init(_ model: SpeechModel, packet: Int) throws(ExperimentError) {
        let file = try StageBench.mainWeights(model)
        talker = .talker(file, format: model.weightFormat)
        codePredictor = .codePredictor(file, format: model.weightFormat, groups: model.codeGroups)
        do {
            let codec = try SafetensorsFile(path: model.directory + "/speech_tokenizer/model.safetensors")
            decoder = .decoder(codec, model.configuration.codec.decoder, frames: packet)
        } catch {
            throw .tensors(error)
        }
    }

    func prefill(rows: Int) -> StageCost {
        let calls = (rows + SpeechModel.prefillRowsPerStep - 1) / SpeechModel.prefillRowsPerStep
        return StageCost(weightBytes: talker.weightBytes * calls, multiplyAdds: talker.multiplyAdds * rows)
    }
}

/// The middle of sorted values; 0 of none.
func median(_ values: [Double]) -> Double { percentile(values, 0.5) }

/// The value below which a part of the values lies, between neighbours by proportion; 0 of none.
func percentile(_ values: [Double], _ part: Double) -> Double {
    guard !values.isEmpty else { return 0 }
    let sorted = values.sorted()
    let position = part * Double(sorted.count - 1)
    let below = Int(position)
    let above = min(below + 1, sorted.count - 1)
    return sorted[below] + (sorted[above] - sorted[below]) * (position - Double(below))
}

/// Processes that wanted to run in the last minute, on average.
func loadAverage() -> Double {
    var loads = [0.0]
    return getloadavg(&loads, 1) == 1 ? loads[0] : 0
}

/// The most memory that this process had, in bytes.
func peakMemory() -> Int {
    var usage = rusage()
    #if canImport(Darwin)
        guard getrusage(RUSAGE_SELF, &usage) == 0 else { return 0 }
        return usage.ru_maxrss
    #else
        guard getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage) == 0 else { return 0 }
        return usage.ru_maxrss * 1024
    #endif
}
