import Foundation
import TestSupport
import Testing

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// `martlet up`, `status`, `down`: nothing is left behind.
@Suite struct SupervisorTests {
    private struct State: Decodable {
        struct Program: Decodable {
            let name, state: String
            let group: Int32?
            let restarts: Int
            let lastEnd: String?
        }
        let supervisor: Int32
        let programs: [Program]
    }

    /// `martlet up` on a plan, and its log.
    private final class Up {
        let process = Process()
        let folder: String
        var plan: [String] { ["--file", folder + "/plan.json"] }

        init(_ programs: [[String: Any]]) throws {
            folder = NSTemporaryDirectory() + "/martlet-\(UUID().uuidString)"
            try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
            try JSONSerialization.data(withJSONObject: ["processes": programs])
                .write(to: URL(fileURLWithPath: folder + "/plan.json"))
            let log = folder + "/out"
            try Data().write(to: URL(fileURLWithPath: log))
            process.executableURL = Program.executable
            process.arguments = ["up"] + plan
            process.environment = Program.environment
            process.standardOutput = try FileHandle(forWritingTo: URL(fileURLWithPath: log))
            process.standardError = FileHandle.nullDevice
            try process.run()
        }

        func state() throws -> State? {
            let data = try? Data(contentsOf: URL(fileURLWithPath: folder + "/plan.json.run/state.json"))
            return try data.flatMap { try JSONDecoder().decode(State.self, from: $0) }
        }

        /// Waits for a state; the tests' own time limit ends what never comes.
        func wait(_ isReached: (State) -> Bool) async throws -> State {
            while process.isRunning {
                if let state = try state(), isReached(state) { return state }
                try await Task.sleep(for: .milliseconds(50))
            }
            throw POSIXError(.ECHILD)
        }

        deinit {
            if process.isRunning { process.terminate() }
            process.waitUntilExit()
            try? FileManager.default.removeItem(atPath: folder)
        }
    }

    /// A program that also leaves a child behind, which hears no SIGTERM.
    private static var parent: [String: Any] {
        [
            "name": "parent",
            "command": ["sh", "-c", "(trap '' TERM; while true; do sleep 1; done) & echo now it is up; wait"],
            "ready-line": "it is up",
        ]
    }

    private func waitUntilGone(_ group: Int32) async throws {
        while isAlive(group) { try await Task.sleep(for: .milliseconds(50)) }
    }

    /// Whether a process of the group runs. One that has ended may stay listed until somebody asks how.
    private func isAlive(_ group: Int32) -> Bool {
        #if os(Linux)
            let processes = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
            return processes.contains { process in
                guard Int(process) != nil,
                    let stat = try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8)
                else { return false }
                // After the name in brackets: state, parent, group.
                let fields = stat[(stat.lastIndex(of: ")") ?? stat.startIndex)...].split(separator: " ").dropFirst()
                return fields.dropFirst(2).first == "\(group)" && !["Z", "X"].contains(fields.first)
            }
        #else
            return kill(-group, 0) == 0
        #endif
    }

    @Test(.timeLimit(.minutes(15))) func programsComeInOrderAndGoTogether() async throws {
        let up = try Up([
            Self.parent,
            ["name": "second", "command": ["sleep", "1000"], "after": ["parent"]],
        ])
        let state = try await up.wait { $0.programs.allSatisfy { $0.state == "ready" } }
        let status = try await Martlet(["status"] + up.plan)
        #expect(status.status == 0)
        #expect(String(decoding: status.output, as: UTF8.self).contains("second"))
        let twice = try await Martlet(["up"] + up.plan)
        #expect(twice.status == 1 && twice.errors.contains("up already"), "\(twice.errors)")
        let down = try await Martlet(["down"] + up.plan)
        #expect(down.status == 0, "\(down.errors)")
        for program in state.programs { try await waitUntilGone(program.group ?? 0) }
        #expect(try await Martlet(["status"] + up.plan).status == 1)
        while up.process.isRunning { try await Task.sleep(for: .milliseconds(50)) }
        #expect(up.process.terminationStatus == 0)
        let log = try String(contentsOfFile: up.folder + "/out", encoding: .utf8)
        #expect(log.contains("parent | now it is up"), "\(log)")
    }

    @Test(.timeLimit(.minutes(15))) func nothingSurvivesAKilledSupervisor() async throws {
        var program = Self.parent
        program["command"] = ["sh", "-c", "sleep 1000 & echo now it is up; wait"]
        let up = try Up([program])
        let state = try await up.wait { $0.programs.allSatisfy { $0.state == "ready" } }
        let group = try #require(state.programs.first?.group)
        kill(state.supervisor, SIGKILL)
        try await waitUntilGone(group)
    }

    @Test(.timeLimit(.minutes(15))) func whatEndsIsStartedAgainUnlessToldOtherwise() async throws {
        let up = try Up([
            ["name": "failing", "command": ["sh", "-c", "exit 3"]],
            ["name": "missing", "command": ["/nowhere/at/all"]],
            ["name": "once", "command": ["sh", "-c", "exit 0"], "restart": false],
        ])
        let state = try await up.wait { state in
            state.programs[0].restarts >= 2 && state.programs[1].restarts >= 1 && state.programs[2].state == "ended"
        }
        #expect(state.programs[0].lastEnd == "exit code 3")
        #expect(state.programs[2].lastEnd == "exit code 0")
        #expect(state.programs[2].restarts == 0)
    }

    static let mistakes: [(String, String)] = [
        ("[]", "processes"), (#"{"processes": []}"#, "no processes"),
        (#"{"processes": [{"name": "a/b", "command": ["x"]}]}"#, "a/b"),
        (#"{"processes": [{"name": "a", "command": []}]}"#, "no command"),
        (#"{"processes": [{"name": "a", "command": ["x"], "after": ["b"]}]}"#, "'b'"),
    ]

    @Test(arguments: mistakes.indices) func aBadPlanIsNamed(index: Int) async throws {
        let (text, word) = Self.mistakes[index]
        let folder = try TemporaryFolder()
        try Data(text.utf8).write(to: URL(fileURLWithPath: folder.path + "/plan.json"))
        let result = try await Martlet(["up", "--file", folder.path + "/plan.json"])
        #expect(result.status == 1)
        #expect(result.errors.contains(word), "\(result.errors)")
    }
}
