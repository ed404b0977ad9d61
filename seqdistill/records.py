"""Records and their JSONL files: what a prompt and a sample are, how they are read, written and named by hash.

Owns the file formats that stages meet in. Does not know run directories, recipes or models.
"""

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.files import atomic_write, is_temporary, write_text

Message = dict[str, str]  # exactly the keys role and content
ROLES = ("system", "user", "assistant")
JSON_SPACE = " \t\n\r"
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)  # OWNER/NAME of a model or data set on the hub
MOST_NESTED = 100  # levels of JSON from outside: far more than anybody means, far less than Python can write and read again


def conversation_text(messages: Sequence[Message]) -> str:
    """A conversation as one text: a lone message by itself, otherwise each message after its role."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def text_without_system(messages: Sequence[Message]) -> str:
    """The texts of a conversation's messages, less the system's: what this prompt says and others do not."""
    return "\n".join(message["content"] for message in messages if message["role"] != "system")


@dataclass(frozen=True)
class Prompt:
    """One prompt: the teacher's view, the student's view, and what is known about the answer."""

    id: str
    teacher_messages: list[Message]
    messages: list[Message]  # the student's view: what is trained on and what is evaluated
    reference: str | None = None
    slice: str | None = None
    group: str | None = None  # prompts that are not independent (one document, one customer) share a group


@dataclass(frozen=True)
class Sample:
    """One answer of a teacher to one prompt: a line of samples.jsonl, train.jsonl and, with the rejection, rejected.jsonl."""

    id: str  # "<prompt_id>:<teacher>:<n>"
    prompt_id: str
    sample: int
    teacher: str
    prompt: list[Message]
    completion: list[Message]
    reasoning: str | None
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    reference: str | None
    slice: str | None
    tool_calls: list[dict[str, str]] | None = None  # by name, with the arguments as the teacher wrote them
    group: str | None = None  # the prompt's

    @property
    def text(self) -> str:
        """The completion's text, without reasoning."""
        return self.completion[-1]["content"] if self.completion else ""

    @property
    def prompt_text(self) -> str:
        """The prompt's text, without the system's message."""
        return text_without_system(self.prompt)

    @classmethod
    def from_row(cls, row: Mapping[str, Any], place: str) -> "Sample":
        """The sample in a JSONL row; further keys are ignored. Raises UsageError naming `place` and the key."""
        for key, kinds in SAMPLE_KEYS.items():
            if key not in row or not isinstance(row[key], kinds):
                raise UsageError(
                    f"{place}: key {key!r} is missing or of the wrong type: {shortened(row.get(key))}",
                    "a sample has the keys " + ", ".join(SAMPLE_KEYS),
                )
        if not 0 <= row["sample"] < 1 << 63:
            raise UsageError(f"{place}: key 'sample' is {shortened(row['sample'])}", "samples of a prompt are numbered from 0")
        check_messages(row["prompt"], place, "prompt")
        check_messages(row["completion"], place, "completion", may_be_empty=True)
        return cls(**{key: row[key] for key in SAMPLE_KEYS})


SAMPLE_KEYS: dict[str, Any] = {
    "id": str,
    "prompt_id": str,
    "sample": int,
    "teacher": str,
    "prompt": list,
    "completion": list,
    "reasoning": (str, type(None)),
    "finish_reason": str,
    "prompt_tokens": int,
    "completion_tokens": int,
    "reference": (str, type(None)),
    "slice": (str, type(None)),
    "tool_calls": (list, type(None)),
    "group": (str, type(None)),
}


def check_messages(messages: Any, place: str, key: str, may_be_empty: bool = False) -> list[Message]:
    """The chat messages of one record, each with exactly `role` and `content`. Raises UsageError naming place and key."""
    hint = 'a message is {"role": "system" | "user" | "assistant", "content": "text"}'
    if not isinstance(messages, list) or not messages:
        raise UsageError(f"{place}: key {key!r} is not a list of messages: {shortened(messages)}", hint)
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise UsageError(f"{place}: message {number} of {key!r} is {shortened(message)}", hint)
        if message["role"] not in ROLES:
            raise UsageError(f"{place}: message {number} of {key!r} has the unknown role {shortened(message['role'])}", hint)
        if not isinstance(message["content"], str) or not (may_be_empty or message["content"].strip()):
            raise UsageError(f"{place}: message {number} of {key!r} has no text", hint)
    return messages


