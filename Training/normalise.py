"""Rewrites English text as words to read aloud: digits, dates, times, money, abbreviations, spelled letters.

    normalise.py "Dr. Smith paid $12.50 on 3/4/2021."

The voice is trained on text of this form; the engine applies the same rules (config.json names them with
`martlet_text_normalizer`). README.md lists the rules in order.
"""
from __future__ import annotations

import re
import sys
import unicodedata

ONES = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen").split()
TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
ORDINAL = dict(one="first", two="second", three="third", five="fifth", eight="eighth", nine="ninth", twelve="twelfth")
MONTHS = "January February March April May June July August September October November December".split()
SHORT_MONTHS = {m[:3]: m for m in MONTHS if m != "May"} | {"Sept": "September"}
SHORT_DAYS = dict(Mon="Monday", Tue="Tuesday", Tues="Tuesday", Wed="Wednesday", Thu="Thursday", Thurs="Thursday",
                  Fri="Friday", Sat="Saturday", Sun="Sunday")
CURRENCY = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent")}
SCALES = "hundred|thousand|million|billion|trillion"
ABBREVIATIONS = {  # read as written whatever follows; the full stop is part of the abbreviation
    "Mr": "Mister", "Mrs": "Missus", "Ms": "Miss", "Dr": "Doctor", "Prof": "Professor", "Jr": "Junior", "Sr": "Senior",
    "Gen": "General", "Capt": "Captain", "Lt": "Lieutenant", "Sgt": "Sergeant", "Rev": "Reverend", "Gov": "Governor",
    "Ave": "Avenue", "Blvd": "Boulevard", "Rd": "Road", "Mt": "Mount", "Ft": "Fort", "vs": "versus", "etc": "et cetera",
    "approx": "approximately", "dept": "department", "est": "established", "Inc": "Incorporated", "Ltd": "Limited",
    "Corp": "Corporation", "Co": "Company", "min": "minutes", "max": "maximum", "e.g": "for example", "i.e": "that is",
    "a.m": "a m", "p.m": "p m", "A.M": "a m", "P.M": "p m"}
UNITS = {  # after a number: (one, several)
    "km": ("kilometer", "kilometers"), "m": ("meter", "meters"), "cm": ("centimeter", "centimeters"),
    "mm": ("millimeter", "millimeters"), "kg": ("kilogram", "kilograms"), "g": ("gram", "grams"),
    "mg": ("milligram", "milligrams"), "l": ("liter", "liters"), "ml": ("milliliter", "milliliters"),
    "lb": ("pound", "pounds"), "lbs": ("pound", "pounds"), "oz": ("ounce", "ounces"), "ft": ("foot", "feet"),
    "mi": ("mile", "miles"), "mph": ("mile an hour", "miles an hour"), "h": ("hour", "hours"), "hr": ("hour", "hours"),
    "hrs": ("hour", "hours"), "min": ("minute", "minutes"), "s": ("second", "seconds"), "sec": ("second", "seconds"),
    "ms": ("millisecond", "milliseconds"), "Hz": ("hertz", "hertz"), "kHz": ("kilohertz", "kilohertz"),
    "MHz": ("megahertz", "megahertz"), "GHz": ("gigahertz", "gigahertz"), "KB": ("kilobyte", "kilobytes"),
    "kB": ("kilobyte", "kilobytes"), "MB": ("megabyte", "megabytes"), "GB": ("gigabyte", "gigabytes"),
    "TB": ("terabyte", "terabytes"), "W": ("watt", "watts"), "kW": ("kilowatt", "kilowatts"), "V": ("volt", "volts"),
    "°C": ("degree Celsius", "degrees Celsius"), "°F": ("degree Fahrenheit", "degrees Fahrenheit"),
    "°": ("degree", "degrees"), "%": ("percent", "percent")}
SYMBOLS = {"&": " and ", "+": " plus ", "=": " equals ", "@": " at ", "%": " percent ", "/": " slash ", "#": " number ",
           "*": " ", "_": " ", "~": " ", "^": " ", "|": " ", "<": " ", ">": " ", "\\": " ", "[": ", ", "]": ", ", "{": ", ",
           "}": ", ", "(": ", ", ")": ", ", "°": " degrees ", "$": " dollars ", "£": " pounds ", "€": " euros "}


