/// Cuts normalised text into the pieces that byte-pair merges stay inside.
///
/// Does what Qwen2's regular expression does, leftmost and in this order (section 2.1):
///
///     (?i:'s|'t|'re|'ve|'m|'ll|'d)
///     [^\r\n\p{L}\p{N}]?\p{L}+
///     \p{N}
///     ' '?[^\s\p{L}\p{N}]+[\r\n]*
///     \s*[\r\n]+
///     \s+(?!\S)
///     \s+
///
/// as an automaton that takes one scalar at a time and never looks back, so that a piece is known as soon as its
/// last scalar is, and any split of the text gives the same pieces.
struct PreTokenSplitter {
    private enum State {
        /// Nothing held.
        case empty
        /// A leading apostrophe: may begin a contraction.
        case apostrophe
        /// An apostrophe and r, v or l: may become 're, 've or 'll.
        case openContraction(last: UInt8)
        /// Letters, perhaps after one other scalar.
        case letters
        /// One scalar that is neither letter, number nor space: letters may follow in the same piece.
        case other
        /// Such scalars, perhaps after a blank: letters may not follow.
        case others
        /// The same, then line breaks.
        case othersAndBreaks
        /// White space only.
        case space
    }

    /// UTF-8 of what is held.
    private var held: [UInt8] = []
    private var state = State.empty
    /// In ``State/space``: bytes held up to and including the last line break.
    private var endOfLastBreak = 0
    /// In ``State/space``: bytes of the last scalar.
    private var lastLength = 0

    /// Takes one scalar; calls `emit` with each piece that is now complete.
    mutating func append(_ scalar: UInt32, emit: (ArraySlice<UInt8>) -> Void) {
        let kind = ScalarKind(scalar)
        switch state {
        case .empty:
            begin(scalar, kind, emit: emit)

        case .apostrophe:
            switch Self.folded(scalar) {
            case UInt8(ascii: "s"), UInt8(ascii: "t"), UInt8(ascii: "m"), UInt8(ascii: "d"):
                hold(scalar)
                emitAll(emit)
            case let letter? where letter == UInt8(ascii: "r") || letter == UInt8(ascii: "v"):
                hold(scalar)
                state = .openContraction(last: UInt8(ascii: "e"))
            case UInt8(ascii: "l"):
                hold(scalar)
                state = .openContraction(last: UInt8(ascii: "l"))
            default:
                state = .other
                append(scalar, emit: emit)
            }

        case .openContraction(let last):
            if Self.folded(scalar) == last {
                hold(scalar)
                emitAll(emit)
            } else {
                state = .letters
                append(scalar, emit: emit)
            }

        case .letters:
            if kind == .letter {
                hold(scalar)
            } else {
                emitAll(emit)
                begin(scalar, kind, emit: emit)
            }

        case .other where kind == .letter:
            hold(scalar)
            state = .letters

        case .other, .others:
            switch kind {
            case .other:
                hold(scalar)
                state = .others
            case .lineBreak:
                hold(scalar)
                state = .othersAndBreaks
            default:
                emitAll(emit)
                begin(scalar, kind, emit: emit)
            }

        case .othersAndBreaks:
            if kind == .lineBreak {
                hold(scalar)
            } else {
                emitAll(emit)
                begin(scalar, kind, emit: emit)
            }

        case .space:
            if kind == .lineBreak || kind == .space {
                let before = held.count
                hold(scalar)
                lastLength = held.count - before
                if kind == .lineBreak { endOfLastBreak = held.count }
            } else {
                leaveSpace(before: scalar, kind, emit: emit)
            }
        }
    }

    /// The text ends here.
    mutating func finish(emit: (ArraySlice<UInt8>) -> Void) {
        if case .space = state { emitBreaks(emit) }
        emitAll(emit)
    }

    private mutating func begin(_ scalar: UInt32, _ kind: ScalarKind, emit: (ArraySlice<UInt8>) -> Void) {
        hold(scalar)
        switch kind {
        case .letter: state = .letters
        case .number: emitAll(emit)
        case .other: state = scalar == 0x27 ? .apostrophe : .other
        case .space, .lineBreak:
            state = .space
            lastLength = held.count
            endOfLastBreak = kind == .lineBreak ? held.count : 0
        }
    }

    /// White space ends before `scalar`: everything up to the last line break is one piece, the rest but its last
    /// scalar another; that last scalar joins letters, and a blank joins other scalars.
    private mutating func leaveSpace(before scalar: UInt32, _ kind: ScalarKind, emit: (ArraySlice<UInt8>) -> Void) {
        emitBreaks(emit)
        if held.count > lastLength {
            emit(held[..<(held.count - lastLength)])
            held.removeFirst(held.count - lastLength)
        }
        if !held.isEmpty {
            if kind == .letter {
                hold(scalar)
                state = .letters
                return
            }
            if kind == .other, held == [0x20] {
                hold(scalar)
                state = .others
                return
            }
            emitAll(emit)
        }
        begin(scalar, kind, emit: emit)
    }

    private mutating func emitBreaks(_ emit: (ArraySlice<UInt8>) -> Void) {
        guard endOfLastBreak > 0 else { return }
        emit(held[..<endOfLastBreak])
        held.removeFirst(endOfLastBreak)
        endOfLastBreak = 0
    }

    private mutating func emitAll(_ emit: (ArraySlice<UInt8>) -> Void) {
        if !held.isEmpty { emit(held[...]) }
        held.removeAll(keepingCapacity: true)
        state = .empty
    }

    /// The lower-case ASCII letter that matches without regard to case, or nil.
    private static func folded(_ scalar: UInt32) -> UInt8? {
        switch scalar {
        case 0x41...0x5A, 0x61...0x7A: UInt8(scalar | 0x20)
        case 0x17F: UInt8(ascii: "s")
        default: nil
        }
    }

    private mutating func hold(_ scalar: UInt32) {
        if scalar < 0x80 {
            held.append(UInt8(scalar))
        } else {
            held.append(contentsOf: UTF8.encode(Unicode.Scalar(scalar)!)!)
        }
    }
}

/// What the expression tells apart. An apostrophe is ``other``.
enum ScalarKind {
    case letter, number, space, lineBreak, other

    init(_ scalar: UInt32) {
        switch scalar {
        case 0x41...0x5A, 0x61...0x7A: self = .letter
        case 0x30...0x39: self = .number
        case 0x0A, 0x0D: self = .lineBreak
        case 0x09, 0x0B, 0x0C, 0x20: self = .space
        case ..<0x80: self = .other
        default:
            let properties = Unicode.Scalar(scalar)!.properties
            switch properties.generalCategory {
            case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter:
                self = Self.isKnown(properties) ? .letter : .other
            case .decimalNumber, .letterNumber, .otherNumber:
                self = Self.isKnown(properties) ? .number : .other
            default: self = properties.isWhitespace ? .space : .other
            }
        }
    }

    /// True if Unicode 16, whose tables the reference uses, knows the scalar: later standard libraries know more.
    private static func isKnown(_ properties: Unicode.Scalar.Properties) -> Bool {
        guard let age = properties.age else { return false }
        return age.major <= 16
    }
}
