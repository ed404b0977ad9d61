"""Numerals in text: where a number is written, in which style, and what it is worth exactly.

Owns the styles of writing (thousands, decimals, fractions, powers of ten, LaTeX, other digits), and what is no number though it
has digits (a date, a time, a pair, a surd, an exponent, a formula). Does not know what an answer is.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from seqdistill.metrics.number_words import LARGEST_POWER, multiplied

LONGEST = 1000  # digits; longer runs are no numbers


@dataclass(frozen=True)
class Numeral:
    """A place in a text that has digits. `value` is None for what is not one number: a time, a pair, a surd."""

    start: int
    end: int
    value: Fraction | None


# --- one spelling for many --------------------------------------------------------------------------------------------------

_SUPERSCRIPTS = re.compile("[⁺⁻]?[⁰¹²³⁴-⁹]+")
_PLAIN = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
OPEN, CLOSE = "\x01", "\x02"  # around a formula while a text is made plain; afterwards around one that is no single number
_CURRENCIES = (  # that are written right before a number
    "USD|EUR|GBP|JPY|CNY|RMB|INR|CHF|CAD|AUD|NZD|HKD|SGD|TWD|KRW|BRL|MXN|ZAR|SEK|NOK|DKK|PLN|CZK|RUB|TRY|THB|IDR|MYR|VND|NGN"
    "|Rs|Rp"
)
_REWRITTEN = (
    (re.compile(f"[{OPEN}{CLOSE}]"), ""),
    (re.compile(r"(?<![\w$])[A-Z][A-Za-z]{0,2}([$£¥])(?=\s?-?\.?\d)"), r"\1"),  # US$, R$, HK$
    (re.compile(rf"(?<!\w)({_CURRENCIES})(?=-?\d)"), r"\1 "),
    # LaTeX's delimiters, by pandoc's rule, so that "$5 and $6" are none; also with a space within on both sides
    (re.compile(r"(?<![\\$])\$\$((?:\\.|[^$\\]){1,300}?)\$\$", re.DOTALL), rf"{OPEN}\1{CLOSE}"),
    (re.compile(r"(?<![\\A-Za-z0-9$])\$(?=[^\s$])((?:\\.|[^$\\\n]){1,300}?)(?<=\S)\$(?!\.?\d)"), rf"{OPEN}\1{CLOSE}"),
    (re.compile(r"(?<![\\A-Za-z0-9$])\$ +(?=[^\s$])((?:\\.|[^$\\\n]){1,300}?) \$(?!\s?\.?\d)"), rf"{OPEN}\1{CLOSE}"),
    (
        re.compile(r"(?<!\\)\\\(((?:[^\\]|\\[^()\\]){1,300}?)\\\)|(?<!\\)\\\[((?:[^\\]|\\[^\[\]\\]){1,300}?)\\\]"),
        rf"{OPEN}\1\2{CLOSE}",
    ),
    (re.compile(r"<<[^<>\n]{0,200}>>"), ""),  # GSM8K's calculator annotations
    (re.compile(r"=>"), "→"),
    (
        re.compile(r"(?<![\d./])(\d{1,9}) and (?=[1-9]/\d)|(?<![\d./-])(\d{1,4})-(?=[1-9]/\d{1,2}[- ][a-z]{2})"),
        r"\1\2 ",
    ),  # 1-1/2 cups
    (re.compile(r"\{,\}"), ","),
    (re.compile(r",\\!\s?(?=\d{3})"), ","),  # 11,\! 111
    # what changes only the look: {\bf 70}, \color{red}{70}, \textcolor{red}{70}, \underline{70}
    (re.compile(r"\\(?:text)?color\s?\{[^{}]{0,40}\}"), ""),
    (
        re.compile(
            r"\\(?:bf|it|rm|sf|tt|bfseries|(?:footnote|normal)size|small|[lL]arge|LARGE|[hH]uge|quad|qquad)(?![a-zA-Z])\s?"
        ),
        "",
    ),
    (re.compile(r"\\(?:underline|emph|textit|mathit|mathrm|mathbf|bm|boldsymbol|fbox)\s?\{\s?([-\d.,]{1,40})\s?\}"), r"\1"),
    # a unit's power is that of its word: 864 \mbox{ inches}^2
    (
        re.compile(r"\\(?:text|mathrm|mbox|textrm)\s?\{([^{}\d]{0,20}[a-zA-Z]{3,20}[. ]{0,2})\}\s?\^\s?\{?\s?[1-3]\s?\}?"),
        r" \1 ",
    ),
    (re.compile(r"\\[,;: ]|~"), " "),
    (re.compile(r"\\!|\\(?:left|right|displaystyle)(?![a-zA-Z])"), ""),
    (re.compile(r"\\([$%#&{}_])"), r"\1"),
    (re.compile(r"\\(?:[dtcsx]|nice)frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\frac\s?(\d)\s?(\d)(?!\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac\s?(?:\{\s?(-?\d{1,9})\s?\}\s?(\d)(?!\d)|(\d)\s?\{\s?(-?\d{1,9})\s?\})"), r"\\frac{\1\3}{\2\4}"),
    (re.compile(r"\{\s?(-?\d{1,9})\s?\\over\s?(-?\d{1,9})\s?\}"), r"\\frac{\1}{\2}"),
    *((re.compile(r"\\(?:text(?:rm|normal|bf|it|sf)?|math(?:rm|bf|sf)|operatorname|mbox)\s?\{([^{}]{0,200})\}"), r" \1 "),)
    * 2,  # one in another
    (re.compile(r"\\(?:times|cdot|ast)(?![a-zA-Z])|·|∗|⋅"), "×"),
    (re.compile(r"(?<=\d)\*\*(?=[-\d(])"), "^"),  # as programs write powers
    (re.compile(r"\^\s?\{\s?([+-]?\d{1,4})\s?\}"), r"^\1"),
    (re.compile(r"\^\s?\{?\s?\\circ\s?\}?"), "°"),
    (re.compile(r"\\sqrt(?![a-zA-Z])|\bsqrt\b", re.IGNORECASE), "√"),
    (re.compile(r"\\pi(?![a-zA-Z])"), "π"),
    (re.compile(r"(\\(?!frac)[a-zA-Z]{2,20})(?=\d)"), r"\1 "),  # x\approx11
    (re.compile(r"\\(?:pm|mp)(?![a-zA-Z])|∓|\+/-"), "±"),
    (re.compile(r"(?<=[a-zA-Z])\.(?=\d)"), ". "),  # Rs.5, No.5
    (re.compile(r"[−﹣－]"), "-"),
    (re.compile(r"(?<![\w.)\]}–])(?<!\d )–(?=[\d.$€£¥\x01])"), "-"),  # an en dash as a minus
    (re.compile(r"(?<![\w_])_{1,2}(?=[-+$€£¥\d])"), ""),  # emphasis
    (
        re.compile(
            r"(?:(?:\A|(?<=[=:(\n\x01])|\b(?:is|of|to|at|was))\s?)\bminus\s(?=[\d$€£¥\x01])|\bnegative\s(?=[\d$€£¥\x01])",
            re.IGNORECASE,
        ),
        " -",
    ),
    (re.compile(r"\([$€£¥]\s?(?=\d[\d.,]*\))|[$€£¥]\((?=\d[\d.,]*\))"), " -"),  # ($1,234), as accounts write a loss
    (re.compile(r"(?<![\w)}\]])-\s?\((?=[\d./ ]{1,20}\))"), "-"),  # -(1/3)
    (re.compile(r"(?<=\n)[ \t]*- (?=[\d$€£¥*])"), ""),  # an item of a list, not a minus
    (re.compile("[⁄∕]"), "/"),
    (re.compile(r"٫"), "."),
    (re.compile(r"[٬，](?=\d{3})"), ","),
)


_GROUPED = r"[1-9]\d{0,2}(?:\.\d{3})+(?![\d,]|\.\d)"  # 1.500; in money whose decimals are two or none, a full stop groups
_MONEY = re.compile(
    rf"(?:\b(?:Rp\.?|R\$|IDR|VND|COP|CLP|ARS|PYG)|[₫₺₲])\s?{_GROUPED}"
    rf"|(?<![\d.,])(?<![A-Z]{{3}} = ){_GROUPED}"
    r"(?=\s?(?:[€₫₺đ]|(?:EUR|[Ee]uros?|VN[DĐ]|[Đđ]ồng|IDR|[Rr]upiah|COP|CLP|ARS|[Pp]esos|[Rr]eais|Kč|Ft"
    r"|kr|DKK|NOK|SEK|TL|[Ll]ira|HUF|RSD|руб\w*)\b)(?!\s?(?:/|per\b|pro\b|je\b|par\b)))"
)
_BY_POINTS = re.compile(  # words of the languages that group thousands by full stops
    r"\b(?:der|die|das|und|ist|sind|nicht|also|insgesamt|antwort|lösung|ergibt|el|los|las|una|es|son|respuesta|por|total de"
    r"|il|gli|della|è|sono|risposta|quindi|o|os|um|uma|são|é|resposta|portanto|het|een|zijn|antwoord|dus|bir|ve|toplam|cevap"
    r"|adalah|jumlah|jadi|jawaban|yang|là|và|đáp|tổng|og|er|det|svaret|i alt|είναι|και|je|jest)\b",
    re.IGNORECASE,
)


def without_points(text: str) -> str | None:
    """The text with 1.500 as 1500, where it is in a language that groups thousands so; None for any other."""
    whole = re.sub(r"(?<![\d.,])[1-9]\d{0,2}(?:\.\d{3})+(?!\d|[.,]\d)", lambda found: found[0].replace(".", ""), text)
    return whole if whole != text and len({*map(str.lower, _BY_POINTS.findall(text))}) > 1 else None


_REPEATING = re.compile(  # 0.1\overline{6}, 0.(3), and where the text is nothing else 0.1(6)
    r"(?<![\w.,])(?P<whole>\d{0,9})[.,](?P<first>\d{0,9})\\overline\s?\{(?P<line>\d{1,9})\}"
    r"|(?<![\w.,])0[.,]\((?P<brackets>\d{1,9})\)"
    r"|\A\s*\$?-?(?P<alone>\d{1,9})[.,](?P<fixed>\d{0,9})\((?P<period>\d{1,9})\)(?=\$?\s*\Z)"
)


def repeating_as_fractions(text: str) -> str:
    """The text with repeating decimals as LaTeX's fractions: 0.(3) is 1/3."""
    return _REPEATING.sub(_as_fraction, text) if "(" in text or "overline" in text else text


