public import Qwen3TTS
import Tensors

/// Runs a checkpoint and compares every stage with what the Python reference computed for it.
public struct ParityCheck {
    let model: SpeechModel
    let goldens: Goldens
    var report = ParityReport()

    /// Compares everything that the checkpoint's folder has goldens of.
    /// - Parameter model: loaded from the folder, weights as in the checkpoint.
    public static func run(_ model: SpeechModel) throws(ExperimentError) -> ParityReport {
        var check = ParityCheck(model: model, goldens: try Goldens(model: model.directory))
        try check.tokenizer()
        try check.encoders()
        for name in check.goldens.contents.cases.keys.sorted() { try check.utterance(name) }
        try check.sampler()
        try check.decoder()
        return check.report
    }

    private mutating func tokenizer() throws(ExperimentError) {
        let cases = goldens.contents.tokenizer_cases
        let wrong = cases.count { model.tokenizer.encode($0.text, controlTokens: .recognized) != $0.ids }
        report.add("tokenizer: \(cases.count) texts", Double(wrong), 0)
    }

    // MARK: Utterances

    /// One case: ids, greedy codes with both repetition penalties, samples.
    private mutating func utterance(_ name: String) throws(ExperimentError) {
        guard let example = goldens.contents.cases[name] else { return }
        let golden = try goldens.file("case_\(name)")
        let tokenizer = model.tokenizer
        var ids = tokenizer.speechTemplate(example.arguments.text, controlTokens: .recognized)
        var expected = try golden.integers("input_ids")
        if let instruct = example.arguments.instruct, golden.has("instruct_ids") {
            ids += tokenizer.instructionTemplate(instruct, controlTokens: .recognized)
            expected += try golden.integers("instruct_ids")
        }
        if let transcript = example.arguments.ref_text, golden.has("ref_ids") {
            ids += tokenizer.referenceTemplate(transcript, controlTokens: .recognized)
            expected += try golden.integers("ref_ids")
        }
        report.compare("\(name): token ids", ids, expected)
        try stages(name, example, golden)
        for penalty in ["1.00", "1.05"] {
            var request = try goldens.request(name, example)
            request.sampling.repetitionPenalty = Double(penalty)
            let utterance = try makeUtterance(request)
            var times = StageTimes()
            while utterance.finishReason == nil { _ = model.step([utterance], times: &times) }
            let agrees = try compareCodes("\(name): codes, penalty \(penalty)", utterance, golden, tag: "rp\(penalty)")
            if penalty == "1.00", agrees, golden.has("wav") {
                let samples = model.decode([.init(try makeDecoder(request), codes: utterance.codes)])
                report.compare(
                    "\(name): samples", samples.first ?? [], try golden.floats("wav"), relativeTolerance: 1e-4)
            }
        }
    }

    func makeUtterance(_ request: SpeechRequest) throws(ExperimentError) -> Utterance {
        do { return model.makeUtterance(try model.prepare(request)) } catch { throw .model(error) }
    }

    private func makeDecoder(_ request: SpeechRequest) throws(ExperimentError) -> UtteranceDecoder {
        do { return model.makeDecoder(try model.prepare(request)) } catch { throw .model(error) }
    }

    /// Compares greedy codes. Where the reference's own margin is below the error of float32, another order of
    /// summation may choose otherwise and both are right; nothing is compared from there on.
    /// - Returns: whether all codes were equal.
    private mutating func compareCodes(
        _ name: String, _ utterance: Utterance, _ golden: GoldenFile, tag: String
    ) throws(ExperimentError) -> Bool {
        let groups = model.codeGroups
        let expected = try golden.integers("codes_\(tag)")
        let sampled = try golden.integers("sampled_code0_\(tag)")
        let eos = model.configuration.talker.control.eos
        let found = utterance.codes
        let common = zip(found, expected).enumerated().first { $0.element.0 != $0.element.1 }?.offset
        guard let first = common ?? (found.count == expected.count ? nil : min(found.count, expected.count)) else {
            let reason: FinishReason = sampled.last == eos ? .stop : .length
            let ended = utterance.finishReason == reason
            report.add(name, ended ? 0 : 1, 0, note: ended ? nil : "ended by \(utterance.finishReason?.rawValue ?? "")")
            return true
        }
        let (frame, group) = (first / groups, first % groups)
        let margins =
            group == 0 ? try golden.floats("talker_margin_\(tag)") : try golden.floats("predictor_margin_\(tag)")
        let index = group == 0 ? frame : frame * (groups - 1) + group - 1
        let margin = margins.indices.contains(index) ? Double(margins[index]) : .infinity
        let wrong = zip(found, expected).count { $0 != $1 } + abs(found.count - expected.count)
        report.add(
            name, margin < Self.smallMargin ? 0 : Double(wrong), 0,
            note: "frame \(frame), codebook \(group) differs, where the reference's margin is \(Float(margin))")
        return false
    }

