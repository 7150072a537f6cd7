/// Unicode normalisation form C, scalar by scalar (Unicode Standard Annex 15).
///
/// Scalars are collected until one comes that nothing before can combine with; then those collected are final. The
/// standard library's normaliser is not public, and Foundation's brings 50 MB of ICU into a static binary.
struct CanonicalComposition {
    /// Scalars since the last one that starts a segment.
    private var segment: [UInt32] = []

    /// Takes one scalar; appends to `output` what can no longer change.
    mutating func append(_ scalar: UInt32, to output: inout [UInt32]) {
        if Self.startsSegment(scalar) { finish(into: &output) }
        segment.append(scalar)
    }

    /// The text ends here: appends the rest.
    mutating func finish(into output: inout [UInt32]) {
        if segment.count == 1, Self.isComposed(segment[0]) {
            output.append(segment[0])
        } else if !segment.isEmpty {
            Self.compose(segment, into: &output)
        }
        segment.removeAll(keepingCapacity: true)
    }

    /// True if a scalar alone is in form C.
    private static func isComposed(_ scalar: UInt32) -> Bool {
        scalar < 0x340 || !properties(scalar).isFullCompositionExclusion
    }

    /// True if a scalar never combines with or moves before what precedes it.
    private static func startsSegment(_ scalar: UInt32) -> Bool {
        scalar < 0x300 || (combiningClass(scalar) == 0 && !tables.continuing.contains(scalar))
    }

    private static func properties(_ scalar: UInt32) -> Unicode.Scalar.Properties {
        // Only scalars of a String or of the table come here.
        Unicode.Scalar(scalar)!.properties
    }

    private static func combiningClass(_ scalar: UInt32) -> UInt8 {
        if scalar < 0x300 { return 0 }
        let properties = properties(scalar)
        let order = properties.canonicalCombiningClass.rawValue
        return order == 0 || (properties.age?.major ?? .max) > unicodeVersion ? 0 : order
    }

    /// The reference's normaliser knows Unicode up to this version; later marks are no marks to it.
    private static let unicodeVersion = 9

    private static func compose(_ scalars: [UInt32], into output: inout [UInt32]) {
        var parts: [UInt32] = []
        for scalar in scalars { decompose(scalar, into: &parts) }
        sortMarks(&parts)

        var result: [UInt32] = []
        var starter: Int?
        for scalar in parts {
            let order = combiningClass(scalar)
            if let base = starter {
                // A mark is blocked by another of its class or a higher one, and by any starter in between.
                let previous = combiningClass(result[result.count - 1])
                let isBlocked = base != result.count - 1 && (previous == 0 || previous >= order)
                if !isBlocked, let composite = composite(result[base], scalar) {
                    result[base] = composite
                    continue
                }
            }
            if order == 0 { starter = result.count }
            result.append(scalar)
        }
        output.append(contentsOf: result)
    }

    private static func decompose(_ scalar: UInt32, into parts: inout [UInt32]) {
        if Hangul.syllables.contains(scalar) {
            let index = scalar - Hangul.syllables.lowerBound
            parts.append(Hangul.leading + index / (Hangul.vowelCount * Hangul.trailingCount))
            parts.append(Hangul.vowel + index % (Hangul.vowelCount * Hangul.trailingCount) / Hangul.trailingCount)
            if index % Hangul.trailingCount != 0 { parts.append(Hangul.trailing + index % Hangul.trailingCount) }
        } else if let pair = tables.decompositions[scalar] {
            decompose(pair.first, into: &parts)
            if pair.second != 0 { decompose(pair.second, into: &parts) }
        } else {
            parts.append(scalar)
        }
    }

    /// Puts each run of marks in the order of their combining classes; equal ones keep theirs.
    private static func sortMarks(_ parts: inout [UInt32]) {
        var start = 0
        while start < parts.count {
            guard combiningClass(parts[start]) != 0 else {
                start += 1
                continue
            }
            var keys: [UInt64] = []
            while start + keys.count < parts.count, case let order = combiningClass(parts[start + keys.count]),
                order != 0
            {
                keys.append(UInt64(order) << 32 | UInt64(keys.count))
            }
            let run = Array(parts[start..<(start + keys.count)])
            keys.sort()
            for (offset, key) in keys.enumerated() { parts[start + offset] = run[Int(key & 0xFFFF_FFFF)] }
            start += keys.count
        }
    }

    private static func composite(_ first: UInt32, _ second: UInt32) -> UInt32? {
        if Hangul.leadings.contains(first), Hangul.vowels.contains(second) {
            let index = (first - Hangul.leading) * Hangul.vowelCount + second - Hangul.vowel
            return Hangul.syllables.lowerBound + index * Hangul.trailingCount
        }
        if Hangul.syllables.contains(first), (first - Hangul.syllables.lowerBound) % Hangul.trailingCount == 0,
            Hangul.trailings.contains(second)
        {
            return first + second - Hangul.trailing
        }
        return tables.composites[UInt64(first) << 32 | UInt64(second)]
    }

    /// Hangul composes by arithmetic (The Unicode Standard, section 3.12).
    private enum Hangul {
        static let leading: UInt32 = 0x1100
        static let vowel: UInt32 = 0x1161
        static let trailing: UInt32 = 0x11A7
        static let vowelCount: UInt32 = 21
        static let trailingCount: UInt32 = 28
        static let leadings: Range<UInt32> = 0x1100..<0x1113
        static let vowels: Range<UInt32> = 0x1161..<0x1176
        static let trailings: Range<UInt32> = 0x11A8..<0x11C3
        static let syllables: Range<UInt32> = 0xAC00..<0xD7A4
    }

    private struct Tables {
        /// One step of decomposition; `second` is 0 where there is one scalar only.
        var decompositions: [UInt32: (first: UInt32, second: UInt32)] = [:]
        /// Key: first scalar · 2³² + second.
        var composites: [UInt64: UInt32] = [:]
        /// Scalars that can combine with what precedes them although their combining class is 0.
        var continuing: Set<UInt32> = []
    }

    private static let tables: Tables = {
        var tables = Tables()
        var scalar: UInt32 = 0
        var number: UInt32 = 0
        var first: UInt32?
        func add() {
            let pair = first.map { ($0, number) } ?? (number, 0)
            tables.decompositions[scalar] = (first: pair.0, second: pair.1)
            if !properties(scalar).isFullCompositionExclusion {
                tables.composites[UInt64(pair.0) << 32 | UInt64(pair.1)] = scalar
                tables.continuing.insert(pair.1)
            }
            scalar += 1
        }
        decompositionText.withUTF8Buffer { text in
            var isEntry = false
            for byte in text {
                switch byte {
                case UInt8(ascii: ":"):
                    scalar = number
                    isEntry = false
                case UInt8(ascii: "+"):
                    first = number
                    number = 0
                case UInt8(ascii: " "), UInt8(ascii: "\n"):
                    if isEntry { add() }
                    (number, first, isEntry) = (0, nil, false)
                default:
                    number = number << 4 | UInt32(byte <= UInt8(ascii: "9") ? byte - 48 : byte - 55)
                    isEntry = true
                }
            }
            if isEntry { add() }
        }
        tables.continuing.formUnion(Hangul.vowels)
        tables.continuing.formUnion(Hangul.trailings)
        for (scalar, pair) in tables.decompositions where combiningClass(pair.first) != 0 {
            tables.continuing.insert(scalar)
        }
        return tables
    }()
}
