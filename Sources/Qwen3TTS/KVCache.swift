import CKernels
import Tensors

/// Keys and values of one sequence in one transformer stack, in blocks of 64 absolute positions.
///
/// Attention sums block by block, so a result depends on positions alone and not on how calls were cut. With a window,
/// blocks that no later query can see are reused, so that memory stays constant. Float32: 224 KiB a position for the
/// released talkers.
///
/// `@unchecked Sendable`: belongs to one session, which one thread drives at a time; parallel sections write disjoint
/// heads and positions.
public final class KVCache: @unchecked Sendable {
    /// Positions stored so far: the next row gets this position.
    public private(set) var length = 0

    let shape: TransformerShape
    private let layers: Int
    private let heads: Int
    private let dim: Int
    private let window: Int?
    private var blocks: [Block] = []
    private var firstBlock = 0
    private var spare: [Block] = []

    static let blockLength = Int(MK_KV_BLOCK)

    /// Positions are written before they are read, so the memory starts undefined.
    private final class Block: @unchecked Sendable {
        let pointer: UnsafeMutablePointer<Float>
        init(count: Int) {
            pointer = UnsafeMutableRawPointer.allocate(byteCount: count * 4, alignment: 64)
                .bindMemory(to: Float.self, capacity: count)
        }
        deinit { UnsafeMutableRawPointer(pointer).deallocate() }
    }

    init(shape: TransformerShape) {
        self.shape = shape
        layers = shape.layers
        heads = shape.keyValueHeads
        dim = shape.headDimension
        window = shape.window
    }

    private var blockFloats: Int { layers * 2 * heads * Self.blockLength * dim }

    /// Bytes held now.
    public var byteCount: Int { (blocks.count + spare.count) * blockFloats * 4 }

    /// Empties the cache; memory is kept for the next use.
    func reset() {
        spare += blocks
        blocks = []
        firstBlock = 0
        length = 0
    }

    /// A cache of its own with the same positions.
    func copy() -> KVCache {
        let other = KVCache(shape: shape)
        other.copy(self, positions: length)
        return other
    }

    /// Becomes a copy of the first `positions` of another cache of the same shape.
    func copy(_ other: KVCache, positions: Int) {
        reset()
        firstBlock = other.firstBlock
        let count = (positions + Self.blockLength - 1) / Self.blockLength - firstBlock
        for block in other.blocks.prefix(max(count, 0)) {
            let own = spare.popLast() ?? Block(count: blockFloats)
            own.pointer.update(from: block.pointer, count: blockFloats)
            blocks.append(own)
        }
        length = positions
    }

    /// Makes room for `rows` more positions.
    func reserve(_ rows: Int) {
        if let window {
            let oldestVisible = max(0, length - window + 1)
            while firstBlock < oldestVisible / Self.blockLength, !blocks.isEmpty {
                spare.append(blocks.removeFirst())
                firstBlock += 1
            }
        }
        let needed = (length + rows + Self.blockLength - 1) / Self.blockLength
        while firstBlock + blocks.count < needed { blocks.append(spare.popLast() ?? Block(count: blockFloats)) }
    }

    /// Counts `rows` positions as stored.
    func advance(_ rows: Int) { length += rows }

    /// Start of the keys of (layer, head) from `position` to the end of its block; values follow `valueOffset` later.
    func keys(layer: Int, head: Int, position: Int) -> UnsafeMutablePointer<Float> {
        let block = blocks[position / Self.blockLength - firstBlock].pointer
        return block + (((layer * 2) * heads + head) * Self.blockLength + position % Self.blockLength) * dim
    }

    /// Floats from a key to its value.
    var valueOffset: Int { heads * Self.blockLength * dim }
}
