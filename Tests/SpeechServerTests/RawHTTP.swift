import Foundation

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// What a server answered, with what HTTP libraries hide: chunks and trailers.
struct RawResponse: Sendable {
    var status = 0
    var headers: [String: String] = [:]
    var trailers: [String: String] = [:]
    var chunks: [[UInt8]] = []
    /// Whether the response had the end that its framing promises.
    var isComplete = false

    var body: [UInt8] { chunks.flatMap { $0 } }
    var text: String { String(decoding: body, as: UTF8.self) }

    func json() throws -> [String: Any] {
        try JSONSerialization.jsonObject(with: Data(body)) as? [String: Any] ?? [:]
    }

    /// A member of the error object.
    func error(_ member: String) throws -> String? { (try json()["error"] as? [String: Any])?[member] as? String }
}

/// A socket of its own to the server, for HTTP/1.1 as no library would speak it.
///
/// `@unchecked Sendable`: the descriptor is constant; one caller at a time.
final class RawConnection: @unchecked Sendable {
    private let descriptor: Int32
    private let port: Int
    private var buffer: [UInt8] = []
    private var isOpen = true
    /// Whether it has waited a quarter of an hour for bytes, in vain: tests that compute may hold all threads for minutes.
    private(set) var gaveUp = false

    init(port: Int, receiveBuffer: Int32? = nil) throws {
        self.port = port
        #if canImport(Glibc)
            descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        #else
            descriptor = socket(AF_INET, SOCK_STREAM, 0)
        #endif
        var limit = timeval(tv_sec: 900, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        if var receiveBuffer { setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &receiveBuffer, 4) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(UInt16(port).bigEndian)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let result = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard result == 0 else { throw POSIXError(.init(rawValue: errno) ?? .EIO) }
    }

    deinit { close() }

    func close() {
        if isOpen { _ = shutdownAndClose(descriptor) }
        isOpen = false
    }

    /// Runs blocking calls away from Swift's own threads.
    private func blocking<Value: Sendable>(_ body: @escaping @Sendable () -> Value) async -> Value {
        await withCheckedContinuation { continuation in
            DispatchQueue.global().async { continuation.resume(returning: body()) }
        }
    }

    /// Sends a request, which ends the connection unless it says otherwise.
    func send(_ method: String, _ path: String, headers: [String: String] = [:], body: [UInt8]? = nil) async {
        var head = "\(method) \(path) HTTP/1.1\r\nHost: 127.0.0.1:\(port)\r\n"
        if headers["Connection"] == nil { head += "Connection: close\r\n" }
        for (name, value) in headers { head += "\(name): \(value)\r\n" }
        if let body { head += "Content-Length: \(body.count)\r\n" }
        await send(Array((head + "\r\n").utf8) + (body ?? []))
    }

    /// Sends bytes.
    func send(_ bytes: [UInt8]) async {
        await blocking { [descriptor] in
            var sent = 0
            while sent < bytes.count {
                let count = bytes[sent...].withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
                if count <= 0 { return }
                sent += count
            }
        }
    }

    /// Reads a piece of the response, whatever it is, and gives the bytes that are there.
    func readSome() async -> Int {
        await blocking {
            _ = self.fill()
            return self.buffer.count
        }
    }

    /// Reads so many bytes; nil if the connection ends before.
    func read(_ count: Int) async -> [UInt8]? { await blocking { self.take(count) } }

    /// Reads the head of a response, which has nothing else; nil if the connection ends before.
    func head() async -> RawResponse? { await blocking { self.readHead() } }

    /// Reads the whole response.
    func response() async -> RawResponse { await blocking { self.readResponse() } }

    private func fill() -> Bool {
        var piece = [UInt8](repeating: 0, count: 65_536)
        let count = recv(descriptor, &piece, piece.count, 0)
        guard count > 0 else {
            gaveUp = count < 0 && errno == EAGAIN
            return false
        }
        buffer += piece[..<count]
        return true
    }

    private func line() -> String? {
        while true {
            if let end = buffer.firstRange(of: [13, 10]) {
                let line = String(decoding: buffer[..<end.lowerBound], as: UTF8.self)
                buffer.removeSubrange(..<end.upperBound)
                return line
            }
            if !fill() { return nil }
        }
    }

    private func take(_ count: Int) -> [UInt8]? {
        while buffer.count < count { if !fill() { return nil } }
        defer { buffer.removeFirst(count) }
        return Array(buffer[..<count])
    }

    private func fields() -> [String: String]? {
        var fields: [String: String] = [:]
        while let line = line() {
            if line.isEmpty { return fields }
            let parts = line.split(separator: ":", maxSplits: 1).map { $0.trimmingCharacters(in: .whitespaces) }
            if parts.count == 2 { fields[parts[0].lowercased()] = parts[1] }
        }
        return nil
    }

    private func readHead() -> RawResponse? {
        guard let status = line()?.split(separator: " "), status.count > 1, let headers = fields() else { return nil }
        return RawResponse(status: Int(status[1]) ?? 0, headers: headers)
    }

    private func readResponse() -> RawResponse {
        guard var response = readHead() else { return RawResponse() }
        let headers = response.headers
        if headers["transfer-encoding"]?.lowercased() == "chunked" {
            while let size = line().flatMap({ Int($0, radix: 16) }) {
                if size == 0 {
                    if let trailers = fields() {
                        response.trailers = trailers
                        response.isComplete = true
                    }
                    return response
                }
                guard let chunk = take(size), take(2) != nil else { return response }
                response.chunks.append(chunk)
            }
        } else if let length = headers["content-length"].flatMap({ Int($0) }) {
            guard let body = take(length) else { return response }
            response.chunks = [body]
            response.isComplete = true
        }
        return response
    }
}

private func shutdownAndClose(_ descriptor: Int32) -> Int32 { close(descriptor) }
