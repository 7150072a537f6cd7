import Tensors

/// The decoder's side of an utterance: what it remembers between packets, and what it has to hear before it speaks.
///
/// Apart from the utterance's generation, so that both can go on at once, even in two processes.
///
/// `@unchecked Sendable`: belongs to one utterance, whose packets are decoded one after the other.
public final class UtteranceDecoder: @unchecked Sendable {
    fileprivate let state: CodecDecoder.State
    /// For in-context cloning, the codes of the recording, from whose end the speech goes on.
    fileprivate let reference: [Int32]
    fileprivate var heardReference = 0
    fileprivate var window: DecoderWindow

    fileprivate init(mode: DecoderMode, state: CodecDecoder.State, reference: [Int32]) {
        self.state = state
        self.reference = mode == .incremental ? reference : []
        window = DecoderWindow(mode, reference: reference)
    }

    /// Whether the recording of a cloned voice has not been heard to its end.
    public var hasUnheardReference: Bool { heardReference < reference.count }
}

/// Codes of one utterance to decode in a call.
public struct CodesPacket: Sendable {
    let decoder: UtteranceDecoder
    let codes: [Int32]

    /// - Parameter codes: [frames, code groups], those after the utterance's last packet.
    public init(_ decoder: UtteranceDecoder, codes: [Int32]) {
        self.decoder = decoder
        self.codes = codes
    }
}

/// A decode call of several utterances that stands between its two halves.
public struct HalfDecodedPackets: Sendable {
    fileprivate let half: CodecDecoder.HalfDecoded
    fileprivate let outputs: [FloatBuffer]
    fileprivate let skippedSamples: [Int]
}

extension SpeechModel {
    /// The decoder's side of a new utterance.
    public func makeDecoder(_ prepared: PreparedRequest, mode: DecoderMode = .incremental) -> UtteranceDecoder {
        makeDecoder(reference: prepared.referenceCodes, mode: mode)
    }

    /// The decoder's side of an utterance that goes on from the codes of a recording, [frames, code groups].
    package func makeDecoder(reference: [Int32], mode: DecoderMode) -> UtteranceDecoder {
        UtteranceDecoder(mode: mode, state: decoder.makeState(), reference: reference)
    }

    /// Frames of a recording that one call runs through the decoder, so that utterances that are speaking do not stall.
    private static let referenceFramesPerCall = 4

    /// Runs the next codes of a cloned voice's recording through the decoder and throws their audio away.
    public func hearReference(_ utterance: UtteranceDecoder, stages: DecoderStages = .all) {
        guard utterance.hasUnheardReference else { return }
        // A part of the decoder remembers a part of what it should.
        let isWhole = stages == .all
        if isWhole, utterance.heardReference == 0, references.copy(utterance.reference, into: utterance.state) {
            utterance.heardReference = utterance.reference.count
            return
        }
        let codes = utterance.reference.dropFirst(utterance.heardReference)
            .prefix(Self.referenceFramesPerCall * decoder.codeGroups)
        let frames = codes.count / decoder.codeGroups
        let discarded = FloatBuffer(count: frames * samplesPerFrame)
        withExtendedLifetime(discarded) {
            decoder.decode(
                [.init(state: utterance.state, codes: Array(codes), frames: frames, pcm: discarded.pointer)],
                stages: stages)
        }
        utterance.heardReference += codes.count
        if isWhole, !utterance.hasUnheardReference { references.keep(utterance.reference, state: utterance.state) }
    }

    /// Decodes packets of several utterances to samples and advances their decoders.
    /// - Returns: samples of each packet, [frames · samplesPerFrame].
    public func decode(_ packets: [CodesPacket], stages: DecoderStages = .all) -> [[Float]] {
        for packet in packets {
            while packet.decoder.hasUnheardReference { hearReference(packet.decoder, stages: stages) }
        }
        return finishDecoding(beginDecoding(packets, stages: stages))
    }

    /// The first half of ``decode(_:stages:)``, up to the pre-transformer; the references have been heard. Until the second
    /// half, calls of other utterances may come between.
    public func beginDecoding(_ packets: [CodesPacket], stages: DecoderStages = .all) -> HalfDecodedPackets {
        let groups = decoder.codeGroups
        var calls: [CodecDecoder.Packet] = []
        var outputs: [FloatBuffer] = []
        var skipped: [Int] = []
        for packet in packets {
            let window = packet.decoder.window.take(packet.codes, codeGroups: groups)
            if window != nil { packet.decoder.state.reset() }
            let codes = window?.codes ?? packet.codes
            let frames = codes.count / groups
            let output = FloatBuffer(count: frames * samplesPerFrame)
            calls.append(.init(state: packet.decoder.state, codes: codes, frames: frames, pcm: output.pointer))
            outputs.append(output)
            skipped.append((window?.context ?? 0) * samplesPerFrame)
        }
        return HalfDecodedPackets(
            half: decoder.beginDecoding(calls, stages: stages), outputs: outputs, skippedSamples: skipped)
    }

    /// The second half: upsampling and convolutions.
    /// - Returns: samples of each packet, [frames · samplesPerFrame].
    public func finishDecoding(_ packets: HalfDecodedPackets) -> [[Float]] {
        decoder.finishDecoding(packets.half)
        return zip(packets.outputs, packets.skippedSamples).map { Array($0.array.dropFirst($1)) }
    }
}
