"""Phone numbers in text, by the numbering of each country: Google's libphonenumber data, from phonenumbers."""

import re
from collections.abc import Iterator
from functools import lru_cache

import phonenumbers
from phonenumbers import Leniency, PhoneNumber, PhoneNumberMatcher

from seqdistill.personal_data.finding import Finding

_GROUP = re.compile(r"\+? ?\(\+?\d+\)|\+ ?\d+|\d+")
# A word for calling. Those of the second group are everyday words as well: they count where the number follows at once.
_PHONE_WORD = re.compile(
    r"(?:\b(?:(?:tele?(?:ph|f)ono?e?n?|tel|fon|calling|cellulare|cellphone|fax|hotline|whatsapp|rufnummer|tél|t[ée]l[ée]phone"
    r"|appel(?:er|ez)|llam(?:e|ar|a)|m[oó]vil|telefon[eo]?|telefoon)"
    r"|(?P<everyday>phone|call|ring|dial|mobile?|cell|handy|sms|text|portable|bel|ligue|ph|contact))\b"
    r"|тел(?:ефон)?|电话|手机|電話)(?P<between>[^\d\n]{0,24})$",
    re.IGNORECASE,
)
_AT_ONCE = re.compile(
    r"(?:\W|\b(?:us|me|him|her|them|it|at|on|no|nr|number|is|now|al|aan|auf|au|le|unter|via)\b)*|.*:\s*", re.IGNORECASE
)
_COUNTS = re.compile(  # after an everyday word: small numbers, thousands, years, decimals, long series
    r"\d{1,2}(?:[ /-]\d{1,2})+|\d{1,2}(?:[ ,.]\d{3})+|(?:19|20)\d\d(?:[ /-](?:19|20)\d\d)+|\d+\.\d+(?:[ –-]+\d+\.\d+)+"
    r"|\d{3,4}(?: \d{3,4}){3,}|\d+(?:/\d+){2,}"
)
_NUMBER_WORD = re.compile(
    r"(?:(?<![A-Za-z])(?:order|invoice|ref(?:erence)?|ticket|account|case|id|no|nr|isbn(?:-1[03])?|issn|serial|sku|code"
    r"|part|lot|permit"
    r"|file|gtin|ean|upc|transaction|tracking|(?:customer|user|member|contract|client)(?=\"|[ _-]?(?:number|num|id|no"
    r"|code)\b)|commande|facture|pedido|factura"
    r"|referencia|ordine"
    r"|fattura|(?:bestell|auftrags?|kunden|vertrags|rechnungs|sendungs|artikel|serien|mitglieds)-?(?:nummer|nr))"
    r"(?:[ _-]?(?:number|nummer|nr|num|id|no|code))?|订单号|單號|单号|编号|注文番号|주문번호|#)\W{0,5}$",
    re.IGNORECASE,
)
_DATE = (
    r"(?:[0-3]?\d[-./][01]?\d[-./](?:19|20)?\d\d|[0-3]?\d [01]?\d (?:19|20)\d\d|(?:19|20)\d\d(?:[-./ ][01]?\d[-./ ][0-3]?\d)?)"
)
_TIME = r"[012]?\d(?:\.[0-5]\d)?"
_NOT_DIALLED = re.compile(  # dates and times, decimals, 123-45-6789
    rf"{_DATE}(?: ?[-–/] ?{_DATE}| {_TIME}| [-–] {_TIME})*|{_TIME} ?[-–] ?{_TIME}|\d+\.\d+|\d{{3}}-\d\d-\d{{4}}"
)
_NORTH_AMERICAN = re.compile(r"(?:\+?1[-. ]?)?(?:\([2-9]\d\d\) ?\d{3}[-. ]\d{4}|[2-9]\d\d([-.])\d{3}\1\d{4})")
_MOST_GROUPS = 8


def phones(text: str, runs: list[re.Match[str]], regions: tuple[str, ...]) -> Iterator[Finding]:
    """Runs of digit groups, and in each the longest stretches that someone would dial."""
    for run in runs:
        if _NOT_DIALLED.fullmatch(run[0].rstrip(" .-–(/")):
            continue
        first = run.start() - 2 + len(text[max(0, run.start() - 2) : run.start()].rstrip("+(")) if run.start() > 1 else 0
        before, end = text[max(0, first - 40) : first], 0
        groups = [group.span() for group in _GROUP.finditer(text, first, run.end())]
        for number, (start, _) in enumerate(groups):
            if start >= end:
                called = number == 0 and _is_called(before, text[start : groups[-1][1]])
                numbered = number == 0 and _NUMBER_WORD.search(before) is not None
                ends = [after for _, after in groups[number : number + _MOST_GROUPS]]
                found = _longest(text, start, ends, called, numbered, regions)
                if found:
                    yield found
                    end = found.end


