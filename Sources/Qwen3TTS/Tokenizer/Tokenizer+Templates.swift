extension Tokenizer {
    /// Ids of the text to speak in its template, `<|im_start|>assistant\n` text `<|im_end|>\n<|im_start|>assistant\n`.
    ///
    /// With ``ControlTokens/plainText`` line breaks at the start of the text are left out: they would merge with the
    /// template's own and shift the slices of the prompt (section 2.2). With ``ControlTokens/recognized`` the
    /// result is the reference's, that trap included.
    public func speechTemplate(_ text: String, controlTokens: ControlTokens = .plainText) -> [Int32] {
        switch controlTokens {
        case .plainText:
            opening + encode(Self.withoutLeadingLineBreaks(text)) + closing + opening
        case .recognized:
            encode(
                "<|im_start|>assistant\n\(text)<|im_end|>\n<|im_start|>assistant\n", controlTokens: .recognized)
        }
    }

    /// Ids of the transcript of a reference recording in its template, `<|im_start|>assistant\n` text `<|im_end|>\n`.
    public func referenceTemplate(_ text: String, controlTokens: ControlTokens = .plainText) -> [Int32] {
        switch controlTokens {
        case .plainText: opening + encode(Self.withoutLeadingLineBreaks(text)) + closing
        case .recognized: encode("<|im_start|>assistant\n\(text)<|im_end|>\n", controlTokens: .recognized)
        }
    }

    /// Ids of an instruction in its template, `<|im_start|>user\n` text `<|im_end|>\n`; empty for an empty instruction.
    public func instructionTemplate(_ text: String, controlTokens: ControlTokens = .plainText) -> [Int32] {
        if text.isEmpty { return [] }
        switch controlTokens {
        case .plainText:
            return [tables.startOfMessage] + encode("user\n\(Self.withoutLeadingLineBreaks(text))") + closing
        case .recognized:
            return encode("<|im_start|>user\n\(text)<|im_end|>\n", controlTokens: .recognized)
        }
    }

    /// `<|im_start|>assistant\n`: the first three ids of the templates of text and transcript.
    var opening: [Int32] { [tables.startOfMessage] + tables.assistantRole }

    /// `<|im_end|>\n`.
    private var closing: [Int32] { [tables.endOfMessage, tables.assistantRole[1]] }

    /// Drops white space at the start up to and including its last line break.
    static func withoutLeadingLineBreaks(_ text: String) -> String {
        let scalars = text.unicodeScalars
        let space = scalars.prefix { $0.properties.isWhitespace }
        guard let last = space.lastIndex(where: { $0 == "\n" || $0 == "\r" }) else { return text }
        return String(scalars[scalars.index(after: last)...])
    }
}