def _as_fraction(match: re.Match[str]) -> str:
    before, sign, _ = match[0].partition("-")
    first, period = match["first"] or match["fixed"] or "", match["line"] or match["brackets"] or match["period"]
    value = Fraction(int(match["whole"] or match["alone"] or "0")) + Fraction(int(first or "0"), 10 ** len(first))
    value += Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(first))
    return rf"{before if sign else ''}{sign}\frac{{{value.numerator}}}{{{value.denominator}}}"


def plain(text: str) -> str:
    """The text with one spelling for what has many: digits of other scripts, superscripts, LaTeX, signs, spaces."""
    text = repeating_as_fractions(_MONEY.sub(lambda money: re.sub(r"\.(?=\d)", "", money[0]), text))
    if not text.isascii():
        text = _SUPERSCRIPTS.sub(lambda match: "^" + match[0].translate(_PLAIN), text)
        text = re.sub(r"(?<=\d)(?=[½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞])", " ", text)  # 3½ is not 31/2
        text = unicodedata.normalize("NFKC", text)
        text = "".join(map(_ascii, text))
    for pattern, replacement in _REWRITTEN:
        text = pattern.sub(replacement, text)
    return _IN_FORMULA.sub(_formula, text)


def _ascii(character: str) -> str:
    """A digit of another script as ASCII has it, and $ for the sign of any other currency."""
    if character <= "\x7f" or character in "¢£¥€":
        return character
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    return "$" if unicodedata.category(character) == "Sc" else character


