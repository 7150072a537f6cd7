public import Qwen3TTS

/// The worker process's side: generates codes for the engine that started it, until that goes away.
public enum SpeechWorker {
    /// Serves the engine.
    /// - Parameters:
    ///   - ringCapacity: codes that the ring of shared memory holds, as the engine says.
    ///   - runaway: when the engine ends utterances, which says how much of a GPU's memory they may come to need.
    ///   - load: loads the model, and the card that generates if that is not the CPU; its error is the engine's to tell.
    /// - Returns: false if this process was not started by an engine.
    public static func run(
        ringCapacity: Int, runaway: RunawayLimits?, load: () throws -> (SpeechModel, CUDAHost?)
    ) -> Bool {
        guard let ring = CodesRing(file: WorkerProcess.ringDescriptor, capacity: ringCapacity) else { return false }
        let channel = WorkerChannel(descriptor: WorkerProcess.channelDescriptor)
        do throws(ChannelError) {
            let model: SpeechModel
            let card: CUDAHost?
            do { (model, card) = try load() } catch {
                try channel.send(WorkerReply.failed("\(error)"))
                return true
            }
            try channel.send(WorkerReply.ready)
            let generator: any CodeGenerator =
                if let card {
                    CUDAGenerator(card, configuration: model.configuration, runaway: runaway)
                } else {
                    ModelGenerator(model)
                }
            try serve(model, generator, channel, ring)
        } catch {
            // The engine is gone, and so is this process's work.
        }
        return true
    }

    /// An utterance, and how much of it the engine knows.
    private struct Told {
        let stream: any CodeStream
        let tap: LogitTap?
        var textIDs = 0
        var warnings: Int
    }

    /// Does what the engine says until that goes away.
    static func serve(
        _ model: SpeechModel, _ generator: any CodeGenerator, _ channel: borrowing WorkerChannel, _ ring: CodesRing
    ) throws(ChannelError) {
        let groups = model.configuration.talker.codeGroups
        let tellsPlaces = model.configuration.alignmentHead != nil
        var all: [UInt64: Told] = [:]
        while true {
            do {
                switch try channel.receive(WorkerMessage.self) {
                case .begin(let id, let request):
                    let request = request.request
                    let stream = generator.begin(request, try model.prepare(request))
                    all[id] = Told(stream: stream, tap: request.logitTap, warnings: stream.warnings.count)
                case .append(let id, let text): try all[id]?.stream.append(text)
                case .completeText(let id): try all[id]?.stream.completeText()
                case .forget(let id): all.removeValue(forKey: id)?.stream.finish(.cancelled)
                case .makesRoom(let id):
                    try channel.send(WorkerReply.room(all[id].map { generator.makesRoom(for: $0.stream) } ?? true))
                case .step(let ids):
                    var batch = ids.compactMap { all[$0] }
                    guard batch.count == ids.count else { throw ChannelError.closed }
                    var times = StageTimes()
                    let results = generator.step(batch.map(\.stream), times: &times)
                    for (told, result) in zip(batch, results) where result == .frame {
                        guard ring.write(told.stream.codes.suffix(groups)) else { throw ChannelError.closed }
                    }
                    let steps = ids.indices.map { index in
                        let stream = batch[index].stream
                        let newIDs = tellsPlaces ? stream.textIDs.dropFirst(batch[index].textIDs) : []
                        let newWarnings = stream.warnings.dropFirst(batch[index].warnings)
                        batch[index].textIDs += newIDs.count
                        batch[index].warnings += newWarnings.count
                        return WorkerStep(
                            result: results[index], finishReason: stream.finishReason,
                            isWaitingForText: stream.isWaitingForText, textTokens: stream.textTokens,
                            choices: batch[index].tap?.takeChoices().map(WorkerChoices.init) ?? [],
                            textIDs: Array(newIDs), place: results[index] == .frame ? stream.places.last : nil,
                            warnings: Array(newWarnings))
                    }
                    for (id, told) in zip(ids, batch) { all[id] = told.stream.finishReason == nil ? told : nil }
                    try channel.send(WorkerReply.stepped(steps, times))
                }
            } catch {
                // The engine has made the same calls with the same request: they do not fail here alone.
                throw ChannelError.closed
            }
        }
    }
}