def shortened(value: Any) -> str:
    """A value as an error quotes it: in Python's notation, at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


# --- JSONL ------------------------------------------------------------------------------------------------------------


def read_jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields ("file:line", row) for each line. Raises UsageError for a missing file or a line that is not an object."""
    try:
        with path.open(encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    place = f"{path}:{number}"
                    yield place, read_row(line, place)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file", NO_FILE) from None
    except (IsADirectoryError, PermissionError) as error:
        raise UsageError(f"{path}: {error.strerror}", "pass a readable file") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8: {error.reason} at byte {error.start}", NOT_UTF8) from None


NO_FILE = (
    "check the path; one in a recipe is relative to the recipe or, of a run that was moved, to the run: put the file there"
)
NOT_UTF8 = (
    "save the file as UTF-8 (in Excel: CSV UTF-8), or convert it from the encoding that it is in, "
    "such as WINDOWS-1252, WINDOWS-1250, MACINTOSH or GB18030: iconv -f ENCODING -t UTF-8 OLD > NEW"
)


def read_row(line: str | bytes, place: str) -> dict[str, Any]:
    """The object in one JSONL line. Raises UsageError naming `place`."""
    try:
        row = from_json(line)
    except json.JSONDecodeError as error:
        raise UsageError(f"{place}: not JSON: {error.msg} at column {error.colno}", "one JSON object a line") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{place}: not UTF-8: {error.reason} at byte {error.start} of the line", NOT_UTF8) from None
    except ValueError as error:
        raise UsageError(f"{place}: not JSON: {error}", "one JSON object a line") from None
    if not isinstance(row, dict):
        raise UsageError(f"{place}: not a JSON object: {shortened(row)}", "one JSON object a line")
    return row


def from_json(text: str | bytes) -> Any:
    """JSON from outside, as a value that can be written and read again.

    Numbers that a float cannot hold are null, and so are NaN and Infinity, which are no JSON. Raises ValueError for what is
    not JSON, is nested deeper than MOST_NESTED or holds an integer of thousands of digits.
    """
    text = text.decode("utf-8", "surrogatepass") if isinstance(text, bytes) else text
    text = text.lstrip("\ufeff" + JSON_SPACE).rstrip(JSON_SPACE)
    value, end = first_json(text)
    if end < len(text):
        raise json.JSONDecodeError("Extra data", text, end)
    return value


def first_json(text: str, start: int = 0) -> tuple[Any, int]:
    """The JSON value that begins at a place of a text, under the rules of `from_json`, and where it ends."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except RecursionError:
        raise ValueError(f"nested deeper than {MOST_NESTED} levels") from None
    if text.count("[", start, end) + text.count("{", start, end) > MOST_NESTED and _depth(value) > MOST_NESTED:
        raise ValueError(f"nested deeper than {MOST_NESTED} levels")
    return value, end


def _finite(number: str) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=lambda _: None)


def _depth(value: Any) -> int:
    """How many lists and objects a JSON value has within each other."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, (dict, list))]:
        depth += 1
        level = [child for one in level for child in (one.values() if isinstance(one, dict) else one)]
    return depth


def read_samples(path: Path) -> Iterator[Sample]:
    """The samples of a file, in file order, one at a time."""
    return (Sample.from_row(row, place) for place, row in read_jsonl(path))


def to_line(row: Any) -> str:
    """One JSONL line, newline included: a dataclass or dict, keys in their order, no ASCII escapes.

    U+2028, U+2029 and U+0085 are escaped, because some readers take them for line ends, and so are lone surrogates.
    """
    text = json.dumps(row, ensure_ascii=False, allow_nan=False, default=vars)  # vars: a dataclass, not copied deep as by asdict
    for character in "\u2028\u2029\u0085":
        if character in text:
            text = text.replace(character, f"\\u{ord(character):04x}")
    return _in_utf8(text) + "\n"


def _in_utf8(text: str) -> str:
    """A JSON text with its lone surrogates, which UTF-8 cannot hold, escaped."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join(f"\\u{ord(c):04x}" if 0xD800 <= ord(c) <= 0xDFFF else c for c in text)
    return text


def write_jsonl(path: Path, rows: Iterable[Any]) -> int:
    """Writes the rows atomically, one line each; returns how many."""
    count = 0
    with atomic_write(path) as file:
        for row in rows:
            file.write(to_line(row))
            count += 1
    return count


def write_json(path: Path, value: Any) -> None:
    """Writes one readable JSON document atomically."""
    write_text(path, json_text(value))


def read_json(path: Path, hint: str = "restore the file, or repeat the command that wrote it") -> dict[str, Any]:
    """The object in a JSON file. Raises UsageError for a damaged one, with what to do, and OSError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path}: damaged: {error}", hint) from None
    if not isinstance(found, dict):
        raise UsageError(f"{path}: damaged: not a JSON object", hint)
    return found


