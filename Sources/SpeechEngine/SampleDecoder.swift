import Qwen3TTS

/// What the decoder remembers of one utterance between its packets, wherever that is.
protocol DecoderMemory: AnyObject, Sendable {
    /// Whether the recording of a cloned voice has not been heard to its end.
    var hasUnheardReference: Bool { get }
}

extension UtteranceDecoder: DecoderMemory {}

/// Why there are no samples of a packet: the GPU failed, or had no memory left.
public struct DecodingFailure: Error, CustomStringConvertible {
    /// One line for a person.
    public let description: String
}

/// The second half of a decode call; gives the samples of each packet, [frames · samplesPerFrame].
typealias SecondHalf = @Sendable () -> [Result<[Float], DecodingFailure>]

/// Makes samples of codes: the codec decoder, wherever it runs. Driven by one thread at a time.
protocol SampleDecoder: AnyObject, Sendable {
    /// The decoder's side of a new utterance.
    /// - Parameter reference: for in-context cloning, the codes of the recording, from whose end the speech goes on.
    func makeMemory(reference: [Int32]) -> any DecoderMemory
    /// Runs the next codes of a cloned voice's recording through the decoder.
    func hearReference(_ memory: any DecoderMemory)
    /// The first half of a call, up to the pre-transformer: the codes of each utterance after its last packet,
    /// [frames, code groups]. The recordings have been heard.
    func begin(_ packets: [(memory: any DecoderMemory, codes: [Int32])]) -> SecondHalf
}

/// The decoder of the model itself, on the CPU.
final class ModelDecoder: SampleDecoder {
    private let model: SpeechModel
    private let mode: DecoderMode
    private let stages: DecoderStages

    init(_ model: SpeechModel, mode: DecoderMode, stages: DecoderStages) {
        self.model = model
        self.mode = mode
        self.stages = stages
    }

    func makeMemory(reference: [Int32]) -> any DecoderMemory {
        model.makeDecoder(reference: reference, mode: mode)
    }

    func hearReference(_ memory: any DecoderMemory) {
        if let memory = memory as? UtteranceDecoder { model.hearReference(memory, stages: stages) }
    }

    func begin(_ packets: [(memory: any DecoderMemory, codes: [Int32])]) -> SecondHalf {
        let half = model.beginDecoding(
            packets.compactMap { packet in
                (packet.memory as? UtteranceDecoder).map { CodesPacket($0, codes: packet.codes) }
            }, stages: stages)
        return { [model] in model.finishDecoding(half).map { .success($0) } }
    }
}

extension EngineOptions {
    /// What generates codes.
    func makeGenerator(_ model: SpeechModel) -> any CodeGenerator {
        if workerProcess {
            WorkerGenerator(model, options: self)
        } else if let generationGPU {
            CUDAGenerator(generationGPU, configuration: model.configuration, runaway: runaway)
        } else {
            ModelGenerator(model)
        }
    }

    /// What decodes them.
    func makeSampleDecoder(_ model: SpeechModel) -> any SampleDecoder {
        if let decodingGPU {
            CUDASampleDecoder(
                decodingGPU, configuration: model.configuration, mode: decoding, stages: decoderStages,
                waitsBetween: syncMode == .phase, restores: workerProcess || generationGPU !== decodingGPU)
        } else {
            ModelDecoder(model, mode: decoding, stages: decoderStages)
        }
    }
}

/// Decodes given codes packet by packet, where an engine with such options would and with what it would remember.
public struct CodesPlayer {
    private let decoder: any SampleDecoder
    private let memory: any DecoderMemory

    /// The beginning of an utterance.
    public init(_ model: SpeechModel, options: EngineOptions = EngineOptions()) {
        decoder = options.makeSampleDecoder(model)
        memory = decoder.makeMemory(reference: [])
    }

    /// Decodes the next codes [frames, code groups].
    /// - Returns: samples [frames · samplesPerFrame].
    public func decode(_ codes: [Int32]) throws(DecodingFailure) -> [Float] {
        try decoder.begin([(memory, codes)])()[0].get()
    }
}
