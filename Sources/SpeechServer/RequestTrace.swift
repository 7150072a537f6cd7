public import SpeechEngine

/// Figures of a request that a server can log.
public enum RequestTrace: String, Sendable, CaseIterable {
    /// The wait in the queue, decode calls, frames and samples.
    case packets
    /// Times of the whole request.
    case metrics
    /// When each packet was generated and decoded, and how long the decoding of one overlapped the generation of others.
    case timing

    /// The lines for an utterance.
    public func lines(tag: String, _ summary: SpeechSummary, _ packets: [PacketTimes]) -> [String] {
        func ms(_ seconds: Double) -> String { "\((seconds * 100_000).rounded() / 100)" }
        switch self {
        case .packets:
            let trace = summary.trace
            return [
                "packet trace \(tag): queue_wait_ms=\(ms(trace.queueWait)) decode_calls=\(trace.decodeCalls) "
                    + "codes_frames_max=\(trace.codesFramesMax) pcm_samples_total=\(trace.pcmSamplesTotal) "
                    + "pcm_samples_max=\(trace.pcmSamplesMax)"
            ]
        case .metrics:
            let stages = summary.stages
            return [
                "metrics \(tag): ttfa_ms=\(summary.firstAudio.map { ms($0) } ?? "-") "
                    + "code_ms=\(ms(stages.talker + stages.codePredictor)) decode_ms=\(ms(stages.decoder)) "
                    + "total_ms=\(ms(summary.elapsed)) rtf=\((summary.realTimeFactor * 1000).rounded() / 1000) "
                    + "frames=\(summary.frames) packets=\(packets.count)"
            ]
        case .timing:
            return packets.enumerated().map { index, packet in
                let overlap = packets.enumerated().reduce(0.0) { sum, other in
                    guard other.offset != index else { return sum }
                    let start = max(packet.decodeStart, other.element.generationStart)
                    let end = min(packet.decodeEnd, other.element.generationEnd)
                    return sum + max(0, end - start)
                }
                return "timing \(tag) packet \(index): generated_ms=\(ms(packet.generationStart))-"
                    + "\(ms(packet.generationEnd)) decoded_ms=\(ms(packet.decodeStart))-\(ms(packet.decodeEnd)) "
                    + "overlap_ms=\(ms(overlap))"
            }
        }
    }
}
