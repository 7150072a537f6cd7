import CCUDA
import Qwen3TTS
import Tensors

/// A loaded model on one NVIDIA GPU: talker prefill and step and code predictor frame, over any mix of sessions, and its
/// decoder.
///
/// A session owns a slot: KV cache, last codes, constraints on code 0. What a call gives for a session depends on that
/// session alone. Calls are synchronous where they return values of the device.
///
/// `@unchecked Sendable`: belongs to the one thread that drives it; call `use()` there first.
public final class CUDAStages: @unchecked Sendable {
    /// One row of a prompt: the sum of a text row and embeddings.
    public struct PromptRow: Sendable {
        /// Id of the text vocabulary, projected.
        public var text: Int32?
        /// Code 0 or control id, then codes of the other groups; fewer than all are allowed.
        public var codes: [Int32]
        /// Talker-wide values that are added as they are: the speaker encoder's vector.
        public var vector: [Float]?

        /// A row.
        public init(text: Int32? = nil, codes: [Int32] = [], vector: [Float]? = nil) {
            self.text = text
            self.codes = codes
            self.vector = vector
        }
    }

    /// One session of a batch.
    public struct Entry: Sendable {
        /// From `openSlot`.
        public var slot: Int
        /// Frames that the session has.
        public var frame: Int
        /// Tokens of code 0 that were sampled; equal to `frame` but where the end was refused.
        public var sampled: Int
        /// Text id whose row is added to the talker's next input.
        public var text: Int32?
        /// Seed of its random numbers.
        public var seed: UInt64
        /// Rules of both samplers.
        public var rules: GenerationConfiguration
        /// The positions of its text that the talker will have after the step, for the model's alignment head; none if it
        /// is not to be asked.
        public var textPositions: Range<Int>

        /// An entry.
        public init(
            slot: Int, frame: Int, sampled: Int, text: Int32?, seed: UInt64, rules: GenerationConfiguration,
            textPositions: Range<Int> = 0..<0
        ) {
            self.slot = slot
            self.frame = frame
            self.sampled = sampled
            self.text = text
            self.seed = seed
            self.rules = rules
            self.textPositions = textPositions
        }
    }

    /// What the configuration files say.
    public let configuration: Configuration
    /// The GPU.
    public let info: CUDADeviceInfo
    /// Sessions at a time.
    public let slots: Int
    let device: CUDADevice
    let talker: DeviceStack
    let predictor: DeviceStack
    /// Codes to samples, beside everything else; nil if it runs elsewhere.
    public let decoder: CUDADecoder?
    private let head: PackedLayer
    private let projection: PackedLayer?
    private let heads: [PackedLayer]
    private let codecTable, groupTables: DeviceBuffer
    private let text: TextRows?
    private let hidden, logits, codes, seen: DeviceBuffer
    private let pageTable: DeviceBuffer
    private let pageStride: Int
    private var pages: [[DeviceBuffer]]
    private var sparePages: [DeviceBuffer] = []
    private let predictorPages: DeviceBuffer
    private let predictorTable: DeviceBuffer
    private let predictorSlots: Int
    /// Talker positions of each slot.
    public private(set) var lengths: [Int]
    private var isOpen: [Bool]
    let talkerPlan, predictorPlan: StepPlan?
    private var rowWork = DeviceScratch()
    private var inputWork = DeviceScratch()
    private var stepWork = DeviceScratch()
    private var focusWork = DeviceScratch()
    private var questionWork = DeviceScratch()
    /// Of a model with an alignment head: where it looked last, int [slots + 1].
    private let looks: DeviceBuffer?
    /// Slots and positions of a step, int [2][slots].
    private let stepLists: DeviceBuffer
    /// Places and positions of the code predictor's rows, int: each place twice [2 · slots], once [slots]; rows that are the
    /// second of two [slots]; positions 0 and 1 in turn [2 · slots], and of each later pass [groups][slots].
    private let predictorLists: DeviceBuffer
    /// Whether steps and frames go through the persistent kernels; nil: as the number of sessions wants it.
    var usesPersistentKernels: Bool?
    private var recorded: [Launches: Recorded?] = [:]
    private lazy var usesGraphs = LaunchGraph.isAvailable(on: device)

    /// Sessions from which on one kernel an operation is faster.
    private static let manySessions = 17

    /// What launches of one kernel an operation depend on, apart from what is copied in before them.
    private enum Launches: Hashable {
        case step(sessions: Int, pages: Int)
        case frame(sessions: Int)
    }

    /// Launches as a graph, and the memory that they work in.
    private struct Recorded {
        let graph: LaunchGraph
        let memory: [UInt64]
    }

    private var width: Int { configuration.talker.shape.hidden }
    private var ld: Int { talker.ld }
    private var groups: Int { configuration.talker.codeGroups }
    private var vocabulary: Int { configuration.talker.vocabularySize }

