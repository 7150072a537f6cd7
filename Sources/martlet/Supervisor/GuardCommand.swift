import ArgumentParser
import Synchronization

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

import class Foundation.Thread

/// Whether the supervisor is gone.
private final class Flag: Sendable {
    let value = Atomic<Bool>(false)
}

/// `martlet guard`: leads the process group of one program and ends it when its supervisor is gone. Not for people.
struct GuardCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "guard", abstract: "Run a program for 'martlet up' and end it when that is gone.",
        shouldDisplay: false)

    /// The end of the supervisor's pipe.
    static let leash: Int32 = 3

    @Argument(parsing: .postTerminator, help: "The program and its arguments.")
    var command: [String]

    func run() throws {
        guard fcntl(Self.leash, F_SETFD, FD_CLOEXEC) == 0, getpgrp() == getpid() else {
            throw ValidationError("'martlet guard' is started by 'martlet up', not by hand.")
        }
        // Signals to the group are for the program.
        for number in [SIGTERM, SIGINT, SIGHUP] { signal(number, SIG_IGN) }
        let child = try startProcess(
            command, environment: ProcessInfo.processInfo.environment, newGroup: false, descriptors: [])
        let isAlone = Flag()
        Thread.detachNewThread {
            var byte: UInt8 = 0
            // Nothing is ever written: this returns when the supervisor has closed its end or is gone.
            while read(Self.leash, &byte, 1) < 0, errno == EINTR {}
            isAlone.value.store(true, ordering: .relaxed)
            kill(-getpgrp(), SIGTERM)
            for _ in 0..<Int(Supervisor.grace * 10) { usleep(100_000) }
            kill(-getpgrp(), SIGKILL)
        }
        var status: Int32 = 0
        while waitpid(child, &status, 0) < 0, errno == EINTR {}
        // Whatever the program has left behind in its group: the supervisor ends it, if there still is one.
        if isAlone.value.load(ordering: .relaxed) { kill(-getpgrp(), SIGKILL) }
        throw ExitCode(status & 0x7F == 0 ? status >> 8 & 0xFF : 128 + status & 0x7F)
    }
}
