/// The merges of a byte-pair encoding: which two neighbouring tokens become which one, best first.
final class BytePairMerges: Sendable {
    struct Merge {
        var left: Int32, right: Int32, merged: Int32
    }

    /// Open addressing; key: left · 2³² + right, all ones where empty.
    private let keys: [UInt64]
    /// rank · 2³² + id of the merged token.
    private let values: [UInt64]
    private let shift: UInt64
    /// The token of each byte.
    private let byteTokens: [Int32]

    private static let rankMask: UInt64 = 0xFFFF_FFFF_0000_0000

    /// Pieces up to this length are merged by plain search; it beats a heap there.
    private static let searchLimit = 32

    /// - Parameters:
    ///   - byteTokens: the token of each of the 256 bytes.
    ///   - merges: best first; where a pair occurs twice the first counts.
    init(byteTokens: [Int32], merges: [Merge]) {
        self.byteTokens = byteTokens
        var bits: UInt64 = 4
        while 1 << bits < merges.count * 2 { bits += 1 }
        var keys = [UInt64](repeating: .max, count: 1 << bits)
        var values = [UInt64](repeating: 0, count: 1 << bits)
        shift = 64 - bits
        for (rank, merge) in merges.enumerated() {
            let key = Self.key(merge.left, merge.right)
            let slot = Self.slot(key, in: keys, shift: shift)
            guard keys[slot] == .max else { continue }
            keys[slot] = key
            values[slot] = UInt64(rank) << 32 | UInt64(UInt32(bitPattern: merge.merged))
        }
        self.keys = keys
        self.values = values
    }

    private static func key(_ left: Int32, _ right: Int32) -> UInt64 {
        UInt64(UInt32(bitPattern: left)) << 32 | UInt64(UInt32(bitPattern: right))
    }

    private static func slot(_ key: UInt64, in keys: [UInt64], shift: UInt64) -> Int {
        var slot = Int(truncatingIfNeeded: (key &* 0x9E37_79B9_7F4A_7C15) >> shift)
        while keys[slot] != key && keys[slot] != .max { slot = (slot + 1) & (keys.count - 1) }
        return slot
    }

    /// rank · 2³² + merged token; all ones if the two do not merge.
    private func merge(_ left: Int32, _ right: Int32) -> UInt64 {
        let slot = Self.slot(Self.key(left, right), in: keys, shift: shift)
        return keys[slot] == .max ? .max : values[slot]
    }

    /// Appends the tokens of one piece: again and again the pair of lowest rank is merged, the leftmost among equals.
    func encode(_ piece: ArraySlice<UInt8>, into tokens: inout [Int32]) {
        if piece.count <= Self.searchLimit {
            search(piece, into: &tokens)
        } else {
            sweep(piece, into: &tokens)
        }
    }

    private func search(_ piece: ArraySlice<UInt8>, into tokens: inout [Int32]) {
        // The piece's tokens live at the end of the result and shrink there.
        let start = tokens.count
        for byte in piece { tokens.append(byteTokens[Int(byte)]) }
        guard piece.count > 1 else { return }
        withUnsafeTemporaryAllocation(of: UInt64.self, capacity: Self.searchLimit) { merges in
            var count = piece.count - 1
            for index in 0..<count { merges[index] = merge(tokens[start + index], tokens[start + index + 1]) }
            while count > 0 {
                var best = 0
                for index in 1..<max(count, 1) where merges[index] < merges[best] { best = index }
                guard merges[best] != .max else { break }
                tokens[start + best] = Int32(truncatingIfNeeded: merges[best])
                tokens.remove(at: start + best + 1)
                count -= 1
                for index in best..<max(count, best) { merges[index] = merges[index + 1] }
                if best > 0 { merges[best - 1] = merge(tokens[start + best - 1], tokens[start + best]) }
                if best < count { merges[best] = merge(tokens[start + best], tokens[start + best + 1]) }
            }
        }
    }

    /// n log n: a heap of candidate pairs over a linked list of tokens.
    private func sweep(_ piece: ArraySlice<UInt8>, into tokens: inout [Int32]) {
        let count = piece.count
        var list = piece.map { byteTokens[Int($0)] }
        var next = (0..<count).map { Int32($0 + 1) }
        var previous = (0..<count).map { Int32($0 - 1) }
        // rank · 2³² + position of the left token. An entry is stale if the pair there has another rank by now.
        var heap: [UInt64] = []
        heap.reserveCapacity(count)
        for index in 0..<(count - 1) {
            let found = merge(list[index], list[index + 1])
            if found != .max { heap.append(found & Self.rankMask | UInt64(index)) }
        }
        for index in stride(from: heap.count / 2 - 1, through: 0, by: -1) { Self.siftDown(&heap, from: index) }

        while let top = heap.first {
            let last = heap.removeLast()
            if !heap.isEmpty {
                heap[0] = last
                Self.siftDown(&heap, from: 0)
            }
            let left = Int(top & 0xFFFF_FFFF)
            guard list[left] >= 0, case let right = Int(next[left]), right < count else { continue }
            let found = merge(list[left], list[right])
            guard found != .max, found >> 32 == top >> 32 else { continue }
            list[left] = Int32(truncatingIfNeeded: found)
            list[right] = -1
            next[left] = next[right]
            if Int(next[left]) < count { previous[Int(next[left])] = Int32(left) }
            if previous[left] >= 0 {
                let before = Int(previous[left])
                let candidate = merge(list[before], list[left])
                if candidate != .max { Self.push(candidate & Self.rankMask | UInt64(before), to: &heap) }
            }
            if Int(next[left]) < count {
                let candidate = merge(list[left], list[Int(next[left])])
                if candidate != .max { Self.push(candidate & Self.rankMask | UInt64(left), to: &heap) }
            }
        }
        for token in list where token >= 0 { tokens.append(token) }
    }

    private static func push(_ value: UInt64, to heap: inout [UInt64]) {
        var index = heap.count
        heap.append(value)
        while index > 0, case let parent = (index - 1) / 2, heap[parent] > value {
            heap[index] = heap[parent]
            index = parent
        }
        heap[index] = value
    }

    private static func siftDown(_ heap: inout [UInt64], from start: Int) {
        let value = heap[start]
        var index = start
        while case var child = 2 * index + 1, child < heap.count {
            if child + 1 < heap.count, heap[child + 1] < heap[child] { child += 1 }
            guard heap[child] < value else { break }
            heap[index] = heap[child]
            index = child
        }
        heap[index] = value
    }
}
