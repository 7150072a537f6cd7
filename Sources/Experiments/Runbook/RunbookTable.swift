/// A procedure's figures as rows of words, for a terminal and for the page.
public struct RunbookTable: Sendable {
    /// Names of the columns.
    public let head: [String]
    /// A row for each arm and text, as wide as the head.
    public let rows: [[String]]

    /// The table of a procedure.
    public init(_ procedure: RunbookReport.Procedure) {
        let arms = procedure.arms
        let hasTexts = Set(arms.map(\.textID)).count > 1
        let isTimed = arms.contains { $0.firstAudio != nil }
        var names: [String] = []
        for reading in arms.flatMap(\.readings) where !names.contains(reading.name) { names.append(reading.name) }
        head =
            ["arm"] + (hasTexts ? ["text"] : []) + ["runs"] + (isTimed ? ["ttfa_p50", "ttfa_p95", "rtf"] : [])
            + ["hash_unique", "first_packet_hash_unique", "first_diff_frame", "fail_count"] + names
        rows = arms.map { arm in
            var row = [arm.name] + (hasTexts ? [arm.textID] : []) + ["\(arm.runs.count)"]
            if isTimed {
                row += [
                    arm.firstAudio.map { fixed($0.p50, 1) } ?? "", arm.firstAudio.map { fixed($0.p95, 1) } ?? "",
                    arm.realTimeFactor.map { fixed($0.p50, 2) } ?? "",
                ]
            }
            let diff =
                arm.firstDiffCodebook >= 0 ? "\(arm.firstDiffFrame):\(arm.firstDiffCodebook)" : "\(arm.firstDiffFrame)"
            row +=
                arm.problem == nil
                ? ["\(arm.hashUnique)", "\(arm.firstPacketHashUnique)", diff, "\(arm.failCount)"] : ["", "", "", ""]
            return row + names.map { name in arm.readings.first { $0.name == name }?.value ?? "" }
        }
    }

    /// The table with its columns aligned.
    public var text: String {
        let widths = head.indices.map { column in ([head] + rows).map { $0[column].count }.max() ?? 0 }
        return ([head] + rows).map { row in
            zip(row, widths).map { $0 + String(repeating: " ", count: $1 - $0.count) }.joined(separator: "  ")
                .reversed().drop { $0 == " " }.reversed().map(String.init).joined()
        }.joined(separator: "\n")
    }
}
