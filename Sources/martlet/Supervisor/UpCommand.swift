import ArgumentParser

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

/// Where a plan is, and what is known of its run.
struct PlanOptions: ParsableArguments {
    @Option(name: .shortAndLong, help: "The plan, a JSON file.")
    var file = "martlet-up.json"

    /// Beside the plan: `state.json`, `lock`, a log of each program.
    var folder: String { file + ".run" }

    /// The lock that a supervisor holds while it runs; nil if another one holds it.
    func lock() throws -> Int32? {
        let descriptor = open(folder + "/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw CommandError("\(folder)/lock: \(String(cString: strerror(errno)))") }
        if flock(descriptor, LOCK_EX | LOCK_NB) == 0 { return descriptor }
        close(descriptor)
        return nil
    }

    /// What the supervisor that runs now says; nil if none does.
    func state() throws -> SupervisorState? {
        guard FileManager.default.fileExists(atPath: folder + "/lock") else { return nil }
        if let own = try lock() {
            close(own)
            return nil
        }
        // A supervisor that has only just begun has said nothing yet.
        for _ in 0..<50 {
            let data = try? Data(contentsOf: URL(filePath: folder + "/state.json"))
            if let data, let state = try? JSONDecoder().decode(SupervisorState.self, from: data) { return state }
            usleep(20_000)
        }
        throw CommandError("\(folder)/state.json cannot be read")
    }
}

/// `martlet up`: runs the programs of a plan.
struct UpCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "up", abstract: "Run the language model's server, the speech server and a bridge together.",
        discussion: """
            The plan says which programs, in which order, and by which line of its output each one is ready:
              {"processes": [
                {"name": "llm", "command": ["vllm", "serve", "MODEL"], "ready-line": "Application startup complete"},
                {"name": "tts", "command": ["martlet", "serve", "--model", "DIR"], "after": ["llm"],
                 "ready-line": "Application startup complete"}]}
            Each runs in a process group of its own, which ends with this command however that comes about. A program that \
            ends is started again, after 0.5 s, then 1 s and so on to 30 s. 'martlet status' shows them, 'martlet down' \
            or Ctrl-C stops all.
            """)

    @OptionGroup var plan: PlanOptions

    func run() throws {
        let programs = try ProcessPlan.read(plan.file)
        do {
            try FileManager.default.createDirectory(atPath: plan.folder, withIntermediateDirectories: true)
        } catch {
            throw CommandError("\(plan.folder) cannot be made")
        }
        guard let lock = try plan.lock() else {
            throw CommandError("\(plan.file) is up already: 'martlet status' shows it, 'martlet down' stops it")
        }
        defer { close(lock) }
        unlink(plan.folder + "/state.json")
        var supervisor = Supervisor(programs, folder: plan.folder)
        if try !supervisor.run() { throw ExitCode(1) }
    }
}

/// `martlet status`: what `martlet up` runs.
struct StatusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show what 'martlet up' runs.",
        discussion: "Exits with 1 unless everything is ready.")

    @OptionGroup var plan: PlanOptions

    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
        guard let state = try plan.state() else {
            if json { print("null") } else { print("\(plan.file) is not up") }
            throw ExitCode(1)
        }
        if json {
            try printJSON(state)
        } else {
            for program in state.programs {
                print(
                    program.name.padded(to: 12) + program.state.padded(to: 14)
                        + (program.group.map { "group \($0)" } ?? "-").padded(to: 16)
                        + "\(program.restarts) restarts" + (program.lastEnd.map { ", last \($0)" } ?? ""))
            }
        }
        if !state.programs.allSatisfy({ $0.state == "ready" }) { throw ExitCode(1) }
    }
}

/// `martlet down`: stops what `martlet up` runs.
struct DownCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "down", abstract: "Stop everything that 'martlet up' runs, and wait for it.")

    @OptionGroup var plan: PlanOptions

    func run() throws {
        guard let state = try plan.state() else {
            print("\(plan.file) is not up")
            return
        }
        guard kill(state.supervisor, SIGTERM) == 0 else {
            throw CommandError(
                "process \(state.supervisor) cannot be told to stop: \(String(cString: strerror(errno)))")
        }
        let deadline = ContinuousClock.now + .seconds(Supervisor.grace + 15)
        while ContinuousClock.now < deadline {
            if let own = try plan.lock() {
                close(own)
                print("all stopped")
                return
            }
            usleep(50_000)
        }
        throw CommandError("process \(state.supervisor) does not stop")
    }
}
