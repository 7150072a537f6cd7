import CCUDA

/// How long each form of the products of a model's layers takes, for so many rows.
struct ProductTimes {
    /// Numbers of rows for which forms are timed; others take those of the next greater one.
    static let timedRows = [32, 40, 64]

    /// One kind of layer.
    struct Line {
        let name: String
        let inputs, outputs, rows: Int
        /// Microseconds of a launch; forms that the card cannot take are not there.
        var times: [(form: String, microseconds: Double)] = []
        /// What a launch takes.
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
        let chosen =
            device.timedForm(shape) ?? ProductForm.fastest(shape, half: half, isExact: false, on: card)
        var line = Line(
            name: name, inputs: layer.channels, outputs: layer.outputs, rows: rows,
            chosen: chosen.name, bytes: layer.byteCount)
        let forms = ProductForm.all(half: half, isSplit: true, isExact: false)
            .filter { $0.takes(shape) && $0.sharedBytes(shape) <= card.sharedMemory }
        line.times = try times(layers, shape, forms, repetitions: 4)
            .map { ($0.form.name, $0.microseconds) }
        return line
    }

    /// Times the most promising forms of a kind of layer for some numbers of rows, and has the device take the fastest.
    func choose(for layers: [PackedLayer]) throws(CUDAError) {
        guard let layer = layers.first, LaunchGraph.isAvailable(on: device) else { return }
        for rows in Self.timedRows {
            let shape = ProductForm.Shape(
                rows: rows, tiles: layer.tiles, chunks: layer.chunks, splits: layer.splits, isSplit: true)
            guard device.timedForms[shape] == nil else { continue }
            let forms = ProductForm.ranked(shape, half: half, isExact: false, on: .init(device.info)).prefix(5)
            let times = try times(layers, shape, Array(forms), repetitions: 3)
            device.timedForms[shape] = times.min { $0.microseconds < $1.microseconds }?.form
        }
    }

    /// Microseconds of a launch of each form.
    private func times(
        _ layers: [PackedLayer], _ shape: ProductForm.Shape, _ forms: [ProductForm], repetitions: Int
    ) throws(CUDAError) -> [(form: ProductForm, microseconds: Double)] {
        let layer = layers[0], rows = shape.rows
        var result: [(form: ProductForm, microseconds: Double)] = []
        let input = try DeviceBuffer(device, bytes: HalfRows.bytes(rows: rows, ld: layer.channels), "products")
        let output = try DeviceBuffer(device, bytes: rows * layer.outputs * 4, "products")
        let halves = HalfRows(split: input.address, rows: rows, ld: layer.channels, half: half)
        let launches = max(16, layers.count)
        for form in forms {
            func issue(_ count: Int) throws(CUDAError) {
                for index in 0..<count {
                    try device.run(
                        layers[index % layers.count], half: half, halves, rows: rows, form: form,
                        Epilogue(raw: output.address, rawStride: layer.outputs))
                }
            }
            try issue(1)
            let graph = try LaunchGraph(device) { () throws(CUDAError) in try issue(launches) }
            let times = try device.time(repetitions: repetitions) { () throws(CUDAError) in try graph.launch() }
            try device.wait()
            result.append((form, 1e3 * (times.min() ?? 0) / Double(launches)))
        }
        return result
    }
}

extension CUDADevice {
    /// What was fastest for a product of many bfloat16 rows, if that was timed.
    func timedForm(_ shape: ProductForm.Shape) -> ProductForm? {
        // Few rows go through the persistent kernels.
        guard shape.rows > 16, let rows = ProductTimes.timedRows.first(where: { $0 >= shape.rows }) else { return nil }
        var nearest = shape
        nearest.rows = rows
        return timedForms[nearest]
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

    /// Has products of many rows take the forms that are fastest on this card. All forms have the same bits.
    func chooseForms() throws(CUDAError) {
        let times = ProductTimes(device)
        do throws(CUDAError) {
            for kind in kindsOfLayers { try times.choose(for: kind.layers) }
        } catch {
            // Estimates do.
            if error.isSticky { throw error }
        }
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
