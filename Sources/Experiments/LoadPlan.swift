import Tensors

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// The requests of an open loop: when each one comes, whatever became of those before it, and what it says.
///
/// Arrivals are a Poisson process: the gaps between them are independent and exponentially distributed.
public struct LoadPlan: Sendable, Equatable {
    /// One request.
    public struct Request: Sendable, Equatable {
        /// Its number, from 0.
        public let index: Int
        /// Seconds from the start to its arrival.
        public let arrival: Double
        /// What it says.
        public let text: ExperimentText
        /// Its own seed.
        public let seed: UInt64
        /// Bound on its frames; nil leaves the end to the model.
        public let maxFrames: Int?
    }

    /// In order of arrival.
    public let requests: [Request]

    /// Draws a plan; the same arguments give the same plan.
    /// - Parameters:
    ///   - rate: requests a second, on average.
    ///   - duration: seconds in which requests come.
    ///   - texts: each request says one of these, all equally likely.
    ///   - pace: characters a second at which each speech is ended, for models that do not end by themselves.
    public init(
        rate: Double, duration: Double, seed: UInt64, texts: [ExperimentText], pace: Double? = nil
    ) throws(ExperimentError) {
        guard rate > 0, rate < 1e6 else { throw .badSetting("the rate is \(rate), expected more than 0 a second") }
        guard duration > 0, duration * rate < 1e7 else {
            throw .badSetting("the duration is \(duration), expected more than 0 seconds and less than 10^7 requests")
        }
        guard !texts.isEmpty else { throw .badSetting("there is no text to speak") }
        if let pace, !(pace > 0) { throw .badSetting("the pace is \(pace), expected more than 0 characters a second") }
        let random = Philox(seed: seed)
        var requests: [Request] = []
        var now = 0.0
        while true {
            let index = requests.count
            now -= log(1 - Double(random.uniform(frame: index, codebook: 0))) / rate
            if now >= duration { break }
            let choice = min(
                texts.count - 1, Int(Double(random.uniform(frame: index, codebook: 1)) * Double(texts.count)))
            let text = texts[choice]
            let frames = pace.map { Self.frames(text.text, pace: $0) }
            requests.append(
                Request(index: index, arrival: now, text: text, seed: seed &+ UInt64(index), maxFrames: frames))
        }
        self.requests = requests
    }

    /// Frames of 80 ms that a text takes at so many characters a second; a Chinese character counts as four, for it
    /// stands for a syllable.
    private static func frames(_ text: String, pace: Double) -> Int {
        let characters = text.unicodeScalars.reduce(0) { $0 + ((0x3000...0x9FFF).contains($1.value) ? 4 : 1) }
        return max(1, Int((Double(characters) / pace / 0.08).rounded(.up)))
    }
}
