public import Qwen3TTS
import Tensors

/// The codec decoder of a model on an NVIDIA GPU, on a stream of its own: packets are decoded beside the generation of
/// codes.
///
/// An utterance owns a slot: what the decoder remembers of its audio. What a call gives for an utterance depends on its codes
/// alone.
///
/// `@unchecked Sendable`: belongs to the one thread that decodes, which need not be the one that generates; call the stages'
/// `use()` there first.
public final class CUDADecoder: @unchecked Sendable {
    let codec: DeviceCodec
    private let groups: Int
    /// Frames decoded by each slot; nil where it is free.
    private var decodedFrames: [Int?]

    /// - Parameters:
    ///   - device: its context is shared.
    ///   - file: the codec's weights, or nil for made-up ones.
    init(
        _ device: CUDADevice, configuration: Configuration, slots: Int, precision: CodecPrecision,
        file: SafetensorsFile?
    ) throws {
        codec = try DeviceCodec(
            CUDADevice(sharing: device), file: file, configuration: configuration.codec, slots: slots,
            precision: precision)
        groups = configuration.talker.codeGroups
        decodedFrames = Array(repeating: nil, count: slots)
    }

    /// Loads the decoder alone of a model folder in the released layout.
    /// - Parameters:
    ///   - device: position in the driver's list, as in `cuda:0`.
    ///   - slots: sessions at a time.
    ///   - driver: nil for the machine's.
    public convenience init(
        directory: String, device index: Int = 0, slots: Int = 64, precision: CodecPrecision = .half,
        driver: CUDADriver? = nil
    ) throws {
        try self.init(
            CUDADevice(index: index, driver: driver), configuration: Configuration.load(directory: directory),
            slots: slots, precision: precision, file: SafetensorsFile(path: directory + Self.fileName))
    }

    /// The codec's weights in a model folder.
    static let fileName = "/speech_tokenizer/model.safetensors"

    /// The GPU.
    public var info: CUDADeviceInfo { codec.device.info }

    /// Makes the GPU's context current on the calling thread.
    public func use() throws(CUDAError) { try codec.device.use() }

    /// Bytes of device memory that are held through its context.
    public var memoryBytes: Int { codec.device.allocated }

    /// What is launched for a packet, in words.
    public var launches: String {
        codec.usesGraphs ? "a packet as two CUDA graphs, once its shape has come before" : "a packet kernel by kernel"
    }

    /// Goes on launch by launch.
    public func stopRecordingGraphs() { codec.usesGraphs = false }

    /// A slot with the zero state, or nil if all are taken.
    public func openSlot() throws(CUDAError) -> Int? {
        guard let slot = decodedFrames.firstIndex(of: nil) else { return nil }
        try reset(slot)
        return slot
    }

    /// Gives a slot back.
    public func closeSlot(_ slot: Int) { decodedFrames[slot] = nil }

    /// Makes a slot forget what it has decoded.
    public func reset(_ slot: Int) throws(CUDAError) {
        try codec.reset(slot)
        decodedFrames[slot] = 0
    }

    /// Decodes frames of utterances, each following those decoded before.
    /// - Parameter packets: slot and codes [frames][groups].
    /// - Returns: samples of each packet.
    public func decode(_ packets: [(slot: Int, codes: [Int32])]) throws(CUDAError) -> [[Float]] {
        try finish(begin(packets))
    }

    /// Packets between the two halves of a call.
    ///
    /// `@unchecked Sendable`: belongs to the call, which one thread drives at a time.
    public struct HalfDecoded: @unchecked Sendable {
        fileprivate let packets: [(slot: Int, codes: [Int32])]
        fileprivate let stages: DecoderStages
        fileprivate var first: Part?
    }

    /// Equally many frames of some packets: what goes through the decoder at once.
    fileprivate struct Part {
        let members: [Int]
        let frames: Int
        let pass: DeviceCodec.Pass
    }

    /// The first half of ``decode(_:)``: the packets' codes up to the pre-transformer, as many as go at once. No other call
    /// may begin before its second half.
    /// - Parameters:
    ///   - stages: those that run.
    ///   - waits: whether to wait until the device has done it.
    public func begin(
        _ packets: [(slot: Int, codes: [Int32])], stages: DecoderStages = .all, waits: Bool = false
    ) throws(CUDAError) -> HalfDecoded {
        let part = try beginPart(packets, stages, done: packets.map { _ in 0 })
        if waits { try codec.device.wait() }
        return HalfDecoded(packets: packets, stages: stages, first: part)
    }

    /// The second half, and whatever did not go at once.
    /// - Returns: samples of each packet; silence unless all stages run.
    public func finish(_ half: HalfDecoded) throws(CUDAError) -> [[Float]] {
        var results = half.packets.map { _ in [Float]() }
        var done = half.packets.map { _ in 0 }
        var next = half.first
        while let part = next {
            let samples = part.frames * codec.samplesPerFrame
            let address = try codec.finish(part.pass)
            var all = [Float](repeating: 0, count: part.members.count * samples)
            if half.stages == .all {
                all = try codec.device.floats(address, all.count)
            } else {
                try codec.device.wait()
            }
            for (place, member) in part.members.enumerated() {
                results[member] += all[(place * samples)..<((place + 1) * samples)]
                done[member] += part.frames
                decodedFrames[half.packets[member].slot] = (decodedFrames[half.packets[member].slot] ?? 0) + part.frames
            }
            next = try beginPart(half.packets, half.stages, done: done)
        }
        return results
    }

    /// Begins what comes next of packets of which so many frames are done; nil if all is.
    private func beginPart(
        _ packets: [(slot: Int, codes: [Int32])], _ stages: DecoderStages, done: [Int]
    ) throws(CUDAError) -> Part? {
        let open = packets.indices.filter { done[$0] * groups < packets[$0].codes.count }
        let members = Array(open.prefix(DeviceCodec.framesPerPass))
        guard let shortest = members.map({ packets[$0].codes.count / groups - done[$0] }).min() else { return nil }
        let frames = max(1, min(shortest, DeviceCodec.framesPerPacket, DeviceCodec.framesPerPass / members.count))
        let pass = try codec.begin(
            slots: members.map { packets[$0].slot }, positions: members.map { decodedFrames[packets[$0].slot] ?? 0 },
            codes: members.flatMap { packets[$0].codes[(done[$0] * groups)..<((done[$0] + frames) * groups)] },
            frames: frames, stages: stages)
        return Part(members: members, frames: frames, pass: pass)
    }
}
