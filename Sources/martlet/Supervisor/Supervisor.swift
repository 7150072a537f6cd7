import SpeechEngine
import Synchronization

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif
#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

import class Foundation.Bundle

/// Set by SIGTERM and SIGINT.
private let isAskedToStop = Atomic<Bool>(false)

/// Runs the programs of a plan, each with a guard in a process group of its own, and starts those again that end.
///
/// A guard ends its group when this process is gone, however that came about: it holds the other end of a pipe.
struct Supervisor {
    /// A running guard.
    private struct Guarded {
        let group: pid_t
        /// Closing it ends the group.
        let leash: Int32
        let since: ContinuousClock.Instant
    }

    /// The file of a program's output, and how much of it was read.
    private struct Log {
        let path: String
        var offset: off_t
        var line: [UInt8] = []
    }

    private let plan: ProcessPlan
    private let folder: String
    private var state: SupervisorState
    private var running: [Int: Guarded] = [:]
    private var logs: [Log]
    private var startAt: [Int: ContinuousClock.Instant] = [:]
    private var pauses: [Int: Double] = [:]
    private var isChanged = true

    /// Seconds that programs get to end by themselves.
    static let grace = 15.0
    /// Seconds before a program that ended is started again: the first time, at the most, and after so much running the
    /// first again.
    private static let firstPause = 0.5, longestPause = 30.0, steady = 60.0

    /// - Parameter folder: gets `state.json` and a log of each program.
    init(_ plan: ProcessPlan, folder: String) {
        self.plan = plan
        self.folder = folder
        state = SupervisorState(
            supervisor: getpid(), programs: plan.processes.map { SupervisorState.Program(name: $0.name) })
        logs = plan.processes.map { Log(path: "\(folder)/\($0.name).log", offset: 0) }
    }

    /// Runs until it is told to stop, or until no program is left that would be started again.
    /// - Returns: whether all is well: it was told to stop.
    mutating func run() throws -> Bool {
        for number in [SIGTERM, SIGINT, SIGHUP] {
            signal(number) { _ in isAskedToStop.store(true, ordering: .relaxed) }
        }
        signal(SIGPIPE, SIG_IGN)
        for index in logs.indices {
            // Earlier output stays; only what comes now is shown.
            var status = stat()
            if stat(logs[index].path, &status) == 0 { logs[index].offset = status.st_size }
        }
        while !isAskedToStop.load(ordering: .relaxed) {
            startWhatIsDue()
            readLogs()
            reap()
            try publish()
            if running.isEmpty, state.programs.allSatisfy({ $0.state == "ended" }) { return false }
            usleep(50_000)
        }
        try stop()
        return true
    }

    // MARK: Starting

    private mutating func startWhatIsDue() {
        let now = ContinuousClock.now
        for (index, program) in plan.processes.enumerated() {
            switch state.programs[index].state {
            case "waiting":
                let isFree = (program.after ?? []).allSatisfy { name in
                    state.programs.contains { $0.name == name && $0.state == "ready" }
                }
                if isFree { start(index) }
            case "backing-off":
                if let due = startAt[index], now >= due { start(index) }
            default: break
            }
        }
    }

    private mutating func start(_ index: Int) {
        let program = plan.processes[index]
        isChanged = true
        do {
            running[index] = try Self.spawn(program, log: logs[index].path)
            state.programs[index].group = running[index]?.group
            state.programs[index].state = program.readyLine == nil ? "ready" : "starting"
            say(program.name, "started" + (program.readyLine == nil ? ", ready" : ""))
        } catch {
            state.programs[index].lastEnd = "\(error)"
            say(program.name, "\(error)")
            pause(index, ranFor: 0)
        }
    }

    private static func spawn(_ program: ProcessPlan.Program, log: String) throws -> Guarded {
        var ends: [Int32] = [0, 0]
        guard pipe(&ends) == 0 else { throw CommandError("no pipe: \(String(cString: strerror(errno)))") }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        defer { close(ends[0]) }
        let output = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        guard output >= 0 else {
            close(ends[1])
            throw CommandError("\(log): \(String(cString: strerror(errno)))")
        }
        defer { close(output) }
        let own = Bundle.main.executablePath ?? CommandLine.arguments[0]
        let command = program.command[0] == "martlet" ? [own] + program.command.dropFirst() : program.command
        let environment = ProcessInfo.processInfo.environment.merging(program.environment ?? [:]) { _, new in new }
        do {
            let group = try startProcess(
                [own, "guard", "--"] + command, environment: environment, newGroup: true,
                descriptors: [(output, 1), (output, 2), (ends[0], GuardCommand.leash)])
            return Guarded(group: group, leash: ends[1], since: .now)
        } catch {
            close(ends[1])
            throw error
        }
    }

