import ArgumentParser
import AudioFiles
import Qwen3TTS
import Tensors

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// `martlet codes`: between sound and the codec's codes.
struct CodesCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "codes", abstract: "Codec codes: from and to WAV files, dumped, compared, replayed.",
        discussion: """
            Codes are 16 numbers for each frame of 80 ms. Their file is safetensors (tensor 'codes', I32 [frames, 16]) \
            or JSON ({"codes": [[…], …]}), by the name's ending.
            """,
        subcommands: [
            Encode.self, Decode.self, CodesDumpCommand.self, CodesDiffCommand.self, CodesReplayCommand.self,
            CodesStreamCommand.self,
        ])

    /// `martlet codes encode`.
    struct Encode: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Encode a WAV file. Any model will do whose codec has its encoder.")

        @Argument(help: "A WAV file, any sample rate, mono or stereo.")
        var input: String

        @Option(name: .shortAndLong, help: "A file that ends in .safetensors or .json.")
        var output: String

        @OptionGroup var encoder: EncoderOptions

        func validate() throws { _ = try CodeFile.Format(path: output) }

        func run() throws {
            let directory = try encoder.directory()
            let codec = try Configuration.load(directory: directory).codec
            let stage = try CodecEncoder(
                SafetensorsFile(path: directory + "/speech_tokenizer/model.safetensors"), configuration: codec,
                compute: encoder.compute())
            let clip = try Recording.read(input, sampleRate: stage.sampleRate)
            let file = CodeFile(codes: try stage.encode(clip.samples), groups: stage.codeGroups)
            try file.write(to: output)
            printError("\(output): \(decimal(clip.seconds, 2)) s, \(file.frames) frames")
        }
    }

    /// `martlet codes decode`.
    struct Decode: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Decode codes to a WAV file.")

        @Argument(help: "A file that ends in .safetensors or .json.")
        var input: String

        @Option(name: .shortAndLong, help: "A WAV file, or - for raw PCM on standard output.")
        var output: String

        @OptionGroup var encoder: EncoderOptions

        func validate() throws { _ = try CodeFile.Format(path: input) }

        /// Frames decoded at a time: two seconds.
        private static let framesPerPiece = 25

        func run() throws {
            let directory = try encoder.directory()
            let codec = try Configuration.load(directory: directory).codec
            let file = try CodeFile(path: input)
            try file.check(groups: codec.decoder.codebooks, codebookSize: codec.decoder.codebookSize)
            let decoder = try CodecDecoder(
                SafetensorsFile(path: directory + "/speech_tokenizer/model.safetensors"), configuration: codec,
                compute: encoder.compute())
            var writer =
                output == "-"
                ? try WAVWriter(descriptor: STDOUT_FILENO, container: .rawPCM)
                : try WAVWriter(path: output, sampleRate: codec.sampleRate)
            let state = decoder.makeState()
            let pcm = FloatBuffer(count: Self.framesPerPiece * decoder.samplesPerFrame)
            for start in stride(from: 0, to: file.frames, by: Self.framesPerPiece) {
                let count = min(Self.framesPerPiece, file.frames - start)
                let codes = Array(file.codes[(start * file.groups)..<((start + count) * file.groups)])
                decoder.decode([.init(state: state, codes: codes, frames: count, pcm: pcm.pointer)])
                try writer.write(UnsafeBufferPointer(start: pcm.pointer, count: count * decoder.samplesPerFrame))
            }
            withExtendedLifetime(pcm) {}
            try writer.finish()
            let seconds = Double(file.frames * codec.samplesPerFrame) / Double(codec.sampleRate)
            printError("\(output == "-" ? "standard output" : output): \(decimal(seconds, 2)) s")
        }
    }
}
