public import Qwen3TTS

extension InjectedDrift {
    /// Reads `FRAME[:CODEBOOK][:tiny]`.
    public init(_ text: String) throws(ExperimentError) {
        var parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        let isTiny = parts.last == "tiny"
        if isTiny { parts.removeLast() }
        guard (1...2).contains(parts.count), let frame = Int(parts[0]), frame >= 0,
            let codebook = parts.count == 2 ? Int(parts[1]) : 0, codebook >= 0
        else { throw .badSetting("'\(text)' should be FRAME, FRAME:CODEBOOK or either followed by :tiny") }
        self.init(frame: frame, codebook: codebook, isTiny: isTiny)
    }

    /// `12:3`, `12:3:tiny`.
    public var label: String { "\(frame):\(codebook)" + (isTiny ? ":tiny" : "") }
}

/// The best choices of a run's steps, for finding the first step where two runs part.
public struct TopChoices: Sendable, Codable, Equatable {
    /// The run.
    public var tag: String
    /// In the order in which codes were chosen.
    public var steps: [CodeChoices]

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
        public let first: CodeChoices, second: CodeChoices
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

/// A tap on a request's logits that disturbs them and records the best choices; nil if neither is asked for.
func logitTap(
    _ drift: InjectedDrift?, _ choices: TopChoicesOptions?, of model: SpeechModel
) throws(ExperimentError) -> LogitTap? {
    guard drift != nil || choices != nil else { return nil }
    if let drift, drift.codebook >= model.codeGroups {
        throw .badSetting("there is no codebook \(drift.codebook): the model has 0 to \(model.codeGroups - 1)")
    }
    var order = LogitTap.Order(model.configuration.talker)
    order.drift = drift
    order.choices = choices
    return LogitTap(order)
}
