"""Personal data and secrets in text: found by rule and checksum, counted, masked, never repeated.

Owns what counts as an e-mail address, a payment card or an IBAN, and how a sample is masked; `phones` and `secrets` have the
rest. It does not decide what happens to the sample: the filter does. Works offline and holds no model, so names and street
addresses are not found.

Checksums and each country's numbering come from libraries that follow them: python-stdnum (Luhn, IBAN) and phonenumbers
(Google's libphonenumber data). The shapes of keys are those that their issuers document.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from stdnum import ean, iban, luhn

from seqdistill.personal_data.finding import Finding
from seqdistill.personal_data.phones import phones
from seqdistill.personal_data.secrets import secrets
from seqdistill.recipe.tables import PersonalDataConfig
from seqdistill.records import Sample

KINDS = ("secret", "email", "iban", "card", "phone")  # where two overlap, the earlier kind holds
REGIONS = tuple(PersonalDataConfig().phone_regions)


_QUOTES = "\"'"
_ESCAPED = re.compile(r"\\([nrt\"'])")  # in JSON and in code: a line break and a quotation mark are no part of a value


def find(text: str, regions: Sequence[str] = REGIONS) -> list[Finding]:
    """The personal data of a text, from left to right, without overlaps.

    `regions` are the countries (ISO 3166, two letters) whose national way of writing a phone number counts; numbers with
    a country code count everywhere.
    """
    text = _ESCAPED.sub(lambda escaped: f" {escaped[1] if escaped[1] in _QUOTES else ' '}", text) if "\\" in text else text
    found: list[Finding] = []
    for search in (secrets, _emails):
        _add(found, search(text))
    runs = [run for run in _RUN.finditer(text) if run.end() - run.start() >= 7 and _MANY_DIGITS.search(run[0])]
    if runs:
        _add(found, _ibans(text))
        _add(found, _cards(text, runs))
        _add(found, phones(text, runs, tuple(regions)))
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
        return _replaced(text, regions, name)

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
    return _replaced(text, regions, lambda kind, _: f"[{kind.upper()}]")


def _replaced(text: str, regions: Sequence[str], name: Callable[[str, str], str]) -> str:
    """The text with what `name` makes of kind and value in the place of its personal data."""
    parts, end = [], 0
    for found in find(text, regions):
        parts += [text[end : found.start], name(found.kind, found.value)]
        end = found.end
    return "".join([*parts, text[end:]])


def _texts(sample: Sample) -> Iterator[str]:
    for message in (*sample.prompt, *sample.completion):
        yield message["content"]
    yield from (text for text in (sample.reference, sample.reasoning) if text)


_PLACEHOLDER = re.compile(rf"\[(?:{'|'.join(kind.upper() for kind in KINDS)})_\d+\]")


# --- e-mail ---------------------------------------------------------------------------------------------------------------

_LATIN = r"A-Za-z0-9_.+%'\u00c0-\u024f\u1e00-\u1eff-"
_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_EMAIL = re.compile(  # in Latin letters it ends where another script begins: 邮箱anna@example.com联系
    rf"(?:(?<![{_LATIN}])(?<!//)[{_LATIN}]{{1,64}}"
    rf"|(?<![\w.+%/-])(?:[{_UNSPACED}]{{1,30}}|(?:(?![A-Za-z{_UNSPACED}])[\w.+%'-]){{1,64}}))(?:@|%40)"
    r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+(?:[A-Za-z]{2,24}(?![A-Za-z0-9_-])|[^\W\d_]{2,24}(?![\w-]))(?!(?:\.[\w-]{1,63}){0,4}:[\w~/.])"
)
_FILE_ENDINGS = ("png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "ts", "py", "json", "local")


def _emails(text: str) -> Iterator[Finding]:
    if "@" not in text and "%40" not in text:
        return
    for match in _EMAIL.finditer(text):
        written = match[0].lstrip("'.")
        address = written.replace("%40", "@")
        ending = address.rpartition(".")[2].lower()
        if (
            ending not in _FILE_ENDINGS
            and not address.startswith("@")
            and not _is_code(address, text[match.end() : match.end() + 1])
        ):
            yield Finding("email", match.end() - len(written), match.end(), address.casefold())


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
_CARD_WORD = re.compile(  # after it, a card of an issuer that has gone, or is local
    r"(?:\b(?:(?:credit|debit|bank|visa|master) ?card|card(?: (?:number|no\.?|num|#))?|cc|kreditkarten?(?:nummer)?|tarjeta"
    r"|carte(?: bancaire)?|cartão|carta di credito|kaart)|карт[аеуы]|卡号|カード番号)\b(?:\s(?:is|number|no\.?))?\W{0,4}$",
    re.IGNORECASE,
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
        of_issuer = _ISSUERS.fullmatch(digits) or _CARD_WORD.search(text[max(0, match.start() - 24) : match.start()])
        if written_so and of_issuer and luhn.is_valid(digits) and not _is_article(text, match):
            yield Finding("card", match.start(), match.end(), digits)


_ARTICLE_WORD = re.compile(
    r"(?<![A-Za-z])(?:e?gtin(?:-?1[34])?|ean(?:-?13)?|upc|barcode|strichcode|isbn)\W{0,5}$", re.IGNORECASE
)


def _is_article(text: str, match: re.Match[str]) -> bool:
    """Whether a number is that of an article for sale: a valid bar code as long as no card is today, or named as one."""
    return (match[0].isdigit() and len(match[0]) <= 13 and ean.is_valid(match[0])) or (
        _ARTICLE_WORD.search(text[max(0, match.start() - 16) : match.start()]) is not None
    )
