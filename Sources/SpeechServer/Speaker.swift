import Qwen3TTS
import SpeechEngine

/// Makes requests for the engine of what clients say; shared by all protocols.
struct Speaker: Sendable {
    let model: SpeechModel
    let voices: VoiceStore
    let cloner: Cloner
    let options: ServerOptions

    /// The request for a text.
    /// - Parameter isComplete: false if more text is appended later.
    /// - Throws: what is wrong with the fields. Whatever the model itself refuses comes from `SpeechEngine.speak`.
    func request(
        text: String, isComplete: Bool = true, fields: SpeechFields = SpeechFields()
    ) async throws(APIError) -> SpeechRequest {
        guard text.utf8.count <= options.maxText else {
            throw .invalid(
                "input",
                "the text has \(text.utf8.count) bytes, at most \(options.maxText) are taken; speak it in parts",
                code: "string_above_max_length")
        }
        if isComplete, text.allSatisfy(\.isWhitespace) {
            throw .invalid("input", "the text is empty", code: "string_below_min_length")
        }
        if let instructions = fields.instructions, instructions.utf8.count > options.maxText {
            throw .invalid(
                "instructions", "they have \(instructions.utf8.count) bytes, at most \(options.maxText) are taken",
                code: "string_above_max_length")
        }
        let kind = model.configuration.kind
        if let task = fields.taskType, task.kind != kind {
            throw .invalid(
                "task_type", "task_type is \(task.rawValue), this server speaks with a \(kind.rawValue) model",
                code: "unsupported_value")
        }
        var request = SpeechRequest(text: text)
        request.isComplete = isComplete
        request.voice = try await voice(fields)
        request.language = fields.language.map { $0.isEmpty ? "auto" : $0 } ?? "auto"
        request.instruction = fields.instructions
        request.sampling.seed = fields.seed ?? options.defaultSeed
        request.sampling.temperature = fields.temperature
        request.sampling.topK = fields.topK
        request.sampling.topP = fields.topP
        request.sampling.repetitionPenalty = fields.repetitionPenalty
        request.sampling.maxNewTokens = fields.maxNewTokens
        request.sampling.greedy = fields.greedy ?? (fields.temperature == nil && options.isGreedy)
        options.rules.apply(to: &request, of: model, seedIsGiven: fields.seed != nil)
        return request
    }

    /// Names that `voice` takes, apart from OpenAI's: the model's own voices and the saved ones.
    var voiceNames: [String] { model.configuration.voices + voices.names }

    private func voice(_ fields: SpeechFields) async throws(APIError) -> SpeechRequest.Voice {
        if let audio = fields.refAudio {
            guard model.configuration.kind == .base else {
                throw .invalid(
                    "ref_audio",
                    "cloning needs a Base model, this server speaks with a "
                        + "\(model.configuration.kind.rawValue) model", code: "unsupported_value")
            }
            return .clone(
                try await cloner.prompt(reference: audio, text: fields.speakerVectorOnly ? nil : fields.refText))
        }
        guard let name = fields.voice, !name.isEmpty, name.lowercased() != "default" else {
            return try standardVoice(named: nil)
        }
        if let own = model.configuration.voices.first(where: { $0.lowercased() == name.lowercased() }) {
            return .named(own)
        }
        if let saved = voices[name] { return .clone(saved.prompt) }
        if VoiceNames.isAlias(name) { return try standardVoice(named: name) }
        throw APIError(ModelError.unknownVoice(name, known: voiceNames))
    }

    /// The voice of a client that names none, or one of OpenAI's.
    private func standardVoice(named alias: String?) throws(APIError) -> SpeechRequest.Voice {
        switch model.configuration.kind {
        case .customVoice:
            return alias.flatMap { VoiceNames.voice(for: $0, in: model.configuration.voices) }.map { .named($0) }
                ?? .standard
        case .voiceDesign: return .standard
        case .base:
            let names = voices.names
            if let name = alias.map({ VoiceNames.voice(for: $0, in: names) }) ?? names.first, let saved = voices[name] {
                return .clone(saved.prompt)
            }
            throw .invalid(
                "voice",
                "a Base model has no voice of its own: send ref_audio, or save a voice with "
                    + "POST /v1/audio/voices first", code: "voice_not_found")
        }
    }
}
