import Qwen3TTS
import SpeechEngine
import Synchronization

/// What the server counts itself, beside the engine's own statistics.
final class Metrics: Sendable {
    private let state = Mutex(State())

    private struct State {
        var firstAudio = Histogram(bounds: [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10])
        var realTimeFactor = Histogram(bounds: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.25, 1.5, 2, 3, 5])
        var audioSeconds = 0.0
        var responses: [ResponseKey: Int] = [:]
        var streams: [String: Int] = [:]
    }

    private struct ResponseKey: Hashable {
        let endpoint: String
        let status: Int
    }

    /// Notes an utterance that has ended.
    /// - Parameter endpoint: the path or protocol that it came by.
    func ended(_ summary: SpeechSummary, endpoint: String) {
        state.withLock { state in
            if let seconds = summary.firstAudio { state.firstAudio.record(seconds) }
            if summary.seconds > 0 { state.realTimeFactor.record(summary.realTimeFactor) }
            state.audioSeconds += summary.seconds
            state.streams[endpoint, default: 0] += 1
        }
    }

    /// Notes a response.
    func responded(endpoint: String, status: Int) {
        state.withLock { $0.responses[ResponseKey(endpoint: endpoint, status: status), default: 0] += 1 }
    }

    /// Everything in the Prometheus text format, version 0.0.4.
    func text(_ engine: EngineStatistics, isReady: Bool) -> String {
        let state = state.withLock { $0 }
        var page = MetricsPage()
        page.histogram("martlet_first_audio_seconds", "Time from a request to its first packet.", state.firstAudio)
        page.histogram(
            "martlet_real_time_factor", "Computing time by speaking time of an utterance.", state.realTimeFactor)
        page.counter("martlet_audio_seconds_total", "Audio made.", [([], state.audioSeconds)])
        page.counter(
            "martlet_responses_total", "HTTP responses.",
            state.responses.sorted { ($0.key.endpoint, $0.key.status) < ($1.key.endpoint, $1.key.status) }.map {
                ([("endpoint", $0.key.endpoint), ("status", "\($0.key.status)")], Double($0.value))
            })
        page.counter(
            "martlet_streams_total", "Utterances that ended, by the way they came.",
            state.streams.sorted { $0.key < $1.key }.map { ([("endpoint", $0.key)], Double($0.value)) })
        page.counter(
            "martlet_finished_total", "Utterances that ended, by reason.",
            FinishReason.allCases.map { ([("reason", $0.rawValue)], Double(engine.finished[$0] ?? 0)) })
        page.counter("martlet_frames_total", "Codec frames made.", [([], Double(engine.frames))])
        page.counter("martlet_refused_total", "Requests that the engine refused.", [([], Double(engine.refused))])
        page.counter(
            "martlet_underruns_total", "Packets that came after the audio before them was played.",
            [([], Double(engine.underruns))])
        page.counter(
            "martlet_underrun_seconds_total", "Time that listeners waited in underruns.", [([], engine.underrunSeconds)]
        )
        page.counter(
            "martlet_stage_seconds_total", "Time spent per stage.",
            [
                ([("stage", "talker")], engine.stages.talker),
                ([("stage", "code_predictor")], engine.stages.codePredictor),
                ([("stage", "decoder")], engine.stages.decoder),
            ])
        page.counter(
            "martlet_worker_restarts_total",
            "Times that the worker process, or the model on its GPU, was lost and started again.",
            [([], Double(engine.workerRestarts))])
        page.gauge("martlet_active", "Utterances that speak now.", Double(engine.active))
        page.gauge("martlet_queue", "Utterances that wait.", Double(engine.queued))
        if let lead = engine.smallestLead {
            page.gauge("martlet_smallest_lead_seconds", "Smallest playback lead of the utterances that speak.", lead)
        }
        if let round = engine.nextRoundSeconds {
            page.gauge("martlet_next_round_seconds", "Expected time of a round with one more utterance.", round)
        }
        page.gauge("martlet_ready", "1 once the warm-up has spoken, 0 at shutdown.", isReady ? 1 : 0)
        if let bytes = ProcessMemory.resident {
            page.gauge("process_resident_memory_bytes", "Memory in use.", Double(bytes))
        }
        return page.text
    }
}

/// Counts of values by size.
struct Histogram: Sendable, Equatable {
    /// Upper bounds of the buckets, ascending.
    let bounds: [Double]
    /// Values of each bucket, and above the last bound.
    private(set) var counts: [Int]
    private(set) var sum = 0.0

    init(bounds: [Double]) {
        self.bounds = bounds
        counts = Array(repeating: 0, count: bounds.count + 1)
    }

    mutating func record(_ value: Double) {
        counts[bounds.firstIndex { value <= $0 } ?? bounds.count] += 1
        sum += value
    }
}

/// A page in the Prometheus text format.
struct MetricsPage {
    private(set) var text = ""

    mutating func counter(_ name: String, _ help: String, _ values: [(labels: [(String, String)], Double)]) {
        head(name, help, "counter")
        for (labels, value) in values { line(name, labels, value) }
    }

    mutating func gauge(_ name: String, _ help: String, _ value: Double) {
        head(name, help, "gauge")
        line(name, [], value)
    }

    mutating func histogram(_ name: String, _ help: String, _ histogram: Histogram) {
        head(name, help, "histogram")
        var total = 0
        for (bound, count) in zip(histogram.bounds, histogram.counts) {
            total += count
            line(name + "_bucket", [("le", "\(bound)")], Double(total))
        }
        total += histogram.counts.last ?? 0
        line(name + "_bucket", [("le", "+Inf")], Double(total))
        line(name + "_sum", [], histogram.sum)
        line(name + "_count", [], Double(total))
    }

    private mutating func head(_ name: String, _ help: String, _ type: String) {
        text += "# HELP \(name) \(help)\n# TYPE \(name) \(type)\n"
    }

    private mutating func line(_ name: String, _ labels: [(String, String)], _ value: Double) {
        let shown = labels.map { name, value in
            let escaped = value.flatMap { character -> String in
                switch character {
                case "\\": "\\\\"
                case "\"": "\\\""
                case "\n": "\\n"
                default: String(character)
                }
            }
            return "\(name)=\"\(String(escaped))\""
        }
        let number = value == value.rounded() && abs(value) < 1e15 ? "\(Int(value))" : "\(value)"
        text += name + (shown.isEmpty ? "" : "{" + shown.joined(separator: ",") + "}") + " " + number + "\n"
    }
}
