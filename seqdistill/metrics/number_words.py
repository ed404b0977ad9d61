"""Words in numbers: multiples behind digits (3 million, 1,2 Millionen, 3億5千万, $5k), and short answers in words (twelve).

Does not know where in a text a number is, nor how its digits are written.
"""

import re
import unicodedata
from fractions import Fraction

GROUP = 4  # the power of ten by which Chinese, Japanese, Korean and Thai count groups of digits
LARGEST_POWER = 400  # of ten, and exponent of other powers: what is larger is not worked out
SHORT = 6  # words of what is counted, behind a number in words

# --- multiples ----------------------------------------------------------------------------------------------------------------

_MULTIPLE_WORDS = {  # by the power of ten; "billion" is English's
    2: "hundred",
    3: "thousand tausend mille mila mil duizend tusen tusind tuhatta ezer mii ribu nghìn ngàn tysiąc tysiące"
    " tysięcy tys tisíc tisíce tis тысяча тысячи тысяч тыс тисяча тисячі тисяч тис χιλιάδες ألف آلاف الف هزار"
    " אלף हज़ार हजार হাজার",
    5: "lakh lakhs लाख লাখ লক্ষ لاکھ",
    6: "million millions millionen mio millones millón milhão milhões milione milioni miljoen mln milj miljoona"
    " miljoonaa miljon miljoner millioner milion miliony milionu milionů miliona milionów milioane millió"
    " milyon juta jt triệu миллион миллиона миллионов млн мільйон мільйона мільйони мільйонів εκατομμύριο"
    " εκατομμύρια مليون ملايين میلیون מיליון",
    7: "crore crores करोड़ কোটি کروڑ",
    9: "billion billions milliarde milliarden mrd milliard milliards milliarder miliardo miliardi mld miljard"
    " miljarder miljardia miliard miliardy miliardů miliardów miliarde mlrd milliárd milyar miliar bilhão"
    " bilhões tỷ tỉ миллиард миллиарда миллиардов млрд мільярд мільярда мільярди мільярдів δισεκατομμύριο"
    " δισεκατομμύρια مليار مليارات میلیارد מיליארד अरब",
    12: "trillion trillions billionen billón billones biljoen trilhão trilhões trilyon триллион триллиона триллионов",
}
_UNSPACED_MULTIPLES = {"万": 4, "萬": 4, "億": 8, "亿": 8, "兆": 12, "千": 3, "百": 2, "만": 4, "억": 8, "천": 3, "백": 2}
_UNSPACED_MULTIPLES |= {"ร้อย": 2, "พัน": 3, "หมื่น": 4, "แสน": 5, "ล้าน": 6}
_MULTIPLES = {
    unicodedata.normalize("NFKC", word): power for power, words in _MULTIPLE_WORDS.items() for word in words.split()
} | {unicodedata.normalize("NFKC", word): power for word, power in _UNSPACED_MULTIPLES.items()}
_SHORT_MULTIPLES = {"k": 3, "mn": 6, "bn": 9, "tn": 12, "m": 6, "b": 9}
_SPACED = "|".join(sorted((word for word in _MULTIPLES if word not in _UNSPACED_MULTIPLES), key=len, reverse=True))
_UNSPACED = r"ร้อย|พัน|หมื่น|แสน|ล้าน|[万萬億亿兆千百억천백](?![a-z])|만(?!큼)"
_MULTIPLE = re.compile(
    rf"[ -]?(?:(?P<word>{_SPACED})(?![^\W\d_])|(?P<unspaced>{_UNSPACED}))|(?P<short>k|mn|bn|tn|m|b)(?!\w)", re.IGNORECASE
)
_MORE = re.compile(rf"(?P<digits>\d{{1,4}}(?![.,]?\d))?(?P<unspaced>{_UNSPACED})?")  # the 5千 of 1万5千


def multiplied(value: Fraction | None, written: str, text: str, end: int) -> tuple[int, Fraction | None]:
    """Where a number ends with the multiples behind it, and its value with them; `written` are its digits, up to `end`."""
    multiple = _MULTIPLE.match(text, end)
    if multiple and multiple["short"]:
        is_multiple = value is not None and _may_be_short(multiple["short"], written)
        return (
            (multiple.end(), value and value * 10 ** _SHORT_MULTIPLES[multiple["short"].lower()])
            if is_multiple
            else (end, value)
        )
    while multiple and not multiple["short"]:  # 3 hundred thousand
        if multiple["unspaced"]:
            return _in_groups(value, multiple, text)
        value, end = value and value * 10 ** _power(multiple["word"]), multiple.end()
        multiple = _MULTIPLE.match(text, end)
    return end, value


def _power(word: str) -> int:
    """The power of ten that a word means."""
    return _MULTIPLES[word.lower().replace("i\u0307", "i").replace("ı", "i")]  # without regard to case, these are i


