import Testing

@testable import SpeechEngine

/// How many frames a packet has.
@Suite struct PacketPolicyTests {
    @Test func packetsFollowTheLead() {
        func frames(_ lead: Double) -> Int { PacketPolicy.growing.frames(lead: lead, secondsPerFrame: 0.08) }
        // Before the first audio the lead is negative.
        #expect([-1, 0, 0.1, 0.16, 0.17, 0.33, 0.65, 1.3, 9].map(frames) == [1, 1, 1, 1, 1, 2, 4, 8, 8])
        // Whoever falls back gets small ones again: a packet never takes more than half of the lead to make in real time.
        for lead in stride(from: 3, to: 0.17, by: -0.01) { #expect(Double(frames(lead)) * 0.08 <= max(0.08, lead / 2)) }
    }

    @Test func fixedOnesDoNot() {
        for lead in [-1, 0.1, 5] { #expect(PacketPolicy.fixed(3).frames(lead: lead, secondsPerFrame: 0.08) == 3) }
    }
}
