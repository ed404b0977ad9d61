"""Writing systems and languages: completions that slip into another than their prompt's, found by being rare in their slice.

In translation most completions change language, so the change alone is no fault: not where the prompt mentions a language
or a translation, not where it is written in both itself, and not where most of the slice is answered so. A short answer in
Latin letters (a label, a formula), names and code, fenced or not, are in no language.
"""

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

from seqdistill.records import Message

FEWEST_ROWS = 20  # a smaller slice does not show what is usual
READ = 2000  # characters of a text: of its start and its end, as a question may be before or after what it is about
FEWEST_OF_A_LINE = 6  # letters of a line that say what it is written in
FEWEST_LETTERS = 30  # of an answer that is more than a label, a name or a formula
SPOKEN = 0.05  # of a prompt's letters in another writing system: it is written in both
SURE = 0.9  # a language identified with less confidence is treated as unknown


_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]{1,400}`|\$[^$\n]{1,400}\$", re.DOTALL)
_NOT_READ = re.compile(  # of code without a fence: comments, docstrings, strings, lines that begin with a command
    r"(?s:\"\"\".*?(?:\"\"\"|\Z)|'''.*?(?:'''|\Z))|(?:#(?!#)|//|--|/\*).*|\"[^\"\n]{0,200}\"|'[^'\n]{0,200}'(?=[,)\]};])"
    r"|^\s*[$>]?\s*(?:select|insert|update|delete|create|alter|with|sudo|apt|npm|pip|git|docker|kubectl|brew|cd|echo|import|from"
    r"|if|elif|for|while|return|assert|raise|yield|let|const|var) .*|\bfor \w+ in [^])\n]{0,80}(?=[])])",
    re.MULTILINE,
)
_PLAIN = r"[a-z\u00df-\u024f\u1e00-\u1eff'’]"
_FIVE_WORDS = re.compile(rf"(?<![^\W_])(?:{_PLAIN}++,? ){{4}}{_PLAIN}++(?![\w(])")
_NAMES = (
    "english|german|french|spanish|italian|portuguese|dutch|polish|swedish|danish|norwegian|finnish|czech|slovak|hungarian|romanian"
    "|turkish|vietnamese|indonesian|malay|tagalog|filipino|swahili|latin|russian|ukrainian|bulgarian|serbian|croatian|macedonian"
    "|belarusian|kazakh|mongolian|cyrillic|chinese|mandarin|cantonese|japanese|kanji|hiragana|katakana|romaji|pinyin|korean|hangul"
    "|arabic|persian|farsi|urdu|pashto|kurdish|hebrew|yiddish|thai|lao|khmer|burmese|hindi|sanskrit|marathi|nepali|bengali|tamil"
    "|telugu|kannada|malayalam|gujarati|punjabi|sinhala|greek|georgian|armenian|amharic|devanagari|translat\\w*|transliterat\\w*"
    "|traduc\\w*|tradui\\w*|tradu[zç]\\w*|übersetz\\w*|перев[её]д\\w*|перевод\\w*|английск\\w*|русск\\w*|китайск\\w*|немецк\\w*|anglais|englisch"
    "|ingl[eéê]s\\w*|deutsch|français|español|язык\\w*|language|ترجم\\w*|الإنجليزية|بالإنجليزية|العربية|अनुवाद|अंग्रेज़ी|हिंदी|हिन्दी"
)
_LANGUAGE = re.compile(
    rf"\b(?:{_NAMES})\b|翻译|翻譯|译成|譯成|译为|訳|英文|英语|英語|中文|汉语|漢語|日文|日语|日本語|法语|法文|德语|俄语|韩语|한국어|영어|번역"
    r"|แปล|อังกฤษ|ภาษา|拼音",
    re.IGNORECASE,
)


def script(text: str) -> str:
    """The writing system of most of a text's letters, as Unicode names it ("LATIN", "CYRILLIC", "CJK"); "" without letters."""
    if text.isascii():
        return "LATIN" if any(map(str.isalpha, text)) else ""
    letters = [character for character in _read(text) if character.isalpha()]
    if not letters:
        return ""
    names = Counter(unicodedata.name(letter, "?").partition(" ")[0] for letter in letters)
    japanese = names["HIRAGANA"] + names["KATAKANA"]
    if japanese:
        names["CJK"] += japanese
        del names["HIRAGANA"], names["KATAKANA"]
    return max(sorted(names), key=names.__getitem__)


def asks_for_another(prompt: Sequence[Message]) -> bool:
    """Whether a prompt mentions a language or translating: its answer may well be in another language."""
    return any(_LANGUAGE.search(message["content"]) for message in prompt)


def may_change_script(prompt: Sequence[Message], completion: str) -> bool:
    """Whether this prompt may well be answered in another writing system than its own."""
    plain = _CODE.sub(" ", completion)
    mine = script(plain)
    short = sum(map(str.isalpha, plain)) < FEWEST_LETTERS
    if not mine or (mine == "LATIN" and (short or _is_formula(plain) or not _is_prose(plain))) or asks_for_another(prompt):
        return True
    whole = "\n".join(message["content"] for message in prompt)
    if any(script(line) == mine for line in whole.splitlines() if sum(map(str.isalpha, line)) >= FEWEST_OF_A_LINE):
        return True
    letters = [letter for letter in _read(whole) if letter.isalpha()]
    like_mine = sum(script(letter) == mine for letter in letters)
    return bool(like_mine) and (short or like_mine >= SPOKEN * len(letters))  # a label may occur once in a long prompt


def may_change_language(prompt: Sequence[Message], completion: str) -> bool:
    """Whether this prompt may well be answered in `completion`, a language that is not that of most of it."""
    if asks_for_another(prompt):
        return True
    lines = [line for line in prompt[-1]["content"].splitlines() if line.strip()]
    return completion in {language(line) for line in (*lines[:1], *lines[-2:])}


def _read(text: str) -> str:
    return text if len(text) <= READ else text[: READ // 2] + text[-READ // 2 :]


def _is_formula(text: str) -> bool:
    """Whether most lines look like code or formulas: more of their characters are signs and digits than a text has."""
    signs = sum(not (character.isalpha() or character.isspace()) for character in text)
    return signs > 0.25 * len(text)


def _is_prose(text: str) -> bool:
    """Whether a text in Latin letters has five plain words in a row, as sentences have; lists of names and code have not."""
    return any(found[0].count(",") < 2 for found in _FIVE_WORDS.finditer(_NOT_READ.sub(" ", _read(text))))


def language(text: str) -> str:
    """The language of a text, of 97, as ISO 639 codes it ("en"); "" where it is uncertain, as for a few words."""
    found: str = _identifier().classify(_read(text).encode(errors="replace"))[0]
    return "" if found == "und" else found


@functools.cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True, min_confidence=SURE)


def slips(written: Sequence[tuple[str, str]], slices: Sequence[str], smallest_share: float) -> dict[int, str]:
    """The reason for each row whose completion is written in another than its prompt, where too few are.

    `written` holds each row's (prompt's, completion's) script or language, "" where it has none or may change it. Too few are
    less than `smallest_share` of the slice's rows whose prompts are written like this one's.
    """
    rows = Counter(name for name, (prompt, completion) in zip(slices, written, strict=True) if prompt and completion)
    prompts = Counter(
        (name, prompt) for name, (prompt, completion) in zip(slices, written, strict=True) if prompt and completion
    )
    like = Counter((name, *both) for name, both in zip(slices, written, strict=True))
    return {
        row: f"written in {completion}, its prompt in {prompt}, unasked; so are {like[name, prompt, completion]} of "
        f"{prompts[name, prompt]} of its slice"
        for row, ((prompt, completion), name) in enumerate(zip(written, slices, strict=True))
        if prompt
        and completion
        and prompt != completion
        and rows[name] >= FEWEST_ROWS
        and like[name, prompt, completion] < smallest_share * prompts[name, prompt]
    }
