import CUDABackend
public import Qwen3TTS

/// What an engine computes on and how, for reports and logs.
public struct EngineDescription: Sendable, Codable, Equatable {
    /// One of its two sides: generation or decoding.
    public struct Side: Sendable, Codable, Equatable {
        /// `cpu`, `cuda:0`.
        public let device: String
        /// Name of the card; nil for the CPU.
        public let card: String?
        /// `avx2` and so on, or `sm_90` and so on.
        public let instructionSet: String
        /// What weights, activations and sums are.
        public let arithmetic: String
        /// What a GPU is given at a time; nil for the CPU.
        public let launches: String?

        /// Whether the CPU does it.
        public var isCPU: Bool { card == nil }
    }

    /// Text to codes, and codes to samples.
    public let generation: Side, decoding: Side
    /// Threads of the CPU's stages.
    public let threads: Int
    /// Storage of the language model's weights.
    public let weights: String

    /// `cpu`, `cuda:0`, or both sides where they differ.
    public var device: String {
        generation.device == decoding.device
            ? generation.device : "\(generation.device), decoding on \(decoding.device)"
    }
}

extension EngineOptions {
    /// What an engine of these options computes on.
    public func description(of model: SpeechModel) -> EngineDescription {
        func side(_ gpu: CUDAHost?, _ arithmetic: String, _ launches: String?) -> EngineDescription.Side {
            EngineDescription.Side(
                device: gpu?.name ?? "cpu", card: gpu?.info.name,
                instructionSet: gpu?.info.architecture ?? model.compute.instructionSet.rawValue,
                arithmetic: arithmetic + ", every sum in one fixed order", launches: launches)
        }
        let weights = model.weightFormat.rawValue
        let generation =
            generationGPU == nil
            ? "\(weights) weights, float32 activations and sums"
            : "\(weights) weights, activations of 16 significant bits, float32 sums"
        let decoding =
            switch decodingGPU?.precision {
            case nil: "float32 weights, activations and sums"
            case .half: "float16 weights and activations, float32 sums"
            case .exact: "weights and activations of two float16 parts, float32 sums"
            }
        return EngineDescription(
            generation: side(generationGPU, generation, generationGPU?.launches.generation),
            decoding: side(decodingGPU, decoding, decodingGPU?.launches.decoding),
            threads: model.compute.pool.threadCount, weights: weights)
    }
}
