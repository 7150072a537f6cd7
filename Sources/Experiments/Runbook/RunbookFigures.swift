/// The report's figures: SVG that a phone can show, coloured by the page's own variables.
enum RunbookFigures {
    /// Units across; 360 of them are a phone's width.
    private static let width = 400.0

    private static func figure(_ title: String, height: Double, _ content: Markup) -> Markup {
        .element(
            "svg", ["viewBox": "0 0 \(number(width)) \(number(height))", "role": "img", "aria-label": title],
            .element("title", title), content)
    }

    private static func number(_ value: Double) -> String {
        let text = fixed(value, 2)
        return text.hasSuffix(".00") ? String(text.dropLast(3)) : text
    }

    private static func rectangle(
        _ x: Double, _ y: Double, _ width: Double, _ height: Double, _ kind: String, tip: String? = nil
    ) -> Markup {
        let title = tip.map { Markup.element("title", $0) } ?? Markup()
        return .element(
            "rect",
            [
                "x": number(x), "y": number(y), "width": number(max(width, 0.3)), "height": number(height),
                "class": kind,
            ], title)
    }

    private static func line(_ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double, _ kind: String) -> Markup {
        .element(
            "line", ["x1": number(x1), "y1": number(y1), "x2": number(x2), "y2": number(y2), "class": kind])
    }

    private static func words(
        _ text: String, _ x: Double, _ y: Double, _ kind: String = "", anchor: String = "start"
    ) -> Markup {
        .element("text", ["x": number(x), "y": number(y), "class": kind, "text-anchor": anchor], Markup(text))
    }

    /// A round number of units between marks, so that about four marks fit.
    private static func step(_ largest: Double) -> Double {
        var step = 1e-3
        while largest / step > 5 {
            for factor in [2.0, 2.5, 2.0] where largest / step > 5 { step *= factor }
        }
        return step
    }

    /// A scale in milliseconds below a figure.
    private static func scale(_ largest: Double, from left: Double, to right: Double, y: Double, top: Double) -> Markup
    {
        let step = step(largest)
        var parts = Markup()
        for index in 0...Int(largest / step) {
            let value = Double(index) * step
            let x = left + (right - left) * value / largest
            parts += line(x, top, x, y, "grid")
            let text = fixed(value, step < 0.1 ? 2 : step < 1 ? 1 : 0)
            let anchor = index == 0 ? "start" : x > right - 16 ? "end" : "middle"
            parts += words(index == 0 ? "0 ms" : text, x, y + 13, "soft", anchor: anchor)
        }
        return parts
    }

    // MARK: Latency

    /// Every run's time to the first audio, arm by arm, with P50 and P95.
    static func latency(_ arms: [RunbookReport.Arm], limit: Double?) -> Markup? {
        let shown = arms.filter { !$0.runs.compactMap(\.firstAudioMs).isEmpty }
        guard !shown.isEmpty else { return nil }
        var largest = shown.flatMap { $0.runs.compactMap(\.firstAudioMs) }.max() ?? 1
        if let limit, limit < 3 * largest { largest = max(largest, limit) }
        largest = max(largest * 1.08, 1e-3)
        let rowHeight = 36.0
        let (left, right) = (6.0, width - 6)
        let bottom = Double(shown.count) * rowHeight + 4
        func x(_ value: Double) -> Double { left + (right - left) * value / largest }
        var content = scale(largest, from: left, to: right, y: bottom, top: 0)
        for (index, arm) in shown.enumerated() {
            let top = Double(index) * rowHeight
            let middle = top + 25
            content += words(label(arm, among: arms), left, top + 12)
            if let times = arm.firstAudio {
                let text = "P50 \(fixed(times.p50, 1))  P95 \(fixed(times.p95, 1))"
                content += words(text, right, top + 12, "soft", anchor: "end")
                content += line(x(times.p50), middle - 9, x(times.p50), middle + 9, "mark strong")
                content += line(x(times.p95), middle - 6, x(times.p95), middle + 6, "mark")
            }
            for run in arm.runs {
                guard let time = run.firstAudioMs else { continue }
                content += .element(
                    "circle", ["cx": number(x(time)), "cy": number(middle), "r": "3", "class": "dot"],
                    .element("title", "\(run.tag): \(fixed(time, 1)) ms"))
            }
        }
        if let limit, limit <= largest {
            content += line(x(limit), 0, x(limit), bottom, "limit")
            content += words("limit", x(limit) - 3, bottom - 3, "soft", anchor: "end")
        }
        return figure("Time to the first audio of every run", height: bottom + 18, content)
    }

