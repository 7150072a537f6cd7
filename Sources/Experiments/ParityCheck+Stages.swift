import Qwen3TTS

/// What lies between a prompt and its codes, teacher-forced: every stage gets the reference's own input.
extension ParityCheck {
    mutating func stages(
        _ name: String, _ example: Goldens.Contents.Case, _ golden: GoldenFile
    ) throws(ExperimentError) {
        let probe = StageProbe(model)
        let utterance = try makeUtterance(goldens.request(name, example))
        let prompt = try golden.floats("prefill_embeds")
        report.compare("\(name): prompt rows", probe.promptRows(of: utterance), prompt, relativeTolerance: 2e-5)

        // The prompt, then a few steps.
        let codes = try golden.integers("codes_rp1.00")
        let stepInputs = try golden.floats("step_input_embeds")
        let logits = try golden.floats("talker_logits")
        let hidden = try golden.floats("talker_hidden_rp1.00")
        let first = probe.talker(prompt)
        if golden.has("prefill_layer_hidden") {
            let expected = try golden.floats("prefill_layer_hidden")
            let layers = expected.count / prompt.count
            // The residual stream grows from layer to layer, and its error with it.
            for layer in 0..<layers where first.layers.count == expected.count {
                let part = (layer * prompt.count)..<((layer + 1) * prompt.count)
                let place = layer + 1 == layers ? "normed output" : "input of layer \(layer)"
                report.compare(
                    "\(name): \(place)", Array(first.layers[part]), Array(expected[part]), relativeTolerance: 2e-5)
            }
            if first.layers.count != expected.count {
                report.compare("\(name): layers", first.layers, expected, relativeTolerance: 2e-5)
            }
        }
        let width = first.hidden.count
        let steps = logits.count / first.logits.count
        var inputs: [Float] = []
        var (foundHidden, foundLogits) = (first.hidden, first.logits)
        for step in 1..<max(1, steps) {
            inputs += probe.input(after: step - 1, of: codes, utterance: utterance)
            let output = probe.talker(Array(stepInputs[((step - 1) * width)..<(step * width)]))
            foundHidden += output.hidden
            foundLogits += output.logits
        }
        report.compare(
            "\(name): talker inputs after frames", inputs, Array(stepInputs.prefix(inputs.count)),
            relativeTolerance: 2e-5)
        report.compare(
            "\(name): hidden states", foundHidden, Array(hidden.prefix(steps * width)), relativeTolerance: 2e-5)
        report.compare("\(name): talker logits", foundLogits, logits, relativeTolerance: 2e-5)

        let expected = try golden.floats("predictor_logits")
        let groups = model.codeGroups
        let frames = expected.count / ((groups - 1) * model.configuration.codePredictor.vocabularySize)
        let found = probe.codePredictor(
            hidden: Array(hidden.prefix(frames * width)), codes: Array(codes.prefix(frames * groups)))
        report.compare("\(name): predictor logits", found, expected, relativeTolerance: 2e-5)
    }

    mutating func sampler() throws(ExperimentError) {
        guard let cases = goldens.contents.sampler, goldens.has("sampler") else { return }
        let golden = try goldens.file("sampler")
        let probe = StageProbe(model)
        for (index, example) in cases.enumerated() {
            let found = probe.probabilities(
                try golden.floats("logits.\(index)"), history: example.history,
                repetitionPenalty: example.repetition_penalty, temperature: example.temperature,
                topK: example.top_k, topP: example.top_p)
            report.compare(
                "sampler: case \(index)", found, try golden.floats("probs.\(index)"), relativeTolerance: 1e-6)
        }
    }
}