    /// Loads a model folder in the released layout.
    /// - Parameters:
    ///   - device: position in the driver's list, as in `cuda:0`.
    ///   - slots: sessions at a time.
    ///   - precision: of the codec decoder. Talker and predictor take bfloat16 weights as they are and activations of
    ///     16 significant bits.
    ///   - decodes: whether it has a decoder.
    ///   - driver: nil for the machine's.
    public convenience init(
        directory: String, device index: Int = 0, slots: Int = 64, precision: CodecPrecision = .half,
        decodes: Bool = true, driver: CUDADriver? = nil
    ) throws {
        let device = try CUDADevice(index: index, driver: driver)
        let configuration = try Configuration.load(directory: directory)
        let file = try SafetensorsFile(path: directory + "/model.safetensors")
        // What is kept beside weights, besides room to work.
        let needed = file.byteCount + 1 << 30
        guard device.freeMemory >= needed else {
            throw CUDAError.outOfMemory(needed: needed, free: device.freeMemory, what: "the model")
        }
        try self.init(
            device: device, configuration: configuration, slots: slots, file: file,
            decoder: decodes
                ? CUDADecoder(
                    device, configuration: configuration, slots: slots, precision: precision,
                    file: SafetensorsFile(path: directory + CUDADecoder.fileName)) : nil)
    }

    /// - Parameters:
    ///   - file: the checkpoint, or nil for made-up weights.
    ///   - decoder: nil if samples are made elsewhere.
    convenience init(
        device: CUDADevice, configuration: Configuration, slots: Int, file: SafetensorsFile?, decoder: CUDADecoder?
    ) throws {
        let loader = WeightLoader(device: device, file: file, half: Int(MK_BF16), keepsLow: false)
        let c = configuration.talker
        let p = "talker.code_predictor."
        let predictorShape = configuration.codePredictor.shape
        var projection: PackedLayer?
        if loader.has(p + "small_to_mtp_projection.weight") || predictorShape.hidden != c.shape.hidden {
            projection = try loader.linear(
                [(p + "small_to_mtp_projection.weight", predictorShape.hidden)], inputs: c.shape.hidden,
                bias: try loader.values(p + "small_to_mtp_projection.bias", [predictorShape.hidden]))
        }
        let groupCount = c.codeGroups - 1
        try self.init(
            device: device, configuration: configuration, slots: slots,
            talker: try DeviceStack(loader, prefix: "talker.model.", shape: c.shape),
            predictor: try DeviceStack(loader, prefix: p + "model.", shape: predictorShape),
            decoder: decoder,
            head: try loader.linear([("talker.codec_head.weight", c.vocabularySize)], inputs: c.shape.hidden),
            projection: projection,
            heads: try (0..<groupCount).map {
                try loader.linear(
                    [(p + "lm_head.\($0).weight", configuration.codePredictor.vocabularySize)],
                    inputs: predictorShape.hidden)
            },
            codecTable: try loader.table(
                ["talker.model.codec_embedding.weight"], count: c.vocabularySize, width: c.shape.hidden),
            groupTables: try loader.table(
                (0..<groupCount).map { p + "model.codec_embedding.\($0).weight" },
                count: configuration.codePredictor.vocabularySize, width: c.shape.hidden),
            text: try TextRows(
                loader, configuration: c,
                pinned: [configuration.textPad, configuration.textBOS, configuration.textEOS]))
        // An emulated card has no times.
        if !device.driver.bringsKernels { try chooseForms() }
    }

    init(
        device: CUDADevice, configuration: Configuration, slots: Int, talker: DeviceStack, predictor: DeviceStack,
        decoder: CUDADecoder?, head: PackedLayer, projection: PackedLayer?, heads: [PackedLayer],
        codecTable: DeviceBuffer, groupTables: DeviceBuffer, text: TextRows?
    ) throws {
        self.device = device
        self.configuration = configuration
        self.slots = slots
        self.talker = talker
        self.predictor = predictor
        self.decoder = decoder
        self.head = head
        self.projection = projection
        self.heads = heads
        self.codecTable = codecTable
        self.groupTables = groupTables
        self.text = text
        info = device.info
        timer = try StreamTimer(device, marks: 3)
        let c = configuration.talker
        guard c.vocabularySize <= Int(MK_MAX_VOCABULARY) else {
            throw CUDAError.unsupportedModel("\(c.vocabularySize) codes; it takes \(MK_MAX_VOCABULARY)")
        }
        // One more than sessions: the slot of those that only fill a batch.
        let places = slots + 1
        hidden = try DeviceBuffer(device, bytes: places * talker.ld * 4, "hidden states")
        logits = try DeviceBuffer(device, bytes: places * padded(c.vocabularySize) * 4, "logits")
        codes = try DeviceBuffer(device, bytes: places * c.codeGroups * 4, "codes")
        seen = try DeviceBuffer(device, bytes: places * c.vocabularySize, "constraints")
        looks =
            configuration.alignmentHead == nil ? nil : try DeviceBuffer(device, bytes: places * 4, "alignment")
        pageStride = Self.pages(positions: c.maxPositions)
        pageTable = try DeviceBuffer(device, bytes: places * pageStride * 8, "page table")
        pages = Array(repeating: [], count: places)
        stepLists = try DeviceBuffer(device, bytes: 2 * slots * 4, "rows of a step")
        let numbers = (0..<Int32(slots))
        predictorLists = try DeviceBuffer(
            device,
            numbers.flatMap { [$0, $0] } + numbers + numbers.map { 2 * $0 + 1 } + numbers.flatMap { _ in [0, 1] }
                + (0..<Int32(c.codeGroups)).flatMap { Array(repeating: $0, count: slots) }, "rows of a frame")
        lengths = Array(repeating: 0, count: slots)
        isOpen = Array(repeating: false, count: slots)
        guard c.codeGroups <= Int(MK_PAGE) else {
            throw CUDAError.unsupportedModel("\(c.codeGroups) codes a frame; it takes \(MK_PAGE)")
        }
        // A frame's predictor positions fit one page; each place in a batch has its own.
        predictorSlots = slots
        let predictorMemory = try DeviceBuffer(device, bytes: slots * predictor.pageBytes, "predictor cache")
        predictorPages = predictorMemory
        predictorTable = try DeviceBuffer(
            device, (0..<slots).map { predictorMemory.address + UInt64($0 * predictor.pageBytes) }, "page table")
        talkerPlan = try StepPlan(
            device, stack: talker, heads: [head], projection: nil, positions: nil, inputWidth: talker.ld)
        predictorPlan = try StepPlan(
            device, stack: predictor, heads: heads, projection: projection, positions: c.codeGroups,
            inputWidth: talker.ld)
        try device.wait()
    }

