import CUDABackend
public import Qwen3TTS
public import SpeechEngine

/// A switch of the runbook, as an arm sets it.
public enum RunbookSwitch: Sendable, Equatable {
    /// Codes are generated in a process of their own (1) or on a thread of this one (0).
    case process(Int)
    /// Codec frames of a packet.
    case packet(Int)
    /// The decoder begins anew with each packet, after so many frames of context.
    case windowed(leftContext: Int)
    /// Packets that are out before generation and decoding overlap.
    case prefillPackets(Int)
    /// How generation and decoding share the device.
    case sync(SyncMode)
    /// Whether the host waits for each code step.
    case codegenBlocking(Int)
    /// Full precision of generation, of decoding.
    case codegenFP32(Int), decoderFP32(Int)
    /// The only part of the decoder that runs.
    case dummyDecoder(DecoderStages)
    /// One decode call for so many packets.
    case decodeEvery(Int)
    /// What the decoder did, request by request.
    case packetTrace(Int)
    /// The decoder's device.
    case decoderDevice(String)
    /// So many of each step's best choices are recorded, for steps 0 to 100.
    case topK(Int)
    /// Flags of the old back end.
    case cudnnBenchmark(Int), cudnnDeterministic(Int), cudnnTF32(Int), matmulTF32(Int), cudnnTrace(Int)

    /// The old stack's name.
    public var name: String {
        switch self {
        case .process: "TTS_DEEP_STREAM_PROCESS"
        case .packet: "TTS_DEEP_STREAM_PACKET_TOKENS"
        case .windowed: "TTS_DEEP_STREAM_LEFT_CONTEXT"
        case .prefillPackets: "TTS_DEEP_STREAM_PREFILL_PACKETS"
        case .sync: "TTS_DEEP_STREAM_SYNC_MODE"
        case .codegenBlocking: "TTS_DEEP_STREAM_CODEGEN_BLOCKING"
        case .codegenFP32: "TTS_DEEP_STREAM_CODEGEN_FP32"
        case .decoderFP32: "TTS_DEEP_STREAM_DECODER_FP32"
        case .dummyDecoder: "TTS_DEEP_STREAM_DUMMY_DECODER"
        case .decodeEvery: "TTS_DEEP_STREAM_DECODE_EVERY"
        case .packetTrace: "TTS_DEEP_STREAM_PACKET_TRACE"
        case .decoderDevice: "TTS_DEEP_STREAM_DEVICE"
        case .topK: "TTS_CODEGEN_DEBUG_TOPK_N"
        case .cudnnBenchmark: "TTS_CUDNN_BENCHMARK"
        case .cudnnDeterministic: "TTS_CUDNN_DETERMINISTIC"
        case .cudnnTF32: "TTS_CUDNN_ALLOW_TF32"
        case .matmulTF32: "TTS_CUDA_MATMUL_ALLOW_TF32"
        case .cudnnTrace: "TTS_CUDNN_TRACE"
        }
    }

    /// As the old stack has it.
    public var value: String {
        switch self {
        case .process(let n), .packet(let n), .prefillPackets(let n), .codegenBlocking(let n), .codegenFP32(let n),
            .decoderFP32(let n), .decodeEvery(let n), .packetTrace(let n), .topK(let n), .cudnnBenchmark(let n),
            .cudnnDeterministic(let n), .cudnnTF32(let n), .matmulTF32(let n), .cudnnTrace(let n):
            "\(n)"
        case .windowed(let leftContext): "\(leftContext)"
        case .sync(let mode): mode.rawValue
        case .dummyDecoder(let stages): stages.rawValue
        case .decoderDevice(let device): device
        }
    }
}

/// What an arm's switches come to on the engine that is there.
struct RunbookSetup {
    var engine: EngineOptions
    var packet = 4
    var choices: TopChoicesOptions?
    /// What a switch does not do here, and what holds instead.
    var notes: [String] = []
    private let hasDecoder: Bool
    private let others: [CUDAHost]
    private var description: EngineDescription

    /// - Parameters:
    ///   - base: what holds where no switch says otherwise.
    ///   - others: decoders of other precisions on the base's card.
    init(_ switches: [RunbookSwitch], base: EngineOptions, others: [CUDAHost] = [], model: SpeechModel) {
        engine = base
        self.others = others
        hasDecoder = model.stages.contains(.decoding)
        description = base.description(of: model)
        // A switch may say where it decodes.
        for case .decoderDevice(let device) in switches { move(decoder: device) }
        for case .decoderFP32(let n) in switches { setPrecision(isExact: n != 0) }
        description = engine.description(of: model)
        // Where a run ends must not hang on its audio, which dummy stages leave out.
        engine.runaway = nil
        for one in switches { apply(one) }
        let isOnePool = description.generation.isCPU && description.decoding.isCPU && !engine.workerProcess
        for case .sync(let mode) in switches where mode != .sync && isOnePool {
            notes.append(
                "TTS_DEEP_STREAM_SYNC_MODE=\(mode.rawValue) on the CPU: generation and decoding share one pool of threads, "
                    + "section by section")
        }
    }

    private mutating func apply(_ one: RunbookSwitch) {
        switch one {
        case .process(let n): engine.workerProcess = n != 0
        case .packet(let n): packet = n
        case .windowed(let leftContext): engine.decoding = .windowed(leftContext: leftContext)
        case .prefillPackets(let n): engine.prefillPackets = n
        case .sync(let mode): engine.syncMode = mode
        case .dummyDecoder(let stages): engine.decoderStages = stages
        case .decodeEvery(let n): engine.decodeEvery = n
        case .topK(let n):
            var options = TopChoicesOptions()
            options.count = n
            choices = options
        case .packetTrace: break
        case .codegenBlocking:
            note(one, "a step is done when it returns")
        case .codegenFP32:
            note(one, "generation on \(description.generation.device) has \(description.generation.arithmetic)")
        case .decoderFP32:
            let words = "decoding on \(description.decoding.device) has \(description.decoding.arithmetic)"
            if hasOwnPrecision { notes.append("\(one.name)=\(one.value): \(words)") } else { note(one, words) }
        case .decoderDevice: break
        case .cudnnBenchmark, .cudnnDeterministic, .cudnnTF32, .matmulTF32:
            note(one, "there is no cuDNN and no TF32; every sum has one fixed order")
        case .cudnnTrace: note(one, "there is no cuDNN; the row says what computes instead")
        }
    }

    /// Whether the decoder has the precision that a switch asked for.
    private var hasOwnPrecision = false

    private mutating func setPrecision(isExact: Bool) {
        guard let gpu = engine.decodingGPU else { return }
        let wanted: CodecPrecision = isExact ? .exact : .half
        guard let host = ([gpu] + others).first(where: { $0.precision == wanted }) else { return }
        // One card, one context, unless generation has another device.
        if engine.generationGPU === gpu { engine.generationGPU = host }
        engine.decodingGPU = host
        hasOwnPrecision = true
    }

    private mutating func move(decoder device: String) {
        let name = RunbookSwitch.decoderDevice(device).name
        if engine.decodingGPU?.name ?? "cpu" == device {
            notes.append("\(name)=\(device) has no effect on this engine: it decodes there anyhow")
        } else if device == "cpu", hasDecoder {
            engine.decodingGPU = nil
        } else {
            notes.append("\(name)=\(device) has no effect on this engine: the decoder was not loaded there")
        }
    }

    private mutating func note(_ one: RunbookSwitch, _ why: String) {
        notes.append("\(one.name)=\(one.value) has no effect on this engine: \(why)")
    }
}
