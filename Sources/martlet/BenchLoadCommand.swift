import ArgumentParser
import Experiments

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// `martlet bench load`: many listeners who come as they like.
struct BenchLoadCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "load",
        abstract: "Put a server under an open-loop load and listen: first audio, gaps, refusals.",
        discussion: """
            Requests come at random times (Poisson) at the given rate, however the server keeps up, and each one's audio \
            is played as it comes. This process is the client; the server is one that runs already (--server), or \
            'martlet serve' with the given model, started for this run.
            """)

    @Option(help: "Requests a second, on average.")
    var rate: Double

    @Option(help: "Seconds in which requests come.")
    var duration: Double

    @Option(
        name: [.customLong("server"), .customLong("url")],
        help: "Address of a server that runs already, such as http://127.0.0.1:9000.")
    var url: String?

    @OptionGroup var model: ModelOptions
    @OptionGroup var device: DeviceOptions

    @Option(help: "Utterances that the server which is started speaks at a time.")
    var maxStreams: Int?

    @Option(help: "Scheduler of the server that is started: playback-lead or arrival.")
    var scheduling = SchedulingArgument.playbackLead

    @Option(help: "Utterances that the server which is started steps together.")
    var maxBatch: Int?

    @Option(help: "Seed of the times, texts and voices' random numbers: the same seed gives the same load.")
    var seed: UInt64 = 1

    @Option(help: "A JSON list of texts; default: the built-in texts_p0_base.")
    var texts: String?

    @Option(name: .customLong("text-id"), help: "Id of a text to speak; may be given several times; default: all.")
    var textIDs: [String] = []

    @Option(help: "End each speech as if its text were read at so many characters a second: for random weights.")
    var pace: Double?

    @Option(help: "A voice of the server; default: its own default.")
    var voice: String?

    @Option(help: "The server's key. Also MARTLET_API_KEY.")
    var apiKey: String?

    @Option(help: "Seconds after which a request has failed.")
    var timeout = 600.0

    @Flag(help: "Print JSON, with every request.")
    var json = false

    func validate() throws {
        guard (url == nil) || (model.model == nil) else {
            throw ValidationError("--server names a server that has its model: leave --model out.")
        }
        guard timeout > 0, timeout < 1e6 else {
            throw ValidationError("--timeout is \(timeout), expected more than 0 seconds.")
        }
        _ = try url.map { try SpeechClient($0) }
    }

    func run() async throws {
        let all = try TextSet.texts(texts)
        let chosen = textIDs.isEmpty ? all : try textIDs.map { try TextSet.text($0, in: all) }
        let plan = try LoadPlan(rate: rate, duration: duration, seed: seed, texts: chosen, pace: pace)
        guard !plan.requests.isEmpty else {
            throw CommandError("no request falls into \(duration) s at this rate and seed: take a longer duration")
        }
        if let url {
            try await load(plan, url: url, isAlive: { true })
        } else {
            let server = try await BenchLoadServer(serverArguments)
            defer { server.stop() }
            try await load(plan, url: server.url, isAlive: { server.isAlive })
        }
    }

    private var serverArguments: [String] {
        get throws {
            var arguments = ["--model", try model.directory()]
            if let weights = model.weights { arguments += ["--weights", weights.rawValue] }
            if let threads = model.threads { arguments += ["--threads", "\(threads)"] }
            arguments += ["--device", device.device]
            if let maxStreams { arguments += ["--max-streams", "\(maxStreams)"] }
            if let maxBatch { arguments += ["--max-batch", "\(maxBatch)"] }
            return arguments + ["--scheduling", scheduling.rawValue]
        }
    }

    private func load(_ plan: LoadPlan, url: String, isAlive: () -> Bool) async throws {
        let key = apiKey ?? ProcessInfo.processInfo.environment["MARTLET_API_KEY"]
        let client = try SpeechClient(url, apiKey: key)
        try await client.waitUntilReady(600, isAlive: isAlive)
        let (outcomes, delay) = await LoadClient(client, voice: voice, timeout: timeout).run(plan) { outcome in
            if let error = outcome.error { printError("request \(outcome.index): \(error)") }
        }
        let report = LoadReport(
            rate: rate, duration: duration, seed: seed, outcomes: outcomes, worstSendDelay: delay)
        if json { try printJSON(report) } else { show(report) }
        if report.failed > 0 { throw ExitCode(1) }
    }

    private func show(_ report: LoadReport) {
        print(
            "\(report.requests) requests in \(decimal(report.duration, 0)) s (\(decimal(report.rate, 2)) a second, seed "
                + "\(report.seed)), at most \(report.mostAtOnce) at once: \(report.finished) finished, "
                + "\(report.refused) refused, \(report.failed) failed")
        print("".padded(to: 10) + ["P50", "P95", "P99"].map { $0.aligned(to: 10) }.joined())
        func row(_ name: String, _ values: CodeRuns.Distribution, _ places: Int) {
            print(
                name.padded(to: 10)
                    + [values.p50, values.p95, values.p99].map { decimal($0, places).aligned(to: 10) }.joined())
        }
        row("TTFA ms", report.firstAudioMs, 1)
        row("RTF", report.realTimeFactor, 3)
        print(
            "\(report.interrupted) listeners heard gaps: \(report.underruns) underruns, "
                + "\(decimal(report.underrunSeconds, 2)) s of silence")
        print(
            "\(decimal(report.audioSeconds, 1)) s of audio, \(decimal(report.throughput, 2)) s a second; the client sent "
                + "at most \(decimal(report.worstSendDelayMs, 1)) ms late")
    }
}
