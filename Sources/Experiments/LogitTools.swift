import Qwen3TTS
import Synchronization

/// Where a run is disturbed on purpose, to prove that the instruments see it.
public struct InjectedDrift: Sendable, Codable, Equatable {
    /// The frame, counted from 0.
    public let frame: Int
    /// The codebook; 0 is the talker's.
    public let codebook: Int
    /// Only the last bit of one logit changes: no code does, unless two were equal.
    public let isTiny: Bool

    /// Reads `FRAME[:CODEBOOK][:tiny]`.
    public init(_ text: String) throws(ExperimentError) {
        var parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        isTiny = parts.last == "tiny"
        if isTiny { parts.removeLast() }
        guard (1...2).contains(parts.count), let frame = Int(parts[0]), frame >= 0,
            let codebook = parts.count == 2 ? Int(parts[1]) : 0, codebook >= 0
        else { throw .badSetting("'\(text)' should be FRAME, FRAME:CODEBOOK or either followed by :tiny") }
        self.frame = frame
        self.codebook = codebook
    }

    /// `12:3`, `12:3:tiny`.
    public var label: String { "\(frame):\(codebook)" + (isTiny ? ":tiny" : "") }

    /// Disturbs logits: the unlikeliest code becomes the only likely one, or the best logit's last bit changes.
    /// - Parameter choices: how many of the first ids are codes; the others steer the model.
    func apply(_ logits: UnsafeMutableBufferPointer<Float>, choices: Int) {
        let ids = 0..<min(choices, logits.count)
        if isTiny {
            guard let best = ids.max(by: { logits[$0] < logits[$1] }) else { return }
            logits[best] = logits[best].nextUp
        } else {
            guard let worst = ids.min(by: { logits[$0] < logits[$1] }) else { return }
            logits[worst] = 1e4
        }
    }
}

/// The best choices of a run's steps, for finding the first step where two runs part.
public struct TopChoices: Sendable, Codable, Equatable {
    /// One code's choice.
    public struct Step: Sendable, Codable, Equatable {
        /// Frame and codebook.
        public let frame: Int, codebook: Int
        /// The ids of the highest logits, highest first.
        public let ids: [Int]
        /// Their logits.
        public let logits: [Float]
    }

    /// The run.
    public var tag: String
    /// In the order in which codes were chosen.
    public var steps: [Step]

    /// Where two runs part.
    public struct Difference: Sendable, Codable, Equatable {
        /// The first frame and codebook at which ids differ; nil if none does.
        public var firstChoice: Place?
        /// The first frame and codebook at which a logit differs in any bit; nil if none does.
        public var firstLogit: Place?
        /// Steps that both runs have.
        public var compared: Int
    }

    /// A step.
    public struct Place: Sendable, Codable, Equatable {
        /// Frame and codebook.
        public let frame: Int, codebook: Int
        /// The step in either run.
        public let first: Step, second: Step
    }

    /// Compares with another run, step by step.
    public func difference(from other: TopChoices) -> Difference {
        var result = Difference(compared: min(steps.count, other.steps.count))
        for (a, b) in zip(steps, other.steps) {
            let place = Place(frame: a.frame, codebook: a.codebook, first: a, second: b)
            let isSameStep = a.frame == b.frame && a.codebook == b.codebook
            if !isSameStep || a.logits.map(\.bitPattern) != b.logits.map(\.bitPattern) || a.ids != b.ids {
                if result.firstLogit == nil { result.firstLogit = place }
                if !isSameStep || a.ids != b.ids {
                    result.firstChoice = place
                    break
                }
            }
        }
        return result
    }
}

/// Which steps' best choices are recorded.
public struct TopChoicesOptions: Sendable {
    /// How many choices of a step.
    public var count = 2
    /// Frames.
    public var frames = 0...100

    /// The defaults.
    public init() {}
}

/// Records the best choices of a run.
final class TopChoicesRecorder: Sendable {
    private let options: TopChoicesOptions
    private let steps = Mutex<[TopChoices.Step]>([])

    init(_ options: TopChoicesOptions) { self.options = options }

    /// - Parameter isChoice: whether an id can be chosen at all; others steer the model.
    func record(
        frame: Int, codebook: Int, _ logits: UnsafeMutableBufferPointer<Float>, isChoice: (Int) -> Bool
    ) {
        guard options.frames.contains(frame) else { return }
        var best: [Int] = []
        for id in logits.indices where isChoice(id) {
            // Equal logits by id, as the choice itself breaks ties.
            if best.count == options.count, logits[id] <= logits[best[best.count - 1]] { continue }
            let place = best.firstIndex { logits[id] > logits[$0] } ?? best.count
            best.insert(id, at: place)
            if best.count > options.count { best.removeLast() }
        }
        let step = TopChoices.Step(frame: frame, codebook: codebook, ids: best, logits: best.map { logits[$0] })
        steps.withLock { $0.append(step) }
    }

    func choices(tag: String) -> TopChoices { TopChoices(tag: tag, steps: steps.withLock { $0 }) }
}

/// Puts a disturbance and a recorder into a request.
func attach(
    _ drift: InjectedDrift?, _ recorder: TopChoicesRecorder?, to request: inout SpeechRequest, of model: SpeechModel
) throws(ExperimentError) {
    guard drift != nil || recorder != nil else { return }
    if let drift, drift.codebook >= model.codeGroups {
        throw .badSetting("there is no codebook \(drift.codebook): the model has 0 to \(model.codeGroups - 1)")
    }
    let speakable = model.configuration.talker.speakableCodes
    let end = Int(model.configuration.talker.control.eos)
    request.logitTap = { frame, codebook, logits in
        if let drift, drift.frame == frame, drift.codebook == codebook {
            drift.apply(logits, choices: codebook == 0 ? speakable : logits.count)
        }
        recorder?.record(frame: frame, codebook: codebook, logits) { id in
            codebook > 0 || id < speakable || id == end
        }
    }
}
