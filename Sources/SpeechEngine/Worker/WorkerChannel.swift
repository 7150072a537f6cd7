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

/// The other end of a channel is gone, or does not speak as it should.
struct ChannelClosed: Error {}

/// One end of a socket that carries messages: four bytes of length, then JSON.
struct WorkerChannel: ~Copyable {
    private let descriptor: Int32
    /// Far above the largest request.
    private static let messageLimit = 64 << 20

    /// Takes over a connected socket.
    init(descriptor: Int32) {
        self.descriptor = descriptor
        #if canImport(Darwin)
            var yes: Int32 = 1
            setsockopt(descriptor, SOL_SOCKET, SO_NOSIGPIPE, &yes, socklen_t(MemoryLayout<Int32>.size))
        #endif
    }

    deinit { close(descriptor) }

    /// Two connected ends that programs started from here do not inherit.
    static func makePair() -> (Int32, Int32)? {
        var ends: [Int32] = [-1, -1]
        #if canImport(Glibc)
            let type = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        #elseif canImport(Musl)
            let type = SOCK_STREAM | SOCK_CLOEXEC
        #else
            let type = SOCK_STREAM
        #endif
        guard socketpair(AF_UNIX, type, 0, &ends) == 0 else { return nil }
        #if canImport(Darwin)
            for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        #endif
        return (ends[0], ends[1])
    }

    /// Says to both ends that nothing more comes.
    func hangUp() { shutdown(descriptor, Int32(SHUT_RDWR)) }

    func send(_ message: some Encodable) throws(ChannelClosed) {
        guard let body = try? JSONEncoder().encode(message) else { throw ChannelClosed() }
        var bytes = withUnsafeBytes(of: UInt32(body.count).littleEndian) { Array($0) } + body
        #if canImport(Darwin)
            let flags: Int32 = 0
        #else
            let flags = Int32(MSG_NOSIGNAL)
        #endif
        var sent = 0
        while sent < bytes.count {
            let count = bytes.withUnsafeMutableBytes { rest in
                rest.baseAddress.map { Self.send(descriptor, $0 + sent, rest.count - sent, flags) } ?? -1
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw ChannelClosed() }
            sent += count
        }
    }

    private static func send(_ descriptor: Int32, _ bytes: UnsafeRawPointer, _ count: Int, _ flags: Int32) -> Int {
        #if canImport(Glibc)
            Glibc.send(descriptor, bytes, count, flags)
        #elseif canImport(Musl)
            Musl.send(descriptor, bytes, count, flags)
        #else
            Darwin.send(descriptor, bytes, count, flags)
        #endif
    }

    /// Waits for the next message.
    func receive<Message: Decodable>(_ type: Message.Type) throws(ChannelClosed) -> Message {
        let length = try read(4).reversed().reduce(0) { $0 << 8 | Int($1) }
        guard length <= Self.messageLimit else { throw ChannelClosed() }
        let body = try read(length)
        do { return try JSONDecoder().decode(type, from: Data(body)) } catch { throw ChannelClosed() }
    }

    private func read(_ count: Int) throws(ChannelClosed) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var got = 0
        while got < count {
            let read = bytes.withUnsafeMutableBytes { rest in
                rest.baseAddress.map { recv(descriptor, $0 + got, rest.count - got, 0) } ?? -1
            }
            if read < 0, errno == EINTR { continue }
            guard read > 0 else { throw ChannelClosed() }
            got += read
        }
        return bytes
    }
}
