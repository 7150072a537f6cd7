import Foundation
import Testing

@testable import Experiments

/// What the regression suite hears.
@Suite struct AudioChecksTests {
    private let tone = (0..<24_000).map { 0.5 * sin(Float($0) * 0.05) }

    @Test func signalToNoise() throws {
        #expect(AudioChecks.signalToNoise(tone, reference: tone) == .infinity)
        let louder = tone.map { $0 * 1.1 }
        let ratio = try #require(AudioChecks.signalToNoise(louder, reference: tone))
        #expect(abs(ratio - 20) < 1e-3)
        #expect(AudioChecks.signalToNoise([], reference: tone) == nil)
    }

    @Test func clicks() {
        #expect(AudioChecks.clicks(tone, borders: [4800, 9600], sampleRate: 24_000).isEmpty)
        var broken = tone
        for i in 9600..<broken.count { broken[i] += 0.4 }
        #expect(AudioChecks.clicks(broken, borders: [4800, 9600], sampleRate: 24_000) == [9600])
        #expect(AudioChecks.clicks([], borders: [0, 5], sampleRate: 24_000).isEmpty)
    }

    @Test func levelAndClipping() {
        #expect(abs(AudioChecks.level(tone) - 0.5 / 2.0.squareRoot()) < 1e-3)
        #expect(AudioChecks.level([Float]()) == 0)
        #expect(AudioChecks.clipped([0.5, 1, -1, -0.99]) == 2)
    }

    @Test func repeatedSegments() throws {
        let fresh = (0..<60).map { Int32($0) }
        #expect(AudioChecks.repeatedSegment(fresh, groups: 2, shortest: 4) == nil)
        let again = fresh + fresh[20..<40]
        let found = try #require(AudioChecks.repeatedSegment(again, groups: 2, shortest: 4))
        #expect(found.first == 10 && found.second == 30 && found.frames == 10)
        #expect(AudioChecks.repeatedSegment(again, groups: 2, shortest: 11) == nil)
        // Silence repeats itself and is no repetition.
        #expect(AudioChecks.repeatedSegment([Int32](repeating: 3, count: 80), groups: 2, shortest: 4) == nil)
        #expect(AudioChecks.repeatedSegment([], groups: 2, shortest: 4) == nil)
    }

    @Test func percentiles() {
        #expect(percentile([], 0.5) == 0)
        #expect(percentile([3], 0.99) == 3)
        #expect(median([4, 1, 3, 2]) == 2.5)
        #expect(percentile([0, 10], 0.95) == 9.5)
    }
}
