/// The voice names of OpenAI's API, which stand for voices of the model.
enum VoiceNames {
    /// With the voices of the released CustomVoice models that they stand for.
    private static let aliases: [(name: String, voice: String)] = [
        ("alloy", "serena"), ("ash", "aiden"), ("ballad", "eric"), ("cedar", "aiden"), ("coral", "vivian"),
        ("echo", "ryan"), ("fable", "dylan"), ("marin", "vivian"), ("nova", "sohee"), ("onyx", "uncle_fu"),
        ("sage", "serena"), ("shimmer", "ono_anna"), ("verse", "ryan"),
    ]

    /// The names, sorted.
    static var all: [String] { aliases.map(\.name) }

    /// The one of `voices` that a name of OpenAI's stands for: always the same; nil for any other name.
    static func voice(for alias: String, in voices: [String]) -> String? {
        guard let index = aliases.firstIndex(where: { $0.name == alias.lowercased() }), !voices.isEmpty else {
            return nil
        }
        let preferred = aliases[index].voice
        return voices.first { $0.lowercased() == preferred } ?? voices[index % voices.count]
    }

    /// Whether it is one of OpenAI's.
    static func isAlias(_ name: String) -> Bool { aliases.contains { $0.name == name.lowercased() } }
}
