/// Numbers in words. Digits come as they are written, in any script.
enum EnglishNumbers {
    typealias Digits = ArraySlice<Unicode.Scalar>

    static let ones = [
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
        "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
    ]
    private static let tens = [
        "zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
    ]
    private static let scales = [
        (1_000_000_000_000, "trillion"), (1_000_000_000, "billion"), (1_000_000, "million"), (1000, "thousand"),
        (100, "hundred"),
    ]
    private static let irregularOrdinals = [
        "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
        "twelve": "twelfth",
    ]
    /// Numbers with more digits are read digit by digit.
    private static let longestCardinal = 15

    /// 1234: one thousand two hundred thirty-four. Below 10^15.
    static func cardinal(_ n: Int) -> String {
        if n < 20 { return ones[n] }
        if n < 100 { return tens[n / 10] + (n % 10 > 0 ? "-" + ones[n % 10] : "") }
        for (size, name) in scales where n >= size {
            return cardinal(n / size) + " " + name + (n % size > 0 ? " " + cardinal(n % size) : "")
        }
        return ""
    }

    /// Leading zeros don't count; from 10^15 on, digit by digit.
    static func cardinal(_ digits: Digits) -> String {
        let significant = digits.drop { $0.digitValue == 0 }
        return significant.count > longestCardinal ? spelled(significant) : cardinal(value(significant))
    }

    /// 1234: one thousand two hundred thirty-fourth.
    static func ordinal(_ digits: Digits) -> String {
        let words = cardinal(digits)
        let start = words.lastIndex { $0 == " " || $0 == "-" }.map(words.index(after:)) ?? words.startIndex
        let last = String(words[start...])
        let ending = irregularOrdinals[last] ?? (last.last == "y" ? last.dropLast() + "ieth" : last + "th")
        return words[..<start] + ending
    }

    /// Digit by digit.
    static func spelled(_ digits: some Sequence<Unicode.Scalar>) -> String {
        var words = ""
        for digit in digits {
            if !words.isEmpty { words += " " }
            words += ones[digit.digitValue]
        }
        return words
    }

    /// 1100…2099: nineteen eighty-five, two thousand four, twenty twenty-six.
    static func year(_ year: Int) -> String {
        if (2000..<2010).contains(year) { return cardinal(year) }
        let low = year % 100
        return cardinal(year / 100) + " " + (low == 0 ? "hundred" : low < 10 ? "oh " + ones[low] : cardinal(low))
    }

    /// A number as written, no year: 1,234  3.14  007  1985.
    static func number(_ written: Digits) -> String {
        let plain = written.filter { $0 != "," }[...]
        let whole = plain.prefix { $0 != "." }
        let rest = plain[whole.endIndex...].dropFirst()
        let isCode = whole.count > 1 && whole.first == "0" || whole.count > longestCardinal
        let words = isCode ? spelled(whole) : cardinal(value(whole))
        return rest.isEmpty ? words : words + " point " + spelled(rest)
    }

    /// At most 15 significant digits.
    static func value(_ digits: Digits) -> Int { digits.reduce(0) { $0 * 10 + $1.digitValue } }
}
