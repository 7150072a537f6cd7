import ArgumentParser
import Settings

/// `martlet config`: what is set, and where it came from.
struct ConfigCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config", abstract: "Show every setting, its value and where it came from.",
        discussion: """
            A flag goes before a variable MARTLET_…, that before an old variable TTS_…, that before the configuration \
            file, that before the default. The file is one JSON object:
              {"packet-tokens": 2, "sync-mode": "event", "starter-cache-texts": ["Well, now.", "Let me see."]}
            """)

    @OptionGroup var options: SettingOptions

    @Option(name: .shortAndLong, help: .of(.model))
    var model: String?

    @Option(help: .of(.weights))
    var weights: String?

    @Option(help: .of(.threads))
    var threads: String?

    @Option(help: .of(.host))
    var host: String?

    @Option(help: .of(.port))
    var port: String?

    @Option(help: .of(.server))
    var server: String?

    @Flag(help: "Also show what each setting means, what it may be and its old names.")
    var explain = false

    @Flag(help: "Print JSON.")
    var json = false

    private struct Row: Encodable {
        let name, flag, variable: String
        let value: String?
        let source: String
        let standard: String?
        let values: String
        let aliases: [String]
        let acts: Bool
        let instead: String?
        let meaning: String

        enum CodingKeys: String, CodingKey {
            case name, flag, variable, value, source, values, aliases, acts, instead, meaning
            case standard = "default"
        }
    }

    private struct Report: Encodable {
        let settings: [Row]
        let notes: [String]
    }

    func run() throws {
        let settings = try options.settings([
            (.model, model), (.weights, weights), (.threads, threads), (.host, host), (.port, port), (.server, server),
        ])
        let notes = settings.notes + settings.conflicts()
        let rows = settings.values.map { value in
            let setting = value.setting
            let instead: String? =
                switch setting.effect {
                case .acts: nil
                case .none(let text): text
                case .onGPU(let text): settings.text(.device) == "cpu" ? text : nil
                }
            return Row(
                name: setting.name, flag: setting.flag, variable: setting.variable, value: value.text,
                source: value.source.label, standard: setting.standard, values: setting.values,
                aliases: setting.aliases,
                acts: instead == nil, instead: instead, meaning: setting.meaning)
        }
        if json {
            try printJSON(Report(settings: rows, notes: notes))
            return
        }
        for row in rows {
            print(row.name.padded(to: 24) + (row.value ?? "-").padded(to: 18) + row.source)
            guard explain else { continue }
            print("    " + row.meaning + (row.instead.map { " Accepted, has no effect: \($0)." } ?? ""))
            print("    \(row.values); " + ([row.flag, row.variable] + row.aliases).joined(separator: ", "))
        }
        for note in notes { printError("note: " + note) }
    }
}
