import Qwen3TTS

/// What all protocols let a client say about speech, apart from its text; ``Speaker`` makes a request of it.
struct SpeechFields: Sendable {
    /// A voice of the model, a saved one or one of OpenAI's names; nil takes the standard voice.
    var voice: String?
    /// `auto` or a language of the model.
    var language: String?
    /// How to speak, or the description of a VoiceDesign voice.
    var instructions: String?
    /// Nil takes the server's default.
    var seed: UInt64?
    /// Overrides of the model's rule.
    var temperature: Double?
    /// Overrides of the model's rule; 0 keeps all.
    var topK: Int?
    /// Overrides of the model's rule.
    var topP: Double?
    /// Overrides of the model's rule.
    var repetitionPenalty: Double?
    /// Bound on the talker's tokens.
    var maxNewTokens: Int?
    /// Always takes the likeliest code; nil takes the server's default.
    var greedy: Bool?
    /// Codec frames of a packet; nil takes the server's default. Changes when audio comes, never what comes.
    var packetTokens: Int?
    /// What the client calls its request.
    var tag: String?
    /// What the client takes the model for; must be what it is.
    var taskType: TaskType?
    /// A recording whose voice is to be cloned: a data URL, base64, or an address where that is allowed.
    var refAudio: String?
    /// What is said in the recording.
    var refText: String?
    /// Uses the speaker vector of the recording alone, whatever `refText` says.
    var speakerVectorOnly = false

    /// The kinds of model by the names that vLLM's API gives them.
    enum TaskType: String, CaseIterable, Sendable {
        case customVoice = "CustomVoice"
        case voiceDesign = "VoiceDesign"
        case base = "Base"

        var kind: ModelKind {
            switch self {
            case .customVoice: .customVoice
            case .voiceDesign: .voiceDesign
            case .base: .base
            }
        }
    }

    /// Nothing said.
    init() {}

    /// Reads them by the names of the OpenAI API and its extensions, or those of the old stack (`speaker`, `instruct`).
    init(_ fields: RequestFields) throws(APIError) {
        voice = try Self.voice(fields, fields["voice"] == nil ? "speaker" : "voice")
        language = try fields.string("language")
        instructions = try fields.string("instructions", "instruct")
        seed = try fields.unsigned("seed")
        temperature = try fields.number("temperature", in: 0...100)
        // -1 is how others write "all".
        topK = try fields.integer("top_k", in: -1...Int(Int32.max)).map { max(0, $0) }
        topP = try fields.number("top_p", in: 0...1)
        repetitionPenalty = try fields.number("repetition_penalty", in: 0.01...100)
        maxNewTokens = try fields.integer("max_new_tokens", in: 1...1_000_000)
        greedy = try fields.bool("greedy")
        packetTokens = try fields.integer("packet_tokens", in: 1...1024)
        tag = try RequestTag.read(fields)
        taskType = try fields.choice("task_type", of: TaskType.self)
        refAudio = try fields.string("ref_audio")
        refText = try fields.string("ref_text")
        speakerVectorOnly = try fields.bool("x_vector_only_mode") ?? false
    }

    /// A voice as a name or as an object with an `id`.
    private static func voice(_ fields: RequestFields, _ name: String) throws(APIError) -> String? {
        switch fields[name] {
        case nil: return nil
        case .string(let voice): return voice
        case .some(let value):
            if let id = value["id"]?.string { return id }
            throw .invalid(
                name, "\(name) is \(value.kind), expected a string or an object with a string \"id\"",
                code: "invalid_type")
        }
    }
}
