/// What a Wyoming server says of itself: the answer to `describe`.
struct WyomingInfo: Sendable, Encodable {
    struct Attribution: Sendable, Encodable {
        let name: String
        let url: String
    }

    struct Voice: Sendable, Encodable {
        let name: String
        let description: String
        let attribution: Attribution
        let installed = true
        let version: String?
        /// Codes such as `en`.
        let languages: [String]
    }

    struct Program: Sendable, Encodable {
        let name = "martlet"
        let description = "Martlet, a real-time speech server for Qwen3-TTS models"
        let attribution: Attribution
        let installed = true
        let version: String?
        let voices: [Voice]
        let supports_synthesize_streaming = true
    }

    let tts: [Program]

    /// - Parameters:
    ///   - voices: names that `synthesize` takes.
    ///   - languages: the model's languages by their English names.
    ///   - version: Martlet's version.
    init(voices: [String], languages: [String], model: String, version: String?) {
        let codes = languages.compactMap { WyomingLanguage.code($0) }
        let attribution = Attribution(name: "Qwen3-TTS", url: "https://github.com/QwenLM/Qwen3-TTS")
        tts = [
            Program(
                attribution: attribution, version: version,
                voices: voices.map {
                    Voice(
                        name: $0, description: "\($0) (\(model))", attribution: attribution, version: version,
                        languages: codes)
                })
        ]
    }
}

/// Languages by their codes (ISO 639-1), as Wyoming clients name them, and by the names that models have for them.
enum WyomingLanguage {
    private static let names = [
        "zh": "chinese", "en": "english", "fr": "french", "de": "german", "it": "italian", "ja": "japanese",
        "ko": "korean", "pt": "portuguese", "ru": "russian", "es": "spanish",
    ]

    /// The code of a model's language; nil for dialects and others that have none.
    static func code(_ name: String) -> String? { names.first { $0.value == name }?.key }

    /// The model's name of a language code such as `en` or `en_US`; other values stay as they are.
    static func name(_ code: String) -> String {
        let language = code.split(whereSeparator: { $0 == "_" || $0 == "-" }).first.map { $0.lowercased() }
        return language.flatMap { names[$0] } ?? code
    }
}
