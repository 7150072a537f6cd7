import CCUDA

/// A kernel for linear layers and convolutions. All of them give the same sums to the bit; which one is fastest depends on
/// rows, outputs and the card.
struct ProductForm: Hashable {
    private enum Kind: Hashable {
        /// `linear.cu`: a warp takes so many groups of rows and tiles, and copies so many chunks ahead.
        case single(groups: Int, tiles: Int, stages: Int)
        /// `tiles.cu`: operands in shared memory, by WM · WN warps for each of so many runs, each with so many tiles.
        case shared(warpRows: Int, warpColumns: Int, tiles: Int, runs: Int)
        /// `tiles.cu`: 96 outputs and rows of so many warps, with so many chunks of a tap a stage.
        case band(warpRows: Int, depth: Int)
        /// `rows.cu`: the same for split bfloat16 rows, with so many chunks a stage and stages.
        case rows(warpRows: Int, warpColumns: Int, tiles: Int, runs: Int, depth: Int, stages: Int)
    }

    /// End of the kernel's name.
    let name: String
    private let kind: Kind

    /// What a product is of.
    struct Shape: Hashable {
        var rows: Int
        let tiles, chunks, splits: Int
        /// Of a convolution.
        var taps = 1
        /// Activations of two halves each.
        let isSplit: Bool
        /// Rows of one product.
        var groupRows: Int { isSplit ? 8 : 16 }
        /// Chunks of one run.
        var run: Int { ceiling(chunks, splits) }
    }

    private static let narrow = ProductForm(name: "narrow", kind: .single(groups: 1, tiles: 1, stages: 4))
    private static let narrow2 = ProductForm(name: "narrow2", kind: .single(groups: 1, tiles: 2, stages: 3))
    private static let narrow4 = ProductForm(name: "narrow4", kind: .single(groups: 1, tiles: 4, stages: 2))
    private static let wide = ProductForm(name: "wide", kind: .single(groups: 4, tiles: 2, stages: 2))
    private static let wide4 = ProductForm(name: "wide4", kind: .single(groups: 4, tiles: 4, stages: 2))
    private static let rows128 = ProductForm(
        name: "rows128", kind: .shared(warpRows: 4, warpColumns: 4, tiles: 3, runs: 1))
    private static let rows64 = ProductForm(
        name: "rows64", kind: .shared(warpRows: 2, warpColumns: 2, tiles: 4, runs: 4))
    private static let split64 = ProductForm(
        name: "rows64", kind: .shared(warpRows: 4, warpColumns: 1, tiles: 4, runs: 4))
    private static let band160 = ProductForm(name: "band160", kind: .band(warpRows: 5, depth: 3))
    private static let rows = [
        ProductForm(
            name: "rows64x96", kind: .rows(warpRows: 4, warpColumns: 4, tiles: 3, runs: 1, depth: 4, stages: 3)),
        ProductForm(
            name: "rows64x48", kind: .rows(warpRows: 4, warpColumns: 2, tiles: 3, runs: 2, depth: 2, stages: 4)),
        ProductForm(
            name: "rows64x32", kind: .rows(warpRows: 4, warpColumns: 1, tiles: 4, runs: 4, depth: 2, stages: 2)),
        ProductForm(
            name: "rows32x64", kind: .rows(warpRows: 2, warpColumns: 2, tiles: 4, runs: 4, depth: 2, stages: 2)),
        ProductForm(
            name: "rows32x32", kind: .rows(warpRows: 2, warpColumns: 1, tiles: 4, runs: 8, depth: 1, stages: 3)),
        ProductForm(
            name: "rows16x32", kind: .rows(warpRows: 1, warpColumns: 1, tiles: 4, runs: 16, depth: 1, stages: 3)),
    ]

    /// Forms that exist.
    /// - Parameters:
    ///   - half: MK_BF16 or MK_F16.
    ///   - isExact: whether the weights have a lower part.
    static func all(half: Int, isSplit: Bool, isExact: Bool) -> [ProductForm] {
        switch (half == Int(MK_BF16), isSplit, isExact) {
        case (_, _, true): [narrow, wide]
        case (true, _, false): [narrow, wide, wide4] + rows
        case (false, true, false): [narrow, narrow4, wide, split64]
        case (false, false, false): [narrow, narrow2, narrow4, wide, rows128, rows64, band160]
        }
    }

