"""The number that an answer states: where it says so, and what it is worth; a reference's, a box's; two of them compared.

What a number looks like is in `numerals`.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from seqdistill.metrics.metric import TOLERANCE
from seqdistill.metrics.number_words import in_words
from seqdistill.metrics.numerals import (
    CLOSE,
    LONGEST,
    OPEN,
    Numeral,
    has_words,
    is_formula,
    marked_formula,
    numerals,
    parted,
    plain,
    said_of,
    values_apart,
    without_points,
)

# --- where the answer is ------------------------------------------------------------------------------------------------------

_QUALIFIED = (  # the answer (in dollars) is, the answer to this question is, the answer, as a fraction, is
    r"(?:[*\"'`]{0,2}\s?\([^()\n]{1,60}\)|,\s[^,.:;=\n]{1,60},|\s(?:in(?:\s\w+){1,3}?|as\san?(?:\s\w+){1,3}?"
    r"|(?:to|for)(?:\s\w+){0,3}?\s(?:question|problem|equation|exercise|task|puzzle|riddle)(?:\s\d{1,3}|\sabove)?))?"
)
_MARKED = re.compile(
    rf"####|(?:\bthe\s)?(?:\bfinal[\s_])?\b(?:answer|result|solution)\b{_QUALIFIED}"
    r"(?:\s(?:is|(?:should|would|must|will)(?:\sthen)? be|comes (?:out )?to|equals)\b(?!\snot\b)|\s?=|[*\"'`]{0,2}\s?:)"
    r"|(?:\A|(?<=\n))[ \t]{0,3}(?:\#{1,6}|\*\*|__)\s?(?:the\s)?(?:final\s|correct\s)?answer(?=[*_ \t]{0,9}\n)"
    r"|答案?(?:是|为|為|:|：)|答えは|答え\s?[:：]|ค(?:ำ|ํา)ตอบ(?:คือ|:)|\bantwort(?:\s(?:ist|lautet|wäre)\b|\s?:)"
    r"|\b(?:réponse|respuesta|risposta|resposta)(?:\s(?:final[ea]?|correct[ea]|corretta|exacte))?(?:\s(?:est|es|è|é)\b|\s?:)"
    r"|\b(?:ответ|antwoord|odpowiedź|cevap|jawaban(?:nya)?|đáp (?:án|số)|svar(?:et)?|vastaus|jibu)"
    r"(?:\s(?:is|to|adalah|là|är|er|on|ni)\b|\s?[:—–])|\bcevap(?=\s\d)"
    r"|(?:उत्तर|উত্তর|సమాధానం|الجواب|الإجابة|정답|답)(?:\s?(?::|：|은|는|হল|হলো|هو|هي)|(?=\s\d))",
    re.IGNORECASE,
)
_NOTE = re.compile(
    r"(?:^|\n)\s{0,9}[*_(\[]{0,3}(?:note|n\.?b|remark|caveat|disclaimer|p\.?s|hint|check|verification|confidence|注|備考|หมายเหตุ)\b[^\n]*"
    r"|(?:^|\n)\s{0,9}\d{1,2}[.)](?=[ \t]+\S)"  # the number of a list's item
    r"|[(\[]\s?(?:note|see|cf|rounded|assuming|as in|from|check|step|page|which|where|because|since"
    r"|to the nearest)\b[^()\[\]\n]{0,300}[)\]]"
    r"|\bout of (?:a (?:total|possible|maximum) (?:of )?|all |the )?[$€£]?\d[\d.,]*"
    r"|\brounded (?:up |down |off )?to[^.,;()\n]{0,60}|\bto \d+ (?:decimal|significant)[^.,;()\n]{0,30}"
    r"|\b(?:in|after|using) (?:just |only )?\d+ (?:easy |simple )?steps?\b"
    r"|\b(?:step|equation|part|case|method|figure|table|section|page) \(?\d+\)?",
    re.IGNORECASE,
)
_EITHER = re.compile(r"[$\s]*(?:or|oder|ou|或|или)[$\s]*(?:[a-zA-Z]\s?=\s?)?")  # 5 or 6, x = 5 or x = -5
_RANGE = re.compile(rf"{_EITHER.pattern}|\s(?:to|and|bis|y|et|und)\s|\s?[–-]\s?")  # the answer is 5 to 6, between 5 and 6
_NUMBER_LIST = re.compile(  # 1, 2, 3
    r"[\s$*]*[-+\d.]{1,20}(?:(?:,\s[-+\d.]{1,20}){2,}|(?:,\s[-+\d.]{1,20})+,?\s(?:and|und|et|y)\s[-+\d.]{1,20})[\s$*]*"
)
_PAUSE = re.compile(  # the end of a sentence, or of a line that announces nothing
    r"\b(?!(?:approx|appr|ca|no|nos|nr|rs|rp|mr|mrs|ms|dr|st|vs|max|min|avg|est|eq|fig|pp|kr|fr)\.)\w{2,}[)\"'*]{0,3}[.!?](?=\s)"
    r"|[。！？।؟]|(?<=[^\s:：*])[*_]{0,3}[ \t]*\n",
    re.IGNORECASE,
)
_WORDS = re.compile(r"[^\W\d_]{2}")
_HOW = re.compile(
    r"\s?(?:found|obtained|calculated|computed|determined|derived|given|the (?:sum|product|difference|total))\b", re.IGNORECASE
)
_NAME = re.compile(r"[\s*_]{0,9}[^\W\d_]{2,20} (?:no\.? |number |#)?", re.IGNORECASE)  # Room 12
_LIST = re.compile(r"[\s*_:]{0,9}\n[\s*_]{0,9}1[.)](?=[ \t]+\S)")
_CLOSING = re.compile(
    r"\b(?:so|thus|hence|therefore|in total|total(?: of| is)?:?|altogether|which (?:makes|gives|leaves))\b|→|⇒|∴"
    r"|\b(?:donc|au total|insgesamt|en total|por lo tanto|итого|поэтому)\b"
    r"|一共|总共|總共|共有|所以|因此|合计|合計|よって|したがって|だから|따라서|그래서|모두",
    re.IGNORECASE,
)
_EXPLAINS = re.compile(
    r"(?:\n|[.!?。]\s)[\s*_#]{0,9}(?:explanation|reasoning|rationale|justification|proof|why|how|here(?:'s| is)|working"
    r"|calculation|(?:this|that) is because|let me know)\b",
    re.IGNORECASE,
)
_ASIDE = re.compile(  # 18, since x = 9
    r"[,;(]?\s?\b(?:since|because|where|when|if|given|assuming)\b|\s(?:as|for|with|at)\s[a-zA-Z]\s?=|\(\s?[a-zA-Z]\s?=",
    re.IGNORECASE,
)
_MEASURED = re.compile(r"[^.!?;:=()\d\n]{0,30}")  # between a number and what explains it
_CONVERTED = re.compile(r"\(\s?[=≈]")  # 5 kg (= 5000 g)
_OPERATED = re.compile(r"[\s$]*(?:[-+*/×÷]|(?:divided|multiplied) by|times|plus|minus)[\s$(]*")
_SUM_ON_A_LINE = re.compile(r"\s*:?[ \t]*\n[^\n=]*\d\s?[-+*/×÷x]\s?[$€£]?\d[^\n]*=[^\n]*")
_ON_THE_NEXT_LINE = re.compile(r"\s*:?[ \t]*\n")
_IN_WORDS = re.compile(r"\b(?:which|that) (?:is|equals|makes|gives|comes to)\b|\b(?:equals|is equal to|or)\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s|\Z|\*)|[。！？।؟]|\n")


def stated_number(text: str) -> Fraction | None:
    """The number that a text states as its answer; None when it states none, or what is not one number.

    It is looked for behind a mark ("####", "the answer is"); without one it is the last numeral, notes left out.
    """
    text = plain(text)
    if (marked := _marked(text)) is not None:
        rest, found = marked
        stop = _SENTENCE_END.search(rest, found[0].end)
        sentence = rest[: stop.start()] if stop else rest
        for aside in (_ASIDE.search(sentence, found[0].end), _CONVERTED.search(sentence, found[0].end)):
            if aside and (aside.re is _ASIDE or sum(one.start < aside.start() for one in found) == 1):
                sentence = sentence[: aside.start()]
        before = [one for one in found if one.start < len(sentence)]
        if len(before) > 1 and _OPERATED.fullmatch(rest, before[0].end, before[1].start + (rest[before[1].start] in "+-")):
            sentence = _IN_WORDS.sub(lambda match: "=".ljust(len(match[0])), sentence)  # 4 × 10, which is 40
        equals = sentence.rfind("=")
        behind = [one for one in found if equals < one.start < len(sentence)]
        before = [one for one in found if one.start < sentence.find("=")]
        if _has_alternatives(rest, behind or found, _RANGE) or _NUMBER_LIST.fullmatch(sentence.rstrip(".")):
            return None
        if len(before) == 1 and len(behind) > 1:  # 18 = 9 × 2
            return before[0].value
        return next((one for one in found if one.start > equals), found[0]).value
    if not has_words(text) and "\n" not in text:
        text = marked_formula(text.strip(" *_`"))
    without_notes = _NOTE.sub(" ", text)
    if not (found := list(numerals(without_notes))):
        without_notes, found = text, list(numerals(text))
    if not found:
        marks = list(_MARKED.finditer(text))
        return in_words(text[marks[-1].end() :] if marks else text)
    return _last_said(without_notes, found).value if not _has_alternatives(without_notes, found, _EITHER) else None


def _last_said(text: str, found: Sequence[Numeral]) -> Numeral:
    """The last numeral; the one before a parenthesis that says how it comes about, or what it is in percent: 42 (6 × 7)."""
    last = found[-1]
    opened = text.rfind("(", 0, last.start)
    before = [one for one in found if one.end <= opened]
    inside = text[opened + 1 : last.start]
    if not before or ")" in inside or not _MEASURED.fullmatch(text, before[-1].end, opened):
        return last
    one, within = before[-1], [each for each in found if each.start > opened]
    after = text[last.end :].partition(")")[0]
    if len(within) > 1:
        is_how = "=" not in inside and any(_OPERATED.search(text, a.end, b.start + 1) for a, b in pairwise(within))
        return one if is_how else last
    shares = {one.value, last.value and last.value / 100, last.value and last.value * 100}
    return one if "%" in after + text[one.end : opened] and one.value in shares else last


def has_alternatives(text: str) -> bool:
    """Whether a text states several numbers, or a range of them, as its answer: 5 or 6, between 5 and 6."""
    text = plain(text)
    marked = _marked(text)
    rest, found = marked or (text, list(numerals(text)))
    return _has_alternatives(rest, found, _RANGE if marked else _EITHER)


def _marked(text: str) -> tuple[str, list[Numeral]] | None:
    """What follows the last mark with numerals after it, and these; None where that is a whole solution and not an answer."""
    last = max((one.start for one in numerals(text)), default=-1)
    marks = [mark for mark in _MARKED.finditer(text) if mark.end() <= last]
    if not marks or not (found := list(numerals(rest := text[marks[-1].end() :]))):
        return None
    return None if _is_worked(marks[-1][0], text[: marks[-1].start()], rest, found[0]) else (rest, found)


def _is_worked(mark: str, above: str, rest: str, first: Numeral) -> bool:
    """Whether a mark is the heading of a worked solution, or mentions the answer without saying it."""
    before = rest[: first.start]
    if _HOW.match(rest) or (_WORDS.search(before) and _PAUSE.search(before)):  # the solution is simple. She sold 48 ...
        return True
    if (sum_ := _SUM_ON_A_LINE.match(rest)) and any(map(str.isdigit, _NOTE.sub(" ", rest[sum_.end() :]))):
        return True
    is_heading = mark.rstrip().lower().endswith((":", "：", "answer"))
    is_above = not is_heading and _ON_THE_NEXT_LINE.match(rest) is not None
    if (
        not (is_heading or is_above)
        or "final" in mark.lower()
        or (_NAME.fullmatch(before) and _SENTENCE_END.match(rest, first.end))
    ):
        return False
    if _LIST.match(rest):
        return True
    behind = rest[first.end :]
    if explained := _EXPLAINS.search(behind):
        behind = behind[: explained.start()]
    behind = _NOTE.sub(" ", behind)
    is_first = is_above or "solution" in mark.lower() or not any(map(str.isdigit, above))
    line, *others = _SENTENCE_END.split(behind)
    later = is_first * sum(bool(_WORDS.search(part)) and any(map(str.isdigit, part)) for part in others)
    if not _WORDS.search(before):  # Solution: 2 subs are 7.50 each ... Answer: 12 apples. That took 3 days.
        return re.search(r"[^\W\d_]{2}[^\d]{0,60}\d", line) is not None and later > ("solution" not in mark.lower())
    closing = _CLOSING.search(behind)  # Answer: 3 boxes ..., so there are 12 apples
    return later > 0 or (closing is not None and any(map(str.isdigit, behind[closing.end() :])))


def _has_alternatives(text: str, found: Sequence[Numeral], between: re.Pattern[str]) -> bool:
    return any(
        one.value != other.value and between.fullmatch(text, one.end, other.start) is not None
        for one, other in pairwise(found[:2] if between is _RANGE else found[-2:])
    )


def only_number(text: str) -> Fraction | None:
    """The number of a text that is about one number: the one it marks as its answer, or the only one in it; else None."""
    text = plain(text)
    if marks := list(_MARKED.finditer(text)):
        text = text[marks[-1].end() :]
    if is_math := not has_words(text):
        text = said_of(text)
    found = list(numerals(text))
    if len(found) == 1 and found[0].value is not None:
        named, text = parted(text)
        found = list(numerals(values_apart(text) if named and is_math else text))
    if len(found) != 1 or is_formula(text[: found[0].start], text[found[0].end :], is_math=is_math):
        return None
    return found[0].value


def normal_form(value: Fraction) -> str:
    """A number in normal form: 1050, -2.5, and 1/3 where there is no decimal."""
    bottom, places = value.denominator, 0
    while bottom % 10 == 0 or bottom % 5 == 0 or bottom % 2 == 0:
        bottom, places = bottom // (10 if bottom % 10 == 0 else 5 if bottom % 5 == 0 else 2), places + 1
    if bottom != 1 or not places:
        return str(value)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def whole_number(text: str) -> Fraction | None:
    """The value of a text that is a number and nothing else, not even a currency sign; None for any other."""
    if not any(map(str.isdigit, text[: LONGEST + 1])) or len(text) > LONGEST:
        return None
    text = plain(text).strip()
    found = list(numerals(text))
    whole = len(found) == 1 and (found[0].start, found[0].end) == (0, len(text)) and not any(sign in text for sign in "$€£¥")
    return found[0].value if whole else None


def mentioned(text: str) -> set[str]:
    """The numbers that a text mentions, in normal form; what is not one number (a date, a time, a pair) by its parts."""
    return _mentioned(plain(text))


def _mentioned(text: str) -> set[str]:
    found: set[str] = set()
    for one in numerals(text):
        if one.value is not None:
            found.add(normal_form(one.value))
        elif text[one.start] == OPEN or "±" in text[one.start : one.end]:
            found |= _mentioned(re.sub(f"[{OPEN}{CLOSE}±]", " ", text[one.start : one.end]))
        else:
            found |= {part.lstrip("0") or "0" for part in re.findall(r"\d+", text[one.start : one.end])}
    return found


# --- a number as an answer ----------------------------------------------------------------------------------------------------


def answer_number(text: str) -> str | None:
    """The number that a text gives as its answer, in normal form: in its last box, or else as `stated_number` finds it.

    With nothing to compare it with, 1.500 is 1500 where the text is in a language that groups thousands so.
    """
    value = answer_value(without_points(text) or text)
    return None if value is None else normal_form(value)


def answer_value(text: str) -> Fraction | None:
    """The value of the number that a text gives as its answer; None for none, and for what is not one number."""
    if (box := boxed(text)) is None:
        return stated_number(tagged(text))
    value, several = only_number(box), _BOXES.findall(text)
    if value is None:
        return in_words(plain(box), alone=True)
    return None if any(only_number(other) != value for other in several) else value


def reference_value(text: str) -> Fraction | None:
    """The value of a reference that is one number, or has one in its last box or behind a mark; None for any other."""
    if (box := boxed(text)) is None:
        return only_number(tagged(text))
    return only_number(box) if not _BOXES.search(text) else answer_value(text)


def states(text: str, wanted: Fraction, tolerance: float = TOLERANCE) -> bool:
    """Whether a text gives this number as its answer, see `is_equal`.

    In a language that groups thousands by full stops 1.500 is 1500 too: only what is wanted shows which was meant.
    """
    readings = [text]
    if wanted.denominator == 1 and "." in text and (whole := without_points(text)) is not None:
        readings.append(whole)
    return any((found := answer_value(one)) is not None and is_equal(found, wanted, tolerance) for one in readings)


_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_BOXES = re.compile(  # \boxed{5} or \boxed{-5}
    r"\\boxed\{([^{}]{1,100})\}[\s$\\)\]]{0,9}(?:,|;|\b(?:or|and|oder|und|ou|et|o|y)\b|或|和)[\s$\\(\[]{0,9}(?:[a-zA-Z]\s?=\s?)?(?=\\boxed\{)"
)


def tagged(text: str) -> str:
    """What is within the last <answer>...</answer> of a text; the text where there is none."""
    found = _TAGGED.findall(text) if "answer>" in text.lower() else []
    return found[-1] if found else text


_BARE_BOX = re.compile(
    r"\\boxed\s*(?P<content>\\[dtc]?frac\s?(?:\{\w{1,20}\}|\d)\s?(?:\{\w{1,20}\}|\d)|-?\d[\d.,/]*(?<![.,/])|[a-zA-Z]\b)"
)


def boxes_braced(text: str) -> str:
    """The text with \\boxed 5 as \\boxed{5}."""
    return _BARE_BOX.sub(r"\\boxed{\g<content>}", text) if "\\boxed" in text else text


def boxed(text: str) -> str | None:
    """The content of the last \\boxed{...} whose braces balance."""
    text = boxes_braced(text)
    opened: list[tuple[bool, int]] = []  # whether it is a box, and where its inside starts
    last: tuple[int, int] | None = None
    for brace in re.finditer(r"(?P<box>\\boxed\s{0,9})?\{|\}", text):
        if brace[0] != "}":
            opened.append((brace["box"] is not None, brace.end()))
        elif opened:
            is_box, start = opened.pop()
            if is_box and (last is None or start > last[0]):
                last = start, brace.start()
    return text[slice(*last)] if last else None


def is_equal(one: Fraction, other: Fraction, tolerance: float = TOLERANCE) -> bool:
    """Whether two numbers are equal within a relative tolerance.

    Whole numbers are compared exactly, unless the tolerance is larger than the default: they are counts, not measurements.
    """
    if one == other:
        return True
    if one.denominator == other.denominator == 1 and tolerance <= TOLERANCE:
        return False
    size = max(abs(one), abs(other)) if one and other else 1  # nothing but itself is near zero, relatively
    return abs(one - other) <= Fraction(tolerance) * size
