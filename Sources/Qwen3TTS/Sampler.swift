import Tensors

/// Chooses codes from logits, in the reference's exact order (specification, sections 3.4 and 3.5).
///
/// Random numbers are a function of (seed, frame, codebook); greedy ties break to the lowest id.
public struct Sampler: Sendable {
    /// How one code is chosen.
    public typealias Rule = GenerationConfiguration.Sampling

    private let random: Philox

    /// A sampler for one request.
    public init(seed: UInt64) { random = Philox(seed: seed) }

    /// Chooses an id from `scores`, which are overwritten.
    /// - Parameters:
    ///   - frame: index of the codec frame.
    ///   - codebook: index of the code in its frame.
    public func choose(
        _ scores: UnsafeMutableBufferPointer<Float>, rule: Rule, frame: Int, codebook: Int
    ) -> Int32 {
        guard rule.samples else { return Self.argmax(scores) }
        Self.restrict(scores, rule: rule)
        let (maximum, total) = Self.softmaxTerms(scores)
        let target = random.uniform(frame: frame, codebook: codebook) * total
        var reached: Float = 0
        var last = 0
        for (id, score) in scores.enumerated() where score > -.infinity {
            reached += exponential(score - maximum)
            last = id
            if reached > target { break }
        }
        return Int32(last)
    }

    /// The probabilities that `choose` draws from.
    public static func probabilities(_ scores: UnsafeMutableBufferPointer<Float>, rule: Rule) -> [Float] {
        restrict(scores, rule: rule)
        let (maximum, total) = softmaxTerms(scores)
        return scores.map { exponential($0 - maximum) / total }
    }

    /// The id of the highest score; the lowest such id.
    public static func argmax(_ scores: UnsafeMutableBufferPointer<Float>) -> Int32 {
        var best = 0
        for id in scores.indices where scores[id] > scores[best] { best = id }
        return Int32(best)
    }

    private static func softmaxTerms(_ scores: UnsafeMutableBufferPointer<Float>) -> (maximum: Float, total: Float) {
        let maximum = scores.max() ?? 0
        var total: Float = 0
        for score in scores { total += exponential(score - maximum) }
        return (maximum, total)
    }

    /// Temperature, then top-k (ties with the k-th kept), then top-p.
    private static func restrict(_ scores: UnsafeMutableBufferPointer<Float>, rule: Rule) {
        let temperature = Float(rule.temperature)
        for id in scores.indices { scores[id] /= temperature }
        if rule.topK > 0, rule.topK < scores.count {
            let threshold = kthLargest(scores, rule.topK)
            for id in scores.indices where scores[id] < threshold { scores[id] = -.infinity }
        }
        if rule.topP < 1 {
            // Ascending; equal scores by id, as a stable sort leaves them.
            let kept = scores.indices.filter { scores[$0] > -.infinity }
                .sorted { scores[$0] != scores[$1] ? scores[$0] < scores[$1] : $0 < $1 }
            let (maximum, total) = softmaxTerms(scores)
            let limit = 1 - Float(rule.topP)
            var cumulative: Float = 0
            for id in kept.dropLast() {
                cumulative += exponential(scores[id] - maximum) / total
                if cumulative > limit { break }
                scores[id] = -.infinity
            }
        }
    }

    /// The k-th largest score, by a heap of the k largest seen so far.
    private static func kthLargest(_ scores: UnsafeMutableBufferPointer<Float>, _ k: Int) -> Float {
        var heap = Array(scores.prefix(k))
        heap.sort()
        for score in scores.dropFirst(k) where score > heap[0] {
            var hole = 0
            while true {
                var child = 2 * hole + 1
                if child >= k { break }
                if child + 1 < k, heap[child + 1] < heap[child] { child += 1 }
                if heap[child] >= score { break }
                heap[hole] = heap[child]
                hole = child
            }
            heap[hole] = score
        }
        return heap[0]
    }
}

/// What may follow in the talker's stream of code 0: repetition penalty, forced length and suppressed ids.
struct TalkerConstraints {
    let repetitionPenalty: Float
    let eos: Int
    /// Ids below are codes; ids at or above are control ids, of which only `eos` may be chosen.
    let speakableCodes: Int
    /// Tokens sampled before EOS is allowed.
    static let minimumTokens = 2
    private(set) var sampled = 0
    private var seen: [Bool]

    init(_ configuration: TalkerConfiguration, repetitionPenalty: Double) {
        self.repetitionPenalty = Float(repetitionPenalty)
        eos = Int(configuration.control.eos)
        speakableCodes = configuration.speakableCodes
        seen = Array(repeating: false, count: configuration.vocabularySize)
    }

    /// Steps 1 to 3 of section 3.4, in place.
    func apply(_ scores: UnsafeMutableBufferPointer<Float>) {
        if repetitionPenalty != 1 {
            for id in seen.indices where seen[id] {
                scores[id] = scores[id] < 0 ? scores[id] * repetitionPenalty : scores[id] / repetitionPenalty
            }
        }
        if sampled < Self.minimumTokens { scores[eos] = -.infinity }
        for id in speakableCodes..<scores.count where id != eos { scores[id] = -.infinity }
    }

    /// Records a chosen token.
    mutating func record(_ token: Int32) {
        seen[Int(token)] = true
        sampled += 1
    }
}
