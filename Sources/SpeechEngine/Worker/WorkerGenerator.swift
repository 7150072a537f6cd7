import Qwen3TTS

/// An utterance whose codes the worker process generates, as the engine knows it.
final class WorkerStream: CodeStream {
    let id: UInt64
    private(set) var codes: [Int32] = []
    private(set) var frames = 0
    private(set) var finishReason: FinishReason?
    private(set) var isWaitingForText = false
    private(set) var textTokens: Int?
    private(set) var textIDs: [Int32] = []
    private(set) var places: [Int32] = []
    private(set) var warnings: [String]
    /// All that was said of it, until its first frame.
    fileprivate private(set) var opening: [WorkerMessage]
    /// Whether it was begun in a second process.
    fileprivate private(set) var isRepeated = false
    private unowned let generator: WorkerGenerator
    private let tap: LogitTap?

    fileprivate init(id: UInt64, _ request: SpeechRequest, warnings: [String], generator: WorkerGenerator) {
        self.id = id
        opening = [.begin(id, WorkerRequest(request))]
        tap = request.logitTap
        self.warnings = warnings
        self.generator = generator
    }

    func append(_ text: String) throws(ModelError) { say(.append(id, text)) }

    func completeText() throws(ModelError) { say(.completeText(id)) }

    private func say(_ message: WorkerMessage) {
        isWaitingForText = false
        if frames == 0 { opening.append(message) }
        generator.tell(message)
    }

    func truncate(frames count: Int, _ reason: FinishReason) {
        codes.removeLast((frames - count) * (codes.count / max(frames, 1)))
        places.removeLast(max(places.count - count, 0))
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
            opening = []
            if let place = step.place { places.append(place) }
        }
        textIDs += step.textIDs
        warnings += step.warnings
        isWaitingForText = step.isWaitingForText
        textTokens = step.textTokens
        finishReason = step.finishReason
        tap?.add(step.choices.map(\.choices))
        return true
    }

    /// Its process is gone before its first frame, and the next one begins it anew.
    fileprivate func repeatInNextProcess() {
        isRepeated = true
        textIDs = []
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
    /// Where it generates, for the log.
    private let device: String
    private let hasCard: Bool
    private let log: (String) -> Void
    /// Seconds for an answer once the process is ready, and until it is.
    private let answerLimit: Double?, loadLimit: Double?
    private var process: WorkerProcess?
    /// Whether the process has said that it is ready.
    private var isReady = false
    /// Why there is no process.
    private var failure = ""
    private var streams: [UInt64: WorkerStream] = [:]
    private var nextID: UInt64 = 0
    private(set) var restarts = 0

    init(_ model: SpeechModel, options: EngineOptions) {
        program = WorkerProgram(
            model, executable: options.workerExecutable, maxBatch: options.batchLimit, card: options.generationGPU,
            runaway: options.runaway)
        device = options.generationGPU?.name ?? "the CPU"
        hasCard = options.generationGPU != nil
        log = options.log ?? { _ in }
        groups = model.configuration.talker.codeGroups
        answerLimit = options.workerTimeout
        loadLimit = options.workerLoadTimeout
        start()
    }

    func begin(_ request: SpeechRequest, _ prepared: PreparedRequest) -> any CodeStream {
        nextID += 1
        let stream = WorkerStream(id: nextID, request, warnings: prepared.warningTexts, generator: self)
        if process == nil { start() }
        begin([stream])
        return stream
    }

    /// Tells the process all that was said of streams without a frame.
    private func begin(_ some: [WorkerStream]) {
        for stream in some {
            if process == nil { stream.lose(failure) } else { streams[stream.id] = stream }
        }
        for message in some.flatMap(\.opening) where !tell(message) { return }
    }

    /// A card in the other process is asked there.
    func makesRoom(for stream: any CodeStream) -> Bool {
        guard hasCard, let stream = stream as? WorkerStream, streams[stream.id] != nil, let process,
            tell(.makesRoom(stream.id))
        else { return true }
        do throws(ChannelError) {
            if !isReady { try takeReadiness(process) }
            guard case .room(let isThere) = try process.channel.receive(WorkerReply.self, within: answerLimit) else {
                throw .closed
            }
            return isThere
        } catch {
            lose(error)
            return true
        }
    }

    func step(_ batch: [any CodeStream], times: inout StageTimes) -> [StepResult] {
        let batch = batch.compactMap { $0 as? WorkerStream }
        // Those that begin again are where one is that has read a part of its prompt.
        func lost() -> [StepResult] { batch.map { $0.finishReason == nil ? .prefilled : .finished } }
        guard let process, tell(.step(batch.map(\.id))) else { return lost() }
        do throws(ChannelError) {
            if !isReady { try takeReadiness(process) }
            let reply = try process.channel.receive(WorkerReply.self, within: answerLimit)
            guard case .stepped(let steps, let stages) = reply, steps.count == batch.count else { throw .closed }
            for (stream, step) in zip(batch, steps) {
                guard stream.take(step, groups: groups, from: process.ring) else { throw .closed }
                if stream.finishReason != nil { streams[stream.id] = nil }
            }
            times += stages
            return steps.map(\.result)
        } catch {
            lose(error)
            return lost()
        }
    }

    private func takeReadiness(_ process: WorkerProcess) throws(ChannelError) {
        switch try process.channel.receive(WorkerReply.self, within: loadLimit) {
        case .ready: isReady = true
        case .failed(let why): failure = why
        case .stepped, .room: break
        }
        if !isReady { throw .closed }
        log("worker process \(process.identifier) generates codes on \(device), in a process group of its own")
    }

    /// Sends a message; false if the process is gone.
    @discardableResult
    fileprivate func tell(_ message: WorkerMessage) -> Bool {
        guard let process else { return false }
        do throws(ChannelError) {
            try process.channel.send(message, within: isReady ? answerLimit : loadLimit)
            return true
        } catch {
            lose(error)
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

    /// The process is gone, and all its utterances with it, but those without a frame: nobody has heard anything of them,
    /// so they begin again in the next process, once.
    private func lose(_ error: ChannelError) {
        guard let process else { return }
        if error == .timedOut, let limit = isReady ? answerLimit : loadLimit {
            failure = "it did \(isReady ? "not answer" : "not get ready") within \(limit) s and was killed"
        }
        let end = process.reap(killing: error == .timedOut)
        let why = failure.isEmpty ? end : failure
        self.process = nil
        // One that never came to work would not the next time either; the next utterance tries again.
        let restarts = isReady
        let begun = streams.values.sorted { $0.id < $1.id }
        streams = [:]
        var repeated: [WorkerStream] = []
        for stream in begun {
            if restarts, stream.frames == 0, !stream.isRepeated {
                stream.repeatInNextProcess()
                repeated.append(stream)
            } else {
                stream.lose(why)
            }
        }
        failure = why
        log(
            "worker process \(process.identifier) on \(device) is gone: \(why); \(begun.count - repeated.count) of "
                + "\(begun.count) utterances end with worker_lost, \(repeated.count) begin anew"
                + (restarts ? "; it is started again" : ""))
        guard restarts else { return }
        self.restarts += 1
        start()
        begin(repeated)
    }
}
