import Qwen3TTS
import Tensors

/// What the Python reference computed for a checkpoint: `golden/` as `scripts/reference/make_fixture.py` writes it.
struct Goldens: Sendable {
    struct Contents: Decodable, Sendable {
        struct Arguments: Decodable, Sendable {
            let text: String
            let language: String
            let speaker: String?
            let instruct: String?
            let non_streaming_mode: Bool?
            let ref_text: String?
        }
        struct Case: Decodable, Sendable {
            let method: String
            let arguments: Arguments
        }
        struct SamplerCase: Decodable, Sendable {
            let history: [Int32]
            let repetition_penalty: Double
            let temperature: Double
            let top_k: Int
            let top_p: Double
        }
        struct TokenizerCase: Decodable, Sendable {
            let text: String
            let ids: [Int32]
        }
        struct DecoderSettings: Decodable, Sendable {
            let stage_frames: Int
            let chunk: Int
            let chunk_context: Int
        }
        let cases: [String: Case]
        let frames_requested: Int
        let sampler: [SamplerCase]?
        let tokenizer_cases: [TokenizerCase]
        let decoder: DecoderSettings?
    }

    let folder: String
    let contents: Contents

    /// - Parameter model: the checkpoint's folder.
    init(model: String) throws(ExperimentError) {
        folder = model + "/golden"
        contents = try readJSON(Contents.self, folder + "/golden.json")
    }

    func file(_ name: String) throws(ExperimentError) -> GoldenFile {
        do { return GoldenFile(file: try SafetensorsFile(path: "\(folder)/\(name).safetensors")) } catch {
            throw .tensors(error)
        }
    }

    /// Whether the folder has that file.
    func has(_ name: String) -> Bool { (try? file(name)) != nil }

    /// The request that a case describes, greedy.
    func request(_ name: String, _ example: Contents.Case) throws(ExperimentError) -> SpeechRequest {
        let arguments = example.arguments
        var request = SpeechRequest(text: arguments.text)
        request.language = arguments.language
        request.instruction = arguments.instruct
        request.controlTokens = .recognized
        request.layout = arguments.non_streaming_mode.map { $0 ? .nonStreaming : .streaming }
        request.sampling.greedy = true
        request.sampling.maxNewTokens = contents.frames_requested + 1
        if let speaker = arguments.speaker { request.voice = .named(speaker) }
        if example.method == "generate_voice_clone" {
            let golden = try file("case_\(name)")
            request.voice = .clone(
                ClonePrompt(
                    speakerVector: try file("encoder").floats("speaker_embedding"),
                    codes: golden.has("ref_codes") ? try golden.integers("ref_codes") : [],
                    referenceText: arguments.ref_text))
        }
        return request
    }
}

/// A file of golden tensors.
struct GoldenFile: Sendable {
    let file: SafetensorsFile

    var names: [String] { file.names }

    func has(_ name: String) -> Bool { file[name] != nil }

    /// A tensor as float32, whatever its shape.
    func floats(_ name: String) throws(ExperimentError) -> [Float] {
        do throws(TensorError) {
            guard let view = file[name] else { throw .missing(name: name, path: file.path) }
            return try file.floats(name, shape: view.shape).array
        } catch {
            throw .tensors(error)
        }
    }

    func integers(_ name: String) throws(ExperimentError) -> [Int32] {
        do { return try file.integers(name).values.map { Int32(truncatingIfNeeded: $0) } } catch {
            throw .tensors(error)
        }
    }
}
