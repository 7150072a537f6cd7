public import Qwen3TTS

/// The worker process's side: generates codes for the engine that started it, until that goes away.
public enum SpeechWorker {
    /// Serves the engine.
    /// - Parameters:
    ///   - ringCapacity: codes that the ring of shared memory holds, as the engine says.
    ///   - load: loads the model; its error is the engine's to tell.
    /// - Returns: false if this process was not started by an engine.
    public static func run(ringCapacity: Int, load: () throws -> SpeechModel) -> Bool {
        guard let ring = CodesRing(file: WorkerProcess.ringDescriptor, capacity: ringCapacity) else { return false }
        let channel = WorkerChannel(descriptor: WorkerProcess.channelDescriptor)
        do throws(ChannelError) {
            let model: SpeechModel
            do { model = try load() } catch {
                try channel.send(WorkerReply.failed("\(error)"))
                return true
            }
            try channel.send(WorkerReply.ready)
            try serve(model, channel, ring)
        } catch {
            // The engine is gone, and so is this process's work.
        }
        return true
    }

    private static func serve(
        _ model: SpeechModel, _ channel: borrowing WorkerChannel, _ ring: CodesRing
    ) throws(ChannelError) {
        let groups = model.configuration.talker.codeGroups
        let tellsPlaces = model.configuration.alignmentHead != nil
        var utterances: [UInt64: Utterance] = [:]
        var taps: [UInt64: LogitTap] = [:]
        // Ids of their texts that the engine has.
        var toldIDs: [UInt64: Int] = [:]
        while true {
            do {
                switch try channel.receive(WorkerMessage.self) {
                case .begin(let id, let request):
                    let request = request.request
                    utterances[id] = model.makeUtterance(try model.prepare(request))
                    taps[id] = request.logitTap
                case .append(let id, let text): try utterances[id]?.append(text)
                case .completeText(let id): try utterances[id]?.completeText()
                case .forget(let id): (utterances[id], taps[id], toldIDs[id]) = (nil, nil, nil)
                case .step(let ids):
                    let batch = ids.compactMap { utterances[$0] }
                    guard batch.count == ids.count else { throw ChannelError.closed }
                    var times = StageTimes()
                    let results = model.step(batch, times: &times)
                    for (utterance, result) in zip(batch, results) where result == .frame {
                        guard ring.write(utterance.codes.suffix(groups)) else { throw ChannelError.closed }
                    }
                    let steps = ids.indices.map { index in
                        let (id, utterance) = (ids[index], batch[index])
                        let newIDs = tellsPlaces ? utterance.textIDs.dropFirst(toldIDs[id] ?? 0) : []
                        toldIDs[id, default: 0] += newIDs.count
                        return WorkerStep(
                            result: results[index], finishReason: utterance.finishReason,
                            isWaitingForText: utterance.isWaitingForText, textTokens: utterance.textTokens,
                            choices: taps[id]?.takeChoices().map(WorkerChoices.init) ?? [], textIDs: Array(newIDs),
                            place: results[index] == .frame ? utterance.places.last : nil)
                    }
                    for (id, utterance) in zip(ids, batch) where utterance.finishReason != nil {
                        (utterances[id], taps[id], toldIDs[id]) = (nil, nil, nil)
                    }
                    try channel.send(WorkerReply.stepped(steps, times))
                }
            } catch {
                // The engine has made the same calls with the same request: they do not fail here alone.
                throw ChannelError.closed
            }
        }
    }
}
