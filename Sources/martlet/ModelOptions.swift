import ArgumentParser
import ModelHub
import Qwen3TTS
import Settings
import SpeechEngine
import Tensors

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Which model, and how it is computed.
struct ModelOptions: ParsableArguments {
    @Option(
        name: .shortAndLong,
        help: """
            A model folder, the name of a shipped voice, or of a pulled model such as \
            Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice; default: the shipped voice.
            """)
    var model: String?

    @Option(help: "Storage of the language model's weights: bf16, q8 or q4; default: bf16.")
    var weights: WeightFormat?

    @Option(help: "Threads; default: all processors.")
    var threads: Int?

    func validate() throws {
        if let threads, !(1...256).contains(threads) {
            throw ValidationError("--threads is \(threads), expected 1 to 256.")
        }
        if let name = ProcessInfo.processInfo.environment["MARTLET_ISA"], !name.isEmpty {
            let known = InstructionSet.allCases.filter(\.isAvailable).map(\.rawValue)
            guard known.contains(name) else {
                throw ValidationError("MARTLET_ISA is \(name); this processor has \(known.joined(separator: ", ")).")
            }
        }
    }

    /// Finds and loads the model that the flags name, with the stages that the CPU has to do.
    func load(_ device: DeviceOptions? = nil) throws -> SpeechModel {
        try SpeechModel(
            directory: directory(), weights: weights ?? .bf16,
            compute: Compute(threads: threads ?? ThreadPool.defaultThreadCount),
            stages: device?.devices().stages ?? .all)
    }

    /// What the flags say of settings.
    var flags: [(Setting, String?)] {
        [(.model, model), (.weights, weights?.rawValue), (.threads, threads.map { "\($0)" })]
    }

    /// Finds and loads the model that settings name, which hold the flags above, with the stages that the CPU has to do.
    /// - Parameter others: more of them.
    func load(_ settings: Settings, besides others: SpeechModel.Stages = []) throws -> SpeechModel {
        let format = settings.weights
        try settings.check(weights: format)
        let compute = Compute(threads: settings.integer(.threads) ?? ThreadPool.defaultThreadCount)
        return try SpeechModel(
            directory: ModelLocation.directory(of: settings.text(.model)), weights: format, compute: compute,
            stages: settings.devices().stages.union(others))
    }

    /// The folder of the model.
    func directory() throws -> String { try ModelLocation.directory(of: model) }
}

extension WeightFormat: ExpressibleByArgument {}

/// How codes are chosen.
struct SamplingArguments: ParsableArguments {
    @Flag(help: "Always take the likeliest code.")
    var greedy = false

    @Option(help: "Sampling temperature of the talker; default: the model's.")
    var temperature: Double?

    @Option(help: "Keep the k likeliest codes; 0 keeps all.")
    var topK: Int?

    @Option(help: "Keep the likeliest codes of this total probability.")
    var topP: Double?

    @Option(help: "Penalty on codes that were spoken before; 1 is none.")
    var repetitionPenalty: Double?

    @Option(help: "End after this much audio.")
    var maxSeconds: Double?

    func options(secondsPerFrame: Double, seed: UInt64) throws -> SamplingOptions {
        var options = SamplingOptions()
        options.seed = seed
        options.greedy = greedy
        options.temperature = temperature
        options.topK = topK
        options.topP = topP
        options.repetitionPenalty = repetitionPenalty
        if let maxSeconds {
            guard maxSeconds > 0, maxSeconds < 1e6 else {
                throw ValidationError("--max-seconds is \(maxSeconds), expected more than 0.")
            }
            // The last token that the limit allows makes no frame.
            options.maxNewTokens = Int((maxSeconds / secondsPerFrame).rounded(.up)) + 1
        }
        return options
    }
}
