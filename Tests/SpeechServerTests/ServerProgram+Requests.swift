import TestSupport

extension ServerProgram: ListeningServer {
    /// A server that is ready.
    /// - Parameters:
    ///   - arguments: of `serve`, after the model.
    ///   - shell: commands of a shell before it, such as limits.
    static func ready(
        model: String, _ arguments: [String] = [], port: Int = 0, shell: String = ""
    ) async throws -> ServerProgram {
        let server = try await ServerProgram(
            ["--model", model, "--threads", "2"] + arguments, port: port, shell: shell)
        while try await server.request("GET", "/ready").status != 200 { try await Task.sleep(for: .milliseconds(20)) }
        return server
    }
}