    /// Makes the GPU's context current on the calling thread.
    public func use() throws(CUDAError) { try device.use() }

    private let timer: StreamTimer

    /// From here on the device's time counts for the talker, until the next frame begins.
    public func startTimer() throws(CUDAError) { try timer.mark(0) }

    /// Seconds of device time since `startTimer()` for the talker, and for the last frame.
    public func times() throws(CUDAError) -> (talker: Double, codePredictor: Double) {
        (try timer.seconds(0, 1), try timer.seconds(1, 2))
    }

    /// Bytes of device memory that this back end holds.
    public var memoryBytes: Int { device.allocated }

    /// What is launched for a step and a frame of generation, in words.
    public var launches: String {
        let many = usesGraphs ? "as a CUDA graph" : "kernel by kernel"
        let words = { (plan: StepPlan?, what: String) in
            plan == nil || self.usesPersistentKernels == false
                ? "\(what) \(many)" : "\(what) in one kernel, from \(Self.manySessions) sessions on \(many)"
        }
        return words(talkerPlan, "a talker's step") + ", " + words(predictorPlan, "a frame's other codes")
    }

    // MARK: Slots

    /// A slot with the zero state, or nil if all are taken.
    public func openSlot() throws(CUDAError) -> Int? {
        guard let slot = isOpen.firstIndex(of: false) else { return nil }
        isOpen[slot] = true
        lengths[slot] = 0
        try device.fill(seen.address + UInt64(slot * vocabulary), vocabulary)
        return slot
    }

    /// Gives a slot back.
    public func closeSlot(_ slot: Int) {
        isOpen[slot] = false
        sparePages += pages[slot]
        pages[slot] = []
    }

    /// Pages of KV cache that so many positions of a session take.
    public static func pages(positions: Int) -> Int { ceiling(positions, Int(MK_PAGE)) }

    /// Pages that can still be had, with room left to work in.
    public var pagesLeft: Int {
        sparePages.count + max(0, device.freeMemory - Self.workingRoom) / talker.pageBytes
    }

    private static let workingRoom = 256 << 20

    /// Pages that a slot has.
    public func pageCount(_ slot: Int) -> Int { pages[slot].count }

    /// Sees to it that a slot's next rows find room in its KV cache.
    /// - Throws: `outOfMemory` if the card has none left; nothing is lost then.
    public func reserve(_ slot: Int, rows: Int) throws(CUDAError) {
        try reservePages(slot, positions: lengths[slot] + rows)
    }

    private func reservePages(_ slot: Int, positions: Int) throws(CUDAError) {
        while pages[slot].count * Int(MK_PAGE) < positions {
            let page: DeviceBuffer
            if let spare = sparePages.popLast() {
                page = spare
            } else {
                page = try DeviceBuffer(device, bytes: talker.pageBytes, "KV cache", zeroed: false)
            }
            try device.copyIn(pageTable.address + UInt64((slot * pageStride + pages[slot].count) * 8), [page.address])
            pages[slot].append(page)
        }
    }

    private var talkerCache: mk_cache { talker.cache(pages: pageTable.address, stride: pageStride, ring: 0) }

    // MARK: Talker

    /// Rows of a session's prompt that follow those that it has read.
    public struct PromptPart: Sendable {
        let slot: Int
        let rows: [PromptRow]
        let isLast: Bool
        let textPositions: Range<Int>

        /// - Parameters:
        ///   - isLast: whether the prompt ends with them.
        ///   - textPositions: as in an ``Entry``, with the last rows.
        public init(slot: Int, rows: [PromptRow], isLast: Bool, textPositions: Range<Int> = 0..<0) {
            self.slot = slot
            self.rows = rows
            self.isLast = isLast
            self.textPositions = textPositions
        }
    }

    /// Reads prompt rows of a session: ``prefill(_:)`` of one part.
    public func prefill(
        _ slot: Int, _ rows: [PromptRow], isLast: Bool, textPositions: Range<Int> = 0..<0
    ) throws(CUDAError) {
        try prefill([PromptPart(slot: slot, rows: rows, isLast: isLast, textPositions: textPositions)])
    }

