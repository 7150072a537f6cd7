import Qwen3TTS

/// Judges the arms of a procedure by its criteria.
struct RunbookVerdict {
    let procedure: RunbookProcedure
    let arms: [RunbookReport.Arm]
    let matrix: [RunbookReport.MatrixRow]
    let pictures: [RunbookReport.Picture]
    /// Milliseconds to the first audio that are judged; nil where the runbook's limit is not for this engine.
    let firstAudioLimit: Double?
    /// The disturbance that was injected.
    let drift: InjectedDrift?
    /// Where logits part, by arm; an arm whose logits were compared and are equal has nil.
    let logitSteps: [String: TopChoices.Difference]
    /// What came and what should have, by arm.
    let samples: [String: SampleCount]

    /// Samples that came and that should have, and calls of the wrong length.
    struct SampleCount: Equatable {
        var total = 0
        var expected = 0
        var badLengthCalls = 0
        var zeroCalls = 0
    }

    typealias Finding = RunbookReport.Finding

    /// Criterion by criterion; arms that broke off first.
    func findings() -> [Finding] {
        var all = arms.compactMap { arm in
            arm.problem.map { Finding(outcome: .fail, reason: "\(label(arm)) broke off: \($0)") }
        }
        for criterion in procedure.criteria {
            switch criterion {
            case .equalRuns: all += equalRuns()
            case .firstAudioWithinLimit: all += firstAudioWithinLimit()
            case .firstAudio(let of, let before): all += compareFirstAudio(of: of, before: before)
            case .equalLogits: all += equalLogits()
            case .allSamples: all += allSamples()
            case .backEndIsNamed: all += backEnd()
            }
        }
        return all + injection()
    }

    private var run: [RunbookReport.Arm] { arms.filter { $0.problem == nil } }

    private var textCount: Int { Set(arms.map(\.textID)).count }

    private func label(_ arm: RunbookReport.Arm) -> String {
        textCount > 1 ? "\(arm.name), \(arm.textID)" : arm.name
    }

    // MARK: Equal runs

    private func equalRuns() -> [Finding] {
        var all: [Finding] = []
        for arm in run where arm.failCount > 0 {
            all.append(
                Finding(
                    outcome: .fail,
                    reason: "\(label(arm)): \(arm.failCount) of \(arm.runs.count) runs gave no audio or broke off"))
        }
        for arm in run where arm.hashUnique > 1 || arm.samplesHashUnique > 1 {
            let what =
                arm.hashUnique > 1
                ? "hash_unique \(arm.hashUnique) of \(arm.runs.count), first packet \(arm.firstPacketHashUnique); "
                    + "drift from \(place(arm.firstDiffFrame, arm.firstDiffCodebook))"
                : "equal codes, but \(arm.samplesHashUnique) different hashes of the samples"
            all.append(Finding(outcome: .fail, reason: "\(label(arm)): \(what)"))
        }
        for (text, rows) in Dictionary(grouping: matrix, by: \.textID).sorted(by: { $0.key < $1.key }) {
            let suffix = textCount > 1 ? " (\(text))" : ""
            let names = Set(rows.map(\.arm))
            if rows.count < 2 {
                all.append(Finding(outcome: .notJudged, reason: "one run has nothing to be equal to\(suffix)"))
            } else if Set(rows.map(\.whole)).count == 1 {
                let over = names.count > 1 ? " over all \(names.count) arms" : ""
                all.append(
                    Finding(outcome: .pass, reason: "hash_unique 1 in \(rows.count) runs\(over)\(suffix)"))
            } else if run.allSatisfy({ $0.textID != text || $0.hashUnique == 1 }) {
                let parts = pictures.first { picture in rows.contains { $0.tag == picture.tag } }
                let at = parts.map { ": \($0.arm) parts at \(place($0.firstFrame, $0.firstCodebook))" } ?? ""
                all.append(
                    Finding(outcome: .fail, reason: "each arm agrees with itself, not with the others\(at)\(suffix)"))
            }
        }
        return all
    }

    private func place(_ frame: Int, _ codebook: Int) -> String {
        "frame \(frame)" + (codebook >= 0 ? ", codebook \(codebook)" : ", where one run ends")
    }

    // MARK: First audio

    private func firstAudioWithinLimit() -> [Finding] {
        let timed = run.compactMap { arm in arm.firstAudio.map { (arm, $0.p50) } }
        guard let best = timed.min(by: { $0.1 < $1.1 }) else { return [] }
        let figure = "TTFA P50 \(fixed(best.1, 0)) ms" + (timed.count > 1 ? " (\(label(best.0)))" : "")
        guard let firstAudioLimit else {
            return [
                Finding(
                    outcome: .notJudged,
                    reason: "\(figure): the runbook's 350 ms are a GPU's; --ttfa-limit judges them here")
            ]
        }
        let holds = best.1 <= firstAudioLimit
        return [
            Finding(
                outcome: holds ? .pass : .fail,
                reason: "\(figure), \(holds ? "within" : "above") the limit of \(fixed(firstAudioLimit, 0)) ms")
        ]
    }

