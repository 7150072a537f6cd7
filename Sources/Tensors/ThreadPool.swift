import CKernels
import Synchronization

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A fixed set of threads that run the parallel sections of the CPU stages.
///
/// The caller works too, so a pool of one thread starts none. Tasks are handed out by a shared ticket; which thread
/// runs a task never changes its result, since tasks write disjoint outputs.
///
/// `@unchecked Sendable`: `job` is written only by the thread that holds `callerLock`, before the ticket that
/// publishes it, and read only by holders of a valid ticket of that job, all of whom finish before `run` returns.
public final class ThreadPool: @unchecked Sendable {
    /// Threads that take part in `run`, the caller included.
    public let threadCount: Int

    /// generation (24 bits) · task count (20 bits) · next task (20 bits): a ticket taken by fetch-add tells by itself
    /// whether it is valid, so a thread that wakes late cannot mistake one job for the next.
    private let ticket = Atomic<UInt64>(0)
    private let unfinished = Atomic<Int>(0)
    private let sleepers = Atomic<Int>(0)
    private let stopping = Atomic<Bool>(false)
    private var job: UnsafePointer<(Int) -> Void>?
    private let callerLock = TurnLock()
    private let parking = ParkingLot()
    private var threads: [pthread_t] = []

    private static let fieldBits: UInt64 = 20
    private static let fieldMask: UInt64 = (1 << 20) - 1
    /// About 30 µs: longer than the gap between two parallel sections of a step, short beside a time slice.
    private static let spins = 1500

    /// Starts `threads - 1` workers. `threads` is at least 1.
    public init(threads count: Int = ThreadPool.defaultThreadCount) {
        threadCount = max(1, count)
        for _ in 1..<max(1, count) where count > 1 {
            var thread = pthread_t()
            let box = Unmanaged.passRetained(WorkerStart(pool: self))
            let failed = pthread_create(
                &thread, nil,
                { argument in
                    let start = Unmanaged<WorkerStart>.fromOpaque(argument.unsafelyUnwrapped).takeRetainedValue()
                    start.run()
                    return nil
                }, box.toOpaque())
            if failed == 0 { threads.append(thread) } else { box.release() }
        }
    }

    /// The processors this process may use.
    public static var defaultThreadCount: Int { max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))) }

    deinit {
        stopping.store(true, ordering: .sequentiallyConsistent)
        parking.wakeAll()
        for thread in threads { pthread_join(thread, nil) }
    }

    /// Runs `body(0)` … `body(tasks - 1)`, in any order on any thread, and returns when all are done.
    /// Calls from several threads take turns, first come first served: a thread that calls again and again does not keep
    /// another out. `body` must not call `run` of the same pool.
    public func run(_ tasks: Int, _ body: (Int) -> Void) {
        precondition(tasks <= Int(Self.fieldMask) / 2)
        if tasks <= 1 || threadCount == 1 {
            for task in 0..<max(0, tasks) { body(task) }
            return
        }
        callerLock.lock()
        defer { callerLock.unlock() }
        withoutActuallyEscaping(body) { escaping in
            withUnsafePointer(to: escaping) { pointer in
                job = pointer
                unfinished.store(tasks, ordering: .relaxed)
                let generation = (ticket.load(ordering: .relaxed) >> (2 * Self.fieldBits)) &+ 1
                let fresh = generation << (2 * Self.fieldBits) | UInt64(tasks) << Self.fieldBits
                ticket.store(fresh, ordering: .sequentiallyConsistent)
                if sleepers.load(ordering: .sequentiallyConsistent) > 0 { parking.wakeAll() }
                work()
                var spun = 0
                while unfinished.load(ordering: .acquiring) > 0 {
                    spun += 1
                    if spun < Self.spins { mk_pause() } else { sched_yield() }
                }
                job = nil
            }
        }
    }

    /// Splits `count` items into ranges of whole `grain`s, a few for each thread, and runs `body` on each.
    public func split(_ count: Int, grain: Int, _ body: (Range<Int>) -> Void) {
        let grains = (count + grain - 1) / grain
        let tasks = min(grains, threadCount == 1 ? 1 : threadCount * 4)
        run(tasks) { task in
            let first = grains * task / tasks * grain
            let last = min(count, grains * (task + 1) / tasks * grain)
            if first < last { body(first..<last) }
        }
    }

    private func work() {
        while true {
            let taken = ticket.wrappingAdd(1, ordering: .acquiringAndReleasing).oldValue
            let index = taken & Self.fieldMask
            guard index < (taken >> Self.fieldBits) & Self.fieldMask, let job else { return }
            job.pointee(Int(index))
            unfinished.wrappingSubtract(1, ordering: .releasing)
        }
    }

    /// The state a worker needs beyond the pool's own life: it looks at the pool only while the pool exists, since
    /// `deinit` joins it.
    private final class WorkerStart: @unchecked Sendable {
        private unowned(unsafe) let pool: ThreadPool
        init(pool: ThreadPool) { self.pool = pool }
        func run() { pool.workerLoop() }
    }

    private func workerLoop() {
        var seen: UInt64 = 0
        while !stopping.load(ordering: .acquiring) {
            var spun = 0
            while generation == seen, spun < Self.spins {
                mk_pause()
                spun += 1
            }
            if generation == seen {
                sleepers.wrappingAdd(1, ordering: .sequentiallyConsistent)
                parking.sleep { generation == seen && !stopping.load(ordering: .sequentiallyConsistent) }
                sleepers.wrappingSubtract(1, ordering: .sequentiallyConsistent)
            }
            seen = generation
            if !stopping.load(ordering: .acquiring), seen != 0 { work() }
        }
    }

    private var generation: UInt64 { ticket.load(ordering: .sequentiallyConsistent) >> (2 * Self.fieldBits) }
}

/// A lock that is given in the order in which it was asked for: a plain mutex mostly goes back to the thread that has just
/// let it go.
///
/// `@unchecked Sendable`: the turns are read and written under the mutex.
final class TurnLock: @unchecked Sendable {
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var nextTurn: UInt64 = 0
    private var turn: UInt64 = 0

    init() {
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(condition, nil)
    }

    deinit {
        pthread_mutex_destroy(mutex)
        pthread_cond_destroy(condition)
        condition.deallocate()
        mutex.deallocate()
    }

    func lock() {
        pthread_mutex_lock(mutex)
        let own = nextTurn
        nextTurn += 1
        while turn != own { pthread_cond_wait(condition, mutex) }
        pthread_mutex_unlock(mutex)
    }

    /// Turns asked for so far.
    var turnsAsked: UInt64 {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return nextTurn
    }

    func unlock() {
        pthread_mutex_lock(mutex)
        turn += 1
        if turn != nextTurn { pthread_cond_broadcast(condition) }
        pthread_mutex_unlock(mutex)
    }
}

/// Where idle workers sleep.
///
/// `@unchecked Sendable`: mutex and condition are made for use from many threads.
final class ParkingLot: @unchecked Sendable {
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    init() {
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(condition, nil)
    }
    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    /// Sleeps while `idle` holds; `idle` is read under the lock that `wakeAll` takes.
    func sleep(while idle: () -> Bool) {
        pthread_mutex_lock(mutex)
        while idle() { pthread_cond_wait(condition, mutex) }
        pthread_mutex_unlock(mutex)
    }

    func wakeAll() {
        pthread_mutex_lock(mutex)
        pthread_cond_broadcast(condition)
        pthread_mutex_unlock(mutex)
    }
}
