import Qwen3TTS

/// The generation of one utterance's codes, in this process or in another.
protocol CodeStream: AnyObject {
    /// Codes of all frames so far, [frames, code groups].
    var codes: [Int32] { get }
    /// Frames generated so far.
    var frames: Int { get }
    /// Set when the generation has ended.
    var finishReason: FinishReason? { get }
    /// A text row is needed that has not come.
    var isWaitingForText: Bool { get }
    /// Tokens of its text; nil while more may come.
    var textTokens: Int? { get }
    /// Token ids of its text so far.
    var textIDs: [Int32] { get }
    /// Which of them each frame speaks; empty if that cannot be told.
    var places: [Int32] { get }
    /// What the request's reader should know.
    var warnings: [String] { get }

    /// Appends text to an utterance that was started incomplete.
    func append(_ text: String) throws(ModelError)
    /// Says that no more text comes.
    func completeText() throws(ModelError)
    /// Ends it after its first `frames`.
    func truncate(frames: Int, _ reason: FinishReason)
    /// Ends it where it is.
    func finish(_ reason: FinishReason)
}

extension Utterance: CodeStream {}

/// Makes codes: the talker and the code predictor, wherever they run. Belongs to the engine's thread.
protocol CodeGenerator: AnyObject {
    /// Starts an utterance.
    func begin(_ request: SpeechRequest, _ prepared: PreparedRequest) -> any CodeStream
    /// Advances utterances that `begin` gave by one frame, or by a part of their prompts.
    func step(_ batch: [any CodeStream], times: inout StageTimes) -> [StepResult]
    /// Whether there is memory for all that an utterance may come to need. One that has been let in holds it to its end.
    func makesRoom(for stream: any CodeStream) -> Bool
    /// How often it had to be started again.
    var restarts: Int { get }
}

extension CodeGenerator {
    func makesRoom(for stream: any CodeStream) -> Bool { true }
}

/// The model itself, on the engine's thread.
final class ModelGenerator: CodeGenerator {
    private let model: SpeechModel

    let restarts = 0

    init(_ model: SpeechModel) { self.model = model }

    func begin(_ request: SpeechRequest, _ prepared: PreparedRequest) -> any CodeStream {
        model.makeUtterance(prepared)
    }

    func step(_ batch: [any CodeStream], times: inout StageTimes) -> [StepResult] {
        model.step(batch.compactMap { $0 as? Utterance }, times: &times)
    }
}