    /// Twice the error that logits are allowed.
    private static let smallMargin = 1e-3

    // MARK: Codec

    private mutating func decoder() throws(ExperimentError) {
        guard goldens.has("decoder"), let settings = goldens.contents.decoder else { return }
        let golden = try goldens.file("decoder")
        let codes = try golden.integers("codes")
        let groups = model.codeGroups
        var errors = ParityReport()
        // The last SnakeBeta multiplies what rounding has left by up to 5: on the released sizes the reference's own
        // float32 is 1e-3 away from its float64 there, at values up to 11. The convolution behind it evens that out.
        let lastActivation = "decoder.\(model.configuration.codec.decoder.upsampleRates.count + 1)"
        _ = decode(Array(codes.prefix(settings.stage_frames * groups)), packets: [settings.stage_frames]) {
            stage, values, channels in
            guard let expected = try? golden.floats("stage.\(stage)") else { return }
            errors.compare(
                "decoder: \(stage)", channelFirst(values, channels), expected,
                relativeTolerance: stage == lastActivation ? 3e-4 : 1e-4)
        }
        for name in golden.names where name.hasPrefix("stage.") && name != "stage.pcm" {
            if !errors.stages.contains(where: { $0.name == "decoder: " + name.dropFirst(6) }) {
                errors.add("decoder: \(name.dropFirst(6))", nil, 0, note: "this stage was not seen")
            }
        }
        report.stages += errors.stages
        let samples = try golden.floats("pcm")
        for (name, packets) in [
            ("whole", [codes.count / groups]), ("one frame a packet", [1]), ("packets of 1, 4, 2, 7", [1, 4, 2, 7]),
        ] {
            report.compare(
                "decoder: samples, \(name)", decode(codes, packets: packets), samples, relativeTolerance: 1e-4)
        }
        report.compare(
            "decoder: samples, windowed",
            model.decoder.decodeWindowed(
                codes, frames: codes.count / groups, chunk: settings.chunk, leftContext: settings.chunk_context),
            try golden.floats("pcm_chunked"), relativeTolerance: 1e-4)
    }

    /// Decodes codes from the zero state in packets of the given sizes, in turn.
    private func decode(_ codes: [Int32], packets: [Int], observe: CodecDecoder.Observer? = nil) -> [Float] {
        let decoder = model.decoder
        let frames = codes.count / decoder.codeGroups
        let state = decoder.makeState()
        let samples = FloatBuffer(count: frames * decoder.samplesPerFrame)
        var (at, turn) = (0, 0)
        while at < frames {
            let count = min(packets[turn % packets.count], frames - at)
            let part = codes[(at * decoder.codeGroups)..<((at + count) * decoder.codeGroups)]
            decoder.decode(
                [
                    .init(
                        state: state, codes: Array(part), frames: count,
                        pcm: samples.pointer + at * decoder.samplesPerFrame)
                ], observe: observe)
            (at, turn) = (at + count, turn + 1)
        }
        return samples.array
    }

    /// Codec encoder, mel front end and speaker encoder, of a Base model.
    private mutating func encoders() throws(ExperimentError) {
        guard goldens.has("encoder") else { return }
        let golden = try goldens.file("encoder")
        let recording = try golden.floats("wav")
        var stages = ParityReport()
        try ExperimentError.wrap(model.directory) {
            let file = try SafetensorsFile(path: model.directory + "/speech_tokenizer/model.safetensors")
            let encoder = try CodecEncoder(file, configuration: model.configuration.codec, compute: model.compute)
            let codes = try encoder.encode(recording) { stage, values, channels in
                guard let expected = try? golden.floats(stage) else { return }
                stages.compare("encoder: \(stage)", channelFirst(values, channels), expected, relativeTolerance: 1e-4)
            }
            stages.compare("encoder: codes", codes, try golden.integers("codes"))
            guard let settings = model.configuration.speakerEncoder else { return }
            let speaker = try SpeakerEncoder(
                SafetensorsFile(path: model.directory + "/model.safetensors"), configuration: settings,
                compute: model.compute)
            let expected = try golden.floats("mel")
            let vector = try speaker.encode(recording) { mel in
                let found = channelFirst(mel, settings.melBands)
                stages.compare("mel spectrogram", found, expected, relativeTolerance: 1e-5)
            }
            stages.compare(
                "speaker vector", vector, try golden.floats("speaker_embedding"), relativeTolerance: 1e-4)
        }
        report.stages += stages.stages
    }
}

/// Channel-last values [columns, channels] as the reference has them, [channels, columns].
private func channelFirst(_ values: UnsafeBufferPointer<Float>, _ channels: Int) -> [Float] {
    let columns = values.count / channels
    return [Float](unsafeUninitializedCapacity: values.count) { out, count in
        for column in 0..<columns {
            for channel in 0..<channels { out[channel * columns + column] = values[column * channels + channel] }
        }
        count = values.count
    }
}