# --- the forms ----------------------------------------------------------------------------------------------------------------

# A number without its sign. Atomic: no text makes the search go back over what it has read.
_STYLES = (
    r"(?!0\.)\d{1,3}(?:\.\d{3})+,\d+(?!\d|\.\d)",  # 1.234,50
    r"\d{1,3}(?:,\d{3})++(?![\d])(?:\.\d+)?",  # 1,234.50
    r"\d{1,2}(?:,\d{2}){1,6},\d{3}(?!\d)(?:\.\d+)?",  # 12,34,567
    r"\d{1,3}(?: \d{3})++(?![\d])(?:[.,]\d+)?",  # 10 000,5
    r"\d{1,3}(?:['’]\d{3})++(?!\d)(?:\.\d+|,\d{1,2}(?!\d))?",  # 10'000
    r"\d{1,3}(?:_\d{3})++(?!\d)",  # 10_000
    r"\d{1,3}(?:\.\d{3}){2,}+(?![\d.,])",  # 1.234.567
    r"\d++(?:\.\d+)?",
    r"\.\d+",
)
_DECIMAL_COMMA = r"(?:\d+,(?:\d{1,2}|\d{4,})|0,\d+)(?![\d,])"  # 3,5
_LISTED = f"(?>{'|'.join(_STYLES)})"  # within a pair a comma parts two numbers
_NUMBER = f"(?>{'|'.join([*_STYLES[:-2], _DECIMAL_COMMA, *_STYLES[-2:]])})"
_SIGN = r"(?:(?<![\w.)\]}])[+-]\s?|(?<![\w.)\]}])[+-](?=[$€£¥]))?"
_SIGNED = r"-?\s?\d++(?:\.\d+)?"
_POWER_OF_TEN = r"(?:[eE][+-]?\d{1,4}(?![\w])|\s?[×x*]\s?10\^[({]?[+-]?\d{1,4}[)}]?)"
_TOKEN = re.compile(
    # What has digits and is not one number: it is passed over as a whole.
    rf"(?P<other>"
    r"\d{4}-\d{1,2}-\d{1,2}(?!\d)|\d{1,2}[/.]\d{1,2}[/.]\d{2,4}(?!\d)"  # dates
    r"|\d+:\d+(?::\d+)*+"  # times, ratios
    r"|\d+(?:\.\d+){2,}+(?<!\.\d{3})"  # versions
    r"|\d[\dA-F]*_\d{1,2}(?![\w])"  # 1010_2
    rf"|(?:{_NUMBER}\s?)?±\s?[$€£¥]?\s?{_NUMBER}"
    rf"|{OPEN}[^{OPEN}{CLOSE}]*{CLOSE}"  # formulas
    r"|\d+/\d+/\d+"
    r"|(?<![a-zA-Z])(?:(?:a(?:rc)?)?(?:sin|cos|tan)h?|log|ln|lg|exp|abs)(?:_?\d{1,3})?"  # log(5), sin 30
    r"(?:\s?\((?=[^()\n]{0,60}\d)[^()\n]{1,60}\)|(?<=[snosg\d])\s\d[\d.]*)"
    r"|[(\[]\s?(?:-\s?(?:∞|\\infty)\s?[,;][^()\[\]\n]{1,40}|[^()\[\],;\n]{1,40}[,;]\s?\+?\s?(?:∞|\\infty)\s?)[)\]]"  # (2, ∞)
    rf"|[(\[{{<⟨]\s?[+-]?{_LISTED}(?:\s?[,;]\s?[+-]?{_LISTED}){{1,20}}+\s?[)\]}}>⟩]"  # pairs, sets
    rf"|(?:{_SIGN}{_NUMBER}\s?)?(?:[×*]\s?)?√\s?[({{]?\s?{_NUMBER}?[)}}]?"  # surds
    r")"
    rf"|(?P<mixed>{_SIGN}(?:[$€£¥]\s?)?\d{{1,9}}(?:\s|\s?(?=\\))(?:\\frac\s?\{{\s?\d+\s?\}}\s?\{{\s?\d+\s?\}}|\d{{1,4}}/\d{{1,4}}(?![\d/])))"
    rf"|(?P<fraction>{_SIGN}(?:[$€£¥]\s?)?(?:\\frac\s?\{{\s?{_SIGNED}\s?\}}\s?\{{\s?{_SIGNED}\s?\}}|{_NUMBER}\s?/\s?-?\d+(?![\d./]\d|:)))"
    rf"|(?P<number>{_SIGN}(?:[$€£¥]\s?)?(?P<digits>{_NUMBER})(?P<ten>{_POWER_OF_TEN})?)"
)
_RAISED = re.compile(r"\^[({]?(?P<power>[+-]?\d{1,4})[)}]?")
_EXCLAIMS = re.compile(r"[^!]{0,2000}[a-zA-Z]{2}[^!]{0,200}!(?:\s|\Z)")  # "It's 5!" is no factorial, "5!" is
_FUNCTIONS = "log|ln|exp|sin|cos|tan|cot|sec|csc|sqrt|alpha|beta|gamma|delta|theta|lambda|phi|omega|infty|binom"
_NOT_ALONE = re.compile(
    rf"\s?[×*]?\s?(?:√|π|\\[a-z]*(?:{_FUNCTIONS})|!|pi\b)|\^|[xyzni]\b|(?-i:[aeqrα-λν-ω](?!\w))", re.IGNORECASE
)


