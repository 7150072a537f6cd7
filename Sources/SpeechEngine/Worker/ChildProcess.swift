import Foundation

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Why a process could not be started.
package struct SpawnError: Error {
    /// The system's words for it.
    package let reason: String
}

/// Starts a process with no signal blocked.
/// - Parameters:
///   - program: found by `PATH` if it has no slash.
///   - arguments: its own name first.
///   - newGroup: leads a process group of its own.
///   - descriptors: descriptors of this process, and what they are called in the new one, whose standard input is empty if
///     none is to be that.
///   - defaultSignals: those that do there what they do without a handler, whatever they do here.
package func spawnProcess(
    _ program: String, arguments: [String], environment: [String: String], newGroup: Bool,
    descriptors: [(own: Int32, its: Int32)], defaultSignals: [Int32]
) throws(SpawnError) -> pid_t {
    #if canImport(Darwin)
        var actions: posix_spawn_file_actions_t?
        var attributes: posix_spawnattr_t?
    #else
        var actions = posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
    #endif
    posix_spawn_file_actions_init(&actions)
    posix_spawnattr_init(&attributes)
    defer {
        posix_spawn_file_actions_destroy(&actions)
        posix_spawnattr_destroy(&attributes)
    }
    if !descriptors.contains(where: { $0.its == STDIN_FILENO }) {
        posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
    }
    for (own, its) in descriptors { posix_spawn_file_actions_adddup2(&actions, own, its) }
    var signals = sigset_t()
    sigemptyset(&signals)
    posix_spawnattr_setsigmask(&attributes, &signals)
    for signal in defaultSignals { sigaddset(&signals, signal) }
    posix_spawnattr_setsigdefault(&attributes, &signals)
    var flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF
    if newGroup {
        posix_spawnattr_setpgroup(&attributes, 0)
        flags |= POSIX_SPAWN_SETPGROUP
    }
    posix_spawnattr_setflags(&attributes, Int16(flags))
    let words = arguments.map { strdup($0) } + [nil]
    let variables = environment.map { strdup("\($0.key)=\($0.value)") } + [nil]
    defer { for text in words + variables { free(text) } }
    var process = pid_t()
    let error = posix_spawnp(&process, program, &actions, &attributes, words, variables)
    guard error == 0 else { throw SpawnError(reason: String(cString: strerror(error))) }
    return process
}