def cardinal(n: int) -> str:
    """1234 -> one thousand two hundred thirty-four; from 10^15 on, digit by digit."""
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10] + ("-" + ONES[n % 10] if n % 10 else "")
    if n >= 10**15:
        return digits(str(n))
    for size, name in ((10**12, "trillion"), (10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred")):
        if n >= size:
            return cardinal(n // size) + " " + name + (" " + cardinal(n % size) if n % size else "")
    raise AssertionError


def ordinal(n: int) -> str:
    head, joint, last = re.fullmatch(r"(?:(.*)([ -]))?(\w+)", cardinal(n)).groups(default="")
    last = ORDINAL.get(last) or (last[:-1] + "ieth" if last.endswith("y") else last + "th")
    return head + joint + last


def digits(s: str) -> str:
    return " ".join(ONES[int(c)] for c in s)


def year(y: int) -> str:
    """1100…2099: nineteen eighty-five, two thousand four, twenty twenty-six."""
    if 2000 <= y < 2010:
        return cardinal(y)
    low = y % 100
    return cardinal(y // 100) + " " + ("hundred" if low == 0 else "oh " + ONES[low] if low < 10 else cardinal(low))


def number(s: str) -> str:
    """A number as written: 1,234  3.14  007  1985 (no year)."""
    s = s.replace(",", "")
    whole, _, rest = s.partition(".")
    if len(whole) > 1 and whole[0] == "0" or len(whole) > 15:
        words = digits(whole)
    else:
        words = cardinal(int(whole or "0"))
    return words + (" point " + digits(rest) if rest else "")


def _date(month: str, day: str, y: str | None) -> str:
    return f"{month} {ordinal(int(day))}" + (f", {year(int(y))}" if y else "")


def _money(m) -> str:
    (one, cent), amount, scale = CURRENCY[m[1]], m[2].replace(",", ""), m[3]
    if scale:
        return f"{number(amount)} {scale} {one}s"
    whole, _, rest = amount.partition(".")
    parts = []
    if int(whole or "0") or not int(rest or "0"):
        parts.append(f"{cardinal(int(whole or '0'))} {one}" + ("" if int(whole or "0") == 1 else "s"))
    if rest and len(rest) != 2:
        return f"{number(amount)} {one}s"
    if rest and int(rest):
        many = "pence" if cent == "penny" else "cents"
        parts.append(f"{cardinal(int(rest))} " + (cent if int(rest) == 1 else many))
    return " and ".join(parts)


def _time(m) -> str:
    h, minute, half = int(m[1]), int(m[2]), (m[3] or "").lower().replace(".", "")
    if half:
        h = h % 12 or 12
    words = cardinal(h)
    if minute:
        words += " oh " + ONES[minute] if minute < 10 else " " + cardinal(minute)
    elif not half:
        words += " o'clock" if 1 <= h <= 12 else " hundred"
    return words + (f" {half[0]} m" if half else "")


def _bare(m) -> str:
    s = m[0]
    if re.fullmatch(r"1[1-9]\d\d|20\d\d", s):
        return year(int(s))
    return number(s)


def normalise(text: str) -> str:
    t = text
    # 1 characters
    for a, b in (("‘", "'"), ("’", "'"), ("“", '"'), ("”", '"'), ("…", "..."), ("—", ", "), (" – ", ", "), ("–", "-"),
                 ("−", "-"), ("×", " times "), ("½", " one half "), ("¼", " one quarter "), ("¾", " three quarters ")):
        t = t.replace(a, b)
    t = re.sub(r"\s+", " ", t)
    # 2 web and mail addresses
    t = re.sub(r"\bhttps?://(?:www\.)?|\bwww\.", "", t)
    t = re.sub(r"(?<=[A-Za-z0-9])\.(?=(?:com|org|net|edu|gov|io|uk|de)\b)", " dot ", t)
    t = re.sub(r"(?<=\w)@(?=\w)", " at ", t)
    # 3 abbreviations
    t = re.sub(r"\bNo\. ?(?=\d)", "Number ", t)
    t = re.sub(r"(\b[A-Z]\w*,? )?\bSt\. (?=[A-Z])", lambda m: m[0] if m[1] and m[1][-2] != "," else
               (m[1] or "") + "Saint ", t)
    t = re.sub(r"\bSt\.", "Street", t)
    t = re.sub(r"(?<=[a-z] )Dr\.(?! [A-Z])", "Drive", t)
    for short, full in ABBREVIATIONS.items():
        # a full stop that also ends the sentence stays
        t = re.sub(rf"(?<![A-Za-z.]){re.escape(short)}\.(?=$|\s+[A-Z]|[\"')])" if short in _MAY_END else r"(?!)", full + ".", t)
        t = re.sub(rf"(?<![A-Za-z.]){re.escape(short)}\.(?![A-Za-z])", full, t)
    for short, full in (SHORT_MONTHS | SHORT_DAYS).items():
        t = re.sub(rf"\b{short}\.", full, t)
    for short, full in SHORT_MONTHS.items():
        t = re.sub(rf"\b{short}(?= \d)", full, t)
    # 4 dates
    months = "|".join(MONTHS)
    day = r"(3[01]|[12]\d|0?[1-9])(?:st|nd|rd|th)?"
    y = r"(1[1-9]\d\d|20\d\d)"
    t = re.sub(rf"\b{y}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])\b", lambda m: _date(MONTHS[int(m[2]) - 1], m[3], m[1]), t)
    t = re.sub(rf"\b(0?[1-9]|1[0-2])/{day}/{y}\b", lambda m: _date(MONTHS[int(m[1]) - 1], m[2], m[3]), t)
    t = re.sub(rf"\b({months}) {day}(?:,? {y})?(?![\d:])", lambda m: _date(m[1], m[2], m[3]), t)
    t = re.sub(rf"\b(?:the )?{day} (?:of )?({months})(?:,? {y})?(?!\d)",
               lambda m: f"the {ordinal(int(m[1]))} of {m[2]}" + (f", {year(int(m[3]))}" if m[3] else ""), t)
    t = re.sub(rf"\b({y[1:-1]})s\b", lambda m: re.sub("y$", "ie", year(int(m[1]))) + "s", t)
    # 5 times
    t = re.sub(r"\b([01]?\d|2[0-3]):([0-5]\d)(?: ?([AaPp]\.?[Mm])\b\.?)?(?!\d)", _time, t)
    t = re.sub(r"\b(1[0-2]|[1-9]) ?([AaPp])\.?[Mm]\b", lambda m: f"{cardinal(int(m[1]))} {m[2].lower()} m", t)
    # 6 money
    t = re.sub(rf"([$£€]) ?((?:\d{{1,3}}(?:,\d{{3}})+|\d+)(?:\.\d+)?)(?: ({SCALES}))?\b", _money, t)
    # 7 telephone numbers: groups joined by hyphens, digit by digit
    t = re.sub(r"(?<![\d-])\+?\d{1,4}(?:-\d{2,4}){1,3}-?\d{4}(?![\d-])|(?<![\d-])\d{3}-\d{4}(?![\d-])|\(\d{3}\) ?\d{3}-\d{4}",
               lambda m: ", ".join(digits(g) for g in re.findall(r"\d+", m[0])), t)
    # 8 fractions, ranges, ordinals, units
    for a, b in (("1/2", "one half"), ("1/3", "one third"), ("2/3", "two thirds"), ("1/4", "one quarter"),
                 ("3/4", "three quarters")):
        t = re.sub(rf"(?<![\d/]){a}(?![\d/])", b, t)
    t = re.sub(r"(?<=\d) ?- ?(?=\d)", " to ", t)
    t = re.sub(r"\b(\d{1,3}(?:,\d{3})+|\d+)(?:st|nd|rd|th)\b", lambda m: ordinal(int(m[1].replace(",", ""))), t)
    units = "|".join(sorted(map(re.escape, UNITS), key=len, reverse=True))
    t = re.sub(rf"((?:\d{{1,3}}(?:,\d{{3}})+|\d+)(?:\.\d+)?) ?({units})(?![A-Za-z])",
               lambda m: f"{number(m[1])} {UNITS[m[2]][m[1] != '1']}", t)
    # 9 numbers that are left
    t = re.sub(r"(?<![\w.])-(?=\d)", "minus ", t)
    t = re.sub(r"(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])", " ", t)
    t = re.sub(r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?", _bare, t)
    # 10 capitals that are no word: letter by letter
    t = re.sub(r"\b(?:[A-Z]\.){2,}", lambda m: " ".join(m[0].replace(".", "")), t)
    t = re.sub(r"\b[A-Z]{2,5}(s?)\b", lambda m: m[0] if _is_word(m[0]) else " ".join(m[0].rstrip("s")) + ("'s" if m[1] else ""), t)
    # 11 symbols, and what no letter is left of
    for a, b in SYMBOLS.items():
        t = t.replace(a, b)
    t = "".join(c for c in unicodedata.normalize("NFKD", t) if not unicodedata.combining(c))
    t = re.sub(r"[^A-Za-z0-9 .,;:!?'\"-]", " ", t)
    t = re.sub(r"\s+", " ", t)
    t = re.sub(r" ([.,;:!?])", r"\1", t)
    t = re.sub(r",(?=[.,;:!?])", "", t)
    return t.strip(" ,")


_MAY_END = {"etc", "a.m", "p.m", "A.M", "P.M", "Jr", "Sr", "Inc", "Ltd", "Co", "Corp", "Ave", "Rd", "Blvd"}


def _is_word(s: str) -> bool:
    """Capitals that are read as a word: with a vowel inside and more than three letters, or one of a few short ones."""
    return s in {"I", "A", "OK", "NO", "YES", "AND", "THE", "NOT", "YOU", "ALL", "BUT", "FOR", "ARE", "WAS", "NASA", "IT",
                 "IS", "IN", "ON", "OF", "TO", "WE", "MY", "ME", "HE", "BE", "DO", "GO", "SO", "UP", "IF", "OR", "AT", "BY",
                 "AS", "AN"} or len(s) > 3 and re.search("[AEIOUY]", s[1:]) is not None


if __name__ == "__main__":
    print(normalise(" ".join(sys.argv[1:])))
