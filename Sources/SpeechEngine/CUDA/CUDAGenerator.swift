import CUDABackend
import Qwen3TTS

/// An utterance whose codes a GPU generates.
final class CUDAStream: CodeStream {
    let utterance: Utterance
    /// Most positions that it may come to need, as far as its text tells.
    let positions: Int
    /// Where it is on the card, from its first step to its end.
    fileprivate var place: CUDAHost.Place?
    private var loss: String?
    private let host: CUDAHost

    fileprivate init(_ utterance: Utterance, positions: Int, host: CUDAHost) {
        self.utterance = utterance
        self.positions = positions
        self.host = host
    }

    var codes: [Int32] { utterance.codes }
    var frames: Int { utterance.frames }
    var finishReason: FinishReason? { utterance.finishReason }
    var isWaitingForText: Bool { utterance.isWaitingForText }
    var textTokens: Int? { utterance.textTokens }
    var textIDs: [Int32] { utterance.textIDs }
    var places: [Int32] { utterance.places }
    var warnings: [String] { utterance.warnings + (loss.map { [$0] } ?? []) }

    func append(_ text: String) throws(ModelError) { try utterance.append(text) }
    func completeText() throws(ModelError) { try utterance.completeText() }

    func truncate(frames count: Int, _ reason: FinishReason) {
        utterance.truncate(frames: count, reason)
        leave()
    }

    func finish(_ reason: FinishReason) {
        utterance.finish(reason)
        leave()
    }

    /// Gives its slot back once it has ended.
    fileprivate func leave() {
        guard utterance.finishReason != nil, let place else { return }
        if let loaded = try? host.loaded(), loaded.generation == place.generation {
            loaded.model.stages?.closeSlot(place.slot)
        }
        self.place = nil
    }

    fileprivate func lose(_ why: String) {
        guard utterance.finishReason == nil else { return }
        loss = "the GPU gave this speech up: \(why)"
        finish(.deviceLost)
    }
}

/// Generates codes on a GPU.
///
/// `SpeechModel.step` is the same on the CPU; what differs is that prompts are read apart from steps, and that the last
/// codes, the logits and the constraints on code 0 stay on the card.
final class CUDAGenerator: CodeGenerator {
    private let host: CUDAHost
    private let configuration: Configuration
    private let runaway: RunawayLimits?
    private var streams: [CUDAStream] = []

    var restarts: Int { host.restarts }

    init(_ host: CUDAHost, configuration: Configuration, runaway: RunawayLimits?) {
        self.host = host
        self.configuration = configuration
        self.runaway = runaway
    }

    func begin(_ request: SpeechRequest, _ prepared: PreparedRequest) -> any CodeStream {
        var frames = prepared.maxFrames
        if let runaway {
            // The guard ends it there; a text that is still to come is taken for a long one.
            frames = min(frames, runaway.baseFrames + runaway.framesPerToken * (prepared.textTokens ?? 100))
        }
        return CUDAStream(
            Utterance(prepared, configuration: configuration),
            positions: min(prepared.promptRows + frames, configuration.talker.maxPositions), host: host)
    }

    func makesRoom(for stream: any CodeStream) -> Bool {
        streams.removeAll { $0.finishReason != nil }
        guard let stream = stream as? CUDAStream, let stages = try? host.restored().model.stages,
            (try? stages.use()) != nil
        else { return true }
        func pages(_ stream: CUDAStream) -> Int {
            CUDAStages.pages(positions: stream.positions)
                - (stream.place.map { stages.pageCount($0.slot) } ?? 0)
        }
        let promised = streams.reduce(0) { $0 + max(0, pages($1)) }
        guard streams.isEmpty || (streams.count < host.slots && promised + pages(stream) <= stages.pagesLeft)
        else { return false }
        streams.append(stream)
        return true
    }

    func step(_ batch: [any CodeStream], times: inout StageTimes) -> [StepResult] {
        let batch = batch.compactMap { $0 as? CUDAStream }
        do throws(DeviceLoss) {
            let loaded = try host.restored()
            return try host.run(on: loaded) { () throws(CUDAError) in try step(batch, loaded, &times) }
        } catch {
            // What was on the card before is lost as well, stepped now or not.
            for stream in batch { stream.lose(error.description) }
            return batch.map { _ in .finished }
        }
    }

    /// Prompt rows that one step reads at most, so that utterances that are speaking do not stall.
    private static let promptRowsPerStep = 512

