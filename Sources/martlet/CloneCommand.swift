import ArgumentParser
import AudioFiles
import Qwen3TTS
import Tensors

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// `martlet clone`: a recording to a .voice file.
struct CloneCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "clone", abstract: "Make a voice of a recording, for 'martlet say --voice'.",
        discussion: """
            Needs a Base model. With the recording's transcript, word for word, the model goes on from the recording \
            (in-context cloning, the closest likeness); without one only a speaker vector leads it. The voice belongs \
            to the model that made it.
              martlet clone --ref-audio anna.wav --ref-text "What Anna says in it." --save anna.voice
              martlet say "And now something new." --voice anna.voice
            """)

    @Option(help: "The recording: a WAV file of 3 to 30 seconds, any sample rate, mono or stereo.")
    var refAudio: String

    @Option(help: "What is said in the recording.")
    var refText: String?

    @Option(help: "The voice file to write; its name ends in .voice.")
    var save: String

    @OptionGroup var encoder: EncoderOptions

    @Flag(help: "Print what was made, and the seconds it took, as JSON.")
    var json = false

    func validate() throws {
        guard save.hasSuffix(".voice") else {
            throw ValidationError(
                "--save is \(save), expected a name that ends in .voice: that tells it from the name of a model's voice."
            )
        }
    }

    func run() throws {
        let encoder = try CloneEncoder(directory: encoder.directory(), compute: encoder.compute())
        let clip = try Recording.read(refAudio, sampleRate: encoder.sampleRate)
        let start = ContinuousClock.now
        let prompt = try encoder.encode(clip.samples, referenceText: refText)
        let elapsed = (ContinuousClock.now - start) / .seconds(1)
        for warning in warnings(clip, prompt) { printError("warning: \(warning)") }
        try prompt.save(to: save)
        let report = Report(
            file: save, model: prompt.modelIdentity, seconds: clip.seconds, inContext: prompt.isInContext,
            frames: prompt.codes.count / prompt.codeGroups, vectorSize: prompt.speakerVector.count,
            encodingSeconds: elapsed)
        print(json ? try report.json() : report.line)
    }

    private func warnings(_ clip: AudioClip, _ prompt: ClonePrompt) -> [String] {
        var warnings: [String] = []
        let length = decimal(clip.seconds, 1)
        if clip.seconds < 3 {
            warnings.append("the recording lasts \(length) s; from 3 s on voices are likely to be more alike")
        }
        if clip.seconds > 60 {
            let frames = prompt.codes.count / prompt.codeGroups
            warnings.append(
                prompt.isInContext
                    ? "the recording lasts \(length) s; all \(frames) frames of it begin every speech with this voice, "
                        + "which delays the first audio: 5 to 30 s do as well"
                    : "the recording lasts \(length) s; 5 to 30 s do as well")
        }
        let peak = clip.samples.reduce(0) { max($0, $1.magnitude) }
        if peak < 0.01 { warnings.append("the recording is almost silent: its loudest sample is \(peak)") }
        return warnings
    }

    private struct Report: Encodable {
        let file: String
        let model: String
        let seconds: Double
        let inContext: Bool
        let frames: Int
        let vectorSize: Int
        let encodingSeconds: Double

        var line: String {
            let kind = inContext ? "\(frames) frames in context" : "speaker vector alone (no --ref-text)"
            return "\(file): \(decimal(seconds, 1)) s, \(kind), encoded in \(decimal(encodingSeconds, 2)) s"
        }

        func json() throws -> String {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            return String(decoding: try encoder.encode(self), as: UTF8.self)
        }
    }
}

/// Which model's encoders, and how they are computed.
struct EncoderOptions: ParsableArguments {
    @Option(name: .shortAndLong, help: "A model folder, or the name of a pulled model.")
    var model: String?

    @Option(help: "Threads; default: all processors.")
    var threads: Int?

    func validate() throws {
        if let threads, !(1...256).contains(threads) {
            throw ValidationError("--threads is \(threads), expected 1 to 256.")
        }
    }

    /// The folder of the model.
    func directory() throws -> String { try ModelLocation.directory(of: model) }

    func compute() -> Compute { Compute(threads: threads ?? ThreadPool.defaultThreadCount) }
}

/// A recording that a command is given.
enum Recording {
    /// Reads a WAV file as mono at `sampleRate`.
    static func read(_ path: String, sampleRate: Int) throws -> AudioClip {
        let clip = try WAVFile.read(path: path)
        guard clip.seconds <= Double(CodecEncoder.longestSeconds) else {
            throw CommandError(
                "\(path) lasts \(decimal(clip.seconds, 0)) s, at most \(CodecEncoder.longestSeconds) s are taken: "
                    + "use a shorter part of it")
        }
        return try clip.resampled(to: sampleRate)
    }
}
