import ArgumentParser
import ModelHub
import Qwen3TTS
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
        help: "A model folder, or the name of a pulled model such as Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice.")
    var model: String?

    @Option(help: "Storage of the language model's weights: bf16, q8 or q4.")
    var weights = WeightFormat.bf16

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

    /// Finds and loads the model.
    func load() throws -> SpeechModel {
        let compute = Compute(threads: threads ?? ThreadPool.defaultThreadCount)
        return try SpeechModel(directory: directory(), weights: weights, compute: compute)
    }

    /// The folder of the model.
    func directory() throws -> String { try ModelLocation.directory(of: model) }
}

extension WeightFormat: ExpressibleByArgument {}

/// How codes are chosen.
struct SamplingArguments: ParsableArguments {
    @Option(help: "Seed of the random numbers: the same request with the same seed gives the same bytes.")
    var seed: UInt64 = 0

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

    func options(secondsPerFrame: Double) throws -> SamplingOptions {
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
