import Tensors

/// How long the stages of a step took, in seconds.
public struct StageTimes: Sendable, Codable, Equatable {
    /// Talker: prefill rows and steps.
    public var talker = 0.0
    /// Code predictor, sampling included.
    public var codePredictor = 0.0
    /// Codec decoder.
    public var decoder = 0.0

    /// All zero.
    public init() {}

    /// Adds the times of another step.
    public static func += (a: inout StageTimes, b: StageTimes) {
        a.talker += b.talker
        a.codePredictor += b.codePredictor
        a.decoder += b.decoder
    }

    /// Runs `body` and adds its duration to a stage.
    static func measure(_ seconds: inout Double, _ body: () -> Void) {
        let start = ContinuousClock.now
        body()
        seconds += (ContinuousClock.now - start) / .seconds(1)
    }
}

/// What a step did for one utterance.
public enum StepResult: String, Sendable, Codable {
    /// Part of the prompt was read.
    case prefilled
    /// A frame was generated: its codes are the last of `Utterance.codes`.
    case frame
    /// Nothing can be done before more text arrives.
    case waitingForText
    /// The utterance has ended; no frame was generated.
    case finished
}

// START HERE: one whole frame, in reading order.
extension SpeechModel {
    /// Prompt rows that one step reads at most, so that utterances that are speaking do not stall.
    public static let prefillRowsPerStep = 64

    /// Advances every utterance of the batch by one frame, or by a part of its prompt.
    ///
    /// The talker reads the next prompt rows of new utterances and one row of the others, all in one pass; code 0 is
    /// chosen from its logits; the code predictor adds the other codes. What a step yields for an utterance depends on
    /// that utterance alone.
    public func step(_ batch: [Utterance], times: inout StageTimes) -> [StepResult] {
        var results = Array(repeating: StepResult.finished, count: batch.count)

        // 1. What can move, and by how many talker rows. A fresh prompt's last row already gives the first logits.
        var moving: [(index: Int, rows: Int)] = []
        for (index, utterance) in batch.enumerated() where utterance.finishReason == nil {
            begin(utterance)
            if utterance.isWaitingForText {
                results[index] = .waitingForText
            } else if utterance.promptDone < utterance.promptRows.count {
                let rest = utterance.promptRows.count - utterance.promptDone
                moving.append((index, min(rest, Self.prefillRowsPerStep)))
            } else if utterance.cache.length + 1 > utterance.maxPositions {
                utterance.finish(.length)
            } else {
                moving.append((index, 1))
            }
        }
        if moving.isEmpty { return results }

        // 2. The talker: x → hidden state and logits of the last position, and what is being spoken there.
        var looks: [Int?] = []
        StageTimes.measure(&times.talker) {
            let width = configuration.talker.shape.hidden
            let x = rows.reserve(moving.reduce(0) { $0 + $1.rows } * width)
            var row = x
            for (index, count) in moving {
                writeInput(of: batch[index], rows: count, to: row)
                row += count * width
            }
            looks = talker.forward(
                x, segments: moving.map { .init(cache: batch[$0.index].cache, rows: $0.rows) },
                results: moving.map { entry in
                    let utterance = batch[entry.index]
                    return utterance.isReadingPrompt ? nil : (utterance.hidden, utterance.logits)
                },
                text: moving.map { index, rows in
                    batch[index].textPositions(among: batch[index].cache.length + rows)
                })
        }

        // 3. Code 0, or the end.
        var framing: [(index: Int, code0: Int32)] = []
        for (place, (index, _)) in moving.enumerated() {
            let utterance = batch[index]
            guard !utterance.isReadingPrompt else {
                results[index] = .prefilled
                continue
            }
            if utterance.frames == 0 {
                prefixes.keep(
                    utterance.promptRows, clone: utterance.clone, cache: utterance.cache,
                    reused: utterance.promptReused)
            }
            let scores = UnsafeMutableBufferPointer(start: utterance.logits.pointer, count: utterance.logits.count)
            utterance.logitTap?(utterance.frames, 0, scores)
            utterance.constraints.apply(scores)
            let token = utterance.sampler.choose(
                scores, rule: utterance.rules.talker, frame: utterance.frames, codebook: 0)
            utterance.constraints.record(token)
            guard utterance.goesOn(with: token, configuration) else { continue }
            if !looks.isEmpty { utterance.speaks(at: looks[place]) }
            framing.append((index, token))
        }
        if framing.isEmpty { return results }

        // 4. The code predictor: the other codes of the frame.
        StageTimes.measure(&times.codePredictor) {
            let width = configuration.talker.shape.hidden
            let hidden = rows.reserve(framing.count * width)
            for (slot, entry) in framing.enumerated() {
                (hidden + slot * width).update(from: batch[entry.index].hidden.pointer, count: width)
            }
            let others = codePredictor.frames(hidden: hidden, code0: framing.map(\.code0)) { slot, group, logits in
                let utterance = batch[framing[slot].index]
                utterance.logitTap?(utterance.frames, group, logits)
                return utterance.choose(logits, codebook: group)
            }
            for (slot, entry) in framing.enumerated() {
                let utterance = batch[entry.index]
                utterance.append(frame: [entry.code0] + others[slot])
                results[entry.index] = .frame
            }
        }
        return results
    }

    /// Writes the talker's next input rows of an utterance: prompt rows, or Σ embeddings of the last frame's codes + the
    /// next text row (specification, section 3.3).
    private func writeInput(of utterance: Utterance, rows count: Int, to x: UnsafeMutablePointer<Float>) {
        let width = configuration.talker.shape.hidden
        if utterance.promptDone < utterance.promptRows.count {
            x.update(from: utterance.prompt.pointer + utterance.promptDone * width, count: count * width)
            utterance.promptDone += count
            if utterance.promptDone == utterance.promptRows.count { utterance.prompt = FloatBuffer(count: 0) }
            return
        }
        writeFrameEmbedding(utterance.codes.suffix(configuration.talker.codeGroups), to: x)
        textEmbedding.add([utterance.takeTextRow(configuration)], to: x)
    }

    /// Σ of the embeddings of a frame's codes: code 0 by the talker's table, the others by the predictor's.
    func writeFrameEmbedding(_ codes: ArraySlice<Int32>, to x: UnsafeMutablePointer<Float>) {
        for (group, code) in codes.enumerated() {
            if group == 0 {
                talker.codecEmbedding.copy(Int(code), to: x, compute: compute)
            } else {
                codePredictor.embeddings[group - 1].add(Int(code), to: x, compute: compute)
            }
        }
    }
}
