"""Builds the text corpus: sentences of documentation, dictionary examples, word lists and generated sentences.

    corpus.py --root DEBIAN_ROOT --out FOLDER

Writes FOLDER/train.txt (shuffled, one utterance a line) and FOLDER/heldout.txt (never in train.txt). Deterministic.
"""
from __future__ import annotations

import argparse
import ast
import gzip
import re
import random
from pathlib import Path

from normalise import normalise

ONES = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen").split()
TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
ORDINALS = ("first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
            "fifteenth sixteenth seventeenth eighteenth nineteenth").split()
MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()


def words_of(n: int) -> str:
    """A number in words: 1234 -> one thousand two hundred thirty four."""
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10] + ("" if n % 10 == 0 else random_sep(n) + ONES[n % 10])
    for size, name in ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred")):
        if n >= size:
            rest = n % size
            joint = " and " if rest and rest < 100 and n % 3 == 0 else " "
            return words_of(n // size) + " " + name + (joint + words_of(rest) if rest else "")
    raise ValueError(n)


def random_sep(n: int) -> str:
    return "-" if n % 2 else " "


def ordinal(n: int) -> str:
    if n <= 19:
        return ORDINALS[n - 1]
    if n % 10 == 0:
        return TENS[n // 10][:-1] + "ieth"
    return TENS[n // 10] + "-" + ORDINALS[n % 10 - 1]


def year(y: int) -> str:
    if 2000 <= y < 2010:
        return "two thousand" + ("" if y == 2000 else " " + words_of(y - 2000))
    low = y % 100
    return words_of(y // 100) + " " + ("hundred" if low == 0 else ("oh " if low < 10 else "") + words_of(low))


SHORT = """Yes. No. Hello. Hi. Hi there. Hello there. Good morning. Good afternoon. Good evening. Good night. Goodbye. Bye.
Thank you. Thanks. Thank you very much. You're welcome. Please. Please wait. Wait. Stop. Go. Go ahead. Sorry. I'm sorry.
Excuse me. Okay. All right. Sure. Of course. Maybe. Never. Always. Really? Why? Why not? How? What? When? Where? Who? Which one?
Ready. Done. Not yet. One moment, please. Just a moment. Hold on. Hang on. Help! Look! Watch out! Be careful. Come in. Come on.
Let's go. Here we go. I see. I know. I don't know. I think so. I don't think so. That's right. That's wrong. That's all. Well done.
Good luck. Congratulations! Happy birthday! Merry Christmas! Happy New Year! Welcome. Welcome back. Welcome home. Nice to meet you.
How are you? How are you today? I'm fine, thank you. See you later. See you tomorrow. See you soon. Take care. Have a nice day.
What's your name? My name is Sam. Where are you from? What time is it? How much is it? How old are you? Are you sure? Yes, please.
No, thank you. Not at all. No problem. Never mind. Don't worry. It's okay. It's late. It's cold. It's raining. Is it raining?
Turn left. Turn right. Go straight on. Left. Right. Up. Down. Open. Close. Start. Begin. End. Next. Previous. Cancel. Continue. Repeat.
Loading. Error. Warning. Success. Failed. Try again. Please try again. Please try again later. Goodbye for now. Oh no! Oh, I see. Wow!
The end. Testing, one, two, three. This is a test. Test. Speech. Music. Water. Coffee. Good. Bad. Great! Perfect. Exactly. Absolutely.
Of course not. I can't hear you. Can you hear me? Speak up, please. Could you repeat that? What did you say? I beg your pardon?
Martlet. Martlet speaks. This is Martlet. Hello, I'm Martlet. Hello world. Hello, world! How can I help you? How can I help you today?"""

NAMES = ("Alice Bob Carol David Emma Frank Grace Henry Isabel Jack Kate Liam Mary Nora Oliver Peter Rachel Sam Thomas "
         "Victoria William Anna Ben Charlie Daniel Emily George Hannah James Laura Michael Olivia Paul Sarah Sophie "
         "Tom Lucy Mark Julia Andrew Susan Robert Linda John Karen Steven Maria Edward Helen Richard Nancy").split()
SURNAMES = ("Smith Johnson Williams Brown Jones Garcia Miller Davis Wilson Anderson Taylor Moore Jackson Martin Lee "
            "Thompson White Harris Clark Lewis Robinson Walker Young King Wright Scott Green Baker Adams Nelson Hill "
            "Campbell Mitchell Roberts Carter Phillips Evans Turner Parker Collins Edwards Stewart Morris").split()
PLACES = ("London Paris New_York Boston Chicago Berlin Madrid Rome Tokyo Sydney Toronto Dublin Edinburgh Oxford Cambridge "
          "Seattle Denver Texas California Florida Canada Australia England Scotland Ireland France Germany Spain Italy "
          "Japan China India Brazil Mexico Norway Sweden Vienna Amsterdam Lisbon Athens Cairo Moscow Washington").split()
PEOPLE = ("the teacher|my brother|my sister|the doctor|our neighbour|the children|her mother|his father|the old man|a "
          "young woman|the driver|the manager|my friend|the captain|the student|the engineer|the whole family|somebody|"
          "everyone|nobody|the farmer|the nurse|the judge|the cook|the writer|the singer|the pilot|the king|the queen|"
          "my uncle|your aunt|the baker|the guard|the visitor|a stranger|the boss|the team|the audience|the girl|the boy"
          ).split("|")
VERBS = ("found|lost|bought|sold|opened|closed|painted|repaired|carried|forgot|remembered|wanted|described|noticed|"
         "cleaned|moved|borrowed|returned|dropped|hid|watched|built|designed|broke|ordered|missed|needed|liked|hated|"
         "brought|sent|received|studied|measured|explained|touched|pulled|pushed|saved|counted|washed|kept|chose"
         ).split("|")
THINGS = ("the house|a red car|the letter|an old book|the key|the kitchen window|a piece of paper|the green door|her "
          "phone|his umbrella|the blue bottle|a box of apples|the newspaper|a cup of coffee|the bridge|the boat|a map "
          "of the city|the garden|the clock|a small dog|the piano|the picture|the bread|a bag of rice|the computer|the "
          "camera|the table|a warm coat|the bicycle|a ticket|the report|the machine|the lamp|a silver ring|the chair|"
          "the wooden box|the blanket|a heavy stone|the candle|the basket|two eggs|the cheese|a glass of water|the knife"
          ).split("|")
WHERE = ("in the garden|at the station|near the river|on the table|behind the house|under the bridge|in the kitchen|at "
         "school|in the morning|last night|yesterday|two weeks ago|after lunch|before dinner|on the way home|in the "
         "rain|during the summer|at the end of the street|across the road|by the sea|on Monday|next to the window|in "
         "the middle of the night|at work|in a small village|without saying a word|for the first time|as quickly as "
         "possible|with great care|every day|once again|in silence|with a smile|as usual|this afternoon|far from home"
         ).split("|")
ADJECTIVES = ("good bad big small old new warm cold happy sad quiet loud easy difficult expensive cheap beautiful ugly "
              "strange simple dangerous safe early late strong weak clean dirty dark bright empty full busy free rich "
              "poor heavy light soft hard sweet bitter fresh dry wet sharp slow fast kind angry tired hungry thirsty "
              "important interesting boring famous useful wonderful terrible comfortable possible impossible").split()
FOODS = ("apples oranges bread butter cheese milk eggs rice tea coffee sugar salt pepper tomatoes potatoes onions carrots "
         "bananas fish chicken beef soup salad cake chocolate honey grapes lemons mushrooms beans peas nuts").split()
ACTIONS = ("open the window|call the doctor|close the door|bring some water|turn off the lights|send me a message|read "
           "the next page|play some music|set a timer|write it down|check the weather|make a list|take a break|wash "
           "your hands|feed the cat|water the plants|buy some milk|clean the table|wait outside|walk the dog|ask a "
           "question|start the engine|lock the gate|count to ten|answer the phone|find my keys|tell me a story|leave "
           "a note|stay at home|speak more slowly|come back later|sit down|listen carefully|try once more").split("|")
WEATHER = "sunny cloudy rainy windy snowy foggy stormy freezing hot mild humid dry".split()
UNITS = ("kilometers|miles|meters|kilograms|pounds|liters|minutes|hours|seconds|days|weeks|months|years|degrees|percent|"
         "people|pages|steps|inches|feet|megabytes|gigabytes|watts|volts|points|books|houses|cars|students|questions"
         ).split("|")
LETTERS = list("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


class Templates:
    def __init__(self, rng: random.Random, lexicon: list[str], proper: list[str]):
        self.r, self.lexicon, self.proper = rng, lexicon, proper

    def c(self, options):
        return self.r.choice(options).replace("_", " ")

    def number(self) -> int:
        return self.r.choice([self.r.randrange(13), self.r.randrange(100), self.r.randrange(1000),
                              self.r.randrange(10000), self.r.randrange(2_000_000),
                              self.r.randrange(1, 100) * self.r.choice([10, 100, 1000, 10000, 1000000])])

    def name(self):
        first = self.c(NAMES) if self.r.random() < 0.6 else self.r.choice(self.proper)
        return self.r.choice([first, first, first + " " + self.c(SURNAMES), self.r.choice(
            ["Mister ", "Doctor ", "Missus ", "Professor ", "Miss "]) + self.c(SURNAMES)])

    def clock(self):
        h, m = self.r.randrange(1, 13), self.r.choice([0, 5, 10, 15, 20, 25, 30, 40, 45, 50, self.r.randrange(60)])
        if m == 0:
            t = words_of(h) + self.r.choice([" o'clock", " o'clock", ""])
        elif m < 10:
            t = f"{words_of(h)} oh {words_of(m)}"
        else:
            t = f"{words_of(h)} {words_of(m)}"
        t = self.r.choice([t, t, t, "half past " + words_of(h), "a quarter to " + words_of(h), f"ten past {words_of(h)}"])
        return t + self.r.choice(["", "", " a m", " p m", " in the morning", " in the evening", " tonight"])

    def date(self):
        m, d, y = self.c(MONTHS), self.r.randrange(1, 32), year(self.r.randrange(1500, 2060))
        return self.r.choice([f"{m} {ordinal(d)}", f"{m} {ordinal(d)}, {y}", f"the {ordinal(d)} of {m}",
                              f"{self.c(DAYS)}, {m} {ordinal(d)}", f"{m} {y}", y, f"{self.c(DAYS)}, the {ordinal(d)} of {m}"])

    def money(self):
        n, cents = self.number(), self.r.randrange(1, 100)
        unit = self.r.choice(["dollars", "dollars", "pounds", "euros"])
        return self.r.choice([f"{words_of(n)} {unit}", f"{words_of(n)} {unit} and {words_of(cents)} cents",
                              f"{words_of(n % 100)} {unit} {words_of(cents)}", f"{words_of(cents)} cents",
                              f"{words_of(1 + n % 20)} million {unit}"])

    def spelled(self):
        word = self.r.choice(self.lexicon)
        return self.r.choice([
            ", ".join(word.upper()) + ".", f"{word}, spelled {', '.join(word.upper())}.",
            " ".join(self.r.choice(LETTERS) for _ in range(self.r.randrange(2, 5))) + ".",
            f"The letters {self.c(LETTERS)}, {self.c(LETTERS)}, and {self.c(LETTERS)}.",
            "".join(self.r.choice(LETTERS) for _ in range(self.r.randrange(2, 4))) + ".",
            f"The {' '.join(self.r.choice(LETTERS) for _ in range(3))} is in {self.c(PLACES)}."])

    def digits(self):
        n = self.number()
        return self.r.choice([
            f"It costs ${n % 1000}.", f"There were {n} of them.", f"Call {self.r.randrange(200, 999)} "
            f"{self.r.randrange(1000, 9999)}.", f"Chapter {n % 100}.", f"In {self.r.randrange(1500, 2050)}, it began.",
            f"Dr. {self.c(SURNAMES)} lives at {n % 1000} Main St.", f"The meeting is at {1 + n % 12}:{10 + n % 50}.",
            f"That is {n % 100}% of the total.", f"{self.c(MONTHS)} {1 + n % 28}, {self.r.randrange(1900, 2040)}.",
            f"Mr. {self.c(SURNAMES)} and Mrs. {self.c(SURNAMES)} came at {1 + n % 12} p.m."])

    def clause(self):
        return f"{self.c(PEOPLE)} {self.c(VERBS)} {self.c(THINGS)}" + (" " + self.c(WHERE) if self.r.random() < .6 else "")

    def sentence(self) -> str:
        r, c = self.r, self.c
        n = self.number
        kind = r.randrange(30)
        cap = lambda s: s[0].upper() + s[1:]
        if kind < 5:
            s = self.clause()
            if r.random() < 0.35:
                s += r.choice([", and ", ", but ", " because ", " while ", " when ", ", so ", "; "]) + self.clause()
            return cap(s) + r.choice([".", ".", ".", "!", "?"])
        if kind == 5:
            return f"{r.choice(['Did', 'Why did', 'When did', 'How did', 'Where did'])} {c(PEOPLE)} " \
                   f"{r.choice(['go to', 'come from', 'leave', 'travel to', 'move to'])} {c(PLACES)}?"
        if kind == 6:
            return r.choice(["Please ", "Can you ", "Could you ", "Don't forget to ", "I'd like you to ", "You should ",
                             "Let's ", "We need to ", "Would you please "]) + c(ACTIONS).lower() + r.choice([".", "?"])
        if kind == 7:
            return f"The weather in {c(PLACES)} {r.choice(['is', 'was', 'will be'])} {c(WEATHER)} and {c(WEATHER)} " \
                   f"{r.choice(['today', 'tomorrow', 'on ' + c(DAYS), 'this week'])}, with {words_of(r.randrange(45))} degrees."
        if kind == 8:
            return cap(f"{words_of(n())} {r.choice(['plus', 'minus', 'times', 'divided by'])} {words_of(n())} "
                       f"{r.choice(['is', 'equals', 'makes'])} {words_of(n())}.")
        if kind in (9, 10):
            return r.choice([f"There are {words_of(n())} {c(UNITS)} in {c(THINGS)}.", cap(words_of(n())) + ".",
                             f"It took {words_of(n())} {c(UNITS)}.", cap(f"{words_of(n())} {c(UNITS)}."),
                             f"About {words_of(n())} point {words_of(r.randrange(10))} {c(UNITS)}.",
                             f"Only {words_of(r.randrange(101))} percent of the {c(UNITS)} are {c(ADJECTIVES)}.",
                             f"The number is {' '.join(ONES[r.randrange(10)] for _ in range(r.randrange(3, 9)))}."])
        if kind in (11, 12):
            return r.choice([f"The meeting starts at {self.clock()}.", f"It is {self.clock()}.", cap(self.clock()) + ".",
                             f"The train to {c(PLACES)} leaves at {self.clock()}.", f"Wake me up at {self.clock()}, please.",
                             f"We open at {self.clock()} and close at {self.clock()}.", f"On {c(DAYS)} at {self.clock()}."])
        if kind in (13, 14):
            return r.choice([f"She was born on {self.date()}.", cap(self.date()) + ".", f"On {self.date()}, {self.clause()}.",
                             f"The next appointment is on {self.date()}.", f"It happened in {year(r.randrange(1000, 2060))}.",
                             f"From {c(DAYS)} to {c(DAYS)}.", f"Today is {self.date()}."])
        if kind == 15:
            return r.choice([f"It costs {self.money()}.", f"{self.name()} paid {self.money()} for {c(THINGS)}.",
                             cap(self.money()) + ".", f"The total is {self.money()}.", f"I owe you {self.money()}."])
        if kind in (16, 17):
            a = r.choice(["met", "called", "thanked", "visited", "asked", "told", "saw", "invited", "helped"])
            return r.choice([f"{self.name()} {a} {self.name()} in {c(PLACES)}.", f"My name is {self.name()}.",
                             f"{self.name()} lives in {c(PLACES)}.", f"Hello, {self.name()}.", f"Good morning, {self.name()}!",
                             f"Is {self.name()} coming on {c(DAYS)}?", f"{self.name()} and {self.name()} are friends.",
                             f"\"{cap(self.clause())},\" said {self.name()}.", f"Thank you, {self.name()}."])
        if kind == 18:
            items = [c(FOODS) for _ in range(r.randrange(2, 6))]
            return r.choice(["We need ", "They sell ", "I bought ", "For breakfast there is ", "Don't buy "]) + \
                ", ".join(items) + f", {r.choice(['and', 'or'])} {c(FOODS)}."
        if kind == 19:
            return self.spelled()
        if kind == 20:
            return f"{r.choice(['The weather', 'This', 'That', 'It', 'The work', 'The food', 'The road', 'Everything'])} " \
                   f"{r.choice(['is', 'was', 'seems', 'looks', 'isnt'.replace('nt', 'n' + chr(39) + 't')])} " \
                   f"{r.choice(['very', 'too', 'quite', 'really', 'so', 'not'])} {c(ADJECTIVES)}" + \
                r.choice(["", f", but {c(ADJECTIVES)}", f" and {c(ADJECTIVES)}"]) + r.choice([".", ".", "!"])
        if kind == 21:
            return f"{r.choice(['I', 'You', 'We', 'They'])} {r.choice(['have', 'will', 'should', 'could', 'must', 'would'])}" \
                   f"{r.choice(['', ' not', ' never', ' always'])} {r.choice(['been', 'be', 'seem'])} {c(ADJECTIVES)} {c(WHERE)}."
        if kind == 22:
            return r.choice([f"Is it {c(ADJECTIVES)} or {c(ADJECTIVES)}?", f"Which is more {c(ADJECTIVES)}, {c(THINGS)} or {c(THINGS)}?",
                             f"Who {c(VERBS)} {c(THINGS)}?", f"What is {c(WHERE)}?", f"Have you ever been to {c(PLACES)}?",
                             f"How many {c(UNITS)} are there?", f"Do you know {self.name()}?", f"Where is {c(THINGS)}?"])
        if kind == 23:
            return f"If {self.clause()}, {self.clause()}."
        if kind == 24:
            return r.choice(["First, ", "Then ", "Finally, ", "However, ", "Of course, ", "In fact, ", "Suddenly, ",
                             "After that, ", "For example, ", "On the other hand, "]) + self.clause() + "."
        if kind == 25:
            k = r.randrange(3)
            w = [r.choice(self.lexicon) for _ in range(r.randrange(1, 4))]
            return [f"The word is {w[0]}.", f"Say the word {w[0]} again.", cap(" ".join(w)) + "."][k]
        if kind == 26:
            w = [r.choice(self.lexicon) for _ in range(r.randrange(2, 7))]
            return cap(", ".join(w)) + "."
        if kind == 27:
            return self.digits() if r.random() < 0.3 else normalise(self.digits())
        if kind == 28:
            return self.spelled() if r.random() < 0.5 else cap(f"the {r.choice(self.lexicon)} of the {r.choice(self.lexicon)} {c(VERBS)} {c(THINGS)}.")
        return f"{self.r.choice(self.proper)}, {self.r.choice(self.proper)}, and {self.name()}."


ALLOWED = re.compile(r"^[A-Za-z0-9 ,.?!'\";:\-$%]+$")


def tidy(s: str) -> str | None:
    """One clean sentence, or None if it's no text to read aloud."""
    s = s.replace("``", '"').replace("`", "'").replace("’", "'").replace("“", '"').replace("”", '"').replace("—", ", ")
    s = re.sub(r"\s+", " ", re.sub(r"\([^)]*\)", "", s)).strip(" -;:,")
    s = re.sub(r" ([,.;:?!])", r"\1", s)
    if not 2 <= len(s) <= 160 or not ALLOWED.match(s) or not re.search("[a-zA-Z]{2}", s):
        return None
    if re.search(r"\b(?:e\.g|i\.e|etc|vs|cf|ca|esp)\b|\.\w|[A-Za-z]\d|\d[A-Za-z]|--|\.\.|[A-Z]{3,}|[a-z][A-Z]|'{2}|(?<!\d)[$%]", s):
        return None
    if s.count('"') % 2 or sum(ch.isdigit() for ch in s) > 4:
        return None
    return s[0].upper() + s[1:] + ("" if s[-1] in ".?!\"" else ".")


def wordnet(root: Path):
    """(examples, definitions)"""
    examples, definitions = [], []
    for part in ("noun", "verb", "adj", "adv"):
        for line in (root / f"usr/share/wordnet/data.{part}").read_text(errors="replace").splitlines():
            if " | " not in line:
                continue
            gloss = line.split(" | ", 1)[1]
            for quote in re.findall(r'"([^"]+)"', gloss):
                if (s := tidy(quote)) and len(s.split()) >= 3:
                    examples.append(s)
            for piece in re.sub(r'"[^"]*"', "", gloss).split(";"):
                if (s := tidy(piece)) and len(s.split()) >= 3:
                    definitions.append(s)
    return examples, definitions


def documents():
    """Sentences of the installed Python library's docstrings, Perl's manual pages and the common licences."""
    texts = []
    for f in sorted(Path("/usr/lib/python3.11").rglob("*.py")) + sorted(Path("/usr/local/lib/python3.11").glob("*.py")):
        try:
            tree = ast.parse(f.read_text(errors="replace"))
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                if doc := ast.get_docstring(node):
                    texts.append(doc)
    for folder in ("/usr/share/perl", "/usr/share/common-licenses"):
        for f in sorted(Path(folder).rglob("*")):
            if f.is_file() and f.suffix in (".pod", ".pm", ".pl", ""):
                text = f.read_text(errors="replace")
                if f.suffix:
                    text = "\n\n".join(p for p in re.split(r"\n\s*\n", text) if re.match(r"[A-Z][a-z]+ ", p))
                texts.append(re.sub(r"[BICFLSX]<+ ?([^<>]*?) ?>+", r"\1", text))
    out = []
    for t in texts:
        for para in re.split(r"\n\s*\n", t):
            for s in re.split(r"(?<=[.?!])\s+", para):
                if (s := tidy(s)) and len(s.split()) >= 3 and re.match(r"^[A-Z]", s) and "'" not in s[:1]:
                    out.append(s)
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--root", type=Path, required=True)
    ap.add_argument("--out", type=Path, required=True)
    a = ap.parse_args()
    rng = random.Random(20261124)
    words = (a.root / "usr/share/dict/american-english").read_text().split()
    lexicon = sorted({w for w in words if re.fullmatch(r"[a-z]{2,14}", w)})
    proper = sorted({w for w in words if re.fullmatch(r"[A-Z][a-z]{2,11}", w)})
    examples, definitions = wordnet(a.root)
    docs = documents()
    unique = lambda xs: sorted(set(xs))
    examples, definitions, docs = unique(examples), unique(definitions), unique(docs)
    for xs in (examples, definitions, docs):
        rng.shuffle(xs)
    t = Templates(rng, lexicon, proper)
    generated = unique(t.sentence() for _ in range(75000))
    rng.shuffle(generated)
    short = [s for s in re.split(r"(?<=[.?!])\s+", SHORT.replace("\n", " ")) if s]

    # held out: half dictionary examples, a quarter generated, a quarter documentation and definitions
    pick = lambda xs, n: [xs.pop() for _ in range(n)]
    plain = [s for s in generated if 4 <= len(s.split()) <= 16 and not re.search(r"\d|\b[A-Z] ", s)][:60]
    generated = [s for s in generated if s not in set(plain)]
    held = pick([s for s in examples if 5 <= len(s.split()) <= 16 and not re.search(r"\d", s)], 120)
    held += plain + pick([s for s in docs if 5 <= len(s.split()) <= 16 and not re.search(r"\d", s)], 30) + \
        pick([s for s in definitions if 5 <= len(s.split()) <= 16 and not re.search(r"\d", s)], 30)
    rng.shuffle(held)
    norm = lambda s: re.sub(r"[^a-z ]", "", s.lower())
    banned = {norm(s) for s in held}

    # every dictionary word at least twice, in lists and pairs
    lists = []
    for _ in range(2):
        pool = lexicon + proper
        rng.shuffle(pool)
        i = 0
        while i < len(pool):
            n = rng.randrange(2, 9)
            group = pool[i:i + n]
            s = (", " if rng.random() < 0.5 else " ").join(group)
            lists.append(s[0].upper() + s[1:] + ".")
            i += n
    pool = lists + examples * 2 + definitions[:70000] + docs[:30000] + generated + short * 25
    out = []
    for s in pool:
        if norm(s) in banned or len(s) > 160:
            continue
        x = rng.random()
        if x < 0.04:
            s = s.rstrip(".")
        elif x < 0.07:
            s = s.lower()
        elif x < 0.08:
            s = s.rstrip(".!?") + rng.choice(["!", "?", "...", ",", ":"])
        out.append(s)
    rng.shuffle(out)
    for i in range(0, len(out) - 1, 9):  # some utterances of two sentences
        if out[i][-1:] in ".?!" and len(out[i]) + len(out[i + 1]) < 150:
            out[i] += " " + out[i + 1]
    a.out.mkdir(parents=True, exist_ok=True)
    (a.out / "train.txt").write_text("\n".join(out) + "\n")
    (a.out / "heldout.txt").write_text("\n".join(held) + "\n")
    print(f"examples {len(examples)}, definitions {len(definitions)}, documentation {len(docs)}, lists {len(lists)}, "
          f"generated {len(generated)}: {len(out)} utterances, {sum(map(len, out)) / len(out):.1f} characters each, "
          f"{len(held)} held out")


if __name__ == "__main__":
    main()
