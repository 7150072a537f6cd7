import Testing

@testable import TextNormalization

/// Sentences and their words, however the text comes.
@Suite struct EnglishReaderTests {
    // MARK: Pieces

    /// Any cut of a text into pieces gives the same events.
    @Test func piecesGiveTheSameEvents() {
        var random = SeededNumbers(seed: 5)
        for _ in 0..<60 {
            let text = RandomText.make(atoms: Int.random(in: 1..<60, using: &random), using: &random)
            let whole = events(of: text, size: .max)
            for size in [1, 2, 3, 7] {
                #expect(events(of: text, size: size) == whole, "\(size) of \(text.debugDescription)")
            }
        }
    }

    /// The words of a sentence, joined, are the sentence normalised at once: no cut separates what a rule joins.
    @Test func wordsOfASentenceAreTheSentence() {
        var random = SeededNumbers(seed: 6)
        var pieces = 0
        for _ in 0..<400 {
            // No mark that ends a sentence: the text is one, and short enough to stay one.
            let text = RandomText.makeSentence(characters: 140, using: &random)
            let events = events(of: text, size: 5)
            pieces += events.count - 1
            #expect(joined(events) == [EnglishNormalizer.normalize(text)], "\(text.debugDescription)")
        }
        #expect(pieces > 400)
    }

    /// Words aren't held back until the sentence is over.
    @Test func wordsComeEarly() {
        var reader = EnglishReader()
        #expect(reader.append("Once upon a ti") == [.words("Once"), .words(" upon"), .words(" a")])
        #expect(reader.append("me there w") == [.words(" time")])
        let rest: [EnglishReader.Event] = [
            .words(" there"), .words(" was"), .words(" a"), .words(" king."), .sentenceEnd,
        ]
        #expect(reader.append("as a king. Th") == rest)
        #expect(reader.finish() == [.words("Th"), .sentenceEnd])
    }

    @Test func carriageReturnAndLineFeedAreOneLineBreakHoweverTheyCome() {
        for size in [1, 2, 3, .max] {
            #expect(joined(events(of: "one\r\ntwo\r\n\r\nthree", size: size)) == ["one two", "three"])
        }
    }

    // MARK: Sentences

