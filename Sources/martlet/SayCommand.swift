import ArgumentParser
import AudioFiles
import Qwen3TTS
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
        let engine = try device.engine(model)
        let stream = try engine.speak(request, packets: packet == 0 ? .growing : .fixed(packet))
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
