"""Writes the golden cases of the English normaliser: what Training/normalise.py makes of each text.

    normalizer_cases.py > Tests/Fixtures/english-normalizer-cases.json
"""
from __future__ import annotations

import itertools
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "Training"))
import normalise as rules  # noqa: E402

# By rule, "|" between the cases.
CHARACTERS = """“Hello,” she said—quietly – yes… ‘no’|a — b – c–d|1–2 and 3−4|5 × 3 = 15|½ a cup, ¼ and ¾.|tab\tand\n\nlines
|   lead and trail   |a\u00a0b\u2009c\u3000d\u2028e\x1cf|—|– – –|a – – b|… … …|don’t ‘quote’|"quoted"|5×5×5|half is ½|2½ cups"""
ADDRESSES = """Visit https://www.example.com/about now|http://example.org|see www.python.org.|mail me at john.doe@example.com|\
user@host|a @ b|3.io and x.de.|example.co.uk|http:// www. x|https://|xhttp://a.com|foo.community|end.com|A.com B.net C.edu D.gov\
|@home|me@|https://x.io?a=1&b=2|www.www.com|file.txt and main.swift|Hello.de"""
STREETS = """No. 5|No.7|No. I won't.|Nos. 3|no. 5|St. Paul|Main St. Then he left|Main St.|in Boston, St. Mary's church|\
St. St. John|Elm St. Paul|the St. Louis arch|Saint, St. x|A, St. B|Oak Dr. is long|on oak Dr. Smith's lawn|Elm Dr. Then|the oak Dr.|\
Dr. Dre|Mr. and Mrs. Smith|Ms. Lee, Prof. Xu, Sgt. Po, Rev. Ot, Gov. Ny|Capt. Hook and Lt. Dan|Gen. Lee|Sr. and Jr.|King Jr. was|\
King Jr. He was|Apple Inc. makes|Apple Inc. It makes|Apple Inc.|Acme Co. Ltd.|Fifth Ave. is|Fifth Ave. Then|Sunset Blvd.|Abbey Rd. (1969)|\
Mt. Everest, Ft. Knox|cats vs. dogs|etc.|etc. And|etc. and|("etc.")|approx. 50|dept. of|est. 1990|min. and max.|min.5 max.x|e.g. this, i.e. that\
|E.g. this|10 a.m. Then|10 a.m. then|at 10 P.M.|at 10 A.M. sharp|a.m.'s|(p.m.)|xMr. Smith|.Mr. Smith|Mr.Smith|Mr.5|9Mr. X|e.g.|p.m. P.M. A.M. a.m. X\
|Jan. 5|Feb. 29, 2020|Mar. and Apr.|Sept. 11, 2001|Sep. 1|Jun 3|Jul 4th|Aug 15 2023|Oct. Nov. Dec.|Dec 25|Mon. Tue. Tues. Wed. Thu. Thurs. Fri. Sat. Sun.\
|the Sun. It|Jan.Feb. 3|Sept 5|Janet 5|Sat 3|Marx 1"""
DATES = """2021-03-04|2021-13-04|2021-12-31x|1999-01-01.|on 1066-10-14|1100-10-10|2100-01-01|3/4/2021|03/04/2021|12/31/1999|13/1/2020|3/4/21|\
1/32/2000|3/4th/2021|July 4|July 4, 1776|July 4 1776|July 4th, 1776.|May 1|May 3:30|May 31st|May 32|May 123|May 5, 20245|May 05|May 5km|\
May 10 2001 2002|the 4th of July|4 July 2020|the 4 of May|4th May, 1999|on the 31st of December, 1999|32 May|012 May|31 of June|the June 5|\
1st of April1|22 March 2019 was|1980s|the 1900s|2000s|2010s|1990's|1066s|2100s|1913s|Mayor 5|11/12/2013 and 2013-11-12|1/2/2003-04-05|\
3/4/2021-03-04|January 1st 2000, February 2nd, March 3rd, April 4th|September 30 and October 31|June 5, 6 and 7|August 12, 2026 at noon"""
TIMES = """5:30|5:00|12:00|0:00|00:15|13:00|17:45|23:59|24:00|9:05|12:05 am|5:30 pm|5:30pm|5:30 p.m.|5:30 P.M. Then|5:00 a.m.|5:00 AM|12:00 pm|0:30 am\
|5:30 PM.|5:30 pm.5|5:30 pmx|12:345|1:2|7:60|5 pm|5pm|11 AM|12 p.m|10 Am|13 pm|0 am|1 amp|5 p.m.|at 7:07, 8:08 and 9:09|10:10:10|from 9:00 to 17:00|15:30 a.m\
|2:00 PMs|3 PM.|6:30am-7:30pm|x5:30"""
MONEY = """$5|$1|$0|$0.00|$0.01|$0.50|$1.01|$1.00|$12.50|$12.5|$12.505|$1,234|$1,234.56|$1,2345|$12,345,678|$ 7|$5 million|$1.2 billion|$5 millionaires|\
£1|£3.01|£3.02|£0.99|£20 thousand|€1|€2.10|€0.01|$12abc|$12.5abc|$5.|$,5|$|$x|$1,234,5678|US$5|$1234567890123456|$007|$5-$10|$3 trillion.|€9,999.99|£1.5|\
$01.01|$1,000 hundred|$5/hour|100$|5 €|$-5"""
TELEPHONE = """555-1234|800-555-1234|1-800-555-1234|+1-800-555-1234|(555) 123-4567|(555)123-4567|(555) 123-45678|+44-20-7946-0958|123-45-6789|12-34|\
1-2-3|555-1234-|-555-1234|555-12345|12-345678|12-12345678|1-22-33-44-5555|1-22-33-44-55-6666|+555-1234|5+555-1234|1234-5678|12345-6789|call 911|(55) 123-4567"""
QUANTITIES = """1/2|1/3 and 2/3|1/4 or 3/4|5/6|11/2|1/21|1/2/3|3-4|3 - 4|3 -4|1-2-3|10-20 km|pages 5-10|1st|2nd|3rd|4th|5th|8th|9th|11th|12th|20th|21st|22nd|\
33rd|100th|101st|1,000th|1,000,000th|007th|0th|12,34th|1,2345th|123456789012345th|1234567890123456th|a1st|1stx|the 3rd-4th|40th 50th 60th|112th\
|5 km|1 km|1 m|1.0 m|2 m|5cm|3 mm|1 kg|2kg|1 g|500 g|10 mg|1 l|2 l|250 ml|1 lb|5 lbs|8 oz|6 ft|1 ft|3 mi|60 mph|1 mph|1 h|2 h|1 hr|2 hrs|1 min|5 min|5 min.|10 s|1 s|\
30 sec|5 ms|1 Hz|44 kHz|100 MHz|3.5 GHz|64 KB|64 kB|512 MB|16 GB|2 TB|60 W|5 kW|220 V|20°C|-5 °C|1 °F|90°|50%|1%|99.9 %|1,234 km|12,34 km|1,2345 km|1234,567 km|\
1.5.3 km|5 kmh|5 minx|5 mi.|3.km|1,000.5 m|00 m|5 °Cx|a5 km|5  km|3 m 4 cm|6 ft 2|5m/s|10%off|1,234,567 W"""
NUMBERS = """-5|a-5|x -5|--5|.-5|5-|-|abc123def|4x4|B2B|MP3|0|7|10|13|19|20|21|99|100|101|110|999|1000|1001|1234|2345|9999|10000|12345|100000|999999|1000000|\
1000001|123456789|1000000000|999999999999|1000000000000|999999999999999|1000000000000000|12345678901234567890|007|00|0.5|3.14|3.140|.5|5.|1.2.3|1,234|1,234.5|\
1,23|12,345|1,2345|1,234,567,890|1985|1999|2000|2001|2009|2010|2026|2099|2100|1100|1099|1905|1800|1985.5|in 1985, 2,000 people|3,4,5|1.000.000|1 2 3|٣ and ３|²"""
CAPITALS = """U.S.A.|U.S.|U.S.A|in the U.S. Army|A.B.C.D|J. R. R. Tolkien|J.R.R. Tolkien|I.|CPU|CPUs|CDs|DVDs|DVDs'|CEO|CEOs|NASA|NATO|UNESCO|FBI|HTML5|OK|OKs|NO WAY|IT IS|\
IT's|DON'T|I'LL|WHO IS HE|A|I AM|THE END|BBC's|PhD|McDonald|iOS|ABCDEFG|ABCDEF|ABCDE|RHYTHM|TV|TVs|XyZ|AI and ML|USB-C|R&D|Q&A|XIV|LGBTQ|PDFx|aPDF|_PDF|É PDF"""
SYMBOLS = """a & b|a+b|a=b|a@b|50 %x|and/or|#1|#tag|*bold*|_x_|~5|a^b|a|b|<tag>|\\\\|[x]|{y}|(z)|(a) (b), (c).|90° turn|$|£|€|a,, b|a ,b|a . b|,a,|.a.|a,.b|a, . b|?!|a !|café naïve \
Ærø Øre ß|ﬁne ﬂow|ＡＢＣ １２３|x² H₂O|™ ® ©|ℂ ℝ K Å|𝐀𝐛𝟗|Ⅳ ⅷ|⅓ ⅞|e\u0301a\u0308|日本語|🎉 party 🎉|Ω α β|№ 5|①②③|ĳ ǆ ŉ|;|`code`|a`b|\x00\x01|-a-|a - b|'s|" "|¿Qué? ¡Sí!|Zoë’s façade|\
Nguyễn Văn|crème brûlée|Dvořák|İstanbul|ʰ ᵃ ₐ|‼ ⁇ ‥|l·l|（ｘ）|！？"""
SENTENCES = """Hello, world!|The quick brown fox jumps over the lazy dog.|On March 4th, 2021, Dr. Smith paid $12.50 at 5:30 p.m. for 3.5 kg of apples.|\
Mr. Jones lives at 221B Baker St. in London.|She was born on 12/25/1990 in St. Louis, Missouri.|The U.S. economy grew by 2.3% in 2019.|\
Call me at 555-0123 or e-mail a.b@c.com before 9 a.m. Thanks!|NASA launched Apollo 11 in 1969.|He ran 5 km in 25 min. and drank 500 ml of water.|\
The temperature fell to -10°C (14 °F).|I have 1,234 books, i.e. too many.|Prices: $5, £10, and €20.|It's 7:00; let's meet at 7:05 PM.|\
The meeting is on Tues. Feb. 3 at 10:00 AM.|Room No. 101 is on the 3rd floor.|The 1980s were fun, weren't they?|World War II ended in 1945.|\
Version 2.0.1 of the API was released.|The CEO of ABC Corp. said: "We're #1!"|1/2 of them & 3/4 of us agreed.|Use Ctrl+C to copy, Ctrl+V to paste.|\
Pages 10-20 cover chapters 1–3.|The file is 3.5 GB; it has 1,000,000 rows.|Go to https://example.com/a_b?x=1 for more.|My score was 99/100.|\
"Wait...what?" he said.|He said, 'No. 5 is mine.'|Beethoven's 9th was first performed on May 7, 1824.|Louis XIV ruled from 1643 to 1715.|\
In 2008, the Dow fell 777.68 points.|The ratio is 3:1.|Flight BA2490 leaves at 06:45.|My ZIP code is 90210.|It costs 5 million dollars.|\
At 12:00 we ate; at 0:30 we slept.|He's 6 ft 2 in. tall and weighs 180 lbs.|Wi-Fi 6E at 2.4 GHz and 5 GHz.|5 + 3 = 8|x^2 + y^2 = r^2|"""