    // MARK: Timeline

    /// Packets shown at most.
    private static let packetLimit = 16

    /// When the packets of each arm's middle run were generated and decoded, and where both went on at once.
    static func timeline(_ arms: [RunbookReport.Arm]) -> Markup? {
        let shown = arms.compactMap { arm in middleRun(arm).map { (arm: arm, packets: $0) } }
        let largest = shown.flatMap { $0.packets.flatMap { ($0.generation ?? []) + ($0.decoding ?? []) } }.max() ?? 0
        guard largest > 0 else { return nil }
        let rowHeight = 58.0
        let (left, right) = (64.0, width - 6)
        let bottom = Double(shown.count) * rowHeight + 2
        func x(_ value: Double) -> Double { left + (right - left) * value / largest }
        var content = scale(largest, from: left, to: right, y: bottom, top: 0)
        for (index, one) in shown.enumerated() {
            let top = Double(index) * rowHeight
            content += words(label(one.arm, among: arms), 6, top + 12)
            content += words("generate", 6, top + 29, "soft") + words("decode", 6, top + 47, "soft")
            for (index, packet) in one.packets.enumerated() {
                if let span = packet.generation {
                    let tip = "packet \(index + 1), generation \(fixed(span[0], 1)) to \(fixed(span[1], 1)) ms"
                    content += rectangle(x(span[0]), top + 19, x(span[1]) - x(span[0]) - 0.6, 13, "generate", tip: tip)
                }
                if let span = packet.decoding {
                    let tip = "packet \(index + 1), decoding \(fixed(span[0], 1)) to \(fixed(span[1], 1)) ms"
                    content += rectangle(x(span[0]), top + 37, x(span[1]) - x(span[0]), 13, "decode", tip: tip)
                    if let convolutions = packet.convolutions, convolutions < span[1] {
                        content += rectangle(
                            x(convolutions), top + 37, x(span[1]) - x(convolutions), 13, "convolve", tip: tip)
                    }
                }
            }
            for span in one.packets.overlaps {
                content += rectangle(x(span[0]), top + 32, x(span[1]) - x(span[0]), 5, "overlap", tip: "both at once")
            }
        }
        return figure("When packets were generated and decoded", height: bottom + 18, content)
    }

    /// The first packets of the run whose first audio came in the middle of all.
    private static func middleRun(_ arm: RunbookReport.Arm) -> [RunbookReport.Packet]? {
        let runs = arm.runs.filter { !$0.packets.isEmpty }
            .sorted { ($0.firstAudioMs ?? 0) < ($1.firstAudioMs ?? 0) }
        return runs.isEmpty ? nil : Array(runs[runs.count / 2].packets.prefix(packetLimit))
    }

    // MARK: Hashes

