/// The way from scalars to ids, one scalar at a time: control tokens, form C, pieces, merges.
struct TokenEncoder: Sendable {
    private let tables: TokenizerTables
    private let recognizesControlTokens: Bool
    /// Scalars that may begin a control token.
    private var candidate: [UInt32] = []
    private var composition = CanonicalComposition()
    private var composed: [UInt32] = []
    private var splitter = PreTokenSplitter()

    init(_ tables: TokenizerTables, _ controlTokens: ControlTokens) {
        self.tables = tables
        recognizesControlTokens = controlTokens == .recognized
    }

    /// Takes one scalar of the text; appends the ids that are certain whatever follows.
    mutating func append(_ scalar: UInt32, to ids: inout [Int32]) {
        if recognizesControlTokens, !candidate.isEmpty || tables.controlStarts.contains(scalar) {
            candidate.append(scalar)
            resolveCandidate(isEnd: false, to: &ids)
        } else {
            appendOrdinary(scalar, to: &ids)
        }
    }

    /// The text ends here: appends the rest.
    mutating func finish(to ids: inout [Int32]) {
        resolveCandidate(isEnd: true, to: &ids)
        finishOrdinary(to: &ids)
    }

    private mutating func appendOrdinary(_ scalar: UInt32, to ids: inout [Int32]) {
        composition.append(scalar, to: &composed)
        split(to: &ids)
    }

    private mutating func finishOrdinary(to ids: inout [Int32]) {
        composition.finish(into: &composed)
        split(to: &ids)
        splitter.finish { tables.merges.encode($0, into: &ids) }
    }

    private mutating func split(to ids: inout [Int32]) {
        for scalar in composed {
            splitter.append(scalar) { tables.merges.encode($0, into: &ids) }
        }
        composed.removeAll(keepingCapacity: true)
    }

    /// Takes control tokens, the longest that fits, and ordinary scalars from the front of ``candidate``, as far as
    /// more text cannot change what they are.
    private mutating func resolveCandidate(isEnd: Bool, to ids: inout [Int32]) {
        var front = 0
        while front < candidate.count {
            let rest = candidate[front...]
            var found: TokenizerFiles.ControlToken?
            for token in tables.controlTokens {
                if token.scalars.count > rest.count {
                    if !isEnd, token.scalars.starts(with: rest) {
                        candidate.removeFirst(front)
                        return
                    }
                } else if token.scalars.count > found?.scalars.count ?? 0, rest.starts(with: token.scalars) {
                    found = token
                }
            }
            if let found {
                finishOrdinary(to: &ids)
                ids.append(found.id)
                front += found.scalars.count
            } else {
                appendOrdinary(candidate[front], to: &ids)
                front += 1
            }
        }
        candidate.removeAll(keepingCapacity: true)
    }
}
