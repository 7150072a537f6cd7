/// Makes speech faster or slower at its own pitch, piece by piece: waveform-similarity overlap-add (WSOLA, Verhelst and
/// Roelands 1993).
///
/// Windows of 43 ms, taken where the input goes on most like the window before, are laid over each other half by half.
/// The output has `round(input / speed)` samples and begins with the input's own first half window.
struct TimeStretch: Sendable {
    private let speed: Double
    private let window: [Float]
    private let hop: Int
    private let tolerance: Int
    /// Input from position `start`.
    private var input: [Float] = []
    private var start = 0
    private var taken = 0
    private var given = 0
    private var windows = 0
    private var position = 0
    private var tail: [Float] = []

    /// - Parameter speed: 2 is twice as fast.
    init(speed: Double, sampleRate: Int) {
        self.speed = speed
        hop = max(16, sampleRate * 64 / 3000)
        tolerance = hop / 2
        let size = 2 * hop
        window = (0..<size).map { index in
            // A Hann window: halves that overlap add up to one.
            let phase = Double(index) / Double(size)
            return Float(0.5 - 0.5 * Self.cosine(2 * Double.pi * phase))
        }
    }

    /// Takes samples `[n]`; gives the output that they settle.
    mutating func add(_ samples: [Float]) -> [Float] {
        input += samples
        taken += samples.count
        return take(padded: false)
    }

    /// The rest.
    mutating func finish() -> [Float] {
        let total = Int((Double(taken) / speed).rounded())
        var output: [Float] = []
        while given < total { output += take(padded: true) }
        let excess = given - total
        if excess > 0 { output.removeLast(min(excess, output.count)) }
        return output
    }

    private mutating func take(padded: Bool) -> [Float] {
        var output: [Float] = []
        repeat {
            let ideal = Int((Double(windows) * Double(hop) * speed).rounded())
            let natural = windows == 0 ? 0 : position + hop
            let needed = max(ideal + tolerance, natural) + 2 * hop
            if padded {
                let missing = needed - start - input.count
                if missing > 0 { input += [Float](repeating: 0, count: missing) }
            } else if start + input.count < needed || Double((windows + 1) * hop) * speed > Double(taken) {
                // Not heard yet, or more output than the input so far is worth.
                break
            }
            position = windows == 0 ? 0 : bestPosition(ideal, natural)
            let offset = position - start
            for index in 0..<hop {
                let value = input[offset + index]
                output.append(windows == 0 ? value : tail[index] + value * window[index])
            }
            tail = (hop..<(2 * hop)).map { input[offset + $0] * window[$0] }
            windows += 1
            given += hop
            let oldest = min(position + hop, Int((Double(windows) * Double(hop) * speed).rounded()) - tolerance)
            if oldest > start {
                let count = min(oldest - start, input.count)
                input.removeFirst(count)
                start += count
            }
        } while !padded
        return output
    }

    /// Where near `ideal` the input is most like what follows the last window at `natural`.
    private func bestPosition(_ ideal: Int, _ natural: Int) -> Int {
        let first = max(start, ideal - tolerance), last = max(first, ideal + tolerance)
        if (first...last).contains(natural) { return natural }
        return input.withUnsafeBufferPointer { input in
            var best = (position: first, likeness: -Float.infinity)
            for candidate in first...last {
                var product: Float = 0, energy: Float = 1e-9
                for index in 0..<hop {
                    let a = input[candidate - start + index]
                    product += a * input[natural - start + index]
                    energy += a * a
                }
                let likeness = product / energy.squareRoot()
                if likeness > best.likeness { best = (candidate, likeness) }
            }
            return best.position
        }
    }

    /// Cosine by its series: the same on every system, without its mathematics library.
    private static func cosine(_ angle: Double) -> Double {
        let x = angle - (angle / (2 * .pi)).rounded() * 2 * .pi
        var term = 1.0, sum = 1.0
        for index in 1...15 {
            term *= -x * x / Double((2 * index - 1) * (2 * index))
            sum += term
        }
        return sum
    }
}
