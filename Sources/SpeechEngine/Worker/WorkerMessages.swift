import Qwen3TTS

/// What the engine tells its worker process. Only `makesRoom` and `step` are answered.
enum WorkerMessage: Codable, Sendable {
    case begin(UInt64, WorkerRequest)
    case append(UInt64, String)
    case completeText(UInt64)
    /// The utterance has ended.
    case forget(UInt64)
    /// Whether a GPU has memory for all that the utterance may come to need.
    case makesRoom(UInt64)
    case step([UInt64])
}

/// What the worker process tells its engine.
enum WorkerReply: Codable, Sendable {
    /// The model is loaded: once, before anything else.
    case ready
    /// It is not.
    case failed(String)
    case room(Bool)
    case stepped([WorkerStep], StageTimes)
}

/// What a step did for one utterance. The codes of a new frame are in the ring.
struct WorkerStep: Codable, Sendable {
    let result: StepResult
    let finishReason: FinishReason?
    let isWaitingForText: Bool
    let textTokens: Int?
    let choices: [WorkerChoices]
    /// Of a model that tells what it speaks: ids of its text that were not told before, and which id of all the new frame
    /// speaks.
    let textIDs: [Int32]
    let place: Int32?
    /// What its reader should know since the step before.
    let warnings: [String]
}

/// What was recorded of one code's logits.
struct WorkerChoices: Codable, Sendable {
    private let frame: Int, codebook: Int
    private let ids: [Int]
    /// As bits: nothing may round them on the way.
    private let logits: [UInt32]

    init(_ choices: CodeChoices) {
        (frame, codebook, ids) = (choices.frame, choices.codebook, choices.ids)
        logits = choices.logits.map(\.bitPattern)
    }

    var choices: CodeChoices {
        CodeChoices(
            frame: frame, codebook: codebook, ids: ids, logits: logits.map { Float(bitPattern: $0) })
    }
}

/// A request on its way to the worker process. A tap on its logits works there, and what it records comes back step by
/// step.
struct WorkerRequest: Codable, Sendable {
    private enum Voice: Codable {
        case named(String)
        case clone(Clone)
        case standard
    }

    private struct Clone: Codable {
        /// As bits: nothing may round them on the way.
        let speakerVector: [UInt32]
        let codes: [Int32]
        let codeGroups: Int
        let referenceText: String?
        let modelIdentity: String
    }

    private let text: String
    private let isComplete: Bool
    private let voice: Voice
    private let language: String
    private let instruction: String?
    private let layout: TextLayout?
    private let sampling: SamplingOptions
    private let controlTokens: ControlTokens
    private let tap: LogitTap.Order?

    init(_ request: SpeechRequest) {
        text = request.text
        isComplete = request.isComplete
        language = request.language
        instruction = request.instruction
        layout = request.layout
        sampling = request.sampling
        controlTokens = request.controlTokens
        tap = request.logitTap?.order
        voice =
            switch request.voice {
            case .named(let name): .named(name)
            case .standard: .standard
            case .clone(let prompt):
                .clone(
                    Clone(
                        speakerVector: prompt.speakerVector.map(\.bitPattern), codes: prompt.codes,
                        codeGroups: prompt.codeGroups, referenceText: prompt.referenceText,
                        modelIdentity: prompt.modelIdentity))
            }
    }

    var request: SpeechRequest {
        var request = SpeechRequest(text: text)
        request.isComplete = isComplete
        request.language = language
        request.instruction = instruction
        request.layout = layout
        request.sampling = sampling
        request.controlTokens = controlTokens
        request.logitTap = tap.map(LogitTap.init)
        switch voice {
        case .named(let name): request.voice = .named(name)
        case .standard: request.voice = .standard
        case .clone(let clone):
            request.voice = .clone(
                ClonePrompt(
                    speakerVector: clone.speakerVector.map { Float(bitPattern: $0) }, codes: clone.codes,
                    codeGroups: clone.codeGroups, referenceText: clone.referenceText,
                    modelIdentity: clone.modelIdentity))
        }
        return request
    }
}