    @Test(arguments: [
        // Marks that end a sentence.
        ("Hello there. How are you?", ["Hello there.", "How are you?"]),
        ("Stop! Go! Now?", ["Stop!", "Go!", "Now?"]),
        ("What?! No way.", ["What?!", "No way."]),
        ("no stop at the end", ["no stop at the end"]),
        ("First. second", ["First. second"]),
        ("One.Two", ["One.Two"]),
        ("It ends here.", ["It ends here."]),
        ("It ends here. ", ["It ends here."]),
        ("Well... I think so.", ["Well...", "I think so."]),
        ("Well... maybe so.", ["Well... maybe so."]),
        ("Well… Maybe.", ["Well...", "Maybe."]),
        ("Wait ... what?", ["Wait... what?"]),
        // Quotes, brackets, emphasis.
        ("\"Hello!\" she said.", ["\"Hello!\" she said."]),
        ("\"Hello.\" She left.", ["\"Hello.\"", "She left."]),
        ("“Go.” “Why?”", ["\"Go.\"", "\"Why?\""]),
        ("(It rained.) We left.", ["It rained.", "We left."]),
        ("He said 'no.' Then he left.", ["He said 'no.'", "Then he left."]),
        ("**Note.** Read this.", ["Note.", "Read this."]),
        ("_Really?_ Yes.", ["Really?", "Yes."]),
        // Titles and other abbreviations.
        ("Mr. Smith met Mrs. Jones.", ["Mister Smith met Missus Jones."]),
        ("Dr. No is here. Run.", ["Doctor No is here.", "Run."]),
        ("(Mr. Smith) left.", ["Mister Smith, left."]),
        ("I saw Prof. Lee. He waved.", ["I saw Professor Lee.", "He waved."]),
        ("e.g. Apples and i.e. Pears.", ["for example Apples and that is Pears."]),
        ("cats vs. Dogs", ["cats versus Dogs"]),
        ("Tea, milk, etc. We left.", ["Tea, milk, et cetera.", "We left."]),
        ("Tea, milk, etc. and so on.", ["Tea, milk, et cetera and so on."]),
        ("At 5 p.m. We left.", ["At five p m.", "We left."]),
        ("At 5 p.m. we left.", ["At five p m we left."]),
        ("Apple Inc. The firm.", ["Apple Incorporated.", "The firm."]),
        ("We walked on Main St. The sun shone.", ["We walked on Main Street", "The sun shone."]),
        ("St. Louis is big.", ["Saint Louis is big."]),
        ("On Jan. 5 we met.", ["On January fifth we met."]),
        ("It was in Jan. The snow fell.", ["It was in January", "The snow fell."]),
        ("Come on Tues. Feb. 3.", ["Come on Tuesday February third."]),
        ("No. 5 is alive.", ["Number five is alive."]),
        ("No. I won't.", ["No.", "I won't."]),
        ("Fig. 3 shows it.", ["Fig. three shows it."]),
        // Initials.
        ("J. R. R. Tolkien wrote it.", ["J. R. R. Tolkien wrote it."]),
        ("George W. Bush spoke.", ["George W. Bush spoke."]),
        ("It is I. He left.", ["It is I.", "He left."]),
        ("We need plan B. The first failed.", ["We need plan B.", "The first failed."]),
        ("The U.S. Army came.", ["The U S Army came."]),
        ("I live in the U.S.A. It is large.", ["I live in the U S A", "It is large."]),
        ("the U.S. government", ["the U S government"]),
        // Numbers.
        ("Pi is 3.14. It is odd.", ["Pi is three point one four.", "It is odd."]),
        ("In 1999. Then more.", ["In nineteen ninety-nine.", "Then more."]),
        ("1. Buy milk. 2. Go home.", ["one. Buy milk.", "two. Go home."]),
        ("It costs $5. Really.", ["It costs five dollars.", "Really."]),
        ("There were 5. 3 left.", ["There were five.", "three left."]),
        ("Version 2.0.1 is out. Get it.", ["Version two point zero.one is out.", "Get it."]),
        ("See example.com. It works.", ["See example dot com.", "It works."]),
        // Lines.
        ("One line\nand more.", ["One line and more."]),
        ("A title\n\nThe text.", ["A title", "The text."]),
        ("A list:\n- one\n- two", ["A list:", "- one", "- two"]),
        ("To do\n1. eat\n2. sleep", ["To do", "one. eat", "two. sleep"]),
        ("a\u{2029}b", ["a", "b"]),
        // Nothing to read in between.
        ("Great! 🎉 Thanks.", ["Great!", "Thanks."]),
        ("... Hello.", ["Hello."]),
        ("Hi. ... ! Bye.", ["Hi.", "Bye."]),
        ("  \n Hello.", ["Hello."]),
        ("", []),
        (" \n ", []),
        ("?! ...", []),
    ])
    func sentences(_ text: String, _ expected: [String]) {
        for size in [1, .max] { #expect(joined(events(of: text, size: size)) == expected) }
    }

    // MARK: Long sentences

    @Test func longSentencesEndAtTheirLastComma() {
        let clause = Array(repeating: "word", count: 10).joined(separator: " ")
        let text = "\(clause), \(clause); \(clause) and then \(clause), done."
        #expect(
            joined(events(of: text, size: 3)) == [
                "\(clause), \(clause);", "\(clause) and then \(clause), done.",
            ])
    }

    @Test func longSentencesWithoutACommaEndAtASpace() {
        let text = Array(repeating: "word", count: 60).joined(separator: " ")
        let sentences = joined(events(of: text, size: 4))
        #expect(sentences.map(\.count) == [154, 144])
        #expect(sentences.joined(separator: " ") == text)
    }

    @Test func aNumberIsNotCutAtItsCommaOrSpace() {
        let head = Array(repeating: "word", count: 28).joined(separator: " ")
        let text = "\(head) pays $5 million, 20 more on May 5, 2024 and more words to come."
        let all = joined(events(of: text, size: 2)).joined(separator: " ")
        #expect(all.contains("five million dollars"))
        #expect(all.contains("May fifth, twenty twenty-four"))
    }

    @Test func textWithoutSpacesIsCut() {
        let text = String(repeating: "a", count: 2500)
        #expect(joined(events(of: text, size: 700)).map(\.count) == [1000, 1000, 500])
    }

