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
    /// - Parameter name: a folder, the name of a shipped voice, the name of a pulled model (`ORG/NAME`, or
    ///   `ORG/NAME@REVISION`), or nil for `MARTLET_MODEL` in the environment and else the shipped voice. A folder goes
    ///   before everything else of the same name.
    static func directory(of name: String?) throws -> String {
        guard let name = name ?? ProcessInfo.processInfo.environment["MARTLET_MODEL"], !name.isEmpty else {
            if let voice = ShippedVoices().defaultFolder { return voice }
            throw CommandError("no model named: use --model DIR, or --model ORG/NAME after 'martlet pull ORG/NAME'")
        }
        var status = stat()
        if stat(name, &status) == 0 {
            guard status.st_mode & S_IFMT == S_IFDIR else {
                throw CommandError("\(name) is a file; a model is a folder")
            }
            return name
        }
        if let voice = ShippedVoices().folder(of: name) { return voice }
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

/// The voices that come with Martlet: folders `NAME` with a `config.json`, each a whole model.
struct ShippedVoices {
    /// What is used where several are shipped and none is named.
    static let defaultName = "aviary"

    /// Folders that may hold voices, the first goes before the others.
    let places: [String]

    /// The places of this program: `Voices` in a folder above the executable (a clone), `share/martlet/Voices` of the
    /// prefix it is installed in, `Voices` in the current folder.
    init() {
        #if os(Linux)
            let executable = "/proc/self/exe"
        #else
            let executable = Bundle.main.executablePath ?? CommandLine.arguments[0]
        #endif
        self.init(executable: executable, currentFolder: FileManager.default.currentDirectoryPath)
    }

    /// - Parameter executable: the program's path; links in it are followed.
    init(executable: String, currentFolder: String) {
        var places: [String] = []
        let components = Self.realPath(executable).split(separator: "/")
        for length in components.indices.reversed() {
            places.append("/" + components[..<length].map { $0 + "/" }.joined() + "Voices")
        }
        if components.count > 2 {
            places.append("/" + components.dropLast(2).joined(separator: "/") + "/share/martlet/Voices")
        }
        self.places = places + [currentFolder + "/Voices"]
    }

    /// The default voice; where it isn't shipped, the first by name.
    var defaultFolder: String? {
        for place in places {
            let names = (try? FileManager.default.contentsOfDirectory(atPath: place)) ?? []
            let voices = names.filter { Self.isVoice(place + "/" + $0) }
            if let name = voices.contains(Self.defaultName) ? Self.defaultName : voices.min() {
                return place + "/" + name
            }
        }
        return nil
    }

    /// The folder of the voice called `name`.
    func folder(of name: String) -> String? {
        guard !name.contains("/"), !name.hasPrefix(".") else { return nil }
        return places.lazy.map { $0 + "/" + name }.first(where: Self.isVoice)
    }

    private static func isVoice(_ folder: String) -> Bool {
        FileManager.default.fileExists(atPath: folder + "/config.json")
    }

    private static func realPath(_ path: String) -> String {
        guard let real = realpath(path, nil) else { return path }
        defer { free(real) }
        return String(cString: real)
    }
}