# What makes a formula of the text around a number.
_UNIT = (
    r"(?:[munkcdμ]?m|[mkμ]?g|[mkμ]?[lL]|[munkμ]?s|[mk]?[VWAJNT]|[kM]?Ω|[kKMGTP]B|dB|hp|px|kr|zł|[kM]?Hz|k?Pa|[kM]?Wh|°?[CFK]|°|%|[hdt]|hrs?|mins?|sec|mph|kph|in|ft|yd|mi|lbs?|oz"
    r"|gal|mol|USD|EUR)(?![a-zA-Z])(?:\s?\^-?[1-3])?"
)
_UNITS = re.compile(
    rf"\s{{0,4}}(?:{_UNIT}(?:\s{{0,3}}[/·×-]\s{{0,3}}{_UNIT})*|[/(]\s?{_UNIT}(?:/{_UNIT})?\s?\)?|\([^()^_<>\\]{{1,40}}\))(?!\s?\()"
)
_NAMED = re.compile(  # x =, f(x) =, y_3 =
    r"(?:\A|(?<=[\s,:({\[]))(?<![-+*/×^_\d)}]\s)\s*\\?[a-zA-Z][\w']{0,30}(?:\s?_\s?(?:\{[^{}]{1,20}\}|\w))?(?:\s?\([^()]{0,40}\)|\s?\^\d)?\s*"
    r"(?:=|≈|\\approx(?![a-zA-Z]))"
)
_EQUALS = re.compile(r"=|≈|\\approx(?![a-zA-Z])")
_OPTION = re.compile(r"\s*\(?[A-Ha-h][).:]\s")  # (E) 5
_SYMBOL = re.compile(r"[<>≤≥≠±∞√π∈∪∩^|]|_(?=[\w{])|\\(?!quad|qquad|boxed|fbox|approx|[lc]?dots)[a-zA-Z]+")
_MEASURED = re.compile(rf"(?<=\d){_UNITS.pattern}")
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,60}>")
_OPERATOR = re.compile(r"\s?[-+*/×÷]\s?(?:\d|[(\\{√π]|[a-zA-Z]{1,2}(?![a-zA-Z]))")
_LETTERS = re.compile(
    r"(?<![a-zA-Z°'’])[a-zA-Z](?![a-zA-Z.])|\A(?!st|nd|rd|th)[a-zA-Z]{2}(?![a-zA-Z])"
)  # of 4ab, but not of "it is 4"
_A_WORD = re.compile(r"[^\W\d_]{3}|[\u0e00-\uffff]")
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_VALUES = re.compile(r"(?<=\d),(?=[+-]?(?:\d{1,2}|\d{4,})(?!\d))")  # n = -6,9 are two
_MULTIPLIED = re.compile(r"(?<=\d)(?=[kKMBb](?![a-zA-Z]))")  # in a formula, 2k is no 2000
_TUPLE = re.compile(r"[(\[{][^()\[\]{}]{1,200},[^()\[\]{}]{1,200}[)\]}]")
_IN_FORMULA = re.compile(f"{OPEN}([^{OPEN}{CLOSE}]*){CLOSE}")