def texts():
    for rule in (CHARACTERS, ADDRESSES, STREETS, DATES, TIMES, MONEY, TELEPHONE, QUANTITIES, NUMBERS, CAPITALS, SYMBOLS, SENTENCES):
        yield from rule.split("|")
    yield from (f"It was {a} {b} then." for a, b in itertools.product(
        ("about", "$5", "No.", "May", "the 3rd", "(", "1,000"), ("km", "million", "of May", "2021", "5:30", "St. Paul", "p.m.", "1/2", "-3", "NASA")))
    for short in [*rules.ABBREVIATIONS, *rules.SHORT_MONTHS, *rules.SHORT_DAYS]:
        yield f"x {short}. y {short}. Y {short} 5 {short}."
    for unit in rules.UNITS:
        yield f"1 {unit}, 1.5{unit} and 2,000 {unit}s"
    # Letters and signs with a plain form, in blocks.
    for block in (range(0xA0, 0x250), range(0x1D2C, 0x1D80), range(0x1E00, 0x1F00), range(0x2000, 0x20D0), range(0x2100, 0x2190),
                  range(0xFB00, 0xFB07), range(0xFF01, 0xFF5F), range(0x1D400, 0x1D6A4), range(0x1D7CE, 0x1D800)):
        for start in range(0, len(block), 64):
            yield " ".join(chr(c) for c in block[start:start + 64])


def main() -> None:
    cases = [{"text": text, "words": rules.normalise(text)} for text in dict.fromkeys(texts())]
    print("[\n" + ",\n".join(json.dumps(case, ensure_ascii=True) for case in cases) + "\n]")


if __name__ == "__main__":
    main()
