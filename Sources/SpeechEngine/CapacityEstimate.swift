/// What a round of the engine costs, learned while it runs: seconds ≈ fixed + perRow · utterances in the batch.
struct CapacityEstimate {
    private var weight = 0.0
    private var rows = 0.0
    private var seconds = 0.0
    private var rowsSquared = 0.0
    private var rowsSeconds = 0.0
    /// Older rounds count less: a round is forgotten after some fifty more.
    private static let memory = 0.98

    /// Records a round that generated and decoded a frame for each of `count` utterances.
    mutating func record(count: Int, seconds elapsed: Double) {
        let n = Double(count)
        weight = weight * Self.memory + 1
        rows = rows * Self.memory + n
        seconds = seconds * Self.memory + elapsed
        rowsSquared = rowsSquared * Self.memory + n * n
        rowsSeconds = rowsSeconds * Self.memory + n * elapsed
    }

    /// Expected seconds of a round over `count` utterances; nil before anything is known.
    func roundSeconds(_ count: Int) -> Double? {
        guard weight > 3 else { return nil }
        let meanRows = rows / weight, meanSeconds = seconds / weight
        let spread = rowsSquared / weight - meanRows * meanRows
        let covariance = rowsSeconds / weight - meanRows * meanSeconds
        // With one batch size seen so far, every row is taken to cost its share: the careful guess.
        let perRow = spread > 0.05 ? max(0, covariance / spread) : meanSeconds / max(meanRows, 1)
        return max(0, meanSeconds + perRow * (Double(count) - meanRows))
    }
}