    /// What an estimate looks at of a card.
    struct Card {
        let multiprocessors: Int
        /// Bytes that a block can have.
        let sharedMemory: Int
    }

    /// The form that takes the least time by estimate.
    static func fastest(_ shape: Shape, half: Int, isExact: Bool, on card: Card) -> ProductForm {
        ranked(shape, half: half, isExact: isExact, on: card).first ?? narrow
    }

    /// Forms that a card can take, those with the least time by estimate first.
    static func ranked(_ shape: Shape, half: Int, isExact: Bool, on card: Card) -> [ProductForm] {
        all(half: half, isSplit: shape.isSplit, isExact: isExact)
            .filter { $0.takes(shape) && $0.sharedBytes(shape) <= card.sharedMemory }
            .map { (form: $0, cycles: $0.cycles(shape, isPacked: half == Int(MK_BF16), on: card)) }
            .sorted { $0.cycles < $1.cycles }
            .map(\.form)
    }

    private static let bandTiles = 12

    /// Whether each group of warps has its runs, or each stage its chunks.
    func takes(_ shape: Shape) -> Bool {
        switch kind {
        case .single: true
        case .shared(_, _, _, let runs), .rows(_, _, _, let runs, _, _): shape.splits % runs == 0
        case .band(_, let depth): shape.tiles % Self.bandTiles == 0 && shape.chunks / shape.taps % depth == 0
        }
    }

    /// Rows and tiles of a block.
    private func block(_ shape: Shape) -> (rows: Int, tiles: Int) {
        switch kind {
        case .single(let groups, let tiles, _):
            (Int(MK_WARPS) / shape.splits * groups * shape.groupRows, tiles)
        case .shared(let warpRows, let warpColumns, let tiles, _),
            .rows(let warpRows, let warpColumns, let tiles, _, _, _):
            (2 * warpRows * shape.groupRows, warpColumns * tiles)
        case .band(let warpRows, _): (warpRows * 32, Self.bandTiles)
        }
    }

    /// The launch's grid.
    func grid(_ shape: Shape, on card: Card) -> (Int, Int) {
        let parts = parts(shape)
        // These take one part after the other.
        switch kind {
        case .shared, .band: return (min(parts.0 * parts.1, max(1, card.multiprocessors)), 1)
        case .single, .rows: return parts
        }
    }

    /// Blocks of rows and of tiles.
    private func parts(_ shape: Shape) -> (Int, Int) {
        let block = block(shape)
        return (ceiling(shape.rows, block.rows), ceiling(shape.tiles, block.tiles))
    }

    /// Bytes of shared memory of a block, as the kernels say.
    func sharedBytes(_ shape: Shape) -> Int {
        // The layer's terms of the epilogue.
        let terms = block(shape).tiles * Int(MK_TILE) * 16
        // Sums of squares of rows behind an RMSNorm, which linear layers may be.
        let squares = shape.splits == Int(MK_WARPS) ? block(shape).rows * (Int(MK_WARPS) + 1) * 4 : 0
        switch kind {
        case .single(let groups, let tiles, let stages):
            return Int(MK_WARPS) * stages * (groups * 1024 + tiles * 512) + terms + squares
        case .shared(let warpRows, let warpColumns, let tiles, let runs):
            let stage = runs * (2 * warpRows * 64 + warpColumns * tiles * 32) * 16
            let block = block(shape)
            let sums = block.rows * (block.tiles + 1) * Int(MK_TILE) * 4
            let residual = block.rows * block.tiles * Int(MK_TILE) * 4
            return Int(MK_TILE_STAGES) * stage + runs * sums + residual + terms
        case .rows(let warpRows, let warpColumns, let tiles, let runs, let depth, let stages):
            let stage = runs * depth * (2 * warpRows * 64 + warpColumns * tiles * 32) * 16
            let block = block(shape)
            let sums = runs * block.rows * (block.tiles + 1) * Int(MK_TILE) * 4
            return (runs == 1 || runs == Int(MK_WARPS) ? max(stages * stage, sums) : stages * stage + sums) + squares
        case .band(let warpRows, let depth):
            let rows = warpRows * 32
            return 3 * depth * (rows * 4 + Self.bandTiles * 32) * 16 + 2 * rows * 8
        }
    }

