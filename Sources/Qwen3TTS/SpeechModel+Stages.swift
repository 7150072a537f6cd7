import Tensors

/// The language model's stages one by one, with what passes between them: for comparison with another implementation.
///
/// Belongs, like the stages themselves, to the thread that drives the model.
package struct StageProbe {
    /// What the talker makes of rows.
    package struct TalkerOutput {
        /// The input of every layer, then the normed output, [layers + 1, rows, hidden].
        package let layers: [Float]
        /// The last row's normed hidden state, [hidden].
        package let hidden: [Float]
        /// The last row's raw logits, [vocabulary].
        package let logits: [Float]
    }

    private let model: SpeechModel
    private let cache: KVCache

    /// An empty sequence.
    package init(_ model: SpeechModel) {
        self.model = model
        cache = model.talker.makeCache()
    }

    /// Runs the next rows [rows, hidden] of the sequence through the talker.
    package func talker(_ rows: [Float]) -> TalkerOutput {
        let width = model.configuration.talker.shape.hidden
        let x = FloatBuffer(rows)
        let hidden = FloatBuffer(count: width)
        let logits = FloatBuffer(count: model.configuration.talker.vocabularySize)
        var layers: [Float] = []
        withExtendedLifetime(x) {
            model.talker.forward(
                x.pointer, segments: [.init(cache: cache, rows: rows.count / width)], results: [(hidden, logits)]
            ) { layers += UnsafeBufferPointer(start: $0, count: rows.count) }
        }
        return TalkerOutput(layers: layers, hidden: hidden.array, logits: logits.array)
    }

    /// The code predictor's raw logits [frames, groups - 1, vocabulary] for given hidden states [frames, hidden] and
    /// codes [frames, groups].
    package func codePredictor(hidden: [Float], codes: [Int32]) -> [Float] {
        let groups = model.codeGroups
        let frames = codes.count / groups
        let vocabulary = model.configuration.codePredictor.vocabularySize
        var logits = [Float](repeating: 0, count: frames * (groups - 1) * vocabulary)
        let states = FloatBuffer(hidden)
        withExtendedLifetime(states) {
            _ = model.codePredictor.frames(hidden: states.pointer, code0: (0..<frames).map { codes[$0 * groups] }) {
                frame, group, row in
                let start = (frame * (groups - 1) + group - 1) * vocabulary
                for (i, value) in row.enumerated() { logits[start + i] = value }
                return codes[frame * groups + group]
            }
        }
        return logits
    }

    /// The prompt rows [rows, hidden] of an utterance that has not been stepped.
    package func promptRows(of utterance: Utterance) -> [Float] {
        model.begin(utterance)
        return utterance.prompt.array
    }

    /// The talker's input [hidden] after frame `frame` of `codes` [frames, groups]: its embeddings and the text row that
    /// goes with it.
    package func input(after frame: Int, of codes: [Int32], utterance: Utterance) -> [Float] {
        let groups = model.codeGroups
        let row = FloatBuffer(count: model.configuration.talker.shape.hidden)
        model.writeFrameEmbedding(codes[(frame * groups)..<((frame + 1) * groups)], to: row.pointer)
        model.textEmbedding.add(
            [utterance.trailing.part(frame).flatMap { model.configuration.textID($0) }], to: row.pointer)
        return row.array
    }

    /// The probabilities of code 0 after `history`, from raw logits.
    package func probabilities(
        _ logits: [Float], history: [Int32], repetitionPenalty: Double, temperature: Double, topK: Int, topP: Double
    ) -> [Float] {
        let rule = Sampler.Rule(samples: true, temperature: temperature, topK: topK, topP: topP)
        var constraints = TalkerConstraints(model.configuration.talker, repetitionPenalty: repetitionPenalty)
        for token in history { constraints.record(token) }
        var scores = logits
        return scores.withUnsafeMutableBufferPointer { buffer in
            constraints.apply(buffer)
            return Sampler.probabilities(buffer, rule: rule)
        }
    }
}