def _in_groups(value: Fraction | None, multiple: re.Match[str], text: str) -> tuple[int, Fraction | None]:
    """Where a number ends whose multiples are written without spaces, and its value: 1万5千, 3億5千万, 3万亿.

    Hundreds and thousands add up to a group, which a larger multiple multiplies.
    """
    end, total, group = multiple.end(), Fraction(0), Fraction(0)
    in_group = in_total = LARGEST_POWER  # the power of the last multiple, above those that may follow
    more: re.Match[str] | None = multiple
    while value is not None and more and more[0]:
        power = _power(more["unspaced"]) if more["unspaced"] else 0
        if power < GROUP and power < in_group:
            group, in_group = group + value * 10**power, power
        elif power >= GROUP and power < in_total:
            total, group, in_group, in_total = total + (group + value) * 10**power, Fraction(0), GROUP, power
        elif power >= GROUP and not group + value:  # 3万亿
            total *= 10**power
        else:
            break
        end = more.end()
        more = _MORE.match(text, end)
        value = Fraction(more["digits"] or 0) if more else None
    return end, None if value is None else total + group


def _may_be_short(word: str, written: str) -> bool:
    """Whether a letter behind a number is its multiple: 5k, $2.5M, 3bn; 5 m is a length, 2.5M a concentration."""
    return word in ("k", "mn", "bn", "tn") or (word in "KMBmb" and any(sign in written for sign in "$€£¥"))


# --- numbers in words ---------------------------------------------------------------------------------------------------------

_CARDINALS = (  # from zero to twenty, by language
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen"
    " nineteen twenty",
    "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn"
    " neunzehn zwanzig",
    "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize dix-sept dix-huit dix-neuf"
    " vingt",
    "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciséis diecisiete dieciocho"
    " diecinueve veinte",
    "zero uno due tre quattro cinque sei sette otto nove dieci undici dodici tredici quattordici quindici sedici diciassette"
    " diciotto diciannove venti",
    "zero um dois três quatro cinco seis sete oito nove dez onze doze treze catorze quinze dezesseis dezessete dezoito dezenove"
    " vinte",
    "nul één twee drie vier vijf zes zeven acht negen tien elf twaalf dertien veertien vijftien zestien zeventien achttien"
    " negentien twintig",
    "zero jeden dwa trzy cztery pięć sześć siedem osiem dziewięć dziesięć jedenaście dwanaście trzynaście czternaście"
    " piętnaście szesnaście siedemnaście osiemnaście dziewiętnaście dwadzieścia",
    "ноль один два три четыре пять шесть семь восемь девять десять одиннадцать двенадцать тринадцать четырнадцать пятнадцать"
    " шестнадцать семнадцать восемнадцать девятнадцать двадцать",
)
_IN_WORDS = {word: value for words in _CARDINALS for value, word in enumerate(words.split())} | {"a": 1}
del _IN_WORDS["once"]  # eleven in Spanish, one time in English
_IN_WORDS |= {"thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_NUMBER_WORD = "|".join(sorted(_IN_WORDS | _SCALES, key=len, reverse=True))
_CONTINUED = re.compile(  # behind a number in words: dos mil, two dozen, one third
    rf"[ -](?:{_SPACED}|dozens?|score|half|halves"
    r"|(?:third|quarter|fifth|sixth|seventh|eighth|ninth|tenth|hundredth|thousandth)s?"
    r"|hälften?|drittel|viertel|fünftel|tiers|quarts?|tercios?|cuartos?|terz[oi]|quart[oi]|terços?|quartos?)\b",
    re.IGNORECASE,
)
_CENTS = re.compile(r"(?:deux|trois|quatre|cinq|sept|huit|neuf) cents?\b")  # 200; but six cents, in English
_SAID_IN_WORDS = re.compile(
    r"(?:(?:it|that|there|they) (?:is|are|was|were|makes?) |it['’]s |(?:es|das) sind |son |sono |são )?"
    r"(?P<minus>minus |negative )?"
    rf"(?P<words>(?:{_NUMBER_WORD})(?:(?:-|,? and |,? )(?:{_NUMBER_WORD}))*)(?![\w-])(?P<rest>.*)",
    re.DOTALL,
)
_SECOND = re.compile(rf"\d|\b(?!a\b)(?:{_NUMBER_WORD})\b")


def in_words(text: str, *, alone: bool = False) -> Fraction | None:
    """The number that a short answer begins with, or is `alone`, in words: "Twelve.", "It is seventy-two", "zwölf Äpfel".

    Up to twenty in nine languages, above in English. None for any other text, for a fraction, and for one with a second number.
    """
    said = _SAID_IN_WORDS.fullmatch(text.strip(" \n.:!*_`\"'“”").lower()) if len(text) < 200 else None
    if not said or len(said["rest"].split()) > SHORT or (alone and said["rest"]):
        return None
    if _SECOND.search(said["rest"]) or _CONTINUED.match(said["rest"]) or _CENTS.search(said["words"] + said["rest"]):
        return None
    words = said["words"]
    total, part, last = 0, 0, 10**9 + 1
    for word in [words] if words in _IN_WORDS else re.split(r",? and |,? |-", words):
        if scale := _SCALES.get(word):
            if total and not part:  # "two thousand million"
                return None
            part = (part or 1) * scale
            total, part, last = (total, part, 100) if scale == 100 else (total + part, 0, scale)
            continue
        value = _IN_WORDS[word]
        if not (last >= 100 or (last >= 20 and 0 < value < 10)):  # "seven eight" is no number
            return None
        part, last = part + value, value
    return Fraction((total + part) * (-1 if said["minus"] else 1)) if words != "a" else None