    /// Which runs agree: all codes, the first packet only, or neither.
    static func matrix(_ rows: [RunbookReport.MatrixRow]) -> Markup? {
        guard rows.count > 1 else { return nil }
        let cell = min(16, (width - 12) / Double(rows.count))
        var content = Markup()
        for (y, a) in rows.enumerated() {
            // Neighbours of one kind are one rectangle: a hundred runs are ten thousand cells.
            var x = 0
            while x < rows.count {
                let kind = agreement(a, rows[x])
                var end = x + 1
                while end < rows.count, agreement(a, rows[end]) == kind { end += 1 }
                content += rectangle(
                    6 + Double(x) * cell, Double(y) * cell, Double(end - x) * cell - 0.5, cell - 0.5, kind,
                    tip: end - x == 1 ? "\(a.tag) and \(rows[x].tag)" : "\(a.tag) and \(end - x) runs")
                x = end
            }
        }
        var top = 0.0
        let height = Double(rows.count) * cell
        for (arm, count) in armSizes(rows) {
            let y = top + Double(count) * cell
            if y < height - 0.1 { content += line(6, y - 0.25, 6 + height, y - 0.25, "divide") }
            if 6 + height < width - 90 {
                content += words("\(arm) (\(count))", height + 12, top + Double(count) * cell / 2 + 4, "soft")
            }
            top = y
        }
        return figure("Which runs agree", height: height + 4, content)
    }

    private static func agreement(_ a: RunbookReport.MatrixRow, _ b: RunbookReport.MatrixRow) -> String {
        a.whole == b.whole ? "same" : a.firstPacket == b.firstPacket ? "begins" : "other"
    }

    private static func armSizes(_ rows: [RunbookReport.MatrixRow]) -> [(arm: String, count: Int)] {
        rows.reduce(into: []) { sizes, row in
            if sizes.last?.arm == row.arm { sizes[sizes.count - 1].count += 1 } else { sizes.append((row.arm, 1)) }
        }
    }

    // MARK: First difference

    /// Frames across, codebooks down: what differs between two runs, with the first place marked.
    static func picture(_ picture: RunbookReport.Picture) -> Markup {
        let left = 22.0
        let cellWidth = min(12, (width - left - 6) / Double(max(picture.frames, 1)))
        let cellHeight = 8.0
        let height = Double(picture.codebooks) * cellHeight
        var content = rectangle(left, 14, Double(picture.frames) * cellWidth, height, "same")
        for row in picture.rows {
            let x = left + Double(row.frame) * cellWidth
            var start: Int?
            let odd = Set(row.codebooks)
            for codebook in 0...picture.codebooks {
                if odd.contains(codebook) {
                    if start == nil { start = codebook }
                } else if let first = start {
                    content += rectangle(
                        x, 14 + Double(first) * cellHeight, cellWidth, Double(codebook - first) * cellHeight, "other",
                        tip: "frame \(row.frame), codebooks \(first) to \(codebook - 1)")
                    start = nil
                }
            }
        }
        for codebook in stride(from: 0, to: picture.codebooks, by: max(1, picture.codebooks / 4)) {
            content += words("\(codebook)", left - 4, 22 + Double(codebook) * cellHeight, "soft", anchor: "end")
        }
        let x = left + Double(picture.firstFrame) * cellWidth
        let codebook = max(picture.firstCodebook, 0)
        content += .element(
            "rect",
            [
                "x": number(x - 1), "y": number(13 + Double(codebook) * cellHeight), "width": number(cellWidth + 2),
                "height": number(cellHeight + 2), "class": "first",
            ])
        let place =
            picture.firstCodebook >= 0
            ? "first: frame \(picture.firstFrame), codebook \(picture.firstCodebook)"
            : "one run ends at frame \(picture.firstFrame)"
        let isLeft = x < width / 2
        content += words(place, isLeft ? max(x, left) : x + cellWidth, 9, "", anchor: isLeft ? "start" : "end")
        content += words("frame 0", left, height + 27, "soft")
        content += words(
            "\(picture.frames - 1)", left + Double(picture.frames) * cellWidth, height + 27, "soft", anchor: "end")
        return figure("Frames and codebooks that differ", height: height + 32, content)
    }

    private static func label(_ arm: RunbookReport.Arm, among arms: [RunbookReport.Arm]) -> String {
        Set(arms.map(\.textID)).count > 1 ? "\(arm.name), \(arm.textID)" : arm.name
    }
}
