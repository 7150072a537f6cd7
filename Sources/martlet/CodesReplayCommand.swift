import ArgumentParser
import AudioFiles
import Experiments
import Settings

/// `martlet codes replay`: decodes dumped codes, without generation.
struct CodesReplayCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "replay", abstract: "Decode a dump packet by packet, without generation, and count what comes.",
        discussion: """
            Packets are of --packet-tokens frames, 1 unless set; --decode-mode and --left-context choose how the decoder \
            remembers. Exits with 1 if a sample is missing.
            """)

    @Argument(help: "A tag in the folder, or the path of a codes_*.safetensors file.")
    var tag: String

    @OptionGroup var model: ModelOptions

    @Option(name: .shortAndLong, help: "The folder with the dumps.")
    var folder = "codes"

    @OptionGroup(title: "Settings", visibility: .hidden) var options: SettingOptions

    @Option(help: "incremental or windowed; default: --decode-mode.")
    var mode: CodesReplay.Mode?

    @Option(name: .shortAndLong, help: "Also write the samples as a WAV file.")
    var output: String?

    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
        let record =
            tag.hasSuffix(".safetensors")
            ? try CodeRecord.read(file: tag, tag: tag) : try CodeRecord.read(tag: tag, from: folder)
        let settings = try options.announced(model.flags)
        let model = try self.model.load(settings)
        let context = settings.integer(.leftContext) ?? 25
        let engine = try settings.engineOptions(model) { engine in
            switch mode {
            case .windowed: engine.decoding = .windowed(leftContext: context)
            case .incremental: engine.decoding = .incremental
            case nil: break
            }
        }
        let (report, samples) = try CodesReplay.make(
            model, record, packet: settings.integer(.packetTokens) ?? 1, options: engine)
        if let output {
            var writer = try WAVWriter(path: output, sampleRate: model.sampleRate)
            try writer.write(samples)
            try writer.finish()
        }
        if json {
            try printJSON(report)
        } else {
            print(
                "\(report.tag): samples_total \(report.samplesTotal), samples_expected \(report.samplesExpected), "
                    + "bad_len_calls \(report.badLengthCalls), zero_calls \(report.zeroCalls)")
            print(
                "\(report.calls) calls, decode_ms p50 \(decimal(report.decodeMs.p50, 2)), "
                    + "p95 \(decimal(report.decodeMs.p95, 2)); largest difference to one call \(report.maxDifference)")
        }
        if !report.isComplete { throw ExitCode(1) }
    }
}

extension CodesReplay.Mode: ExpressibleByArgument {}