    // MARK: Watching

    private mutating func readLogs() {
        for index in logs.indices {
            let descriptor = open(logs[index].path, O_RDONLY | O_CLOEXEC)
            guard descriptor >= 0 else { continue }
            defer { close(descriptor) }
            var buffer = [UInt8](repeating: 0, count: 1 << 16)
            while true {
                let count = pread(descriptor, &buffer, buffer.count, logs[index].offset)
                guard count > 0 else { break }
                logs[index].offset += off_t(count)
                for byte in buffer[..<count] {
                    guard byte == UInt8(ascii: "\n") else {
                        logs[index].line.append(byte)
                        continue
                    }
                    heard(index, String(decoding: logs[index].line, as: UTF8.self))
                    logs[index].line = []
                }
            }
        }
    }

    private mutating func heard(_ index: Int, _ line: String) {
        let program = plan.processes[index]
        print("\(program.name) | \(line)")
        guard state.programs[index].state == "starting", let words = program.readyLine, line.contains(words) else {
            return
        }
        state.programs[index].state = "ready"
        isChanged = true
        say(program.name, "ready")
    }

    private mutating func reap() {
        for (index, guarded) in running {
            var status: Int32 = 0
            guard waitpid(guarded.group, &status, WNOHANG) == guarded.group else { continue }
            ended(index, guarded, status)
            let ranFor = (ContinuousClock.now - guarded.since) / .seconds(1)
            if plan.processes[index].restart ?? true {
                pause(index, ranFor: ranFor)
            } else {
                state.programs[index].state = "ended"
            }
        }
    }

    private mutating func ended(_ index: Int, _ guarded: Guarded, _ status: Int32) {
        // Whatever the program has left behind in its group.
        kill(-guarded.group, SIGKILL)
        close(guarded.leash)
        running[index] = nil
        let end = status & 0x7F == 0 ? "exit code \(status >> 8 & 0xFF)" : "signal \(status & 0x7F)"
        state.programs[index].group = nil
        state.programs[index].lastEnd = end
        isChanged = true
        say(state.programs[index].name, "ended: \(end)")
    }

    private mutating func pause(_ index: Int, ranFor seconds: Double) {
        guard plan.processes[index].restart ?? true else {
            state.programs[index].state = "ended"
            return
        }
        let pause = seconds >= Self.steady ? Self.firstPause : pauses[index] ?? Self.firstPause
        pauses[index] = min(Self.longestPause, 2 * pause)
        startAt[index] = .now + .seconds(pause)
        state.programs[index].state = "backing-off"
        state.programs[index].restarts += 1
        isChanged = true
        say(state.programs[index].name, "is started again in \(decimal(pause, 1)) s")
    }

    // MARK: Stopping

    private mutating func stop() throws {
        print("stopping")
        for index in running.keys.sorted().reversed() {
            state.programs[index].state = "stopping"
            if let guarded = running[index] { kill(-guarded.group, SIGTERM) }
        }
        isChanged = true
        try publish()
        let deadline = ContinuousClock.now + .seconds(Self.grace)
        while !running.isEmpty, ContinuousClock.now < deadline {
            for (index, guarded) in running {
                var status: Int32 = 0
                if waitpid(guarded.group, &status, WNOHANG) == guarded.group { ended(index, guarded, status) }
            }
            readLogs()
            usleep(20_000)
        }
        for (index, guarded) in running {
            kill(-guarded.group, SIGKILL)
            var status: Int32 = 0
            waitpid(guarded.group, &status, 0)
            ended(index, guarded, status)
        }
        for index in state.programs.indices { state.programs[index].state = "ended" }
        try publish()
    }

    // MARK: Saying

    private mutating func publish() throws {
        guard isChanged else { return }
        isChanged = false
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        try encoder.encode(state).write(to: URL(filePath: folder + "/state.json"), options: .atomic)
        fflush(nil)
    }

    private func say(_ name: String, _ what: String) {
        print("\(name) \(what)")
        fflush(nil)
    }
}

/// Starts a program of a plan, or its guard, with the signals that a shell would give it.
/// - Parameters:
///   - command: the program, found by `PATH`, and its arguments.
///   - newGroup: leads a process group of its own.
///   - descriptors: descriptors of this process, and what they are called in the new one.
func startProcess(
    _ command: [String], environment: [String: String], newGroup: Bool, descriptors: [(own: Int32, its: Int32)]
) throws -> pid_t {
    do {
        return try spawnProcess(
            command[0], arguments: command, environment: environment, newGroup: newGroup, descriptors: descriptors,
            defaultSignals: [SIGINT, SIGTERM, SIGHUP, SIGPIPE])
    } catch {
        throw CommandError("\(command[0]) cannot be started: \(error.reason)")
    }
}
