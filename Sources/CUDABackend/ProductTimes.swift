import CCUDA

/// How long each form of the products of a model's layers takes, for so many rows.
struct ProductTimes {
    /// One kind of layer.
    struct Line {
        let name: String
        let inputs, outputs, rows: Int
        /// Microseconds of a launch; forms that the card cannot take are not there.
        var times: [(form: String, microseconds: Double)] = []
        /// What ``ProductForm`` chooses.
        let chosen: String
        /// Bytes of weights.
        let bytes: Int
    }

    private let device: CUDADevice
    private let half = Int(MK_BF16)

    init(_ device: CUDADevice) { self.device = device }

    /// Times a kind of layer, issued as one graph.
    /// - Parameter layers: of the same shape, so that their weights do not stay in the cache from one to the next.
    func measure(_ name: String, _ layers: [PackedLayer], rows: Int) throws(CUDAError) -> Line? {
        guard let layer = layers.first, LaunchGraph.isAvailable(on: device) else { return nil }
        let shape = ProductForm.Shape(
            rows: rows, tiles: layer.tiles, chunks: layer.chunks, splits: layer.splits, isSplit: true)
        let card = ProductForm.Card(device.info)
        var line = Line(
            name: name, inputs: layer.channels, outputs: layer.outputs, rows: rows,
            chosen: ProductForm.fastest(shape, half: half, isExact: false, on: card).name, bytes: layer.byteCount)
        let input = try DeviceBuffer(device, bytes: HalfRows.bytes(rows: rows, ld: layer.channels), "products")
        let output = try DeviceBuffer(device, bytes: rows * layer.outputs * 4, "products")
        let halves = HalfRows(split: input.address, rows: rows, ld: layer.channels, half: half)
        let launches = max(16, layers.count)
        for form in ProductForm.all(half: half, isSplit: true, isExact: false)
        where form.takes(shape) && form.sharedBytes(shape) <= card.sharedMemory {
            func issue(_ count: Int) throws(CUDAError) {
                for index in 0..<count {
                    try device.run(
                        layers[index % layers.count], half: half, halves, rows: rows, form: form,
                        Epilogue(raw: output.address, rawStride: layer.outputs))
                }
            }
            try issue(1)
            let graph = try LaunchGraph(device) { () throws(CUDAError) in try issue(launches) }
            let times = try device.time(repetitions: 4) { () throws(CUDAError) in try graph.launch() }
            try device.wait()
            line.times.append((form.name, 1e3 * (times.min() ?? 0) / Double(launches)))
        }
        return line
    }
}

extension ProductTimes.Line: CustomStringConvertible {
    /// One line; the chosen form is marked.
    var description: String {
        let forms = times.map { entry in
            let mark = entry.form == chosen ? "*" : ""
            return "\(mark)\(entry.form) \((entry.microseconds * 10).rounded() / 10)\(mark)"
        }
        return "\(rows) rows, \(name), \(inputs) to \(outputs), us: \(forms.joined(separator: ", "))"
    }
}

extension ProductForm.Card {
    init(_ info: CUDADeviceInfo) {
        self.init(multiprocessors: info.multiprocessors, sharedMemory: info.sharedMemory)
    }
}

extension CUDAStages {
    /// Each kind of layer of talker and code predictor, layers of equal shape together.
    private var kindsOfLayers: [(name: String, layers: [PackedLayer])] {
        var kinds: [(name: String, layers: [PackedLayer])] = []
        for (name, stack) in [("talker", talker), ("predictor", predictor)] {
            kinds.append(("\(name) queries, keys, values", stack.layers.map(\.qkv)))
            kinds.append(("\(name) output", stack.layers.map(\.output)))
            kinds.append(("\(name) gate, up", stack.layers.map(\.gateUp)))
            kinds.append(("\(name) down", stack.layers.map(\.down)))
        }
        return kinds
    }

    /// Times every form of every kind of layer of talker and code predictor.
    /// - Returns: one line of text for each number of rows and kind.
    func productTimes(rows: [Int]) throws(CUDAError) -> [String] {
        let times = ProductTimes(device)
        var lines: [String] = []
        for count in rows {
            for kind in kindsOfLayers {
                if let line = try times.measure(kind.name, kind.layers, rows: count) { lines.append("\(line)") }
            }
        }
        return lines
    }
}