def _formula(match: re.Match[str]) -> str:
    text = _MULTIPLIED.sub(" ", match[1].strip())
    text = _TUPLE.sub(lambda pair: re.sub(r",\s*", ", ", pair[0]), text)  # in a formula, (1,234) is a pair
    return f" {marked_formula(text)} "


def marked_formula(text: str) -> str:
    """A formula, or what it says of its name, within marks, as a token without a value, where it is more than a number."""
    named, rest = parted(text)
    if named and _VALUES.search(rest):
        return f"{OPEN}{text}{CLOSE}"
    if sides := list(_EQUALS.finditer(rest)):  # = 2 x 9 = 18
        left = _MEASURED.sub(" ", rest[: sides[-1].start()])
        if (not named and _LETTERS.search(_COMMAND.sub(" ", f" {left}"))) or re.search(r"\d,|, ", left):
            return f"{OPEN}{text}{CLOSE}"
        named, rest = named + rest[: sides[-1].end()], rest[sides[-1].end() :]
    found = list(numerals(rest))
    if not found or OPEN in rest:
        return text
    is_term = len(found) > 1 and any(one.value is None for one in found)  # 5x - 2
    is_term |= any(is_formula("", rest[one.end : other.start], is_math=True) for one, other in pairwise(found))  # 2(x - 3)
    if is_term or is_formula(rest[: found[0].start], rest[found[-1].end :], is_math=True):
        return f"{named}{OPEN}{rest}{CLOSE}"
    return text


