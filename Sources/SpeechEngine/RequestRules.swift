public import Qwen3TTS

/// What holds for every request of a server or an experiment, whoever sends it.
public struct RequestRules: Sendable, Equatable {
    /// Where seeds come from.
    public var seedMode = SeedMode.fixed
    /// Seconds of audio that each character of a text may take; nil leaves the length to the model and the engine.
    public var maxSecondsPerCharacter: Double?
    /// Seconds that every text may take.
    public var maxSecondsMinimum = 10.0

    /// The defaults.
    public init() {}

    /// Fits a request to the rules.
    /// - Parameter seedIsGiven: whoever sent it has named its seed, which then stands.
    public func apply(to request: inout SpeechRequest, of model: SpeechModel, seedIsGiven: Bool = false) {
        if seedMode == .content, !seedIsGiven {
            request.sampling.seed = request.contentSeed(request.sampling.seed)
        }
        guard request.isComplete, let perCharacter = maxSecondsPerCharacter, perCharacter > 0 else { return }
        let seconds = max(maxSecondsMinimum, perCharacter * Double(request.text.count))
        // The last token that the limit allows makes no frame.
        let tokens = Int(min(1e9, (seconds / model.secondsPerFrame).rounded(.up))) + 1
        request.sampling.maxNewTokens = min(
            tokens, request.sampling.maxNewTokens ?? model.configuration.generation.maxNewTokens)
    }
}