    private func compareFirstAudio(of name: String, before other: String) -> [Finding] {
        var all: [Finding] = []
        for arm in run where arm.name == name {
            guard let base = run.first(where: { $0.name == other && $0.textID == arm.textID }) else { continue }
            guard let p50 = arm.firstAudio?.p50, let baseP50 = base.firstAudio?.p50 else { continue }
            let pairs = zip(arm.runs, base.runs).compactMap { run, base in
                run.firstAudioMs.flatMap { time in base.firstAudioMs.map { (time, $0) } }
            }
            let wins = pairs.count { $0 < $1 }
            let figures =
                "TTFA P50 \(fixed(p50, 1)) ms with \(label(arm)), \(fixed(baseP50, 1)) ms with \(other), earlier in "
                + "\(wins) of \(pairs.count) turns"
            if let note = (arm.notes + base.notes).first(where: { $0.contains("disabled") }) {
                all.append(Finding(outcome: .notJudged, reason: "\(figures), which says nothing here: \(note)"))
            } else if Self.isChance(wins, of: pairs.count) {
                all.append(Finding(outcome: .notJudged, reason: "\(figures): that may be chance"))
            } else {
                all.append(Finding(outcome: p50 < baseP50 ? .pass : .fail, reason: figures))
            }
        }
        return all
    }

    /// Whether so many wins, or more, on either side are likelier than one in twenty between equals (the sign test).
    static func isChance(_ wins: Int, of count: Int) -> Bool {
        var ways = 1.0
        var tail = 0.0
        for losses in 0...min(wins, count - wins) {
            tail += ways
            ways *= Double(count - losses) / Double(losses + 1)
        }
        return 2 * tail > 0.05 * (0..<count).reduce(1.0) { power, _ in 2 * power }
    }

    // MARK: Logits and samples

    private func equalLogits() -> [Finding] {
        run.compactMap { arm in
            guard let difference = logitSteps[arm.name] else {
                return Finding(outcome: .notJudged, reason: "\(label(arm)): there are no logits to compare")
            }
            guard let step = difference.firstLogit else {
                return Finding(
                    outcome: .pass,
                    reason: "all \(difference.compared) steps have the same choices and logits, to the bit")
            }
            let choice = difference.firstChoice.map {
                "; choices from frame \($0.frame), codebook \($0.codebook)"
            }
            return Finding(
                outcome: .fail,
                reason: "\(label(arm)): logits part at frame \(step.frame), codebook \(step.codebook)"
                    + (choice ?? "; no choice does"))
        }
    }

    private func allSamples() -> [Finding] {
        run.compactMap { arm in
            guard let count = samples[arm.name] else { return nil }
            let holds = count.total == count.expected && count.badLengthCalls == 0
            return Finding(
                outcome: holds ? .pass : .fail,
                reason: "\(label(arm)): samples_total \(count.total), samples_expected \(count.expected), "
                    + "bad_len_calls \(count.badLengthCalls)")
        }
    }

    private func backEnd() -> [Finding] {
        run.map { arm in
            let words = arm.readings.map { "\($0.name) \($0.value)" }.joined(separator: ", ")
            return Finding(outcome: words.isEmpty ? .fail : .pass, reason: words.isEmpty ? "nothing is known" : words)
        }
    }

    // MARK: Injected drift

    /// Whether the instruments saw the disturbance exactly where it was put.
    private func injection() -> [Finding] {
        guard let drift else { return [] }
        let disturbed = run.filter(\.isDisturbed)
        guard !disturbed.isEmpty else {
            return [
                Finding(
                    outcome: .notJudged,
                    reason: "injected \(drift.label) reaches no arm: none of them makes logits")
            ]
        }
        if drift.isTiny {
            guard !logitSteps.isEmpty else {
                return [
                    Finding(
                        outcome: .notJudged, reason: "injected \(drift.label) flips no code; q36 sees the logits")
                ]
            }
            let found = logitSteps.values.contains {
                $0.firstLogit?.frame == drift.frame && $0.firstLogit?.codebook == drift.codebook
            }
            return [instrument(found, drift, where: "the logits")]
        }
        var all: [Finding] = []
        for arm in disturbed {
            guard let frames = arm.runs.first?.frames, frames > drift.frame else {
                all.append(
                    Finding(
                        outcome: .notJudged,
                        reason: "injected \(drift.label) lies behind the end of \(label(arm))'s runs"))
                continue
            }
            let found = arm.firstDiffFrame == drift.frame && arm.firstDiffCodebook == drift.codebook
            all.append(instrument(found, drift, where: label(arm)))
        }
        return all
    }

    private func instrument(_ found: Bool, _ drift: InjectedDrift, where place: String) -> Finding {
        Finding(
            outcome: found ? .pass : .fail,
            reason: "injected \(drift.label) \(found ? "was found exactly there" : "was NOT found") in \(place)")
    }
}

/// `value` with a fixed number of decimals.
func fixed(_ value: Double, _ places: Int) -> String {
    guard value.isFinite, value.magnitude < 1e15 else { return "\(value)" }
    let scale = (0..<places).reduce(1) { scale, _ in scale * 10 }
    let scaled = Int((value.magnitude * Double(scale)).rounded())
    let sign = value < 0 && scaled != 0 ? "-" : ""
    guard places > 0 else { return "\(sign)\(scaled)" }
    let fraction = "\(scaled % scale)"
    return "\(sign)\(scaled / scale)." + String(repeating: "0", count: places - fraction.count) + fraction
}
