/// One comparison with the reference.
public struct ParityStage: Sendable, Codable, Equatable {
    /// What was compared.
    public let name: String
    /// The largest absolute difference; for codes and ids how many differ. Nil where the shapes differ or a number is
    /// not finite.
    public let maxAbs: Double?
    /// The largest difference that counts as agreement.
    public let tolerance: Double
    /// Whether it agrees.
    public let pass: Bool
    /// What a reader should know of the comparison.
    public let note: String?

    enum CodingKeys: String, CodingKey {
        case name, tolerance, pass, note
        case maxAbs = "max_abs"
    }

    /// Writes a null rather than no key for a difference that is no number: the report's readers look for it.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(name, forKey: .name)
        try container.encode(maxAbs, forKey: .maxAbs)
        try container.encode(tolerance, forKey: .tolerance)
        try container.encode(pass, forKey: .pass)
        try container.encodeIfPresent(note, forKey: .note)
    }
}

/// All comparisons of one checkpoint with the reference.
public struct ParityReport: Sendable, Codable, Equatable {
    /// In the order in which the model computes.
    public var stages: [ParityStage] = []
    /// Whether all agree, and there was something to compare.
    public var pass: Bool { !stages.isEmpty && stages.allSatisfy(\.pass) }

    enum CodingKeys: String, CodingKey { case stages, pass }

    /// Nothing compared yet.
    public init() {}

    /// Reads a report that `encode` wrote.
    public init(from decoder: any Decoder) throws {
        stages = try decoder.container(keyedBy: CodingKeys.self).decode([ParityStage].self, forKey: .stages)
    }

    /// Writes the stages and whether all agree.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(stages, forKey: .stages)
        try container.encode(pass, forKey: .pass)
    }

    /// Compares numbers. The tolerance is for numbers up to 1 and grows with the largest expected one.
    /// - Parameter relativeTolerance: the largest difference allowed, as a part of the largest expected number.
    mutating func compare(_ name: String, _ found: [Float], _ expected: [Float], relativeTolerance: Double) {
        let scale = expected.reduce(1) { max($0, $1.magnitude) }
        let tolerance = relativeTolerance * Double(scale)
        guard found.count == expected.count else {
            add(name, nil, tolerance, note: "\(found.count) numbers, expected \(expected.count)")
            return
        }
        var largest = 0.0
        for (a, b) in zip(found, expected) {
            let difference = Double((a - b).magnitude)
            guard difference.isFinite else {
                add(name, nil, tolerance, note: "a number is not finite")
                return
            }
            largest = max(largest, difference)
        }
        add(name, largest, tolerance)
    }

    /// Compares ids, all of which have to be equal.
    mutating func compare(_ name: String, _ found: [Int32], _ expected: [Int32]) {
        guard found.count == expected.count else {
            add(name, nil, 0, note: "\(found.count) ids, expected \(expected.count)")
            return
        }
        add(name, Double(zip(found, expected).count { $0 != $1 }), 0)
    }

    mutating func add(_ name: String, _ maxAbs: Double?, _ tolerance: Double, note: String? = nil) {
        stages.append(
            ParityStage(
                name: name, maxAbs: maxAbs, tolerance: tolerance, pass: maxAbs.map { $0 <= tolerance } ?? false,
                note: note))
    }
}