    /// Reads prompt rows of sessions together, each of another slot. A prompt's last rows leave the hidden state and logits in
    /// the slot.
    public func prefill(_ parts: [PromptPart]) throws(CUDAError) {
        let rows = parts.flatMap(\.rows)
        if rows.isEmpty { return }
        guard let text else { throw .unsupportedModel("this model was made without text") }
        let ids = try text.indices(of: rows.compactMap(\.text))
        var next = 0
        let textIndex = rows.map { row -> Int32 in
            guard row.text != nil else { return -1 }
            defer { next += 1 }
            return Int32(ids[next])
        }
        var vectors: [Float] = []
        let vectorIndex = rows.map { row -> Int32 in
            guard let vector = row.vector else { return -1 }
            vectors += vector + Array(repeating: 0, count: ld - vector.count)
            return Int32(vectors.count / ld - 1)
        }
        let codeRows = rows.flatMap { $0.codes + Array(repeating: -1, count: groups - $0.codes.count) }
        var work = Layout(try rowWork.reserve(device, rows.count * (groups + 2) * 4 + vectors.count * 4 + 1024))
        let codeList = try work.put(device, codeRows)
        let vectorIndices = try work.put(device, vectorIndex)
        let textIndices = try work.put(device, textIndex)
        let vectorList = try work.put(device, vectors)
        let x = try inputWork.reserve(device, rows.count * ld * 4)
        let a = mk_prompt_arguments(
            codec_table: codecTable.address, group_tables: groupTables.address,
            vocabulary: Int32(configuration.codePredictor.vocabularySize), groups: Int32(groups), ld_table: Int32(ld),
            width: Int32(width), codes: codeList, vector_index: vectorIndices, text_index: textIndices,
            vectors: vectorList, texts: text.address, x: x, ld: Int32(ld), rows: Int32(rows.count))
        try device.launch("embed_prompt", grid: (ceiling(width, Int(MK_THREADS)), rows.count), a)
        let segments = parts.map { part in
            Segment(slot: part.slot, rows: part.rows.count, ends: part.isLast, textPositions: part.textPositions)
        }
        try prefill(x, segments)
    }

    /// Reads rows of values [rows, talker width], already summed.
    public func prefill(_ slot: Int, values: [Float], isLast: Bool) throws(CUDAError) {
        let rows = values.count / width
        let x = try inputWork.reserve(device, rows * ld * 4)
        var wide: [Float] = []
        for row in 0..<rows {
            wide += values[(row * width)..<((row + 1) * width)] + Array(repeating: 0, count: ld - width)
        }
        try device.copyIn(x, wide)
        try prefill(x, [Segment(slot: slot, rows: rows, ends: isLast, textPositions: 0..<0)])
    }

    /// Rows of a session in a pass, and whether the last one's hidden state and logits are kept.
    private struct Segment {
        let slot: Int
        var rows: Int
        var ends: Bool
        let textPositions: Range<Int>
    }

    /// Reads the segments' rows `x`, as many at once as go: sums do not depend on it.
    private func prefill(_ x: UInt64, _ segments: [Segment]) throws(CUDAError) {
        var (done, pass, passRows) = (0, [Segment](), 0)
        for segment in segments {
            var left = segment.rows
            while left > 0 {
                var piece = segment
                piece.rows = min(left, Self.prefillRows - passRows)
                piece.ends = segment.ends && piece.rows == left
                left -= piece.rows
                passRows += piece.rows
                pass.append(piece)
                guard passRows == Self.prefillRows else { continue }
                try forward(x + UInt64(done * ld * 4), pass)
                (done, pass, passRows) = (done + passRows, [], 0)
            }
        }
        if !pass.isEmpty { try forward(x + UInt64(done * ld * 4), pass) }
    }

    private static let prefillRows = 256

    /// Runs talker rows `x` of sessions.
    private func forward(_ x: UInt64, _ segments: [Segment]) throws(CUDAError) {
        let rows = segments.reduce(0) { $0 + $1.rows }
        var (slotRows, positions, lastRows, lastSlots): ([Int32], [Int32], [Int32], [Int32]) = ([], [], [], [])
        var textPositions: [Range<Int>] = []
        var pageCount = 1
        for segment in segments {
            let start = lengths[segment.slot]
            let end = start + segment.rows
            guard end <= configuration.talker.maxPositions else {
                throw .unsupportedModel("more than \(configuration.talker.maxPositions) positions in one session")
            }
            try reservePages(segment.slot, positions: end)
            pageCount = max(pageCount, Self.pages(positions: end))
            for position in start..<end {
                slotRows.append(Int32(segment.slot))
                positions.append(Int32(position))
            }
            if segment.ends {
                lastRows.append(Int32(slotRows.count - 1))
                lastSlots.append(Int32(segment.slot))
                textPositions.append(segment.textPositions)
            }
            lengths[segment.slot] = end
        }
        var work = Layout(
            try rowWork.reserve(
                device,
                (2 * rows + 3 * lastRows.count) * 4 + HalfRows.bytes(rows: lastRows.count, ld: ld)
                    + HalfRows.normBytes(rows: lastRows.count, ld: ld) + 4096))
        let places = RowPlaces(
            slots: try work.put(device, slotRows), positions: try work.put(device, positions), rows: rows,
            pages: pageCount, areAlone: segments.allSatisfy { $0.rows == 1 })
        let lastRowList = try work.put(device, lastRows)
        let lastSlotList = try work.put(device, lastSlots)
        let questions = lastRows.indices.map { (lastRows[$0], lastSlots[$0], textPositions[$0]) }
        try talker.forward(x, places, cache: talkerCache, focus: try alignment(questions))
        if lastRows.isEmpty { return }
        try keepEnds(of: x, rows: lastRowList, slots: lastSlotList, count: lastRows.count, work)
    }

