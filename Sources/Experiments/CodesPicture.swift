extension CodesComparison {
    /// A picture of where runs differ from the first one, as a whole SVG file: a band a run, frames across, codebooks down;
    /// dark where a code differs, lighter where one of the two has no such frame. The first place is circled.
    /// - Parameter records: those that were compared.
    public static func svg(_ records: [CodeRecord]) -> String {
        guard let first = records.first else { return "" }
        let frames = max(1, records.map(\.frames).max() ?? 1)
        let layout = PictureLayout(frames: frames, groups: first.groups, runs: records.count)
        var content = Markup()
        for (index, record) in records.enumerated() { content += band(record, first, index: index, layout) }
        content += words("frame 0", layout.left, layout.height - 4, "soft")
        content += words("\(frames - 1)", layout.width - 10, layout.height - 4, "soft", anchor: "end")
        let picture = Markup.element(
            "svg",
            [
                "xmlns": "http://www.w3.org/2000/svg",
                "viewBox": "0 0 \(number(layout.width)) \(number(layout.height))",
                "width": number(layout.width), "height": number(layout.height), "role": "img",
                "aria-label": "Frames and codebooks that differ from \(first.tag)",
            ],
            .element("style", style), rectangle(0, 0, layout.width, layout.height, "page"), content)
        return picture.text + "\n"
    }

    private static let style = """
        text { font: 12px system-ui, sans-serif; fill: #1d2733; } .soft { fill: #66707c; font-size: 10px; }
        .page { fill: #ffffff; } .same { fill: #dfe6ee; } .other { fill: #b3261e; } .none { fill: #f2c7a5; }
        .first { fill: none; stroke: #1d2733; stroke-width: 1.5; }
        """

    /// One run beside the first.
    private static func band(_ record: CodeRecord, _ first: CodeRecord, index: Int, _ layout: PictureLayout) -> Markup {
        let top = layout.top(index)
        let both = min(first.frames, record.frames), all = max(first.frames, record.frames)
        var content = rectangle(layout.left, top, Double(both) * layout.cell, layout.bandHeight, "same")
        if all > both {
            let x = layout.left + Double(both) * layout.cell
            content += rectangle(x, top, Double(all - both) * layout.cell, layout.bandHeight, "none")
        }
        var place: (frame: Int, codebook: Int)?
        for codebook in 0..<first.groups {
            var start: Int?
            for frame in 0...both {
                let at = frame * first.groups + codebook
                let differs = frame < both && first.codes[at] != record.codes[at]
                if differs, start == nil { start = frame }
                if differs, place.map({ frame < $0.frame }) ?? true { place = (frame, codebook) }
                if !differs, let begin = start {
                    content += rectangle(
                        layout.left + Double(begin) * layout.cell, top + Double(codebook) * PictureLayout.row,
                        Double(frame - begin) * layout.cell, PictureLayout.row, "other")
                    start = nil
                }
            }
        }
        var label = record.tag + (index == 0 ? ": the first" : all == both ? ": equal" : ": another length")
        if let place {
            label = "\(record.tag): frame \(place.frame), codebook \(place.codebook)"
            content += .element(
                "circle",
                [
                    "cx": number(layout.left + (Double(place.frame) + 0.5) * layout.cell),
                    "cy": number(top + (Double(place.codebook) + 0.5) * PictureLayout.row), "r": "6", "class": "first",
                ])
        }
        return content + words(label, layout.left, top - 5, "")
    }

    private static func rectangle(
        _ x: Double, _ y: Double, _ width: Double, _ height: Double, _ kind: String
    ) -> Markup {
        .element(
            "rect",
            [
                "x": number(x), "y": number(y), "width": number(width), "height": number(height), "class": kind,
            ])
    }

    private static func words(
        _ text: String, _ x: Double, _ y: Double, _ kind: String, anchor: String = "start"
    ) -> Markup {
        .element("text", ["x": number(x), "y": number(y), "class": kind, "text-anchor": anchor], Markup(text))
    }

    private static func number(_ value: Double) -> String {
        let rounded = (value * 100).rounded() / 100
        return rounded == rounded.rounded() ? "\(Int(rounded))" : "\(rounded)"
    }
}

/// Where the parts of a picture lie, in units of the drawing.
private struct PictureLayout {
    /// Height of one codebook's row.
    static let row = 4.0
    let left = 10.0
    let cell: Double
    let bandHeight: Double
    let width: Double
    let height: Double

    init(frames: Int, groups: Int, runs: Int) {
        cell = max(1, min(10, 980 / Double(frames)))
        bandHeight = Double(groups) * Self.row
        width = max(260, 2 * left + Double(frames) * cell)
        height = Double(runs) * (bandHeight + 26) + 20
    }

    func top(_ index: Int) -> Double { Double(index) * (bandHeight + 26) + 20 }
}
