"""Personal data and secrets in text: found by rule and checksum, counted, masked, never repeated.

Owns what counts as an e-mail address, a phone number, a payment card, an IBAN or a secret, and how a sample is masked. It
does not decide what happens to the sample: the filter does. Works offline and holds no model, so names and street
addresses are not found.

Checksums and each country's numbering come from libraries that follow them: python-stdnum (Luhn, IBAN) and phonenumbers
(Google's libphonenumber data). The shapes of keys are those that their issuers document.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import phonenumbers
from phonenumbers import Leniency, PhoneNumber, PhoneNumberMatcher
from stdnum import ean, iban, luhn

from seqdistill.recipe.tables import PersonalDataConfig
from seqdistill.records import Sample

KINDS = ("secret", "email", "iban", "card", "phone")  # where two overlap, the earlier kind holds
REGIONS = tuple(PersonalDataConfig().phone_regions)


@dataclass(frozen=True)
class Finding:
    """One place in a text. `value` is the normalised value, equal for two spellings of it; it is kept out of `repr`."""

    kind: str  # one of KINDS
    start: int
    end: int
    value: str = field(repr=False)


def find(text: str, regions: Sequence[str] = REGIONS) -> list[Finding]:
    """The personal data of a text, from left to right, without overlaps.

    `regions` are the countries (ISO 3166, two letters) whose national way of writing a phone number counts; numbers with
    a country code count everywhere.
    """
    found: list[Finding] = []
    for search in (_secrets, _emails):
        _add(found, search(text))
    runs = [run for run in _RUN.finditer(text) if run.end() - run.start() >= 7 and _MANY_DIGITS.search(run[0])]
    if runs:
        _add(found, _ibans(text))
        _add(found, _cards(text, runs))
        _add(found, _phones(text, runs, tuple(regions)))
    return sorted(found, key=lambda finding: finding.start)


def _add(found: list[Finding], more: Iterator[Finding]) -> None:
    for new in more:
        if not any(new.start < old.end and old.start < new.end for old in found):
            found.append(new)


# --- a sample -------------------------------------------------------------------------------------------------------------


def count(sample: Sample, regions: Sequence[str] = REGIONS) -> dict[str, int]:
    """How many distinct values of each kind are in a sample: prompt, completion, reasoning and reference together."""
    values = {(found.kind, found.value) for text in _texts(sample) for found in find(text, regions)}
    counts = Counter(kind for kind, _ in values)
    return {kind: counts[kind] for kind in KINDS if counts[kind]}


def reason(counts: dict[str, int]) -> str:
    """The reason of a rejection: the kinds and how many of each, never a value."""
    return ", ".join(f"{number} {kind}" for kind, number in counts.items())


def mask(sample: Sample, regions: Sequence[str] = REGIONS) -> tuple[Sample, dict[str, int]]:
    """The sample with each value replaced by a placeholder such as [EMAIL_1], and the counts by kind.

    One value has one placeholder in the whole sample, however it is spelt. Values are numbered from the prompt on, so all
    samples of a prompt call its values the same. Placeholders that are already in the text are left alone and their
    numbers are not used again: masking twice changes nothing.
    """
    taken = {match for text in _texts(sample) for match in _PLACEHOLDER.findall(text)}
    names: dict[tuple[str, str], str] = {}

    def name(kind: str, value: str) -> str:
        if (kind, value) not in names:
            number = 1
            while (candidate := f"[{kind.upper()}_{number}]") in taken:
                number += 1
            taken.add(candidate)
            names[kind, value] = candidate
        return names[kind, value]

    def masked(text: str) -> str:
        parts, end = [], 0
        for found in find(text, regions):
            parts += [text[end : found.start], name(found.kind, found.value)]
            end = found.end
        return "".join([*parts, text[end:]]) if parts else text

    prompt = [{**message, "content": masked(message["content"])} for message in sample.prompt]
    reference = None if sample.reference is None else masked(sample.reference)
    completion = [{**message, "content": masked(message["content"])} for message in sample.completion]
    reasoning = None if sample.reasoning is None else masked(sample.reasoning)
    counts = Counter(kind for kind, _ in names)
    if not names:
        return sample, {}
    clean = replace(sample, prompt=prompt, completion=completion, reasoning=reasoning, reference=reference)
    return clean, {kind: counts[kind] for kind in KINDS if counts[kind]}


def hidden(text: str, regions: Sequence[str] = REGIONS) -> str:
    """The text with its personal data named by kind alone, for reports."""
    parts, end = [], 0
    for found in find(text, regions):
        parts += [text[end : found.start], f"[{found.kind.upper()}]"]
        end = found.end
    return "".join([*parts, text[end:]])


def _texts(sample: Sample) -> Iterator[str]:
    for message in (*sample.prompt, *sample.completion):
        yield message["content"]
    yield from (text for text in (sample.reference, sample.reasoning) if text)


_PLACEHOLDER = re.compile(rf"\[(?:{'|'.join(kind.upper() for kind in KINDS)})_\d+\]")


# --- e-mail ---------------------------------------------------------------------------------------------------------------

_EMAIL = re.compile(r"(?<![\w.+%/-])[\w.+%'-]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,24}(?![\w-]|:[\w~/.])")
_FILE_ENDINGS = ("png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "ts", "py", "json", "local")


def _emails(text: str) -> Iterator[Finding]:
    if "@" not in text:
        return
    for match in _EMAIL.finditer(text):
        address = match[0].lstrip("'.")
        ending = address.rpartition(".")[2].lower()
        if (
            ending not in _FILE_ENDINGS
            and not address.startswith("@")
            and not _is_code(address, text[match.end() : match.end() + 1])
        ):
            yield Finding("email", match.end() - len(address), match.end(), address.casefold())


_LABELLED = ("this@", "super@", "return@", "break@", "continue@")  # Kotlin: this@Activity.finish
_TOP_LEVEL = ("com", "org", "net", "edu", "gov", "info", "example", "test")


def _is_code(address: str, after: str) -> bool:
    """Whether what looks like an address is an expression: a label of Kotlin, a product of matrices, a call."""
    if address.startswith(_LABELLED):
        return True
    local, _, domain = address.partition("@")
    ending = domain.rpartition(".")[2]
    if (len(ending) == 2 and ending.islower()) or ending.lower() in _TOP_LEVEL:
        return False
    return after == "(" or (len(local) == 1 and len(domain.partition(".")[0]) == 1)


# --- numbers with a checksum ------------------------------------------------------------------------------------------------

# These patterns begin with a digit and look back, so that a text is passed over at the speed of a search for digits.
_RUN = re.compile(r"\d[\d \u00a0\u202f().+\-/–]*+")
_MANY_DIGITS = re.compile(r"\d(?:[^\d]*\d){6}")
_IBAN = re.compile(r"\d\d(?<=(?<![A-Za-z0-9])[A-Za-z]{2}\d\d)(?:[ \u00a0-]?[A-Za-z0-9]{1,4}){3,8}(?![A-Za-z0-9])")
_CARD = re.compile(r"\d(?<![\w.-]\d)(?:[ \u00a0-]?\d){11,18}(?![\w-])")
# https://en.wikipedia.org/wiki/Payment_card_number: issuer ranges and lengths
_ISSUERS = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}"
    r"|(?:6011|65\d\d|64[4-9]\d)\d{12}|3(?:0[0-5]|[689]\d)\d{11}|35(?:2[89]|[3-8]\d)\d{12}|62\d{14,17}|(?:50|5[6-8]"
    r"|6[37])\d{10,17}"
)
_LAST_GROUP = re.compile(r"[ \u00a0-]?[A-Za-z0-9]+$")
_GROUPINGS = ((4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 4, 3), (4, 4, 5), (6, 13))


def _ibans(text: str) -> Iterator[Finding]:
    for match in _IBAN.finditer(text):
        start = match.start() - 2
        written = text[start : match.end()]
        while len(written) >= 15:  # the last group may be the next word: an IBAN's length is its country's
            if iban.is_valid(written, check_country=False):
                yield Finding("iban", start, start + len(written), iban.compact(written))
                break
            written = _LAST_GROUP.sub("", written)


def _cards(text: str, runs: list[re.Match[str]]) -> Iterator[Finding]:
    for match in (match for run in runs for match in _CARD.finditer(text, run.start(), run.end() + 1)):
        groups = re.split(r"[ \u00a0-]", match[0])
        digits = "".join(groups)
        written_so = len(groups) == 1 or tuple(map(len, groups)) in _GROUPINGS
        if written_so and _ISSUERS.fullmatch(digits) and luhn.is_valid(digits) and not _is_article(text, match):
            yield Finding("card", match.start(), match.end(), digits)


_ARTICLE_WORD = re.compile(
    r"(?<![A-Za-z])(?:e?gtin(?:-?1[34])?|ean(?:-?13)?|upc|barcode|strichcode|isbn)\W{0,5}$", re.IGNORECASE
)


def _is_article(text: str, match: re.Match[str]) -> bool:
    """Whether a number is that of an article for sale: a valid bar code as long as no card is today, or named as one."""
    return (match[0].isdigit() and len(match[0]) <= 13 and ean.is_valid(match[0])) or (
        _ARTICLE_WORD.search(text[max(0, match.start() - 16) : match.start()]) is not None
    )


# --- phone ----------------------------------------------------------------------------------------------------------------

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


def _phones(text: str, runs: list[re.Match[str]], regions: tuple[str, ...]) -> Iterator[Finding]:
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
        if len(written) > 6 and not _goes_on(text[end : end + 2]) and 7 <= sum(map(str.isdigit, written)) <= 15:
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
    if first.startswith("+"):  # a country code stands at its plus, and behind no number
        return first[1:2].isspace() or left[-1:].isdigit() or left[-1:] in (")", "=", "+", "*", "×")
    return left[-1:] in ("+", "*", "×", "÷", "=", "≈", "^")


def _goes_on(after: str) -> bool:
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


# --- secrets ----------------------------------------------------------------------------------------------------------------

_ISSUED = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"sk-(?:proj-|svcacct-|admin-|ant-|or-)?[A-Za-z0-9_-]{20,}"  # OpenAI, Anthropic, OpenRouter
    r"|A(?:KIA|SIA|BIA|CCA)[A-Z2-7]{16}(?![A-Za-z0-9])"  # AWS
    r"|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}|glpat-[A-Za-z0-9_-]{20,}"
    r"|hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,}"
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,}|AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,}"  # Slack, Google
    r"|[srp]k_(?:live|test)_[A-Za-z0-9]{16,}|SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"  # Stripe, SendGrid
    r"|dop_v1_[a-f0-9]{64}|dapi[a-f0-9]{32}|\d{8,10}:AA[A-Za-z0-9_-]{33}"  # DigitalOcean, Databricks, Telegram
    r"|eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{10,}"  # JSON Web Token (RFC 7519)
    r")"
)
_ISSUED_SIGNS = (
    *("sk-", "AKIA", "ASIA", "ABIA", "ACCA", "gh", "github_pat_", "glpat-", "hf_", "npm_", "pypi-", "xox", "AIza", "ya29."),
    *("k_live_", "k_test_", "SG.", "dop_v1_", "dapi", ":AA", "eyJ"),
)
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]{0,40}-----|\Z)", re.DOTALL)
_IN_URL = re.compile(r"(?<=://)[^\s:/@'\"]{0,64}:[^\s:/@'\"]{3,128}(?=@[\w.\[-])")
_BEARER = re.compile(r"\b(?:Bearer|Authorization: Basic)\s+([A-Za-z0-9_.~+/=-]{20,})")
_ASSIGNED = re.compile(
    r"(?<![A-Za-z])(?P<name>(?:api|access|secret|private|auth|client|account|signing|encryption)"
    r"[_ -]?(?:key(?:[_ -]?id)?|token|secret)"
    r"|secret|token|apikey|passw(?:or)?d|passphrase|pwd|kennwort|passwort|contraseña|mot de passe)"
    r"[\"'`]?\s{0,3}(?::=|=>|=|:)\s{0,3}[\"'`]?(?P<value>[^\s\"'`<>(){}\[\],;]{8,256})",
    re.IGNORECASE,
)
_ASSIGNED_SIGNS = ("key", "secret", "token", "pass", "pwd", "kennwort", "contraseña")
_STAND_IN = re.compile(
    r"x{4,}|\*{3,}|\.{3}|example|your|changeme|placeholder|redacted|^\$|^%|^[<{\[].*[>}\]]$|://"
    r"|^(?:user(?:name)?:)?(?:pass(?:word|wd)?|pwd|secret)$",
    re.IGNORECASE,
)


def _secrets(text: str) -> Iterator[Finding]:
    if "PRIVATE KEY" in text:
        yield from (_secret(match, 0) for match in _PEM.finditer(text))
    if any(sign in text for sign in _ISSUED_SIGNS):
        found = (match for match in _ISSUED.finditer(text) if re.search(r"\d", match[0]) and not _STAND_IN.search(match[0]))
        yield from (_secret(match, 0) for match in found)
    if "://" in text and "@" in text:
        found = (match for match in _IN_URL.finditer(text) if not _STAND_IN.search(match[0].partition(":")[2]))
        yield from (_secret(match, 0) for match in found)
    if "Bearer" in text or "Basic" in text:
        yield from (_secret(match, 1) for match in _BEARER.finditer(text) if not _STAND_IN.search(match[1]))
    lower = text.lower()
    if ("=" in text or ":" in text) and any(sign in lower for sign in _ASSIGNED_SIGNS):
        yield from (_secret(match, "value") for match in _ASSIGNED.finditer(text) if _looks_random(match))


def _secret(match: re.Match[str], group: int | str) -> Finding:
    return Finding("secret", match.start(group), match.end(group), match[group])


def _looks_random(match: re.Match[str]) -> bool:
    """Whether an assigned value was drawn rather than written: letters and digits mixed, of high entropy, no stand-in."""
    value = match["value"].rstrip(".!?")
    is_password = match["name"].lower()[0] in "pkcm" and "key" not in match["name"].lower()
    if len(value) < (8 if is_password else 16) or _STAND_IN.search(value):
        return False
    mixed = re.search(r"\d", value) and re.search(r"[A-Za-z]", value)
    return bool(mixed) and entropy(value) >= (2.5 if is_password else 3.2)


def entropy(text: str) -> float:
    """Shannon entropy of a text's characters, in bits a character."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())
