import CUDABackend
public import Qwen3TTS
public import SpeechEngine
import Tensors

/// Runs the runbook's procedures on a model.
public struct RunbookRunner: Sendable {
    /// What can be spoken.
    public var texts = TextSet.builtInTexts
    /// With which voice.
    public var voice = ExperimentVoice()
    /// How codes are chosen.
    public var sampling = SamplingOptions()
    /// What holds for every request.
    public var rules = RequestRules()
    /// What holds on the engine where an arm does not set it.
    public var engine = EngineOptions()
    /// Runs of each arm; nil for each procedure's own number.
    public var count: Int?
    /// The text; nil for each procedure's own.
    public var textID: String?
    /// Runs of each arm before those that count.
    public var warmUp = 1
    /// A disturbance of each arm's last run.
    public var drift: InjectedDrift?
    /// Milliseconds to the first audio that are judged; nil judges none.
    public var firstAudioLimit: Double?
    /// Where codes and meta files go; nil writes none.
    public var folder: String?

    /// The runbook as it is.
    public init() {}

    /// The model and what runs it.
    /// - Parameter engine: says on which devices.
    public static func machine(
        _ model: SpeechModel, engine: EngineOptions = EngineOptions()
    ) -> RunbookReport.Machine {
        let survey = MachineSurvey.take()
        let description = engine.description(of: model)
        let talker = model.configuration.talker
        let shape =
            "\(talker.shape.layers) talker layers of \(talker.shape.hidden), "
            + "\(model.configuration.codePredictor.shape.layers) predictor layers, \(model.codeGroups) codes a frame"
        return RunbookReport.Machine(
            model: model.directory.split(separator: "/").last.map(String.init) ?? model.directory,
            identity: try? model.identity, shape: shape, device: description.device,
            processor: description.generation.card ?? survey.processor,
            instructionSet: description.generation.instructionSet, threads: description.threads,
            weights: description.weights, load: loadAverage(), cores: survey.cores,
            isOptimised: isOptimisedBuild)
    }

    private static var isOptimisedBuild: Bool {
        // An assertion's condition is evaluated in unoptimised builds only.
        var optimised = true
        assert(
            {
                optimised = false
                return true
            }())
        return optimised
    }

    /// Runs a procedure.
    /// - Parameter progress: called with a line after each run.
    public func run(
        _ procedure: RunbookProcedure, on model: SpeechModel, progress: (String) -> Void = { _ in }
    ) async throws(ExperimentError) -> RunbookReport.Procedure {
        let runs = count ?? procedure.runs
        guard runs >= 1 else { throw .badSetting("the count is \(runs), expected at least 1") }
        guard warmUp >= 0 else { throw .badSetting("the warm-up is \(warmUp), expected 0 or more") }
        if let drift, drift.codebook >= model.codeGroups {
            throw .badSetting(
                "there is no codebook \(drift.codebook): the model has 0 to \(model.codeGroups - 1)")
        }
        let others = try otherDecoders(procedure)
        var series: [RunbookSeries] = []
        for id in textID.map({ [$0] }) ?? procedure.texts {
            let text = try TextSet.text(id, in: texts)
            var ofText: [RunbookSeries] = []
            for arm in procedure.arms {
                ofText.append(RunbookSeries(arm, of: procedure, text: text, runner: self, others: others, model: model))
            }
            if procedure.takesTurns {
                for index in 0..<runs {
                    for one in ofText { await one.makeRun(index, of: runs, progress: progress) }
                }
                for one in ofText { one.close() }
            } else {
                for one in ofText {
                    for index in 0..<runs { await one.makeRun(index, of: runs, progress: progress) }
                    one.close()
                }
            }
            series += ofText
        }
        return report(procedure, series)
    }

