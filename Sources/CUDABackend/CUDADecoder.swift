/// The codec decoder of a model on an NVIDIA GPU, on a stream of its own: packets are decoded beside the generation of
/// codes.
///
/// An utterance owns a slot: what the decoder remembers of its audio. What a call gives for an utterance depends on its codes
/// alone.
///
/// `@unchecked Sendable`: belongs to the one thread that decodes, which need not be the one that generates; call `use()`
/// there first.
public final class CUDADecoder: @unchecked Sendable {
    let codec: DeviceCodec
    private let groups: Int
    /// Frames decoded by each slot; nil where it is free.
    private var decodedFrames: [Int?]

    init(_ codec: DeviceCodec, groups: Int, slots: Int) {
        self.codec = codec
        self.groups = groups
        decodedFrames = Array(repeating: nil, count: slots)
    }

    /// Makes the GPU's context current on the calling thread.
    public func use() throws(CUDAError) { try codec.device.use() }

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
        var results = packets.map { _ in [Float]() }
        var done = packets.map { _ in 0 }
        while true {
            let open = packets.indices.filter { done[$0] * groups < packets[$0].codes.count }
            guard let first = open.first else { return results }
            // A pass takes equally many frames of each session.
            let members = Array(open.prefix(DeviceCodec.framesPerPass))
            let shortest =
                members.map { packets[$0].codes.count / groups - done[$0] }.min() ?? packets[first].codes.count
            let frames = max(
                1, min(shortest, DeviceCodec.framesPerPacket, DeviceCodec.framesPerPass / members.count))
            let codes = members.flatMap {
                packets[$0].codes[(done[$0] * groups)..<((done[$0] + frames) * groups)]
            }
            let pcm = try codec.decode(
                slots: members.map { packets[$0].slot },
                positions: members.map { decodedFrames[packets[$0].slot] ?? 0 },
                codes: codes, frames: frames)
            let samples = frames * codec.samplesPerFrame
            let all = try codec.device.floats(pcm, members.count * samples)
            for (place, member) in members.enumerated() {
                results[member] += all[(place * samples)..<((place + 1) * samples)]
                done[member] += frames
                decodedFrames[packets[member].slot] = (decodedFrames[packets[member].slot] ?? 0) + frames
            }
        }
    }
}
