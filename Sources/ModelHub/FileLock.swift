#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// An exclusive `flock` on a file, as huggingface_hub takes it.
struct FileLock: ~Copyable {
    private let descriptor: Int32

    /// Waits until nobody else holds the lock.
    init(_ path: String) async throws {
        try makeParent(of: path)
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o666)
        guard descriptor >= 0 else { throw HubError.cache(path: path, reason: systemErrorText(errno)) }
        do {
            while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
                guard errno == EWOULDBLOCK || errno == EINTR else {
                    throw HubError.cache(path: path, reason: "it cannot be locked (\(systemErrorText(errno)))")
                }
                try await Task.sleep(for: .milliseconds(50))
            }
        } catch {
            _ = close(descriptor)
            throw error
        }
        self.descriptor = descriptor
    }

    /// Lets others have the lock.
    func release() { _ = flock(descriptor, LOCK_UN) }

    deinit { _ = close(descriptor) }
}
