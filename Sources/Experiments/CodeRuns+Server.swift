import Qwen3TTS
import SpeechEngine

extension CodeRuns {
    /// Makes the runs on a server, one after the other. Times are those that the client sees; times of stages, and hashes
    /// of codes, are the server's.
    /// - Parameters:
    ///   - folder: where codes and meta files go; the server must keep codes then. Nil writes none.
    ///   - progress: called after each run.
    public func make(
        _ client: SpeechClient, folder: String?, progress: (Run) -> Void = { _ in }
    ) async throws(ExperimentError) -> Report {
        guard count >= 1 else { throw .badSetting("the count is \(count), expected at least 1") }
        guard drift == nil else {
            throw .badSetting("--inject-drift disturbs an engine in the process, not one behind a server")
        }
        var runs: [Run] = []
        var (written, model): (Int, String?) = (0, nil)
        for index in -warmUp..<count {
            let tag = "\(tagPrefix)_\(index + 1)"
            let request = RemoteRequest(
                text, voice, sampling: sampling, rules: rules, packet: packet, tag: index < 0 ? "warm-up" : tag)
            let run = try await client.stream(request)
            if index < 0 { continue }
            if folder != nil || choices != nil {
                guard let kept = try await client.codes(tag: tag) else {
                    throw .server(url: client.url, reason: "it keeps no codes: start it with --code-dump")
                }
                model = kept.meta.model
                if let folder {
                    try keep(kept, run, folder: folder)
                    written += 1
                }
            }
            let result = Run(
                tag: tag, isGood: run.isIntact && run.frames > 0 && ["stop", "length"].contains(run.finishReason),
                firstAudioMs: run.firstAudioMs, codeMs: run.codeMs, decodeMs: run.decodeMs,
                decodeFirstMs: run.decodeFirstMs, totalMs: run.totalMs, frames: run.frames,
                realTimeFactor: run.realTimeFactor, hash: run.codesHash, firstPacketHash: run.firstPacketHash,
                samplesHash: run.samplesHash)
            runs.append(result)
            progress(result)
        }
        var switches = requestSwitches
        switches["packet_tokens"] = "\(packet)"
        return report(
            runs, model: model ?? client.url, written: folder.map { _ in written }, switches: switches,
            source: .server(client))
    }

    /// Writes what the server kept, checked against what it said in the answer.
    private func keep(
        _ kept: CodeDump.Document, _ run: RemoteRun, folder: String
    ) throws(ExperimentError) {
        let record = try kept.record()
        guard codesHash(record.codes) == run.codesHash else {
            throw .badSetting("the codes that the server kept of \(record.tag) are not those that it spoke")
        }
        var meta = kept.meta
        meta.textID = text.id
        meta.voice = voice.label
        meta.times["ttfa"] = run.firstAudioMs
        meta.times["total"] = run.totalMs
        try CodeRecord(tag: record.tag, codes: record.codes, groups: record.groups, meta: meta).write(to: folder)
        guard choices != nil else { return }
        guard let found = kept.choices else {
            throw .badSetting("the server keeps no likeliest codes: start it with --debug-topk")
        }
        try writeJSON(found, to: "\(folder)/topk_\(record.tag).json")
    }
}
