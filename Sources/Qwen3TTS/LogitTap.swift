import Synchronization

/// Where a run is disturbed on purpose, to prove that the instruments see it.
public struct InjectedDrift: Sendable, Codable, Equatable {
    /// The frame, counted from 0.
    public let frame: Int
    /// The codebook; 0 is the talker's.
    public let codebook: Int
    /// Only the last bit of one logit changes: no code does, unless two were equal.
    public let isTiny: Bool

    /// A disturbance of one code.
    public init(frame: Int, codebook: Int, isTiny: Bool) {
        self.frame = frame
        self.codebook = codebook
        self.isTiny = isTiny
    }

    /// Disturbs logits: the unlikeliest code becomes the only likely one, or the best logit's last bit changes.
    /// - Parameter choices: how many of the first ids are codes; the others steer the model.
    package func apply(_ logits: UnsafeMutableBufferPointer<Float>, choices: Int) {
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

/// Which steps' best choices are recorded.
public struct TopChoicesOptions: Sendable, Codable, Equatable {
    /// How many choices of a step.
    public var count = 2
    /// Frames.
    public var frames = 0...100

    /// The defaults.
    public init() {}
}

/// The best choices of one code.
public struct CodeChoices: Sendable, Codable, Equatable {
    /// Frame and codebook.
    public let frame: Int, codebook: Int
    /// The ids of the highest logits, highest first; equal ones by id, as the choice itself breaks ties.
    public let ids: [Int]
    /// Their logits.
    public let logits: [Float]

    /// Choices that were recorded.
    public init(frame: Int, codebook: Int, ids: [Int], logits: [Float]) {
        self.frame = frame
        self.codebook = codebook
        self.ids = ids
        self.logits = logits
    }

    /// The best choices among raw logits.
    /// - Parameter isChoice: whether an id can be chosen at all; others steer the model.
    package init(
        frame: Int, codebook: Int, best count: Int, of logits: UnsafeMutableBufferPointer<Float>,
        isChoice: (Int) -> Bool
    ) {
        var best: [Int] = []
        for id in logits.indices where isChoice(id) {
            if best.count == count, logits[id] <= logits[best[best.count - 1]] { continue }
            let place = best.firstIndex { logits[id] > logits[$0] } ?? best.count
            best.insert(id, at: place)
            if best.count > count { best.removeLast() }
        }
        self.init(frame: frame, codebook: codebook, ids: best, logits: best.map { logits[$0] })
    }
}

/// Sees the raw logits of each code of an utterance before it is chosen: disturbs one, records the best choices.
///
/// Logits are seen where they are made, on the thread that drives the model; what is to be done with them is data, so
/// that it reaches another process.
public final class LogitTap: Sendable {
    /// What is done.
    public struct Order: Sendable, Codable, Equatable {
        /// A disturbance.
        public var drift: InjectedDrift?
        /// Which steps' best choices are recorded.
        public var choices: TopChoicesOptions?
        let speakableCodes: Int
        let endCode: Int

        /// Does nothing by itself.
        public init(_ talker: TalkerConfiguration) {
            speakableCodes = talker.speakableCodes
            endCode = Int(talker.control.eos)
        }
    }

    /// What is done.
    public let order: Order
    private let recorded = Mutex<[CodeChoices]>([])

    /// A tap for one utterance.
    public init(_ order: Order) { self.order = order }

    /// What has been recorded, in the order in which codes were chosen.
    public var choices: [CodeChoices] { recorded.withLock { $0 } }

    /// Takes what has been recorded.
    package func takeChoices() -> [CodeChoices] {
        recorded.withLock { all in
            defer { all = [] }
            return all
        }
    }

    /// Adds what another process has recorded.
    package func add(_ choices: [CodeChoices]) { recorded.withLock { $0 += choices } }

    /// Called with the logits of a code.
    /// - Parameter codebook: 0 is the talker's.
    package func callAsFunction(_ frame: Int, _ codebook: Int, _ logits: UnsafeMutableBufferPointer<Float>) {
        if let drift = order.drift, drift.frame == frame, drift.codebook == codebook {
            drift.apply(logits, choices: codebook == 0 ? order.speakableCodes : logits.count)
        }
        guard let choices = order.choices, choices.frames.contains(frame) else { return }
        let best = CodeChoices(frame: frame, codebook: codebook, best: choices.count, of: logits) { id in
            codebook > 0 || id < order.speakableCodes || id == order.endCode
        }
        add([best])
    }
}