    /// An estimate of the launch's time in clock cycles, made for an H100: what a block waits for and reads, times the blocks
    /// that a multiprocessor takes one after the other.
    /// - Parameter isPacked: whether rows lie as products take them, so that copies are spans of memory.
    func cycles(_ shape: Shape, isPacked: Bool, on card: Card) -> Double {
        let parts = parts(shape), block = block(shape)
        let waves = Double(ceiling(parts.0 * parts.1, max(1, card.multiprocessors)))
        // Launch, first addresses, sums added up, epilogue.
        let ends = 3500.0
        switch kind {
        case .single(let groups, let tiles, let stages):
            // Loads wait for memory, and each warp reads its rows and weights itself.
            let sets = min(Int(MK_WARPS) / shape.splits, ceiling(shape.rows, groups * shape.groupRows))
            let bytes = sets * shape.splits * shape.run * (groups * 1024 + tiles * 512)
            if isPacked {
                // As measured; with the sums of 32 rows by 32 outputs a warp is slower than its copies.
                let factor = groups * tiles > 8 ? 1.45 : 1
                return waves * factor * (2500 + 600 * Double(ceiling(shape.run, stages)) + Double(bytes) / 70)
            }
            // Pairs of outputs that a thread finishes, one after the other.
            let pairs = ceiling(sets * groups * tiles * (shape.isSplit ? 32 : 64), Int(MK_THREADS))
            return waves
                * (ends + 900 * Double(ceiling(shape.run, stages)) + Double(bytes) / 48 + 2500 * Double(pairs - 1))
        case .shared(_, _, let tiles, let runs):
            // Warps read shared memory at 128 bytes a cycle, blocks the L2 cache at 32 and, for rows read before, L1 at 64.
            let steps = ceiling(ceiling(shape.chunks, shape.run), runs) * shape.run
            let reads = Double(Int(MK_WARPS) * (2048 + tiles * 512)) / 128
            let live = min(shape.rows, block.rows)
            let fills = Double(runs) * (Double(live * (shape.isSplit ? 128 : 64)) / 64 + Double(block.tiles * 512) / 32)
            // A part's first chunks come during the epilogue of the one before.
            let epilogue = 0.3 * Double(block.rows * block.tiles * Int(MK_TILE))
            // Measured: three times as long.
            return ends + 1500 + waves * (Double(steps) * 3.1 * (max(reads, fills) + 80) + epilogue)
        case .rows(let warpRows, _, let tiles, let runs, let depth, _):
            // Chunks of a warp one after the other: at best a product in two cycles; what a block copies from the L2 cache.
            let chunks = runs == 1 ? shape.chunks : ceiling(shape.chunks, runs * shape.run) * shape.run
            let live = min(shape.rows, block.rows)
            let groups = min(2 * warpRows, ceiling(live, 8))
            let products = Double(Int(MK_WARPS) / warpRows * ceiling(groups, 2) * tiles * 4) * 2
            let copies = Double(runs * (groups * 1024 + block.tiles * 512)) / (runs == 1 ? 20 : runs == 2 ? 26 : 34)
            let barriers = 120 / Double(depth) + (runs == 1 ? 0 : 400 / Double(shape.run))
            return waves * (ends + 1500 + Double(chunks) * (max(products, copies) + barriers))
        case .band(let warpRows, _):
            // Measured with 160 rows: 1360 cycles a chunk, where reads of shared memory are 480.
            return ends + waves * (Double(shape.chunks) * 8.5 * Double(warpRows * 32) + 15000)
        }
    }
}
