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

/// Why nothing more is said over a channel.
enum ChannelError: Error {
    /// The other end is gone, or does not speak as it should.
    case closed
    /// The other end is there, but took or said nothing in time.
    case timedOut
}

/// Until when a channel's other end is waited for. A machine that sleeps does not use its time up.
struct ChannelDeadline {
    private let end: SuspendingClock.Instant?

    /// - Parameter seconds: from now; nil waits for ever.
    init(seconds: Double?) { end = seconds.map { SuspendingClock.now.advanced(by: .seconds($0)) } }

    /// Waits until a descriptor has one of the events, or an end.
    func wait(for events: Int32, of descriptor: Int32) throws(ChannelError) {
        var state = pollfd(fd: descriptor, events: Int16(events), revents: 0)
        while true {
            // A minute at a time, since poll counts milliseconds in 32 bits.
            let rest = end.map { min(60, max(0, ($0 - .now) / .seconds(1))) } ?? -1
            let ready = poll(&state, 1, rest < 0 ? -1 : Int32((1000 * rest).rounded(.up)))
            if ready > 0 { return }
            if ready < 0, errno != EINTR { throw .closed }
            if let end, end <= .now { throw .timedOut }
        }
    }
}

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

    /// Says something.
    /// - Parameter seconds: for the other end to make room; nil waits for ever.
    func send(_ message: some Encodable, within seconds: Double? = nil) throws(ChannelError) {
        guard let body = try? JSONEncoder().encode(message) else { throw .closed }
        let deadline = ChannelDeadline(seconds: seconds)
        var bytes = withUnsafeBytes(of: UInt32(body.count).littleEndian) { Array($0) } + body
        #if canImport(Darwin)
            let flags = Int32(MSG_DONTWAIT)
        #else
            let flags = Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT)
        #endif
        var sent = 0
        while sent < bytes.count {
            let count = bytes.withUnsafeMutableBytes { rest in
                rest.baseAddress.map { Self.send(descriptor, $0 + sent, rest.count - sent, flags) } ?? -1
            }
            if count < 0, errno == EAGAIN { try deadline.wait(for: Int32(POLLOUT), of: descriptor) }
            if count < 0, errno == EAGAIN || errno == EINTR { continue }
            guard count > 0 else { throw .closed }
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
    /// - Parameter seconds: for all of it; nil waits for ever.
    func receive<Message: Decodable>(
        _ type: Message.Type, within seconds: Double? = nil
    ) throws(ChannelError) -> Message {
        let deadline = ChannelDeadline(seconds: seconds)
        let length = try read(4, deadline).reversed().reduce(0) { $0 << 8 | Int($1) }
        guard length <= Self.messageLimit else { throw .closed }
        let body = try read(length, deadline)
        do { return try JSONDecoder().decode(type, from: Data(body)) } catch { throw .closed }
    }

    private func read(_ count: Int, _ deadline: ChannelDeadline) throws(ChannelError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var got = 0
        while got < count {
            try deadline.wait(for: Int32(POLLIN), of: descriptor)
            let read = bytes.withUnsafeMutableBytes { rest in
                rest.baseAddress.map { recv(descriptor, $0 + got, rest.count - got, 0) } ?? -1
            }
            if read < 0, errno == EINTR { continue }
            guard read > 0 else { throw .closed }
            got += read
        }
        return bytes
    }
}
