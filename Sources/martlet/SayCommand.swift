import ArgumentParser
import AudioFiles
import Qwen3TTS
import Settings
import SpeechEngine

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif
#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// `martlet say`: text to speech in a file or on standard output.
struct SayCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "say", abstract: "Speak a text into a WAV file, or as raw PCM to standard output.",
        discussion: """
            The text comes from the arguments, from a file (-f) or from standard input. Raw PCM is 24 kHz, mono, signed \
            16 bit, little endian, written while it is generated:
              martlet say "Hello." -o - | aplay -f S16_LE -r 24000
            """)

    @Argument(help: "The text.")
    var text: [String] = []

    @Option(name: .shortAndLong, help: "Read the text from a file.")
    var file: String?

    @OptionGroup var model: ModelOptions
    @OptionGroup var device: DeviceOptions
    @OptionGroup var sampling: SamplingArguments

    @Option(help: "Seed of the random numbers: the same request with the same seed gives the same bytes.")
    var seed: UInt64 = 0

    @Option(help: "A voice of the model, or a .voice file made by 'martlet clone'.")
    var voice: String?

    @Option(help: "The language of the text, or auto.")
    var language = "auto"

    @Option(help: "How to speak; the voice's description for VoiceDesign models.")
    var instruct: String?

    @Option(help: "Where the text stands in the prompt: streaming or non-streaming; default: the model's.")
    var layout: TextLayout?

    @Option(help: "Codec frames (80 ms) per packet; 0 starts with one and grows. Never changes the audio.")
    var packet = 0

    @Flag(help: "Recognise control tokens such as <|im_end|> in the text, as the Python reference does.")
    var controlTokens = false

    @Option(name: .shortAndLong, help: "A WAV file, or - for raw PCM on standard output.")
    var output: String?

    @Flag(name: .of(.codeDump), help: .of(.codeDump))
    var codeDump = false

    @Option(name: .of(.codeDumpDirectory), help: .of(.codeDumpDirectory))
    var codeDumpDirectory: String?

    @Flag(help: "Print times, frames, finish reason and hashes as JSON.")
    var json = false

    func run() async throws {
        let text = try inputText()
        let model = try self.model.load(device)
        var request = SpeechRequest(text: text)
        if let voice {
            request.voice =
                voice.hasSuffix(".voice")
                ? .clone(try ClonePrompt.load(from: voice, expectedIdentity: model.identity)) : .named(voice)
        }
        request.language = language
        request.instruction = instruct
        request.layout = layout
        request.controlTokens = controlTokens ? .recognized : .plainText
        request.sampling = try sampling.options(secondsPerFrame: model.secondsPerFrame, seed: seed)

        let toStandardOutput = output == "-" || (output == nil && isatty(STDOUT_FILENO) == 0)
        let path = output ?? "speech.wav"
        let codes = try settings().codeDump(
            model, switches: ["deterministic_policy": sampling.greedy ? "greedy" : "seeded"])
        let engine = try device.engine(model) { $0.keeper = codes }
        let stream = try engine.speak(
            request, packets: packet == 0 ? .growing : .fixed(packet),
            name: .tag(toStandardOutput ? "say" : Self.tag(of: path)))
        var writer =
            toStandardOutput
            ? try WAVWriter(descriptor: STDOUT_FILENO, container: .rawPCM, sampleRate: model.sampleRate)
            : try WAVWriter(path: path, sampleRate: model.sampleRate)
        let progress = SpeechProgressLine()
        for await event in stream {
            switch event {
            case .packet(let packet):
                try writer.write(packet.samples)
                progress.show(seconds: Double(packet.frames.upperBound) * model.secondsPerFrame)
            case .end(let summary):
                progress.finish(summary)
                for warning in summary.warnings { printError("warning: \(warning)") }
                if json {
                    let encoder = JSONEncoder()
                    encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
                    let line = String(decoding: try encoder.encode(summary), as: UTF8.self)
                    if toStandardOutput { printError(line) } else { print(line) }
                }
            }
        }
        try writer.finish()
    }

    /// Whether codes are kept is set as everywhere; all else of a single utterance is said by its own flags.
    private func settings() throws -> Settings {
        var flags: [(setting: Setting, text: String)] = codeDump ? [(.codeDump, "1")] : []
        if let codeDumpDirectory { flags.append((.codeDumpDirectory, codeDumpDirectory)) }
        do {
            return try Settings(flags: flags, environment: ProcessInfo.processInfo.environment)
        } catch {
            throw ValidationError(error.description + ".")
        }
    }

    /// The name of a file without its ending, as far as it can be a tag: the codes go by the same name as the audio.
    private static func tag(of path: String) -> String {
        let name = path.split(separator: "/").last.map(String.init) ?? path
        let stem = name.lastIndex(of: ".").map { String(name[..<$0]) } ?? name
        return stem.map { $0.isASCII && ($0.isLetter || $0.isNumber || "-_.".contains($0)) ? String($0) : "-" }.joined()
    }

    private func inputText() throws -> String {
        if file != nil && !text.isEmpty { throw ValidationError("Give the text as arguments or as -f FILE, not both.") }
        if !text.isEmpty { return text.joined(separator: " ") }
        let bytes: [UInt8]
        if let file {
            bytes = try readFile(file)
        } else {
            if isatty(STDIN_FILENO) != 0 { throw ValidationError("Give a text, -f FILE, or pipe one in.") }
            bytes = try readToEnd(STDIN_FILENO, name: "standard input")
        }
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw CommandError("\(file ?? "standard input") is not UTF-8 text")
        }
        return text
    }
}

extension TextLayout: ExpressibleByArgument {
    /// The layout of that name.
    public init?(argument: String) {
        switch argument {
        case "streaming": self = .streaming
        case "non-streaming": self = .nonStreaming
        default: return nil
        }
    }

    /// The names.
    public static var allValueStrings: [String] { ["streaming", "non-streaming"] }
}
