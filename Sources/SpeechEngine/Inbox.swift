import Foundation
import Qwen3TTS

/// The stream is held by its reader; when the reader drops it, the utterance ends.
struct WeakStream: Sendable {
    weak let stream: SpeechStream?
    init(_ stream: SpeechStream) { self.stream = stream }
}

/// A request that has been checked, on its way to the driver.
struct Arrival: Sendable {
    /// The first part to speak, as it was asked for and checked.
    let request: SpeechRequest
    let firstPart: PreparedRequest
    /// The text after that of the first part.
    let script: Script
    /// Whether the whole text was there from the start.
    let isComplete: Bool
    let stream: WeakStream
    let packets: PacketPolicy
    let submitted: ContinuousClock.Instant
}

/// What waits for the driver between two rounds, and what it has published.
///
/// `@unchecked Sendable`: all state is read and written under the condition's lock.
final class Inbox: @unchecked Sendable {
    private let condition = NSCondition()
    private let maxQueued: Int
    private var arrivals: [Arrival] = []
    private var isWoken = false
    private var isStopped = false
    private var drains = false
    private var drained: [CheckedContinuation<Void, Never>] = []
    private var published = EngineStatistics()
    private var refused = 0

    init(maxQueued: Int) { self.maxQueued = maxQueued }

    /// Queues a request, or says why not.
    func add(_ arrival: Arrival) throws(EngineError) {
        condition.lock()
        defer { condition.unlock() }
        if drains {
            refused += 1
            throw .draining
        }
        let queued = published.queued + arrivals.count
        // An idle engine takes one even without a queue: it passes through here.
        if queued >= maxQueued + (published.active == 0 ? 1 : 0) {
            refused += 1
            throw .busy(queued: queued, retryAfter: 1 + Double(queued) / Double(max(published.active, 1)))
        }
        arrivals.append(arrival)
        condition.signal()
    }

    /// Whether nothing new is taken.
    var isDraining: Bool { condition.withLock { drains } }

    /// Something changed for a session: text, a cancel, a reader that has read.
    func wake() {
        condition.withLock {
            isWoken = true
            condition.signal()
        }
    }

    func stop() {
        condition.withLock {
            isStopped = true
            condition.signal()
        }
    }

    /// Takes nothing new; returns when everything that had been taken has ended.
    func drain() async {
        await withCheckedContinuation { continuation in
            condition.withLock {
                drains = true
                drained.append(continuation)
                isWoken = true
                condition.signal()
            }
        }
    }

    /// Takes what has arrived; with nothing else to do, sleeps until something does. Nil when the engine is gone.
    func take(sleeping: Bool, hasSessions: Bool) -> [Arrival]? {
        condition.lock()
        defer { condition.unlock() }
        if sleeping {
            while arrivals.isEmpty, !isWoken, !isStopped {
                if drains, !hasSessions { resumeDrained() }
                // Sessions that wait for a reader or for text have time limits to be looked after.
                if hasSessions {
                    if !condition.wait(until: Date(timeIntervalSinceNow: 1)) { break }
                } else {
                    condition.wait()
                }
            }
        }
        if drains, !hasSessions, arrivals.isEmpty { resumeDrained() }
        isWoken = false
        if isStopped {
            resumeDrained()
            return nil
        }
        defer { arrivals = [] }
        return arrivals
    }

    private func resumeDrained() {
        for continuation in drained { continuation.resume() }
        drained = []
    }

    func publish(_ statistics: EngineStatistics) {
        condition.withLock { published = statistics }
    }

    /// The latest figures.
    var statistics: EngineStatistics {
        condition.withLock {
            var statistics = published
            statistics.queued += arrivals.count
            statistics.refused = refused
            return statistics
        }
    }
}
