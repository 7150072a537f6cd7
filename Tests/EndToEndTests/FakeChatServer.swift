import Foundation
import Synchronization

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// An OpenAI-compatible language model that says what it was told to say, one piece at a time.
final class FakeChatServer: Sendable {
    let port: Int
    /// Bodies of the requests for completions.
    let requests = Mutex<[String]>([])
    /// Answers whose client went away before the end.
    let broken = Atomic<Int>(0)
    private let listener: Int32

    var url: String { "http://127.0.0.1:\(port)" }

    /// - Parameter endless: goes on with the pieces again and again until the client goes away.
    init(_ pieces: [String], endless: Bool = false) throws {
        #if canImport(Darwin)
            listener = socket(AF_INET, SOCK_STREAM, 0)
        #else
            listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        #endif
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let listener = listener
        let bound = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(listener, $0, length) == 0 && listen(listener, 16) == 0 && getsockname(listener, $0, &length) == 0
            }
        }
        guard bound else { throw POSIXError(.init(rawValue: errno) ?? .EIO) }
        port = Int(UInt16(bigEndian: address.sin_port))
        signal(SIGPIPE, SIG_IGN)
        Thread.detachNewThread { [weak self] in
            while true {
                let connection = accept(listener, nil, nil)
                guard connection >= 0, let server = self else { return }
                Thread.detachNewThread {
                    server.serve(connection, pieces, endless: endless)
                    close(connection)
                }
            }
        }
    }

    deinit { shutdown(listener, Int32(SHUT_RDWR)) }

    private func serve(_ connection: Int32, _ pieces: [String], endless: Bool) {
        var text = ""
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        func body() -> Substring? {
            guard let end = text.range(of: "\r\n\r\n") else { return nil }
            let head = text[..<end.lowerBound].lowercased()
            let length =
                head.split(separator: "\r\n").first { $0.hasPrefix("content-length:") }
                .flatMap { Int($0.dropFirst(15).trimmingCharacters(in: .whitespaces)) } ?? 0
            let body = text[end.upperBound...]
            return body.utf8.count >= length ? body : nil
        }
        while body() == nil {
            let count = read(connection, &buffer, buffer.count)
            guard count > 0 else { return }
            text += String(decoding: buffer[..<count], as: UTF8.self)
        }
        func send(_ text: String) -> Bool {
            Array(text.utf8).withUnsafeBytes { write(connection, $0.baseAddress, $0.count) } == text.utf8.count
        }
        let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: "
        if text.hasPrefix("GET /v1/models ") {
            _ = send(head + "application/json\r\n\r\n{\"data\": [{\"id\": \"fake-1\"}]}")
            return
        }
        requests.withLock { $0.append(String(body() ?? "")) }
        _ = send(head + "text/event-stream\r\n\r\ndata: {\"choices\": [{\"delta\": {\"role\": \"assistant\"}}]}\n\n")
        repeat {
            for piece in pieces {
                let chunk = try? JSONSerialization.data(withJSONObject: ["choices": [["delta": ["content": piece]]]])
                guard send("data: \(String(decoding: chunk ?? Data(), as: UTF8.self))\n\n") else {
                    broken.add(1, ordering: .relaxed)
                    return
                }
                usleep(20_000)
            }
        } while endless
        _ = send("data: [DONE]\n\n")
    }
}