def _is_called(before: str, digits: str) -> bool:
    """Whether the words before these groups of digits say that they are dialled."""
    word = _PHONE_WORD.search(before)
    if word is None or word["everyday"] is None:
        return word is not None
    return _AT_ONCE.fullmatch(word["between"]) is not None and not _COUNTS.fullmatch(digits)


def _longest(text: str, start: int, ends: list[int], called: bool, numbered: bool, regions: tuple[str, ...]) -> Finding | None:
    """The longest phone number that begins at `start`, after a word for calling or for numbering, or neither."""
    if start and not _stands_free(text[max(0, start - 2) : start]):
        return None
    if not (called or text[start] in "+(0" or _NORTH_AMERICAN.match(text, start)):
        return None
    if not called and _is_operand(text[max(0, start - 4) : start], text[start : start + 2]):
        return None
    crowded = numbered or (start > 1 and text[start - 1] == " " and text[start - 2].isdigit())
    for end in reversed(ends):
        written = text[start:end]
        if len(written) > 6 and not _continues(text[end : end + 2]) and 7 <= sum(map(str.isdigit, written)) <= 15:
            if "+" in written[2:] or (not called and _SUM.match(text, end)):
                continue
            value = _dialled(
                written, called, crowded or (text[end : end + 1] == " " and text[end + 1 : end + 2].isdigit()), regions
            )
            if value:
                return Finding("phone", start, end, value)
    return None


def _stands_free(before: str) -> bool:
    """Whether a number may begin after these two characters: not within a word, a decimal, a time, an amount or a range."""
    if before[-1] in ":." and (before[0].isalpha() or before[0] == "."):  # "tel:", "Tel."
        return True
    return not (before[-1].isalnum() or before[-1] in "_.,:#$€£¥@=%&/\\-–+")


_SUM = re.compile(r"\s{0,3}[+*×÷=≈^](?!\s?\()|\s{1,3}[−/]\s")


def _is_operand(before: str, first: str) -> bool:
    """Whether what follows these characters is a term of a sum: a sign of calculation before it, or a plus of its own."""
    left = before.rstrip()
    if first.startswith("+"):  # a country code follows its plus, and no number precedes it
        return first[1:2].isspace() or left[-1:].isdigit() or left[-1:] in (")", "=", "+", "*", "×")
    return left[-1:] in ("+", "*", "×", "÷", "=", "≈", "^")


def _continues(after: str) -> bool:
    return bool(after) and (after[0].isalnum() or after[0] in "_%€$£°@" or (after[0] in ".,:-/–" and after[1:2].isdigit()))


@lru_cache(maxsize=1 << 16)
def _dialled(written: str, called: bool, numbered: bool, regions: tuple[str, ...]) -> str:
    """The number as it is dialled (E.164 where known), or "" when this is no phone number.

    A national number counts when it is grouped as its country groups it (libphonenumber's strict grouping) and begins
    with a trunk 0 or a bracketed area, or is in the North American form; others only where a word like "tel" precedes.
    """
    digits = re.sub(r"\D", "", written)
    if written.startswith(("+", "(+")):
        number = _parsed(written.replace("(0)", ""), None)
        return _e164(number) if number and phonenumbers.is_possible_number(number) else ""
    if _NOT_DIALLED.fullmatch(written):
        return ""
    if _NORTH_AMERICAN.fullmatch(written):
        return "+1" + digits[-10:]
    if not called and (numbered or written[0] not in "0(" or len(digits) < 9):
        return ""
    if written.startswith("00"):
        number = _parsed("+" + digits[2:], None)
        return _e164(number) if number and phonenumbers.is_valid_number(number) else ""
    plain = written.isdigit()
    for region in regions:
        number = _parsed(written, region)
        if number and phonenumbers.is_valid_number(number):
            mobile = plain and phonenumbers.number_type(number) == phonenumbers.PhoneNumberType.MOBILE
            if (
                (called and not (plain and len(digits) < 9))
                or mobile
                or (not plain and PhoneNumberMatcher(written, region, Leniency.STRICT_GROUPING).has_next())
            ):
                return _e164(number)
    return digits if called and not plain else ""


def _parsed(written: str, region: str | None) -> PhoneNumber | None:
    try:
        return phonenumbers.parse(written, region)
    except phonenumbers.NumberParseException:
        return None


def _e164(number: PhoneNumber) -> str:
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
