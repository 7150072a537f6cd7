/// Follows one utterance frame by frame and says where it ran away.
struct RunawayDetector {
    private let limits: RunawayLimits
    private let groups: Int
    private var frames = 0
    private var silentFrames = 0
    /// Frames up to now that equal the one `period` before them, by period.
    private var repeats: [Int]
    /// The codes of the last `loopPeriod` frames, oldest first.
    private var recent: [Int32] = []

    init(_ limits: RunawayLimits, groups: Int) {
        self.limits = limits
        self.groups = groups
        repeats = Array(repeating: 0, count: limits.loopPeriod + 1)
    }

    /// Adds one frame; true if the utterance should have ended here.
    /// - Parameter textTokens: length of the utterance's text, nil while more may come.
    mutating func add(codes: ArraySlice<Int32>, samples: ArraySlice<Float>, textTokens: Int?) -> Bool {
        frames += 1
        let isSilent =
            limits.silenceRMS.map { level in
                samples.reduce(0) { $0 + $1 * $1 } < level * level * Float(samples.count)
            } ?? !samples.contains { abs($0) > limits.silence }
        silentFrames = isSilent ? silentFrames + 1 : 0

        var loops = false
        for period in 1...limits.loopPeriod where recent.count >= period * groups {
            let start = recent.count - period * groups
            let isEqual = recent[start..<(start + groups)].elementsEqual(codes)
            repeats[period] = isEqual ? repeats[period] + 1 : 0
            loops = loops || repeats[period] >= limits.loopFrames
        }
        recent.append(contentsOf: codes)
        if recent.count > limits.loopPeriod * groups { recent.removeFirst(groups) }

        let isTooLong = textTokens.map { frames > limits.baseFrames + limits.framesPerToken * $0 } ?? false
        return isTooLong || silentFrames >= limits.silentFrames || loops
    }
}