    /// The decoders of other precisions that a procedure's arms ask for, loaded on the card beside the engine's own.
    private func otherDecoders(_ procedure: RunbookProcedure) throws(ExperimentError) -> [CUDAHost] {
        guard let gpu = engine.decodingGPU else { return [] }
        let wanted = procedure.arms.flatMap(\.switches).compactMap { one -> CodecPrecision? in
            if case .decoderFP32(let n) = one { n != 0 ? .exact : .half } else { nil }
        }
        do {
            return try Set(wanted).filter { $0 != gpu.precision }.map { try gpu.loaded(with: $0) }
        } catch {
            throw .badSetting("\(gpu.name) does not take the decoder in the other precision as well: \(error)")
        }
    }

    private func report(_ procedure: RunbookProcedure, _ series: [RunbookSeries]) -> RunbookReport.Procedure {
        let arms = series.map { $0.report() }
        let matrix = Self.matrix(series)
        let pictures = Self.pictures(series)
        let verdict = RunbookVerdict(
            procedure: procedure, arms: arms, matrix: matrix, pictures: pictures, firstAudioLimit: firstAudioLimit,
            drift: drift, logitSteps: series.reduce(into: [:]) { $0[$1.arm.name] = $1.logitDifference },
            samples: series.reduce(into: [:]) { $0[$1.arm.name] = $1.samples })
        let findings = verdict.findings()
        return RunbookReport.Procedure(
            id: procedure.id, question: procedure.question, arms: arms, matrix: matrix, pictures: pictures,
            findings: findings, outcome: .init(findings.map(\.outcome)))
    }

    /// Numbers the hashes of a text's runs in the order in which they came.
    private static func matrix(_ series: [RunbookSeries]) -> [RunbookReport.MatrixRow] {
        // Packets of the arms may differ: all have the first frames of the smallest one.
        let firstFrames = series.map(\.packet).min() ?? 1
        var numbers: [String: Int] = [:]
        func number(_ hash: String) -> Int {
            if let known = numbers[hash] { return known }
            numbers[hash] = numbers.count
            return numbers.count - 1
        }
        return series.flatMap { one in
            one.records.map { record in
                RunbookReport.MatrixRow(
                    tag: record.tag, arm: one.arm.name, textID: one.text.id,
                    whole: number("\(one.text.id) all " + codesHash(record.codes)),
                    firstPacket: number(
                        "\(one.text.id) first " + codesHash(record.codes.prefix(firstFrames * record.groups))))
            }
        }
    }

    /// Pictures at most; after the first few they say the same.
    private static let pictureLimit = 4

    /// A picture of each different way in which runs part from the text's first run.
    private static func pictures(_ series: [RunbookSeries]) -> [RunbookReport.Picture] {
        var pictures: [RunbookReport.Picture] = []
        for (_, ofText) in Dictionary(grouping: series, by: \.text.id).sorted(by: { $0.key < $1.key }) {
            let records = ofText.flatMap { one in one.records.map { (record: $0, arm: one.arm.name) } }
            guard let reference = records.first?.record else { continue }
            var seen: Set<String> = [codesHash(reference.codes)]
            for (record, arm) in records.dropFirst() where seen.insert(codesHash(record.codes)).inserted {
                guard pictures.count < pictureLimit else { return pictures }
                pictures.append(RunbookReport.Picture(reference, record, arm: arm))
            }
        }
        return pictures
    }
}

extension RunbookReport.Picture {
    /// Where a run differs from another one with the same codes a frame.
    init(_ reference: CodeRecord, _ record: CodeRecord, arm: String) {
        let groups = reference.groups
        let frames = max(reference.frames, record.frames)
        let rows = (0..<frames).compactMap { frame -> Row? in
            guard frame < reference.frames, frame < record.frames else {
                return Row(frame: frame, codebooks: Array(0..<groups))
            }
            let odd = (0..<groups).filter { reference.codes[frame * groups + $0] != record.codes[frame * groups + $0] }
            return odd.isEmpty ? nil : Row(frame: frame, codebooks: odd)
        }
        let first = rows.first
        let isInBoth = first.map { $0.frame < min(reference.frames, record.frames) } ?? false
        self.init(
            reference: reference.tag, tag: record.tag, arm: arm, frames: frames, codebooks: groups,
            firstFrame: first?.frame ?? -1, firstCodebook: isInBoth ? first?.codebooks.first ?? -1 : -1, rows: rows)
    }
}
