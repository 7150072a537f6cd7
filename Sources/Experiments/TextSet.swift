/// A text that experiments speak.
public struct ExperimentText: Sendable, Codable, Equatable {
    /// Its name: `short_01`, `long_03`.
    public let id: String
    /// What is said.
    public let text: String
    /// `auto` or a language.
    public let language: String?

    /// A text.
    public init(id: String, text: String, language: String? = nil) {
        self.id = id
        self.text = text
        self.language = language
    }
}

/// A voice that experiments speak with.
public struct ExperimentVoice: Sendable, Codable, Equatable {
    /// A named voice of the model; nil for its first one.
    public let speaker: String?
    /// `auto` or a language; the text's own goes first.
    public let language: String?
    /// How to speak.
    public let instruct: String?

    /// A voice.
    public init(speaker: String? = nil, language: String? = nil, instruct: String? = nil) {
        self.speaker = speaker
        self.language = language
        self.instruct = instruct
    }

    /// A name for files and tables.
    public var label: String {
        [speaker ?? "standard", language, instruct.map { _ in "instructed" }].compactMap { $0 }.joined(separator: "-")
    }
}

/// Texts and voices of an experiment: from JSON files, or the built-in ones.
public enum TextSet {
    /// Reads a JSON list of `{"id", "text", "language"?}`; nil gives `texts_p0_base`.
    public static func texts(_ path: String?) throws(ExperimentError) -> [ExperimentText] {
        guard let path else { return builtInTexts }
        let texts = try readJSON([ExperimentText].self, path)
        guard !texts.isEmpty else { throw .malformed(path: path, reason: "the list of texts is empty") }
        let twice = Dictionary(grouping: texts, by: \.id).first { $0.value.count > 1 }?.key
        if let twice { throw .malformed(path: path, reason: "the id \(twice) stands there twice") }
        return texts
    }

    /// Reads a JSON list of `{"speaker"?, "language"?, "instruct"?}`; nil gives `voices_base`.
    public static func voices(_ path: String?) throws(ExperimentError) -> [ExperimentVoice] {
        guard let path else { return builtInVoices }
        let voices = try readJSON([ExperimentVoice].self, path)
        guard !voices.isEmpty else { throw .malformed(path: path, reason: "the list of voices is empty") }
        return voices
    }

    /// The text of an id.
    public static func text(_ id: String, in texts: [ExperimentText]) throws(ExperimentError) -> ExperimentText {
        guard let text = texts.first(where: { $0.id == id }) else {
            throw .badSetting("there is no text '\(id)'; there are \(texts.map(\.id).joined(separator: ", "))")
        }
        return text
    }

    /// `voices_base`: the model's first voice, plain and with an instruction, in English and in Chinese.
    public static let builtInVoices = [
        ExperimentVoice(), ExperimentVoice(language: "english", instruct: "Speak calmly and a little more slowly."),
        ExperimentVoice(language: "chinese", instruct: "用高兴的语气，说得稍快一些。"),
    ]

    /// `texts_p0_base`: short, medium and long, in English and Chinese.
    public static let builtInTexts = [
        ExperimentText(id: "short_01", text: "Good morning, how did you sleep?", language: "english"),
        ExperimentText(id: "short_02", text: "The train leaves in ten minutes.", language: "english"),
        ExperimentText(id: "short_03", text: "好的，我马上就来。", language: "chinese"),
        ExperimentText(
            id: "medium_01",
            text: "A swift spends almost its whole life in the air. It eats, drinks and even sleeps while it flies.",
            language: "english"),
        ExperimentText(
            id: "medium_02",
            text: "Please turn left after the bridge, then follow the river for a mile until you see a red barn.",
            language: "english"),
        ExperimentText(
            id: "medium_03", text: "昨天晚上下了一场大雨，今天早上空气特别清新，我们决定步行去图书馆。",
            language: "chinese"),
        ExperimentText(
            id: "long_01",
            text: """
                The lighthouse keeper wrote down the weather every evening, even when nothing had changed. On the \
                first page he noted a calm sea and a pale sky; on the last, forty years later, he noted the same. In \
                between there were storms, wrecks and a wedding, but he gave each of them one line and no more.
                """, language: "english"),
        ExperimentText(
            id: "long_02",
            text: """
                To bake this bread you need flour, water, salt and patience. Mix everything in the evening and leave \
                it alone until morning. Fold the dough four times, wait an hour, and heat the oven as hot as it will \
                go. When the crust has the colour of chestnuts, take it out and listen: it crackles while it cools.
                """, language: "english"),
        ExperimentText(
            id: "long_03",
            text: """
                Our guide stopped at the edge of the glacier and asked us to be quiet. For a while we heard only the \
                wind. Then, from far below, came a low sound like furniture being moved in a distant house. That is \
                the ice, she said, it walks about a hand's breadth a day, and it has been walking since before there \
                were people to listen to it.
                """, language: "english"),
        ExperimentText(
            id: "long_04",
            text: """
                小镇的邮局只有一位职员，他认识每一个来寄信的人。冬天的时候，他会在窗口放一壶热茶，让等候的人暖暖手。\
                有人说信件已经没有用了，他只是笑笑，然后把邮票贴得整整齐齐。
                """, language: "chinese"),
    ]
}