    /// Each character is looked at a bounded number of times, whatever comes.
    @Test(arguments: ["a", " ", "a ", "a, ", "A. ", "\n", "1", "Hello there, you. ", "Mr. "])
    func longTextsTakeTimeInProportion(_ unit: String) {
        var reader = EnglishReader()
        let piece = String(repeating: unit, count: 1000 / unit.count)
        let clock = ContinuousClock()
        var slowest: [Duration] = []
        for _ in 0..<2 {
            slowest.append(clock.measure { for _ in 0..<10 { _ = reader.append(piece) } })
        }
        _ = reader.finish()
        // The second half may not cost many times the first.
        #expect(slowest[1] < slowest[0] * 8 + .seconds(5))
    }

    // MARK: Helpers

    private func events(of text: String, size: Int) -> [EnglishReader.Event] {
        var reader = EnglishReader()
        var events: [EnglishReader.Event] = []
        var rest = Array(text.unicodeScalars)[...]
        while !rest.isEmpty {
            events += reader.append(String(rest.prefix(size)))
            rest = rest.dropFirst(size)
        }
        return events + reader.finish()
    }

    private func joined(_ events: [EnglishReader.Event]) -> [String] {
        var sentences: [String] = []
        var sentence = ""
        for event in events {
            switch event {
            case .words(let words): sentence += words
            case .sentenceEnd:
                sentences.append(sentence)
                sentence = ""
            }
        }
        #expect(sentence.isEmpty)
        return sentences
    }
}

/// Texts of words, numbers, dates, abbreviations, names and marks.
enum RandomText {
    private static let plain = """
        the of a and with from house runs quickly about million thousand hundred May March Jan Sept St Dr No Mr John Smith \
        don't it’s O'Neil NASA CPUs U.S.A 5 12 1,000 3.14 1985 2021-03-04 3/4/2021 5:30 12:00 pm am PM 1st 4th 21st 1980s \
        $5 $1.50 £2 € 1/2 3/4 555-1234 +1-800-555-1234 -5 5-7 km kg m % °C 5km 20% http://(x https:// www.(x https://x.io a@b.com \
        x.org – — - & + = / # ( ) [ ] * _ é ñ café 日本 🎉 e\u{301} \u{301} ² ½ × … “quoted” ‘single’ 'tis (aside) , ; : word, \
        word; (Dr http httpx dr st X Y Z B
        """.split(separator: " ").map(String.init)
    private static let stopped = """
        Mr. Mrs. Dr. St. No. Jr. Inc. etc. e.g. i.e. a.m. p.m. P.M. vs. min. Jan. Sept. Tues. U.S. U.S.A. J. end. stop! \
        why? ... "Hello!" done." wow?! 5. 3.5. (No. "St.
        """.split(separator: " ").map(String.init)
    private static let gaps = [" ", " ", " ", " ", " ", " ", "  ", "\n", "\n\n", "\r\n", "\t", "", "\u{A0}"]

    static func make(atoms: Int, using random: inout SeededNumbers) -> String {
        var text = ""
        for _ in 0..<atoms {
            let isPlain = Int.random(in: 0..<5, using: &random) > 0
            text += (isPlain ? plain : stopped).randomElement(using: &random) ?? ""
            text += gaps.randomElement(using: &random) ?? ""
        }
        return text
    }

    /// Without a mark that ends it or a paragraph, and with letters.
    static func makeSentence(characters: Int, using random: inout SeededNumbers) -> String {
        var text = "so"
        while true {
            let abbreviations = ["Mr.", "Dr.", "St.", "Prof.", "e.g.", "i.e.", "vs.", "Lt."]
            let isPlain = Int.random(in: 0..<8, using: &random) > 0
            let atom = (isPlain ? plain : abbreviations).randomElement(using: &random) ?? ""
            let gap = [" ", " ", " ", "  ", "\n", "\t", "\u{A0}"].randomElement(using: &random) ?? ""
            guard text.unicodeScalars.count + gap.count + atom.unicodeScalars.count < characters else { return text }
            if atom == "…" || gap == "\n" && ["-", "–", "—", "+", "*"].contains(atom) { continue }
            text += gap + atom
        }
    }
}
