import TestSupport

extension ServerProgram {
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

    func request(
        _ method: String, _ path: String, headers: [String: String] = [:], body: [UInt8]? = nil
    ) async throws -> RawResponse {
        let connection = try RawConnection(port: port)
        await connection.send(method, path, headers: headers, body: body)
        return await connection.response()
    }

    func speak(_ json: String) async throws -> RawResponse {
        try await request("POST", "/v1/audio/speech", body: Array(json.utf8))
    }
}
