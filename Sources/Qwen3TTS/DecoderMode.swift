/// How the decoder remembers what came before a packet.
public enum DecoderMode: Sendable, Equatable {
    /// It carries its state from packet to packet: any packets give the same samples.
    case incremental
    /// It begins anew with each packet, after so many frames before it whose samples are dropped (the reference's
    /// `chunked_decode`; 25 and 72 are usual): the samples depend on how packets are cut.
    case windowed(leftContext: Int)
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
