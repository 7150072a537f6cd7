import Synchronization

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A queue of codes in memory that two processes share: the worker writes, the engine reads.
///
/// The file behind it has no name, so nothing is left when both are gone.
final class CodesRing {
    private let memory: UnsafeMutableRawPointer
    private let capacity: Int
    /// Codes written and read so far.
    private let written: UnsafeMutablePointer<Atomic<Int>>
    private let read: UnsafeMutablePointer<Atomic<Int>>
    private let codes: UnsafeMutablePointer<Int32>

    private static let headerBytes = 128

    private static func byteCount(_ capacity: Int) -> Int { headerBytes + 4 * capacity }

    /// A nameless file, all zeros, for a ring of `capacity` codes; nil if the system gives none. Programs started from
    /// here do not inherit it.
    static func makeFile(capacity: Int) -> Int32? {
        let folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp"
        var path = Array("\(folder)/martlet-XXXXXX".utf8CString)
        let file = mkstemp(&path)
        guard file >= 0 else { return nil }
        unlink(path)
        guard fcntl(file, F_SETFD, FD_CLOEXEC) == 0, ftruncate(file, off_t(byteCount(capacity))) == 0 else {
            close(file)
            return nil
        }
        return file
    }

    /// Maps the file, which may be closed then. Zeros are an empty ring, so both sides can open it at any time.
    init?(file: Int32, capacity: Int) {
        var status = stat()
        guard capacity > 0, fstat(file, &status) == 0, Int(status.st_size) >= Self.byteCount(capacity) else {
            return nil
        }
        let mapped = mmap(nil, Self.byteCount(capacity), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)
        guard let mapped, mapped != MAP_FAILED else { return nil }
        memory = mapped
        self.capacity = capacity
        written = mapped.assumingMemoryBound(to: Atomic<Int>.self)
        // A cache line of its own.
        read = (mapped + 64).assumingMemoryBound(to: Atomic<Int>.self)
        codes = (mapped + Self.headerBytes).assumingMemoryBound(to: Int32.self)
    }

    deinit { munmap(memory, Self.byteCount(capacity)) }

    /// Adds codes; false if there is no room for all of them.
    func write(_ values: some Collection<Int32>) -> Bool {
        let end = written.pointee.load(ordering: .relaxed)
        guard end - read.pointee.load(ordering: .acquiring) + values.count <= capacity else { return false }
        for (i, value) in values.enumerated() { codes[(end + i) % capacity] = value }
        written.pointee.store(end + values.count, ordering: .releasing)
        return true
    }

    /// Takes the oldest `count` codes; nil if there are fewer.
    func take(_ count: Int) -> [Int32]? {
        let start = read.pointee.load(ordering: .relaxed)
        // The other side is another process: what it says is checked.
        let available = written.pointee.load(ordering: .acquiring) - start
        guard count <= available, available <= capacity else { return nil }
        let values = (0..<count).map { codes[(start + $0) % capacity] }
        read.pointee.store(start + count, ordering: .releasing)
        return values
    }
}
