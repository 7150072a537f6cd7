#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Reading and writing of reports.
public enum ExperimentFiles {
    /// Writes a report as JSON, whole or not at all.
    public static func write(_ report: some Encodable, to path: String) throws(ExperimentError) {
        try writeJSON(report, to: path)
    }

    /// Writes text, whole or not at all.
    public static func write(text: String, to path: String) throws(ExperimentError) {
        try ExperimentError.wrap(path) { try Data(text.utf8).write(to: URL(filePath: path), options: .atomic) }
    }
}

extension CodeRuns.Report {
    /// Writes the runs as JSON.
    public func write(to path: String) throws(ExperimentError) { try writeJSON(self, to: path) }

    /// Reads runs that `write(to:)` wrote.
    public static func read(from path: String) throws(ExperimentError) -> CodeRuns.Report {
        try readJSON(CodeRuns.Report.self, path)
    }
}

extension TopChoices {
    /// Reads the choices of a run.
    public static func read(from path: String) throws(ExperimentError) -> TopChoices {
        try readJSON(TopChoices.self, path)
    }
}

extension RunbookReport {
    /// Writes `runbook.json` and `report.html` into a folder, which is made.
    public func write(to folder: String, firstAudioLimit: Double? = nil) throws(ExperimentError) {
        try ExperimentError.wrap(folder) {
            try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
            try RunbookPage.html(self, firstAudioLimit: firstAudioLimit).write(
                toFile: folder + "/report.html", atomically: true, encoding: .utf8)
        }
        try writeJSON(self, to: folder + "/runbook.json")
    }

    /// Reads a `runbook.json`.
    public static func read(from path: String) throws(ExperimentError) -> RunbookReport {
        try readJSON(RunbookReport.self, path)
    }
}