def parted(text: str) -> tuple[str, str]:
    """A text as what it names ("x =") and what it says of it."""
    if (name := _NAMED.search(text)) is None:
        return "", text
    return text[: name.end()], text[name.end() :]


def said_of(text: str) -> str:
    """What a formula comes to: of 7 × 10 = 70 the right side, of 1/3 ≈ 0.333 the exact one. An equation in unknowns stays."""
    named, rest = parted(text)
    named = re.sub(r"\([^()]*\)", "(n)", named)  # f(3) =
    text = named + rest
    if not (sides := list(_EQUALS.finditer(rest))):
        return text
    left, right = rest[: sides[-1].start()], rest[sides[-1].end() :]
    if _LETTERS.search(_COMMAND.sub(" ", f" {_MEASURED.sub(' ', left)}")) or re.search(r"\d,|, |[<>≤≥≠±]|\\[lg]eq?\b", left):
        return text
    exact = list(numerals(left))
    if (
        sides[-1][0] != "="
        and len(exact) == 1
        and exact[0].value is not None
        and not is_formula("", left[exact[0].end :], is_math=True)
    ):
        return named + left
    return named + right


def has_words(text: str) -> bool:
    """Whether a text says something, or is a formula alone."""
    return _A_WORD.search(_COMMAND.sub(" ", text)) is not None


def values_apart(text: str) -> str:
    """A formula with its values apart: n = -6,9 are two, and not a decimal comma."""
    return _VALUES.sub(", ", text)


def is_formula(before: str, after: str, *, is_math: bool) -> bool:
    """Whether a number is only a part of a formula, by what is around it; `is_math`: a letter there is a variable."""
    if (stars := re.search(r"(\*{1,3}|_{1,2})\s*\Z", before)) and after.lstrip(" .").startswith(stars[1]):  # emphasis
        before, after = before[: stars.start()], after.lstrip(" .")[len(stars[1]) :]
    before, after = _OPTION.sub("", _TAG.sub("", before)), _TAG.sub("", after)
    unit = _UNITS.match(after)
    after = after[unit.end() :] if unit else after
    if _SYMBOL.search(before) or _SYMBOL.search(after) or _OPERATOR.match(after) or re.search(r"[-+*/×÷]\s?[({]?\s?$", before):
        return True
    return is_math and any(_LETTERS.search(part) for part in (f" {before}", after))


