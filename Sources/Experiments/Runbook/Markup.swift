/// Text of an XML or HTML document, with all that was data escaped.
struct Markup {
    private(set) var text: String

    private init(text: String) { self.text = text }

    /// Plain words.
    init(_ words: String) { text = Self.escape(words) }

    /// Nothing yet.
    init() { text = "" }

    /// Parts one after the other.
    init(_ parts: [Markup]) { text = parts.map(\.text).joined() }

    /// Markup that stands in the program itself.
    static func literal(_ text: StaticString) -> Markup { Markup(text: "\(text)") }

    /// An element with attributes in the order given.
    static func element(
        _ name: StaticString, _ attributes: KeyValuePairs<String, String> = [:], _ content: Markup...
    ) -> Markup {
        let list = attributes.map { " \($0.key)=\"\(escape($0.value))\"" }.joined()
        let inner = content.map(\.text).joined()
        return Markup(text: inner.isEmpty ? "<\(name)\(list)/>" : "<\(name)\(list)>\(inner)</\(name)>")
    }

    /// An element of words.
    static func element(_ name: StaticString, _ words: String) -> Markup { element(name, [:], Markup(words)) }

    static func + (a: Markup, b: Markup) -> Markup { Markup(text: a.text + b.text) }

    static func += (a: inout Markup, b: Markup) { a.text += b.text }

    private static func escape(_ words: String) -> String {
        var result = ""
        for letter in words.unicodeScalars {
            switch letter {
            case "&": result += "&amp;"
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            case "\"": result += "&quot;"
            case "\t", "\n": result.unicodeScalars.append(letter)
            // XML has no other control characters.
            case _ where letter.value < 32: result += "\u{FFFD}"
            default: result.unicodeScalars.append(letter)
            }
        }
        return result
    }
}
