import ArgumentParser
import AudioFiles
import Experiments

/// `martlet codes replay`: decodes dumped codes, without generation.
struct CodesReplayCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "replay", abstract: "Decode a dump packet by packet, without generation, and count what comes.",
        discussion: "Exits with 1 if a sample is missing.")

    @Argument(help: "A tag in the folder, or the path of a codes_*.safetensors file.")
    var tag: String

    @OptionGroup var model: ModelOptions

    @Option(name: .shortAndLong, help: "The folder with the dumps.")
    var folder = "codes"

    @Option(help: "Codec frames of a packet.")
    var packet = 1

    @Option(help: "incremental carries the decoder's state on; windowed decodes anew after some frames of context.")
    var mode = CodesReplay.Mode.incremental

    @Option(help: "Frames of context of the windowed mode.")
    var leftContext = 25

    @Option(name: .shortAndLong, help: "Also write the samples as a WAV file.")
    var output: String?

    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
        let record =
            tag.hasSuffix(".safetensors")
            ? try CodeRecord.read(file: tag, tag: tag) : try CodeRecord.read(tag: tag, from: folder)
        let model = try self.model.load()
        let (report, samples) = try CodesReplay.make(
            model, record, packet: packet, mode: mode, leftContext: leftContext)
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