    private func step(
        _ batch: [CUDAStream], _ loaded: CUDAHost.Loaded, _ times: inout StageTimes
    ) throws(CUDAError) -> [StepResult] {
        guard let stages = loaded.model.stages else { throw .unsupportedModel("it was loaded without generation") }
        try stages.startTimer()
        var results = Array(repeating: StepResult.finished, count: batch.count)

        // 1. Prompts. A prompt's last row already gives the first logits.
        var speaking: [Int] = []
        var framing: [Int] = []
        var prompts: [CUDAStages.PromptPart] = []
        var rowsLeft = Self.promptRowsPerStep
        for (index, stream) in batch.enumerated() where stream.finishReason == nil {
            let utterance = stream.utterance
            _ = utterance.assemblePrompt(configuration)
            if utterance.isWaitingForText {
                results[index] = .waitingForText
                continue
            }
            guard let slot = try slot(of: stream, loaded, stages) else { continue }
            let rows = utterance.isReadingPrompt ? min(rowsLeft, utterance.promptRows.count - utterance.promptDone) : 1
            guard stages.lengths[slot] + rows <= utterance.maxPositions else {
                stream.finish(.length)
                continue
            }
            do throws(CUDAError) {
                try stages.reserve(slot, rows: rows)
            } catch  where !error.isSticky {
                stream.lose(error.description)
                continue
            }
            guard utterance.isReadingPrompt else {
                speaking.append(index)
                framing.append(index)
                continue
            }
            results[index] = .prefilled
            if rows == 0 { continue }
            rowsLeft -= rows
            let part = utterance.promptRows[utterance.promptDone..<(utterance.promptDone + rows)]
            utterance.promptDone += rows
            prompts.append(
                CUDAStages.PromptPart(
                    slot: slot, rows: part.map { row($0, utterance.clone) }, isLast: !utterance.isReadingPrompt,
                    textPositions: utterance.textPositions(among: stages.lengths[slot] + rows)))
            if !utterance.isReadingPrompt { framing.append(index) }
        }
        try stages.prefill(prompts)

        // 2. The talker: Σ embeddings of the last frame's codes + the next text row → logits.
        let steps = speaking.map { index in
            var entry = entry(batch[index], text: batch[index].utterance.takeTextRow(configuration))
            entry.textPositions = batch[index].utterance.textPositions(among: stages.lengths[entry.slot] + 1)
            return entry
        }
        try stages.step(steps)

        // 3. Code 0, or the end, and the other codes of the frame.
        let untapped = framing.filter { batch[$0].utterance.logitTap == nil }
        var codes = Dictionary(
            uniqueKeysWithValues: zip(untapped, try stages.frame(untapped.map { entry(batch[$0], text: nil) })))
        for index in framing where codes[index] == nil { codes[index] = try tappedFrame(batch[index], stages) }
        if !framing.isEmpty {
            let spent = try stages.times()
            times.talker += spent.talker
            times.codePredictor += spent.codePredictor
        }
        let looks = try looks(framing, batch, stages)
        for (index, frame) in codes {
            let stream = batch[index]
            if stream.utterance.goesOn(with: frame[0], configuration) {
                stream.utterance.speaks(at: looks[index])
                stream.utterance.append(frame: frame)
                results[index] = .frame
            } else {
                stream.leave()
                results[index] = .finished
            }
        }
        return results
    }

    /// The positions of their texts that utterances look at, of those for which that can be told.
    private func looks(
        _ framing: [Int], _ batch: [CUDAStream], _ stages: CUDAStages
    ) throws(CUDAError) -> [Int: Int] {
        if configuration.alignmentHead == nil { return [:] }
        let asked = framing.compactMap { index -> (index: Int, slot: Int)? in
            guard let slot = batch[index].place?.slot,
                !batch[index].utterance.textPositions(among: stages.lengths[slot]).isEmpty
            else { return nil }
            return (index, slot)
        }
        return Dictionary(uniqueKeysWithValues: zip(asked.map(\.index), try stages.looks(asked.map(\.slot))))
    }

    /// A frame whose logits are shown to the utterance's tap before a code is chosen. What the tap changes is chosen from
    /// here, and the rest of the frame is generated again behind it.
    private func tappedFrame(_ stream: CUDAStream, _ stages: CUDAStages) throws(CUDAError) -> [Int32] {
        let (utterance, entry) = (stream.utterance, entry(stream, text: nil))
        var logits = try stages.talkerLogits(entry.slot)
        logits.withUnsafeMutableBufferPointer { utterance.logitTap?(utterance.frames, 0, $0) }
        try stages.setTalkerLogits(entry.slot, logits)
        var codes = try stages.frame([entry])[0]
        guard utterance.goesOn(with: codes[0], configuration) else { return codes }
        var frame = try stages.predictorLogits(batch: 1)
        for group in 1..<codes.count {
            let seen = frame[group - 1]
            var changed = seen
            let code = changed.withUnsafeMutableBufferPointer { logits -> Int32 in
                utterance.logitTap?(utterance.frames, group, logits)
                let isSame = zip(logits, seen).allSatisfy { $0.bitPattern == $1.bitPattern }
                return isSame ? codes[group] : utterance.choose(logits, codebook: group)
            }
            if code == codes[group] { continue }
            let rest = Array(repeating: Int32(-1), count: codes.count - group - 1)
            codes = try stages.frame([entry], forced: codes[..<group] + [code] + rest)[0]
            frame = try stages.predictorLogits(batch: 1)
        }
        return codes
    }

    /// Its slot; nil if it has lost it or there is none.
    private func slot(
        of stream: CUDAStream, _ loaded: CUDAHost.Loaded, _ stages: CUDAStages
    ) throws(CUDAError) -> Int? {
        if let place = stream.place {
            if place.generation == loaded.generation { return place.slot }
            stream.lose("the card was started anew")
            return nil
        }
        guard let slot = try stages.openSlot() else {
            stream.lose("\(host.slots) utterances are on it, and it has room for no more")
            return nil
        }
        stream.place = .init(slot: slot, generation: loaded.generation)
        return slot
    }

    private func entry(_ stream: CUDAStream, text: Int32?) -> CUDAStages.Entry {
        let utterance = stream.utterance
        return CUDAStages.Entry(
            slot: stream.place?.slot ?? 0, frame: utterance.frames, sampled: utterance.frames, text: text,
            seed: utterance.seed, rules: utterance.rules)
    }

    private func row(_ row: PromptRow, _ clone: ClonePrompt?) -> CUDAStages.PromptRow {
        var result = CUDAStages.PromptRow(text: configuration.textID(row.text))
        switch row.codec {
        case .none: break
        case .token(let id): result.codes = [id]
        case .speakerVector: result.vector = clone?.speakerVector
        case .referenceFrame(let frame):
            let groups = configuration.talker.codeGroups
            result.codes = Array((clone?.codes ?? [])[(frame * groups)..<((frame + 1) * groups)])
        }
        return result
    }
}
