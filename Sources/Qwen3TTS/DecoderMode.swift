/// How the decoder remembers what came before a packet.
public enum DecoderMode: Sendable, Equatable {
    /// It carries its state from packet to packet: any packets give the same samples.
    case incremental
    /// It begins anew with each packet, after so many frames before it whose samples are dropped (the reference's
    /// `chunked_decode`; 25 and 72 are usual): the samples depend on how packets are cut.
    case windowed(leftContext: Int)
}

/// The codes before an utterance's next packet, as many as the window of a windowed decoder takes; none of an incremental one.
package struct DecoderWindow: Sendable {
    private let mode: DecoderMode
    private var codes: [Int32]

    /// - Parameter reference: codes of a recording from whose end the speech goes on, [frames, code groups].
    package init(_ mode: DecoderMode, reference: [Int32]) {
        self.mode = mode
        codes = mode == .incremental ? [] : reference
    }

    /// Goes on by a packet.
    /// - Returns: what is to be decoded, and how many frames of it are context whose samples are dropped; nil if the decoder
    ///   carries its state on and decodes the packet as it is.
    package mutating func take(_ packet: [Int32], codeGroups: Int) -> (codes: [Int32], context: Int)? {
        guard case .windowed(let leftContext) = mode else { return nil }
        let all = codes.suffix(leftContext * codeGroups) + packet
        codes = all.suffix(leftContext * codeGroups)
        return (Array(all), (all.count - packet.count) / codeGroups)
    }
}

/// Which parts of the decoder run, to see what each one costs and disturbs. With any part left out the samples are silence
/// of the right length.
public enum DecoderStages: String, Sendable, CaseIterable {
    /// The whole decoder.
    case all
    /// Codebooks, pre-convolution and pre-transformer; nothing after them.
    case preTransformerOnly = "pre_transformer"
    /// Upsampling and convolutions, on what the pre-transformer would have been given.
    case convolutionsOnly = "conv_only"
    /// Nothing.
    case none = "noop"
}
