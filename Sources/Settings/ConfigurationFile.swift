#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// A configuration file: one JSON object, its keys the names of settings.
enum ConfigurationFile {
    /// Bytes of the largest file that is read.
    private static let sizeLimit = 1 << 20

    /// What a value may be.
    private enum Member: Decodable {
        case text(String), missing

        init(from decoder: any Decoder) throws {
            let container = try decoder.singleValueContainer()
            if container.decodeNil() {
                self = .missing
            } else if let value = try? container.decode(Bool.self) {
                self = .text(value ? "1" : "0")
            } else if let value = try? container.decode(UInt64.self) {
                self = .text("\(value)")
            } else if let value = try? container.decode(Int.self) {
                self = .text("\(value)")
            } else if let value = try? container.decode(Double.self) {
                self = .text("\(value)")
            } else if let value = try? container.decode(String.self) {
                self = .text(value)
            } else {
                self = .text(try container.decode([String].self).joined(separator: "|"))
            }
        }
    }

    /// Reads its members as texts; those that are null are left out.
    static func read(_ path: String) throws(SettingsError) -> [String: String] {
        let data: Data
        do {
            let size = try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int
            if let size, size > sizeLimit { throw SettingsError.file(path: path, reason: "it is larger than 1 MiB") }
            data = try Data(contentsOf: URL(filePath: path))
        } catch let error as SettingsError { throw error } catch {
            throw .file(path: path, reason: "the configuration file cannot be read")
        }
        do {
            return try JSONDecoder().decode([String: Member].self, from: data).compactMapValues { member in
                if case .text(let text) = member { text } else { nil }
            }
        } catch {
            let place = (error as? DecodingError).flatMap(place) ?? ""
            throw .file(
                path: path,
                reason: "expected one JSON object such as {\"packet-tokens\": 2, \"sync-mode\": \"event\"}\(place)")
        }
    }

    /// The key of a value that is neither text, number, toggle nor list of texts.
    private static func place(_ error: DecodingError) -> String? {
        switch error {
        case .typeMismatch(_, let context), .valueNotFound(_, let context):
            context.codingPath.first.map { "; the value of \($0.stringValue.debugDescription) is of another kind" }
        default: nil
        }
    }
}
