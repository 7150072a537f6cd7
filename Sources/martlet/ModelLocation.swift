import ModelHub

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

/// Finds the folder of the model that a command names.
enum ModelLocation {
    /// - Parameter name: a folder, the name of a pulled model (`ORG/NAME`, or `ORG/NAME@REVISION`), or nil for
    ///   `MARTLET_MODEL` in the environment. A folder goes before a pulled model of the same name.
    static func directory(of name: String?) throws -> String {
        guard let name = name ?? ProcessInfo.processInfo.environment["MARTLET_MODEL"], !name.isEmpty else {
            throw CommandError("no model named: use --model DIR, or --model ORG/NAME after 'martlet pull ORG/NAME'")
        }
        var status = stat()
        if stat(name, &status) == 0 {
            guard status.st_mode & S_IFMT == S_IFDIR else {
                throw CommandError("\(name) is a file; a model is a folder")
            }
            return name
        }
        let parts = name.split(separator: "@", maxSplits: 1)
        let revision = parts.count == 2 ? String(parts[1]) : "main"
        guard let repository = parts.first.map({ String($0) }), !name.hasPrefix("/"), !name.hasPrefix("."),
            repository.split(separator: "/").count == 2
        else { throw CommandError("the model folder \(name) does not exist") }
        guard let folder = try HubClient().locate(repository: repository, revision: revision) else {
            let command = "martlet pull \(repository)" + (parts.count == 2 ? " --revision \(revision)" : "")
            throw CommandError("the model \(name) is neither a folder here nor pulled: run '\(command)'")
        }
        return folder.path
    }
}
