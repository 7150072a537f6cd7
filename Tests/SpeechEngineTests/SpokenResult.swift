import SpeechEngine

/// Everything that a stream brings.
struct SpokenResult {
    var codes: [Int32] = []
    var samples: [Float] = []
    var packets: [SpeechPacket] = []
    var summary: SpeechSummary?

    init(_ stream: SpeechStream) async {
        for await event in stream {
            switch event {
            case .packet(let packet):
                codes += packet.codes
                samples += packet.samples
                packets.append(packet)
            case .end(let end): summary = end
            }
        }
    }
}