    /// Hidden states and logits of some rows.
    private func keepEnds(
        of x: UInt64, rows lastRows: UInt64, slots lastSlots: UInt64, count: Int, _ work: Layout
    ) throws(CUDAError) {
        var work = work
        let prepared = PreparedRows(
            rows: HalfRows(
                split: work.take(HalfRows.bytes(rows: count, ld: ld)), rows: count, ld: ld, half: talker.half),
            norms: work.take(HalfRows.normBytes(rows: count, ld: ld)))
        try talker.prepare(
            x, rows: count, gain: talker.norm, into: prepared, index: lastRows, normed: (hidden.address, ld, lastSlots))
        try talker.runPrepared(
            head, prepared, rows: count,
            Epilogue(raw: logits.address, rawRows: lastSlots, rawStride: padded(vocabulary)))
    }

    private func isPersistent(_ sessions: Int) -> Bool { usesPersistentKernels ?? (sessions < Self.manySessions) }

    /// Sessions of a batch whose launches are the same as this one's: others fill it up, so that few graphs do.
    private func filled(_ sessions: Int) -> Int { min(slots, ceiling(sessions, 8) * 8) }

    /// Issues launches; from the second time on as a graph.
    /// - Parameter memory: addresses that they hold and that may change.
    private func issue(
        _ launches: Launches, memory: [UInt64], _ body: () throws(CUDAError) -> Void
    ) throws(CUDAError) {
        guard usesGraphs, let known = recorded[launches] else {
            recorded[launches] = .some(nil)
            return try body()
        }
        if let known {
            if known.memory == memory { return try known.graph.launch() }
            // It may still be under way.
            try device.wait()
            recorded[launches] = .some(nil)
        }
        do throws(CUDAError) {
            let graph = try LaunchGraph(device, recording: body)
            recorded[launches] = Recorded(graph: graph, memory: memory)
            try graph.launch()
        } catch {
            if error.isSticky { throw error }
            // Kernel by kernel it gives the same.
            usesGraphs = false
            try body()
        }
    }

    /// One talker step: Σ embeddings of each session's last codes + its text row → hidden state and logits.
    public func step(_ batch: [Entry]) throws(CUDAError) {
        if batch.isEmpty { return }
        if isPersistent(batch.count), let plan = talkerPlan {
            return try step(batch, plan, x: 0, sessions: try upload(batch))
        }
        let count = filled(batch.count)
        try reserveStep(batch)
        if count > batch.count { try reservePages(slots, positions: 1) }
        let sessions = try upload(batch, filledTo: count)
        let others = Array(repeating: Int32(slots), count: count - batch.count)
        try device.copyIn(
            stepLists.address,
            batch.map { Int32($0.slot) } + others + batch.map { Int32(lengths[$0.slot] - 1) } + others.map { _ in 0 })
        let longest = batch.reduce(1) { max($0, Self.pages(positions: lengths[$1.slot])) }
        // Blocks of pages that a session lacks do nothing.
        var pages = 1
        while pages < longest { pages *= 2 }
        let places = RowPlaces(
            slots: stepLists.address, positions: stepLists.address + UInt64(count * 4), rows: count, pages: pages,
            areAlone: true)
        let halfBytes = HalfRows.bytes(rows: count, ld: ld)
        var work = Layout(
            try stepWork.reserve(
                device, count * ld * 4 + halfBytes + HalfRows.normBytes(rows: count, ld: ld) + 1024))
        let x = work.take(count * ld * 4)
        let a = mk_embed_arguments(
            codec_table: codecTable.address, group_tables: groupTables.address,
            vocabulary: Int32(configuration.codePredictor.vocabularySize), groups: Int32(groups), ld_table: Int32(ld),
            width: Int32(width), sessions: sessions, codes: codes.address, x: x, ld: Int32(ld), batch: Int32(count))
        let focus = try alignment(
            batch.enumerated().map { (Int32($0), Int32($1.slot), $1.textPositions) }
                + (batch.count..<count).map { (Int32($0), Int32(slots), 0..<0) })
        let memory = [x, sessions, talker.workAddress, questionWork.address]
        try issue(.step(sessions: count, pages: pages), memory: memory) { () throws(CUDAError) in
            try device.launch("embed_frames", grid: (ceiling(width, Int(MK_THREADS)), count), a)
            try talker.forward(x, places, cache: talkerCache, focus: focus)
            // Rows are in order.
            try keepEnds(of: x, rows: 0, slots: places.slots, count: count, work)
        }
    }

    /// One talker step on given input rows [batch, talker width].
    func step(_ batch: [Entry], values: [Float]) throws(CUDAError) {
        let x = try inputWork.reserve(device, batch.count * ld * 4)
        var wide: [Float] = []
        for row in batch.indices {
            wide += values[(row * width)..<((row + 1) * width)] + Array(repeating: 0, count: ld - width)
        }
        try device.copyIn(x, wide)
        if isPersistent(batch.count), let plan = talkerPlan {
            return try step(batch, plan, x: x, sessions: try upload(batch))
        }
        try forward(x, batch.map { Segment(slot: $0.slot, rows: 1, ends: true, textPositions: $0.textPositions) })
    }

