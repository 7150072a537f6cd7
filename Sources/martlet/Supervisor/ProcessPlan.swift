#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Which programs belong together: the file of `martlet up`.
struct ProcessPlan: Decodable {
    /// One program.
    struct Program: Decodable {
        /// What it is called here.
        let name: String
        /// The program and its arguments; `martlet` alone is this one.
        let command: [String]
        /// Variables besides those of `martlet up`.
        let environment: [String: String]?
        /// The words in a line of its output that say it is ready; without them it is ready when it runs.
        let readyLine: String?
        /// Programs that must be ready before it starts.
        let after: [String]?
        /// Whether it is started again when it ends; yes unless said otherwise.
        let restart: Bool?

        enum CodingKeys: String, CodingKey {
            case name, command, environment, after, restart
            case readyLine = "ready-line"
        }
    }

    let processes: [Program]

    /// Reads and checks a plan.
    static func read(_ path: String) throws -> ProcessPlan {
        let data = Data(try readFile(path))
        guard let plan = try? JSONDecoder().decode(ProcessPlan.self, from: data) else {
            throw CommandError(
                "\(path) is no plan, expected {\"processes\": [{\"name\": \"tts\", \"command\": [\"martlet\", \"serve\", …], "
                    + "\"ready-line\": \"Application startup complete\"}, …]}")
        }
        var names: Set<String> = []
        for program in plan.processes {
            let isPlain = program.name.utf8.allSatisfy { byte in
                byte == UInt8(ascii: "-") || byte == UInt8(ascii: "_") || (byte >= 48 && byte < 58)
                    || (byte | 32 >= 97 && byte | 32 < 123)
            }
            guard isPlain, !program.name.isEmpty, names.insert(program.name).inserted else {
                throw CommandError("\(path): names are of letters, digits, - and _, each once; not '\(program.name)'")
            }
            guard let first = program.command.first, !first.isEmpty else {
                throw CommandError("\(path): \(program.name) has no command")
            }
            // Only what stands before it, so that there are no circles.
            if let odd = program.after?.first(where: { $0 == program.name || !names.contains($0) }) {
                throw CommandError("\(path): \(program.name) comes after '\(odd)', which does not stand before it")
            }
        }
        guard !plan.processes.isEmpty else { throw CommandError("\(path) has no processes") }
        return plan
    }
}

/// What a supervisor says of itself while it runs: `state.json` in its folder.
struct SupervisorState: Codable {
    /// One program's.
    struct Program: Codable {
        let name: String
        /// `waiting`, `starting`, `ready`, `backing-off`, `stopping`, `ended`.
        var state = "waiting"
        /// Its process group; nil if it does not run.
        var group: Int32?
        /// How often it was started again.
        var restarts = 0
        /// How it ended last.
        var lastEnd: String?
    }

    let supervisor: Int32
    var programs: [Program]
}
