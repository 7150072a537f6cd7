import Foundation
import Synchronization
import Testing

@testable import Tensors

@Suite struct ThreadPoolTests {
    @Test(arguments: [1, 2, 3, 5])
    func runsEveryTaskOnce(threads: Int) {
        let pool = ThreadPool(threads: threads)
        #expect(pool.threadCount == threads)
        for tasks in [0, 1, 2, 3, 7, 64, 1000] {
            let counts = Counts(tasks)
            pool.run(tasks) { counts.add($0) }
            #expect(counts.values == [Int](repeating: 1, count: tasks), "\(tasks) tasks")
        }
    }

    /// Many short jobs one after another, some after a pause in which the workers fall asleep.
    @Test func wakesUp() {
        let pool = ThreadPool(threads: 3)
        let counts = Counts(5)
        for round in 0..<2000 {
            if round % 200 == 0 { usleep(3000) }
            pool.run(5) { counts.add($0) }
        }
        #expect(counts.values == [Int](repeating: 2000, count: 5))
    }

    /// What a task wrote is seen by the caller, and what the caller wrote before by the tasks.
    @Test func publishesMemory() {
        let pool = ThreadPool(threads: 4)
        let memory = FloatBuffer(count: 64)
        for round in 1...500 {
            pool.run(64) { memory.pointer[$0] += 1 }
            let total = memory.array.reduce(0, +)
            #expect(total == Float(64 * round))
        }
    }

    @Test func callersTakeTurns() async {
        let pool = ThreadPool(threads: 3)
        await withTaskGroup(of: Bool.self) { group in
            for _ in 0..<4 {
                group.addTask {
                    let counts = Counts(9)
                    for _ in 0..<200 { pool.run(9) { counts.add($0) } }
                    return counts.values == [Int](repeating: 200, count: 9)
                }
            }
            for await complete in group { #expect(complete) }
        }
    }

    @Test func turnsAreGivenInTheOrderOfAsking() {
        let lock = TurnLock()
        let order = Order()
        let done = DispatchGroup()
        lock.lock()
        for caller in 0..<4 {
            Thread.detachNewThread(in: done) {
                lock.lock()
                order.add(caller)
                lock.unlock()
            }
            while lock.turnsAsked < caller + 2 { usleep(100) }
        }
        lock.unlock()
        done.wait()
        #expect(order.values == [0, 1, 2, 3])
    }

    @Test(arguments: [1, 2, 4])
    func splitsByWholeGrains(threads: Int) {
        let pool = ThreadPool(threads: threads)
        for (count, grain) in [(0, 16), (1, 16), (16, 16), (17, 16), (1000, 16), (100, 1), (7, 3)] {
            let counts = Counts(count)
            let misplaced = Atomic<Int>(0)
            pool.split(count, grain: grain) { range in
                if range.lowerBound % grain != 0 || (range.upperBound % grain != 0 && range.upperBound != count) {
                    misplaced.wrappingAdd(1, ordering: .relaxed)
                }
                for i in range { counts.add(i) }
            }
            #expect(counts.values == [Int](repeating: 1, count: count), "\(count) by \(grain)")
            #expect(misplaced.load(ordering: .relaxed) == 0)
        }
    }

    /// A pool that ends does so at once, asleep or awake.
    @Test func ends() {
        for pause: UInt32 in [0, 2000] {
            for threads in [1, 2, 6] {
                let pool = ThreadPool(threads: threads)
                usleep(pause)
                pool.run(threads) { _ in }
            }
        }
    }
}

/// Counters that several threads raise.
private final class Counts: @unchecked Sendable {
    private let lock = NSLock()
    private var counts: [Int]

    init(_ count: Int) { counts = [Int](repeating: 0, count: count) }
    func add(_ index: Int) { lock.withLock { counts[index] += 1 } }
    var values: [Int] { lock.withLock { counts } }
}

private final class Order: @unchecked Sendable {
    private let lock = NSLock()
    private var callers: [Int] = []

    func add(_ caller: Int) { lock.withLock { callers.append(caller) } }
    var values: [Int] { lock.withLock { callers } }
}

extension Thread {
    /// Starts a thread that the group waits for.
    fileprivate static func detachNewThread(in group: DispatchGroup, _ body: @escaping @Sendable () -> Void) {
        group.enter()
        detachNewThread {
            body()
            group.leave()
        }
    }
}
