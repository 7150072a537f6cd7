import Qwen3TTS

/// An utterance whose codes the worker process generates, as the engine knows it.
final class WorkerStream: CodeStream {
    let id: UInt64
    private(set) var codes: [Int32] = []
    private(set) var frames = 0
    private(set) var finishReason: FinishReason?
    private(set) var isWaitingForText = false
    private(set) var textTokens: Int?
    private(set) var warnings: [String]
    private unowned let generator: WorkerGenerator

    fileprivate init(id: UInt64, warnings: [String], generator: WorkerGenerator) {
        self.id = id
        self.warnings = warnings
        self.generator = generator
    }

    func append(_ text: String) throws(ModelError) {
        isWaitingForText = false
        generator.tell(.append(id, text))
    }

    func completeText() throws(ModelError) {
        isWaitingForText = false
        generator.tell(.completeText(id))
    }

    func truncate(frames count: Int, _ reason: FinishReason) {
        codes.removeLast((frames - count) * (codes.count / max(frames, 1)))
        frames = count
        finish()
        finishReason = reason
    }

    func finish(_ reason: FinishReason) {
        guard finishReason == nil else { return }
        finish()
        finishReason = reason
    }

    private func finish() {
        if finishReason == nil { generator.forget(self) }
    }

    /// Takes what a step did; false if the codes of a frame are missing.
    fileprivate func take(_ step: WorkerStep, groups: Int, from ring: CodesRing) -> Bool {
        if step.result == .frame {
            guard let frame = ring.take(groups) else { return false }
            codes += frame
            frames += 1
        }
        isWaitingForText = step.isWaitingForText
        textTokens = step.textTokens
        finishReason = step.finishReason
        return true
    }

    fileprivate func lose(_ why: String) {
        finishReason = .workerLost
        warnings.append("the worker process that generated this speech ended: \(why)")
    }
}

/// Generates codes in a process of its own, which it starts again when it dies.
///
/// The engine's scheduling stays here: the worker does one step at a time, when it is told to.
final class WorkerGenerator: CodeGenerator {
    private let program: WorkerProgram
    private let groups: Int
    private var process: WorkerProcess?
    /// Whether the process has said that it is ready.
    private var isReady = false
    /// Why there is no process.
    private var failure = ""
    private var streams: [UInt64: WorkerStream] = [:]
    private var nextID: UInt64 = 0
    private(set) var restarts = 0

    init(_ model: SpeechModel, options: EngineOptions) {
        program = WorkerProgram(model, executable: options.workerExecutable, maxBatch: options.maxBatch)
        groups = model.configuration.talker.codeGroups
        start()
    }

    func begin(_ request: SpeechRequest, _ prepared: PreparedRequest) -> any CodeStream {
        nextID += 1
        let stream = WorkerStream(id: nextID, warnings: prepared.warningTexts, generator: self)
        if process == nil { start() }
        let message = WorkerMessage.begin(nextID, WorkerRequest(request))
        // A process that died while there was nothing to do is noticed here, and need not cost this utterance.
        if !tell(message), process != nil { tell(message) }
        if process == nil { stream.lose(failure) } else { streams[nextID] = stream }
        return stream
    }

    func step(_ batch: [any CodeStream], times: inout StageTimes) -> [StepResult] {
        let batch = batch.compactMap { $0 as? WorkerStream }
        guard let process, tell(.step(batch.map(\.id))) else { return batch.map { _ in .finished } }
        do throws(ChannelClosed) {
            if !isReady { try takeReadiness(process) }
            guard case .stepped(let steps, let stages) = try process.channel.receive(WorkerReply.self),
                steps.count == batch.count
            else { throw ChannelClosed() }
            for (stream, step) in zip(batch, steps) {
                guard stream.take(step, groups: groups, from: process.ring) else { throw ChannelClosed() }
                if stream.finishReason != nil { streams[stream.id] = nil }
            }
            times += stages
            return steps.map(\.result)
        } catch {
            lose()
            return batch.map { _ in .finished }
        }
    }

    private func takeReadiness(_ process: WorkerProcess) throws(ChannelClosed) {
        switch try process.channel.receive(WorkerReply.self) {
        case .ready: isReady = true
        case .failed(let why): failure = why
        case .stepped: break
        }
        if !isReady { throw ChannelClosed() }
    }

    /// Sends a message; false if the process is gone.
    @discardableResult
    fileprivate func tell(_ message: WorkerMessage) -> Bool {
        guard let process else { return false }
        do throws(ChannelClosed) {
            try process.channel.send(message)
            return true
        } catch {
            lose()
            return false
        }
    }

    fileprivate func forget(_ stream: WorkerStream) {
        if streams.removeValue(forKey: stream.id) != nil { tell(.forget(stream.id)) }
    }

    private func start() {
        (isReady, failure) = (false, "")
        do throws(WorkerFailure) {
            process = try WorkerProcess(program)
        } catch {
            failure = error.description
        }
    }

    /// The process is gone, and all its utterances with it.
    private func lose() {
        guard let process else { return }
        let end = process.reap()
        let why = failure.isEmpty ? end : failure
        self.process = nil
        for stream in streams.values { stream.lose(why) }
        streams = [:]
        failure = why
        // One that never came to work would not the next time either; the next utterance tries again.
        guard isReady else { return }
        restarts += 1
        start()
    }
}