    /// One position more for each session.
    private func reserveStep(_ batch: [Entry]) throws(CUDAError) {
        for entry in batch {
            let position = lengths[entry.slot]
            guard position < configuration.talker.maxPositions else {
                throw .unsupportedModel("more than \(configuration.talker.maxPositions) positions in one session")
            }
            try reservePages(entry.slot, positions: position + 1)
        }
        for entry in batch { lengths[entry.slot] += 1 }
    }

    /// - Parameter x: rows to take in place of embeddings, or 0.
    private func step(_ batch: [Entry], _ plan: StepPlan, x: UInt64, sessions: UInt64) throws(CUDAError) {
        try reserveStep(batch)
        for first in stride(from: 0, to: batch.count, by: plan.sessions) {
            let part = batch[first..<min(batch.count, first + plan.sessions)]
            let longest = part.map { lengths[$0.slot] }.max() ?? 1
            let focus = try alignment(part.enumerated().map { (Int32($0), Int32($1.slot), $1.textPositions) })
            let dimension = talker.shape.headDimension
            let queries = focus == nil ? 0 : try focusWork.reserve(device, part.count * dimension * 4)
            try plan.launch("talker_step", batch: part.count, positions: longest, cache: talkerCache) { a in
                a.sessions = sessions + UInt64(first * MemoryLayout<mk_session>.stride)
                a.x = x == 0 ? 0 : x + UInt64(first * ld * 4)
                a.focus = queries
                a.focus_layer = Int32(focus?.head.layer ?? 0)
                a.focus_head = Int32(focus?.head.head ?? 0)
                self.fill(&a)
            }
            try focus?.ask(queries, dimension)
        }
    }

    // MARK: What is spoken

    /// Rows of queries, their slots, the positions in question.
    private typealias Question = (row: Int32, slot: Int32, positions: Range<Int>)

    /// How the model's alignment head is asked; nil if it has none.
    private func alignment(
        _ questions: [Question]
    ) throws(CUDAError) -> (head: AlignmentHead, ask: FocusQuestion)? {
        guard let head = configuration.alignmentHead, let looks, !questions.isEmpty else { return nil }
        let rows = questions.map {
            mk_focus_row(
                query: $0.row, slot: $0.slot, first: Int32($0.positions.lowerBound),
                end: Int32($0.positions.upperBound))
        }
        let address = try questionWork.reserve(device, rows.count * MemoryLayout<mk_focus_row>.stride)
        try device.copyIn(address, rows)
        var a = mk_focus_arguments()
        a.key_head = Int32(head.head * talker.shape.keyValueHeads / talker.shape.heads)
        a.rows = address
        a.cache = talkerCache
        a.cache.layer = Int32(head.layer)
        a.looks = looks.address
        return (
            head,
            { [device, a] (queries, ld) throws(CUDAError) in
                var a = a
                a.queries = queries
                a.ld = Int32(ld)
                try device.launch("focus_rows", grid: (rows.count, 1), shared: Int(MK_WARPS) * 8, a)
            }
        )
    }

    /// The position of its text that each slot's last talker row looks at most, where that was asked.
    public func looks(_ slots: [Int]) throws(CUDAError) -> [Int] {
        guard let looks, !slots.isEmpty else { return [] }
        let all = try device.integers(looks.address, self.slots)
        return slots.map { Int(all[$0]) }
    }

    /// What both persistent kernels need of this model.
    private func fill(_ a: inout mk_step_arguments) {
        a.vocabulary = Int32(configuration.codePredictor.vocabularySize)
        a.groups = Int32(groups)
        a.ld_table = Int32(ld)
        a.codec_table = codecTable.address
        a.group_tables = groupTables.address
        a.codes = codes.address
        a.hidden = hidden.address
        a.ld_hidden = Int32(ld)
        a.logits = logits.address
        a.ld_logits = Int32(padded(vocabulary))
        a.talker_vocabulary = Int32(vocabulary)
        a.speakable = Int32(configuration.talker.speakableCodes)
        a.eos = configuration.talker.control.eos
        a.seen = seen.address
    }

    // MARK: Code predictor

    /// Chooses code 0 from each slot's logits and completes the frame; keeps the codes in the slot as the next talker
    /// input. Where code 0 is the end of speech, the other codes mean nothing.
    /// - Parameter forced: codes [batch][groups] to take instead; those below zero are chosen.
    /// - Returns: codes [batch][groups].
    public func frame(_ batch: [Entry], forced: [Int32]? = nil) throws(CUDAError) -> [[Int32]] {
        if batch.isEmpty { return [] }
        try timer.mark(1)
        try launchFrame(batch, forced: forced)
        try timer.mark(2)
        return try readCodes(batch)
    }

    /// Reads back the codes of a launched frame.
    func readCodes(_ batch: [Entry]) throws(CUDAError) -> [[Int32]] {
        let all = try device.integers(codes.address, slots * groups)
        return batch.map { Array(all[($0.slot * groups)..<(($0.slot + 1) * groups)]) }
    }

