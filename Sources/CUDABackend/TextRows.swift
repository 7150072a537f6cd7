import CCUDA
import Qwen3TTS
import Tensors

/// Projected rows of text ids on the device: embedding, then two layers (specification, section 2.3). Rows are kept, so
/// that those that come again cost nothing.
final class TextRows {
    private let device: CUDADevice
    private let table: DeviceBuffer
    private let tableLD: Int
    private let count: Int
    private let expand, contract: PackedLayer
    private let rows: DeviceBuffer
    private let ld: Int
    private var known: [Int32: Int] = [:]
    private let pinned: [Int32]
    private var work = DeviceScratch()

    /// Rows kept; no prompt piece has more.
    static let capacity = 8192

    /// Start of the rows [capacity, padded talker width].
    var address: UInt64 { rows.address }

    init(_ loader: WeightLoader, configuration c: TalkerConfiguration, pinned: [Int32]) throws {
        device = loader.device
        self.pinned = pinned
        count = c.textVocabularySize
        table = try loader.table(
            ["talker.model.text_embedding.weight"], count: c.textVocabularySize, width: c.textHidden)
        tableLD = padded(c.textHidden)
        let p = "talker.text_projection.linear_fc"
        expand = try loader.linear(
            [(p + "1.weight", c.textHidden)], inputs: c.textHidden,
            bias: try loader.values(p + "1.bias", [c.textHidden]))
        contract = try loader.linear(
            [(p + "2.weight", c.shape.hidden)], inputs: c.textHidden,
            bias: try loader.values(p + "2.bias", [c.shape.hidden]))
        ld = padded(c.shape.hidden)
        rows = try DeviceBuffer(device, bytes: Self.capacity * ld * 4, "text rows")
        _ = try indices(of: pinned)
    }

    /// Row numbers of ids, projected if need be.
    func indices(of ids: [Int32]) throws(CUDAError) -> [Int] {
        if let known = lookUp(ids) { return known }
        var missing = Set(ids).filter { known[$0] == nil }
        if known.count + missing.count > Self.capacity {
            known.removeAll()
            missing = Set(ids).union(pinned)
        }
        guard missing.count <= Self.capacity else {
            throw .unsupportedModel("more than \(Self.capacity) different text tokens in one prompt")
        }
        for id in missing where id < 0 || Int(id) >= count {
            throw .unsupportedModel("the text id \(id), outside the vocabulary of \(count)")
        }
        let order = missing.sorted()
        for start in stride(from: 0, to: order.count, by: 256) {
            let part = Array(order[start..<min(start + 256, order.count)])
            try project(part, first: known.count)
            for id in part { known[id] = known.count }
        }
        return lookUp(ids) ?? []
    }

    private func lookUp(_ ids: [Int32]) -> [Int]? {
        var found: [Int] = []
        for id in ids {
            guard let row = known[id] else { return nil }
            found.append(row)
        }
        return found
    }

    private func project(_ ids: [Int32], first: Int) throws(CUDAError) {
        let bytes = HalfRows.bytes(rows: ids.count, ld: tableLD)
        var layout = Layout(try work.reserve(device, 2 * (bytes + 256) + ids.count * 4 + 256))
        let list = try layout.put(device, ids)
        func splitRows() -> HalfRows {
            HalfRows(split: layout.take(bytes), rows: ids.count, ld: tableLD, half: Int(MK_BF16))
        }
        let (embedded, inner) = (splitRows(), splitRows())
        let a = mk_gather_arguments(
            table: table.address, ids: list, ld_table: Int32(tableLD), rows: Int32(ids.count), output: embedded.high,
            output_low: embedded.low, ld_output: Int32(tableLD), unused: 0)
        try device.launch("gather_halves", grid: (ids.count, 1), a)
        try device.run(
            expand, half: Int(MK_BF16), embedded, rows: ids.count, Epilogue(activation: Int(MK_SILU), output: inner))
        try device.run(
            contract, half: Int(MK_BF16), inner, rows: ids.count,
            Epilogue(raw: rows.address + UInt64(first * ld * 4), rawStride: ld))
    }
}
