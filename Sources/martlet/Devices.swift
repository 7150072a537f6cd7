import ArgumentParser
import CUDABackend
import Qwen3TTS
import Settings
import SpeechEngine

/// Where an engine generates and decodes.
struct Devices {
    /// Positions in the driver's list; nil is the CPU.
    let generation: Int?, decoding: Int?
    private let precision: CodecPrecision
    private let decoderGraphs: Bool

    /// - Parameters:
    ///   - device: `cpu` or `cuda:0`, for decoding and, if there is no other, for generation.
    ///   - isExact: decodes with the precision of float32 on a GPU.
    ///   - decoderGraphs: records a GPU decoder's launches as graphs.
    init(device: String?, generation: String? = nil, isExact: Bool = false, decoderGraphs: Bool = true) throws {
        decoding = try Self.index(device ?? "cpu")
        self.generation = try generation.map(Self.index) ?? decoding
        precision = isExact ? .exact : .half
        self.decoderGraphs = decoderGraphs
    }

    /// A GPU's position in the driver's list; nil is the CPU.
    static func index(_ device: String) throws -> Int? {
        guard let name = Setting.device.canonical(device) else {
            throw ValidationError("--device is \(device), expected \(Setting.device.values)")
        }
        return name == "cpu" ? nil : Int(name.dropFirst("cuda:".count))
    }

    /// The stages that the CPU has to do.
    var stages: SpeechModel.Stages {
        var stages = SpeechModel.Stages.all
        if generation != nil { stages.remove(.generation) }
        if decoding != nil { stages.remove(.decoding) }
        return stages
    }

    /// Loads the model on the GPUs.
    /// - Parameter generates: whether this process generates; a worker process opens the card for itself.
    func load(_ model: SpeechModel, into options: inout EngineOptions, generates: Bool = true) throws {
        func host(_ index: Int) throws -> CUDAHost {
            var parts: SpeechModel.Stages = []
            if generates, index == generation { parts.insert(.generation) }
            if index == decoding { parts.insert(.decoding) }
            guard model.weightFormat == .bf16 else {
                throw CommandError(
                    "weights are \(model.weightFormat.rawValue), but cuda:\(index) takes them as they are: use --weights bf16"
                )
            }
            return try CUDAHost(
                directory: model.directory, device: index, slots: options.maxActive, parts: parts, precision: precision,
                decoderGraphs: decoderGraphs)
        }
        options.generationGPU = try generation.map(host)
        options.decodingGPU = decoding == generation ? options.generationGPU : try decoding.map(host)
    }
}

/// Where a command that takes no settings computes.
struct DeviceOptions: ParsableArguments {
    @Option(help: "Where to compute: cpu, or cuda:0, cuda:1, …")
    var device = "cpu"

    /// The devices.
    func devices() throws -> Devices { try Devices(device: device) }

    /// An engine there.
    func engine(_ model: SpeechModel, _ change: (inout EngineOptions) -> Void = { _ in }) throws -> SpeechEngine {
        var options = EngineOptions()
        change(&options)
        try devices().load(model, into: &options)
        return SpeechEngine(model: model, options: options)
    }
}

extension Settings {
    /// The devices that hold.
    func devices() throws -> Devices {
        try Devices(
            device: text(.device), generation: text(.codegenDevice), isExact: isOn(.decoderFP32),
            decoderGraphs: isOn(.graphDecoder))
    }
}