def numerals(text: str) -> Iterator[Numeral]:
    """The numerals of a text made `plain`, in order. Digits within a word (v2, CO2) and exponents do not count."""
    end = 0
    for match in _TOKEN.finditer(text):
        if match.start() < end:  # 5千 in 1万5千
            continue
        before = text[match.start() - 1] if match.start() else ""
        if match["other"]:
            yield Numeral(match.start(), match.end(), None)
        elif not (before and (_is_spaced_letter(before) or before in "^_.\\" or before.isdigit())) and not text.endswith(
            "_{", 0, match.start()
        ):
            end, value = _valued(match, text)
            yield Numeral(match.start(), end, value)


def _valued(match: re.Match[str], text: str) -> tuple[int, Fraction | None]:
    """Where a numeral ends, and its value."""
    written, end = match[0], match.end()
    negative = written.lstrip().startswith("-")
    value: Fraction | None
    if match["mixed"]:
        whole, over, under = (int(part[:LONGEST]) for part in re.findall(r"\d+", written))
        value = whole + Fraction(over, under) if under else None
    elif match["fraction"]:
        value, is_opposite = _quotient(written)
        negative ^= is_opposite
    else:
        end, value = _scaled(match, text)
    if (more := _NOT_ALONE.match(text, end)) and not (more[0] == "!" and _EXCLAIMS.match(text)):
        return end, None
    return end, -value if negative and value is not None else value


def _quotient(written: str) -> tuple[Fraction | None, bool]:
    """The value of a fraction without its signs, and whether those of its two parts differ."""
    bare = re.sub(r"^[+\-$€£¥\s]+", "", written)
    if bare.startswith("\\"):
        top_text, bottom_text = re.findall(_SIGNED, bare)
    else:
        top_text, _, bottom_text = bare.rpartition("/")
    top, bottom = (decimal(re.sub(r"[-\s]", "", part)) for part in (top_text, bottom_text))
    return top / bottom if top is not None and bottom else None, ("-" in top_text) != ("-" in bottom_text)


def _scaled(match: re.Match[str], text: str) -> tuple[int, Fraction | None]:
    """Where a number in digits ends, with the power or the multiple that follows, and its value."""
    value, end = decimal(match["digits"]), match.end()
    if value is not None and match["ten"]:
        power = int(re.findall(r"[+-]?\d+", match["ten"])[-1])
        return end, value * Fraction(10) ** power if abs(power) <= LARGEST_POWER else None
    if raised := _RAISED.match(text, end):
        power = int(raised["power"])
        is_small = abs(power) <= LARGEST_POWER and len(match["digits"]) <= 6 and (value or power > 0)
        return raised.end(), value**power if value is not None and is_small else None
    return multiplied(value, match[0], text, end)


def decimal(digits: str) -> Fraction | None:
    """The value of a number written in digits, in any of the styles, without sign; None for one of too many digits."""
    if len(digits) > LONGEST:
        return None
    bare = re.sub(r"[ '’_]", "", digits)
    if re.fullmatch(r"\d{1,3}(?:\.\d{3})+,\d+|(?:\d+,(?:\d{1,2}|\d{4,})|0,\d+)", bare):
        bare = bare.replace(".", "").replace(",", ".")
    elif bare.count(".") > 1:
        bare = bare.replace(".", "")
    return Fraction(bare.replace(",", "") or "0")


def _is_spaced_letter(character: str) -> bool:
    """Whether it is a letter of a script that puts spaces between words: digits right behind one are part of its word."""
    return character.isalpha() and not (
        0xE00 <= ord(character) < 0xF00
        or 0x1000 <= ord(character) < 0x10A0
        or 0x1780 <= ord(character) < 0x1800
        or ord(character) >= 0x2E80
    )