    /// Issues a frame.
    func launchFrame(_ batch: [Entry], forced: [Int32]? = nil) throws(CUDAError) {
        let isPersistent = isPersistent(batch.count)
        let count = isPersistent || forced != nil ? batch.count : filled(batch.count)
        let sessions = try upload(batch, filledTo: count)
        let inner = configuration.codePredictor.vocabularySize
        let innerLD = padded(inner)
        var work = Layout(
            try stepWork.reserve(
                device,
                count
                    * (2 * ld * 4 + 2 * predictor.ld * 4 + groups * innerLD * 4 + groups * 4)
                    + HalfRows.bytes(rows: 2 * count, ld: max(ld, predictor.ld))
                    + HalfRows.normBytes(rows: count, ld: predictor.ld) + 16384))
        let allLogits = work.take((groups - 1) * count * innerLD * 4)
        logitsOut = (allLogits, count)
        let forcedList = try forced.map { codes throws(CUDAError) in try work.put(device, codes) } ?? 0
        if isPersistent, let plan = predictorPlan {
            for first in stride(from: 0, to: count, by: plan.sessions) {
                let cache = predictor.cache(
                    pages: predictorTable.address + UInt64(first * 8), stride: 1, ring: 1)
                try plan.launch(
                    "predictor_frame", batch: min(count - first, plan.sessions), positions: groups, cache: cache
                ) { a in
                    a.sessions = sessions + UInt64(first * MemoryLayout<mk_session>.stride)
                    self.fill(&a)
                    a.forced = forcedList == 0 ? 0 : forcedList + UInt64(first * groups * 4)
                    a.all_logits = allLogits + UInt64(first * innerLD * 4)
                    a.all_batch = Int32(count)
                    a.ld_pass_logits = Int32(innerLD)
                    a.has_projection = self.projection == nil ? 0 : 1
                    a.projection_bias = self.projection?.bias?.address ?? 0
                }
            }
            return
        }
        let rest = work
        let frame: () throws(CUDAError) -> Void = { [self] () throws(CUDAError) in
            try issueFrame(sessions, count: count, forced: forcedList, logits: allLogits, rest)
        }
        if forced != nil { return try frame() }
        try issue(.frame(sessions: count), memory: [allLogits, sessions, predictor.workAddress], frame)
    }

    /// A frame, one kernel an operation.
    private func issueFrame(
        _ sessions: UInt64, count: Int, forced forcedList: UInt64, logits allLogits: UInt64, _ work: Layout
    ) throws(CUDAError) {
        var work = work
        let inner = configuration.codePredictor.vocabularySize
        let innerLD = padded(inner)
        try sample(sessions, batch: count, codebook: 0, logits: logits.address, ld: padded(vocabulary), forcedList)
        let input = work.take(2 * count * ld * 4)
        let x = work.take(2 * count * predictor.ld * 4)
        let halves = work.take(HalfRows.bytes(rows: 2 * count, ld: max(ld, predictor.ld)))
        let norms = work.take(HalfRows.normBytes(rows: count, ld: predictor.ld))
        func list(_ slotsBefore: Int) -> UInt64 { predictorLists.address + UInt64(slotsBefore * slots * 4) }
        let (pairs, singles, lastRows, pairPositions) = (list(0), list(2), list(3), list(4))
        let cache = predictor.cache(pages: predictorTable.address, stride: 1, ring: 1)
        for group in 1..<groups {
            let isFirst = group == 1
            let rows = isFirst ? 2 * count : count
            var a = mk_predictor_input_arguments()
            a.hidden = hidden.address
            a.ld_hidden = Int32(ld)
            a.width = Int32(width)
            a.codec_table = codecTable.address
            a.group_tables = groupTables.address
            a.vocabulary = Int32(inner)
            a.groups = Int32(groups)
            a.ld_table = Int32(ld)
            a.batch = Int32(count)
            a.sessions = sessions
            a.codes = codes.address
            a.group = Int32(group - 1)
            a.ld = Int32(ld)
            a.x = projection == nil ? x : input
            try device.launch("predictor_input", grid: (ceiling(width, Int(MK_THREADS)), count), a)
            var project: ((PreparedRows) throws(CUDAError) -> Void)?
            if let projection {
                project = { [self] (prepared) throws(CUDAError) in
                    let halves = HalfRows(split: halves, rows: rows, ld: ld, half: predictor.half)
                    try talker.prepare(input, rows: rows, gain: nil, into: PreparedRows(rows: halves, norms: 0))
                    try device.run(
                        projection, half: predictor.half, halves, rows: rows,
                        predictor.preparing(
                            Epilogue(raw: x, rawStride: predictor.ld), for: predictor.layers[0].inputNorm, prepared))
                }
            }
            var prepared = try predictor.forward(
                x,
                RowPlaces(
                    slots: isFirst ? pairs : singles, positions: isFirst ? pairPositions : list(6 + group), rows: rows,
                    pages: 1, areAlone: !isFirst), cache: cache, begin: project)
            if isFirst {
                prepared = PreparedRows(
                    rows: HalfRows(split: halves, rows: count, ld: predictor.ld, half: predictor.half), norms: norms)
                try predictor.prepare(x, rows: count, gain: predictor.norm, into: prepared, index: lastRows)
            }
            let passLogits = allLogits + UInt64((group - 1) * count * innerLD * 4)
            try predictor.runPrepared(
                heads[group - 1], prepared, rows: count, Epilogue(raw: passLogits, rawStride: innerLD))
            try sample(sessions, batch: count, codebook: group, logits: passLogits, ld: innerLD, forcedList)
        }
    }

