import Foundation
import Qwen3TTS

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Which program runs as the worker process, and on what.
struct WorkerProgram: Sendable {
    let executable: String
    let arguments: [String]
    let ringCapacity: Int

    /// - Parameters:
    ///   - executable: nil is the program that runs now.
    ///   - card: where it generates; it opens the card for itself. Nil is the CPU.
    ///   - runaway: when the engine ends utterances.
    init(_ model: SpeechModel, executable: String?, maxBatch: Int, card: CUDAHost?, runaway: RunawayLimits?) {
        #if os(Linux)
            let own = "/proc/self/exe"
        #else
            let own = Bundle.main.executablePath ?? CommandLine.arguments[0]
        #endif
        let path = executable ?? own
        self.executable = path.contains("/") ? path : "./" + path
        // A step's codes, twice.
        ringCapacity = 2 * max(1, maxBatch) * model.configuration.talker.codeGroups
        var place: [String] = []
        if let card {
            place = ["--device", "\(card.info.index)", "--slots", "\(card.slots)"]
            if let runaway { place += ["--frame-limits", "\(runaway.baseFrames),\(runaway.framesPerToken)"] }
        }
        arguments =
            [
                "martlet", "worker", "--model", model.directory, "--weights", model.weightFormat.rawValue, "--threads",
                "\(model.compute.pool.threadCount)", "--instruction-set", model.compute.instructionSet.rawValue,
                "--ring-capacity", "\(ringCapacity)",
            ] + place
    }
}

/// The worker process as its engine sees it: it lives in a process group of its own, so that a signal from the terminal does
/// not reach it, and ends when its end of the channel closes, however that comes about.
final class WorkerProcess {
    let channel: WorkerChannel
    let ring: CodesRing
    let identifier: pid_t
    private var isReaped = false

    /// Descriptors of the channel and of the ring in the worker.
    static let channelDescriptor: Int32 = 0, ringDescriptor: Int32 = 3

    /// Starts the program.
    /// - Throws: why it could not be started.
    init(_ program: WorkerProgram) throws(WorkerFailure) {
        guard let (own, others) = WorkerChannel.makePair() else { throw WorkerFailure("no socket", errno) }
        channel = WorkerChannel(descriptor: own)
        defer { close(others) }
        guard let file = CodesRing.makeFile(capacity: program.ringCapacity) else {
            throw WorkerFailure("no shared memory", errno)
        }
        defer { close(file) }
        guard let ring = CodesRing(file: file, capacity: program.ringCapacity) else {
            throw WorkerFailure("no shared memory", errno)
        }
        self.ring = ring
        do {
            // What the server does with its signals is not the worker's way.
            identifier = try spawnProcess(
                program.executable, arguments: program.arguments, environment: ProcessInfo.processInfo.environment,
                newGroup: true, descriptors: [(others, Self.channelDescriptor), (file, Self.ringDescriptor)],
                defaultSignals: [SIGINT, SIGTERM, SIGHUP])
        } catch {
            throw WorkerFailure("\(program.executable) could not be started", error.reason)
        }
    }

    /// Closes the channel, which ends the process, and waits for that.
    deinit { _ = reap() }

    /// Waits for the process to end, a few seconds at most, then kills it.
    /// - Parameter killing: without waiting, since it hangs.
    /// - Returns: how it ended.
    func reap(killing: Bool = false) -> String {
        guard !isReaped else { return "" }
        isReaped = true
        channel.hangUp()
        var status: Int32 = 0
        for _ in 0..<(killing ? 0 : 300) {
            let result = waitpid(identifier, &status, WNOHANG)
            if result == identifier || (result < 0 && errno != EINTR) { return Self.describe(status) }
            usleep(10_000)
        }
        kill(-identifier, SIGKILL)
        waitpid(identifier, &status, 0)
        return Self.describe(status)
    }

    private static func describe(_ status: Int32) -> String {
        status & 0x7f == 0 ? "exit code \(status >> 8 & 0xff)" : "signal \(status & 0x7f)"
    }
}

/// Why there is no worker process.
struct WorkerFailure: Error {
    let description: String

    init(_ what: String, _ reason: String) { description = "\(what): \(reason)" }

    init(_ what: String, _ error: Int32) { self.init(what, String(cString: strerror(error))) }
}
