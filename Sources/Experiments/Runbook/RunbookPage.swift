/// The report as one HTML page that needs nothing else: no script, no font, no picture from elsewhere.
public enum RunbookPage {
    /// The page, well-formed as XML too.
    /// - Parameter firstAudioLimit: milliseconds that are drawn as the limit; nil for none.
    public static func html(_ report: RunbookReport, firstAudioLimit: Double? = nil) -> String {
        let title = "Martlet runbook: \(report.outcome.word)"
        var body = header(report)
        for procedure in report.procedures { body += section(procedure, firstAudioLimit) }
        body += Markup.element(
            "footer", [:],
            Markup(
                "Times are of this machine while it ran; equal hashes mean equal codes, bit for bit. "
                    + "All figures are in runbook.json too."))
        let page = Markup.element(
            "html", ["lang": "en"],
            .element(
                "head", [:], .element("meta", ["charset": "utf-8"]),
                .element("meta", ["name": "viewport", "content": "width=device-width, initial-scale=1"]),
                .element("meta", ["name": "color-scheme", "content": "light dark"]), .element("title", title),
                .element("style", [:], .literal(style))),
            .element("body", [:], .element("main", [:], body)))
        return "<!DOCTYPE html>\n" + page.text + "\n"
    }

    private static func badge(_ outcome: RunbookReport.Outcome) -> Markup {
        .element("span", ["class": "badge \(outcome.rawValue)"], Markup(outcome.word))
    }

    // MARK: The head of the page

    private static func header(_ report: RunbookReport) -> Markup {
        let machine = report.machine
        var facts = Markup()
        func fact(_ name: String, _ value: String) {
            facts += .element("dt", name) + .element("dd", value)
        }
        fact("model", "\(machine.model): \(machine.shape)")
        if let identity = machine.identity { fact("identity", String(identity.prefix(16))) }
        fact("device", "\(machine.device): \(machine.processor), \(machine.instructionSet), \(machine.threads) threads")
        fact("weights", machine.weights)
        for name in ["deterministic_policy", "seed", "max_new_tokens"] {
            if let value = report.settings[name] { fact(name, value) }
        }
        fact("load", "\(fixed(machine.load, 2)) on \(machine.cores) processors when it began")
        if let drift = report.injectedDrift { fact("injected drift", drift) }
        var warnings = Markup()
        if !machine.isOptimised {
            warnings += .element("p", ["class": "warning"], Markup("A debug build: its times say nothing."))
        }
        if machine.load > Double(machine.cores) / 4 {
            warnings += .element(
                "p", ["class": "warning"],
                Markup("Other work ran on this machine: times are too long, hashes are not touched."))
        }
        var rows = Markup()
        for procedure in report.procedures {
            rows += .element(
                "tr", [:], .element("td", [:], badge(procedure.outcome)),
                .element("td", [:], .element("a", ["href": "#\(procedure.id)"], Markup(procedure.id))),
                .element("td", procedure.question))
        }
        return .element("h1", [:], Markup("Martlet runbook "), badge(report.outcome))
            + .element("dl", [:], facts) + warnings
            + .element("div", ["class": "wide"], .element("table", [:], .element("tbody", [:], rows)))
    }

    // MARK: One procedure

    private static func section(_ procedure: RunbookReport.Procedure, _ limit: Double?) -> Markup {
        var content = Markup.element(
            "h2", [:], Markup("\(procedure.id) "), badge(procedure.outcome))
        content += .element("p", ["class": "question"], Markup(procedure.question))
        var findings = Markup()
        for finding in procedure.findings {
            findings += .element("li", [:], badge(finding.outcome), Markup(" " + finding.reason))
        }
        content += .element("ul", ["class": "findings"], findings) + table(procedure) + notes(procedure)
        if let figure = RunbookFigures.latency(procedure.arms, limit: limit) {
            content += self.figure(
                "Time to the first audio, one dot a run; the tall mark is P50, the short one P95.", figure)
        }
        if let figure = RunbookFigures.timeline(procedure.arms) {
            content += self.figure(
                "Generation and decoding of the first packets, of each arm's middle run. The narrow band marks where both "
                    + "went on at once; the darker part of a decode call is upsampling and convolutions.", figure)
        }
        for (text, rows) in Dictionary(grouping: procedure.matrix, by: \.textID).sorted(by: { $0.key < $1.key }) {
            guard let figure = RunbookFigures.matrix(rows) else { continue }
            content += self.figure(
                "Which runs of \(text) agree: filled for all codes, pale for the first packet only, red for neither.",
                figure)
        }
        for picture in procedure.pictures {
            content += figure(
                "\(picture.tag) beside \(picture.reference): \(picture.rows.count) of \(picture.frames) frames differ. "
                    + "Frames go across, codebooks down.", RunbookFigures.picture(picture))
        }
        if procedure.pictures.isEmpty, procedure.matrix.count > 1 {
            content += .element("p", ["class": "soft"], Markup("No frame of any run differs."))
        }
        return .element("section", ["id": procedure.id], content)
    }