def json_if_whole(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where it is missing or damaged, and what it says is found out again."""
    try:
        return read_json(path)
    except (FileNotFoundError, NotADirectoryError, UsageError):
        return None


def json_text(value: Any) -> str:
    """A value as a readable JSON document."""
    return _in_utf8(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)) + "\n"


PLAIN_TEXT = re.compile(r"[\t\n\x20-\x7e]*")


def visible(text: str) -> str:
    """The text with control, format and surrogate characters shown as escapes; line ends and tabs stay."""
    if PLAIN_TEXT.fullmatch(text):
        return text
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co") else c.encode("unicode_escape").decode()
        for c in text
    )


# --- fingerprints -----------------------------------------------------------------------------------------------------


def fingerprint(value: Any) -> str:
    """The SHA-256 (hex) of a JSON value, independent of key order."""
    return hashlib.sha256(_canonical(value).encode()).hexdigest()


_canonical = json.JSONEncoder(sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode


def prompt_id(messages: list[Message]) -> str:
    """The short id of a prompt: 12 hex digits of the hash of its rendered messages. Same prompt, same id."""
    return fingerprint(messages)[:12]


def request_seed(run_seed: int, prompt: str, sample: int) -> int:
    """The seed of one request, from ids alone: order, batching and resuming cannot change it. 0 <= seed < 2**31."""
    return int(fingerprint([run_seed, prompt, sample])[:8], 16) & 0x7FFFFFFF


def is_hub_source(source: str | None) -> bool:
    """Whether prompts come from the hub, hf:OWNER/NAME[/CONFIG][:SPLIT], and not from a file."""
    return source is not None and source.startswith("hf:")


def seal(document: Mapping[str, Any]) -> str:
    """A document's own hash, which it holds as `seal`: one changed byte in it shows."""
    return fingerprint(json.loads(json.dumps({name: value for name, value in document.items() if name != "seal"})))


def is_sealed(path: Path, document: Mapping[str, Any]) -> bool:
    """Whether a JSON file is, to the byte, what was written."""
    return bool(document.get("seal") == seal(document)) and path.read_text(encoding="utf-8") == json_text(document)


def content_files(path: Path) -> list[Path]:
    """The files that make up a file or folder, in order.

    A folder's README.md, its card, describes it and is left out, as is what was not written to its end.
    """
    if not path.is_dir():
        return [path]
    parts = (part for part in path.rglob("*") if part != path / "README.md" and part.is_file())
    return sorted(part for part in parts if not any(map(is_temporary, part.relative_to(path).parts)))


def file_sha256(path: Path) -> str:
    """The SHA-256 (hex) of a file, or of a folder's content with the files' relative names."""
    if path.is_dir():
        return fingerprint([[str(part.relative_to(path)), file_sha256(part)] for part in content_files(path)])
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
