#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

extension ServerOptions {
    /// The names that a model answers to, by how it was asked for and where it lies; never a path.
    ///
    /// A model of the hub is called `ORG/NAME` and `NAME`, any other by the last part of its folder.
    /// - Parameters:
    ///   - asked: the name that the operator gave: a folder, or `ORG/NAME` with or without `@REVISION`.
    ///   - folder: where the model was found.
    public static func modelNames(asked: String?, folder: String) -> [String] {
        if let asked, asked != folder {
            let repository = String(asked.prefix { $0 != "@" })
            return [repository] + repository.split(separator: "/").dropFirst().suffix(1).map(String.init)
        }
        let parts = URL(filePath: folder).standardizedFileURL.path.split(separator: "/").map(String.init)
        // In the hub's cache the folder is called by a hash: models--ORG--NAME/snapshots/HASH.
        if parts.count >= 3, parts[parts.count - 2] == "snapshots" {
            let words = parts[parts.count - 3].components(separatedBy: "--")
            if words.count == 3, words[0] == "models" { return [words[1] + "/" + words[2], words[2]] }
        }
        return [parts.last ?? "martlet"]
    }
}
