import ArgumentParser
import Qwen3TTS
import SpeechEngine
import Tensors

/// `martlet worker`: generates codes for the engine that started it. Not for people.
struct WorkerCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "worker", abstract: "Generate codes for an engine in another process, which starts this one.",
        shouldDisplay: false)

    @Option(help: "The model's folder.")
    var model: String

    @Option(help: "Storage of the language model's weights.")
    var weights = WeightFormat.bf16

    @Option(help: "Threads.")
    var threads: Int

    @Option(help: "The engine's instruction set.")
    var instructionSet: String

    @Option(help: "Codes that the shared ring holds.")
    var ringCapacity: Int

    @Option(help: "The GPU that generates, by its place in the driver's list; the CPU if there is none.")
    var device: Int?

    @Option(help: "Utterances on the GPU at a time.")
    var slots = 64

    @Option(help: "On a GPU: frames that an utterance may have without any text, and for each text token.")
    var frameLimits: String?

    func validate() throws {
        guard (1...256).contains(threads) else { throw ValidationError("--threads is \(threads), expected 1 to 256.") }
        guard InstructionSet(rawValue: instructionSet) != nil else {
            throw ValidationError("--instruction-set \(instructionSet) is unknown.")
        }
    }

    func run() throws {
        let limits = frameLimits?.split(separator: ",").compactMap { Int($0) } ?? []
        var runaway = RunawayLimits()
        if limits.count == 2 { (runaway.baseFrames, runaway.framesPerToken) = (limits[0], limits[1]) }
        let wasStarted = SpeechWorker.run(
            ringCapacity: ringCapacity, runaway: limits.count == 2 ? runaway : nil
        ) {
            let compute = Compute(instructionSet: InstructionSet(rawValue: instructionSet), threads: threads)
            let card = try device.map { try CUDAHost(directory: model, device: $0, slots: slots, parts: .generation) }
            return (
                try SpeechModel(
                    directory: model, weights: weights, compute: compute, stages: card == nil ? .generation : []), card
            )
        }
        guard wasStarted else {
            throw ValidationError("'martlet worker' is started by an engine, not by hand; see 'martlet serve'.")
        }
    }
}