    /// Where the last frame's predictor logits are, and how many rows a pass has there.
    private var logitsOut: (address: UInt64, rows: Int) = (0, 0)

    private func sample(
        _ sessions: UInt64, batch: Int, codebook: Int, logits: UInt64, ld: Int, _ forced: UInt64
    ) throws(CUDAError) {
        var a = mk_sample_arguments()
        a.sessions = sessions
        a.batch = Int32(batch)
        a.codebook = Int32(codebook)
        a.logits = logits
        a.ld = Int32(ld)
        a.vocabulary = Int32(codebook == 0 ? vocabulary : configuration.codePredictor.vocabularySize)
        a.by_slot = codebook == 0 ? 1 : 0
        a.speakable = Int32(configuration.talker.speakableCodes)
        a.eos = configuration.talker.control.eos
        a.groups = Int32(groups)
        a.seen = seen.address
        a.codes = codes.address
        a.forced = forced
        try device.launch("sample_codes", grid: (batch, 1), shared: Int(MK_SAMPLER_BYTES), a)
    }

    private var sessionWork = DeviceScratch()

    /// - Parameter count: sessions with those that only fill the batch; nil for none of these.
    private func upload(_ batch: [Entry], filledTo count: Int? = nil) throws(CUDAError) -> UInt64 {
        let ids = try text?.indices(of: batch.compactMap(\.text)) ?? []
        var next = 0
        var sessions = batch.map { entry -> mk_session in
            var s = mk_session()
            s.slot = Int32(entry.slot)
            s.frame = Int32(entry.frame)
            s.position = Int32(lengths[entry.slot])
            s.sampled = Int32(entry.sampled)
            if entry.text != nil, let text {
                s.text_row = text.address + UInt64(ids[next] * ld * 4)
                next += 1
            }
            s.seed_low = UInt32(truncatingIfNeeded: entry.seed)
            s.seed_high = UInt32(truncatingIfNeeded: entry.seed >> 32)
            s.repetition_penalty = Float(entry.rules.repetitionPenalty)
            let (a, b) = (entry.rules.talker, entry.rules.codePredictor)
            s.temperature = (Float(a.temperature), Float(b.temperature))
            s.top_p = (Float(a.topP), Float(b.topP))
            s.top_k = (Int32(clamping: a.topK), Int32(clamping: b.topK))
            s.samples = (a.samples ? 1 : 0, b.samples ? 1 : 0)
            return s
        }
        var other = mk_session()
        other.slot = Int32(slots)
        other.repetition_penalty = 1
        other.temperature = (1, 1)
        sessions += Array(repeating: other, count: (count ?? batch.count) - batch.count)
        let address = try sessionWork.reserve(device, max(slots, 1) * MemoryLayout<mk_session>.stride)
        try device.copyIn(address, sessions)
        return address
    }

    // MARK: Looking in

    /// The talker's normed hidden state of a slot.
    func hiddenState(_ slot: Int) throws(CUDAError) -> [Float] {
        try device.floats(hidden.address + UInt64(slot * ld * 4), width)
    }

    /// The talker's raw logits of a slot.
    package func talkerLogits(_ slot: Int) throws(CUDAError) -> [Float] {
        try device.floats(logits.address + UInt64(slot * padded(vocabulary) * 4), vocabulary)
    }

    /// Sets the talker's hidden state of a slot.
    func setHiddenState(_ slot: Int, _ values: [Float]) throws(CUDAError) {
        try device.copyIn(hidden.address + UInt64(slot * ld * 4), values)
    }

    /// Sets the talker's logits of a slot.
    package func setTalkerLogits(_ slot: Int, _ values: [Float]) throws(CUDAError) {
        try device.copyIn(logits.address + UInt64(slot * padded(vocabulary) * 4), values)
    }

    /// Chooses code 0 from a slot's logits.
    func chooseCode0(_ entry: Entry) throws(CUDAError) -> Int32 {
        try sample(try upload([entry]), batch: 1, codebook: 0, logits: logits.address, ld: padded(vocabulary), 0)
        return try readCodes([entry])[0][0]
    }

    /// The predictor's logits of the last frame [groups - 1][batch][vocabulary].
    package func predictorLogits(batch: Int) throws(CUDAError) -> [[Float]] {
        let inner = configuration.codePredictor.vocabularySize
        let ld = padded(inner)
        let all = try device.floats(logitsOut.address, (groups - 1) * logitsOut.rows * ld)
        return (0..<((groups - 1) * batch)).map { place in
            let row = place / batch * logitsOut.rows + place % batch
            return Array(all[(row * ld)..<(row * ld + inner)])
        }
    }
}

/// Hands out parts of a piece of device memory.
struct Layout {
    private var next: UInt64

    init(_ base: UInt64) { next = base }

    mutating func take(_ bytes: Int) -> UInt64 {
        defer { next += UInt64((bytes + 255) & ~255) }
        return next
    }

    mutating func put<Element>(_ device: CUDADevice, _ values: [Element]) throws(CUDAError) -> UInt64 {
        let address = take(values.count * MemoryLayout<Element>.stride)
        try device.copyIn(address, values)
        return address
    }
}