    private static func figure(_ caption: String, _ drawing: Markup) -> Markup {
        .element("figure", [:], drawing, .element("figcaption", caption))
    }

    private static func table(_ procedure: RunbookReport.Procedure) -> Markup {
        let table = RunbookTable(procedure)
        var head = Markup()
        for name in table.head { head += .element("th", name) }
        var body = Markup()
        for row in table.rows {
            var cells = Markup()
            for cell in row { cells += cell.isEmpty ? .element("td", "–") : .element("td", cell) }
            body += .element("tr", [:], cells)
        }
        return .element(
            "div", ["class": "wide"],
            .element(
                "table", ["class": "figures"], .element("thead", [:], .element("tr", [:], head)),
                .element("tbody", [:], body)))
    }

    private static func notes(_ procedure: RunbookReport.Procedure) -> Markup {
        var list = Markup()
        for arm in procedure.arms {
            let switches = arm.switches.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
            var item = Markup.element("b", arm.name) + Markup(": ")
            item += .element("code", switches.joined(separator: " "))
            for note in arm.notes { item += .element("br") + Markup(note) }
            if let before = arm.before { item += .element("br") + Markup("The old stack: \(before).") }
            if !list.text.contains(item.text) { list += .element("li", [:], item) }
        }
        return .element("ul", ["class": "notes"], list)
    }

    private static let style: StaticString = """
        :root { --page: #fbfbf9; --ink: #1c2024; --soft: #646b73; --line: #dfe2e5; --generate: #2f6fb5;
          --decode: #e0a13a; --convolve: #b36b12; --overlap: #1c2024; --same: #8fb8a0; --begins: #dcd7a8; --other: #c8452f;
          --pass: #1f7a45; --fail: #b3261e; --not: #646b73; }
        @media (prefers-color-scheme: dark) { :root { --page: #14171a; --ink: #e6e8ea; --soft: #9aa2ab; --line: #2d3339;
          --generate: #6ea8e6; --decode: #d99a3b; --convolve: #f0c678; --overlap: #e6e8ea; --same: #3d6b52;
          --begins: #6b6636; --other: #e8694f; --pass: #58c088; --fail: #ff8a7d; --not: #9aa2ab; } }
        * { box-sizing: border-box; }
        body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
        main { max-width: 60rem; margin: 0 auto; padding: 1rem; }
        h1 { font-size: 1.5rem; margin: .5rem 0 1rem; }
        h2 { font-size: 1.25rem; margin: 0; }
        section { border-top: 1px solid var(--line); padding-top: 1rem; margin-top: 2rem; }
        dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .8rem; margin: 0; }
        dt, .soft, figcaption, footer { color: var(--soft); }
        dd { margin: 0; overflow-wrap: anywhere; }
        .question { font-size: 1.05rem; margin: .2rem 0 .6rem; }
        .badge { font-size: .75rem; font-weight: 600; border: 1px solid currentColor; border-radius: .3rem;
          padding: .05rem .4rem; white-space: nowrap; vertical-align: middle; }
        .badge.pass { color: var(--pass); } .badge.fail { color: var(--fail); } .badge.not_judged { color: var(--not); }
        .warning { border-left: 3px solid var(--decode); padding-left: .6rem; }
        .wide { overflow-x: auto; margin: .8rem 0; }
        table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
        th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line);
          vertical-align: top; }
        .figures th, .figures td { white-space: nowrap; }
        th { font-weight: 600; color: var(--soft); }
        ul { padding-left: 1.1rem; } .findings { list-style: none; padding: 0; margin: .6rem 0; }
        .findings li { margin: .2rem 0; }
        .notes { font-size: .85rem; color: var(--soft); overflow-wrap: anywhere; }
        code { font-size: .85em; }
        a { color: inherit; }
        figure { margin: 1.2rem 0; max-width: 36rem; }
        figcaption { font-size: .85rem; margin-top: .3rem; }
        footer { font-size: .85rem; margin: 2rem 0; }
        svg { display: block; width: 100%; height: auto; }
        svg text { font: 11px system-ui, sans-serif; fill: var(--ink); } svg text.soft { fill: var(--soft); font-size: 10px; }
        .grid { stroke: var(--line); } .divide { stroke: var(--page); stroke-width: 2; }
        .mark { stroke: var(--ink); } .strong { stroke-width: 2.5; } .limit { stroke: var(--fail); stroke-dasharray: 4 3; }
        .dot { fill: var(--generate); fill-opacity: .55; }
        .generate { fill: var(--generate); } .decode { fill: var(--decode); } .convolve { fill: var(--convolve); }
        .overlap { fill: var(--overlap); } .same { fill: var(--same); } .begins { fill: var(--begins); }
        .other { fill: var(--other); } .first { fill: none; stroke: var(--ink); stroke-width: 1.5; }
        """
}
