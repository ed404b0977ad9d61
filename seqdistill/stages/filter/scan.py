"""The one pass over the samples: what each row breaks on its own, and facts of fixed size for the rules that compare rows.

`facts_of` is a pure function of a span of the file, so that it can run anywhere. Texts are not kept: memory grows with the
number of rows, and the word pairs are in a temporary file. Does not decide between rows.
"""

import functools
import hashlib
import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from seqdistill.errors import UsageError
from seqdistill.metrics.refusals import refusal
from seqdistill.personal_data import count, hidden
from seqdistill.progress import Progress
from seqdistill.recipe.tables import FilterConfig, PersonalDataConfig
from seqdistill.records import SAMPLE_KEYS, Sample, read_row, to_line
from seqdistill.run_prompts import is_for_validation
from seqdistill.stages.filter.agreement import agreement, label
from seqdistill.stages.filter.checks.contamination import Hit, ItemIndex
from seqdistill.stages.filter.checks.duplicates import digest
from seqdistill.stages.filter.checks.integrity import integrity
from seqdistill.stages.filter.checks.languages import language, may_change_language, may_change_script, script
from seqdistill.stages.filter.checks.stock_phrases import openings
from seqdistill.stages.filter.checks.words import Hashes, Ints, Sets, Words, mix, pair_sets, sequence_hashes, words
from seqdistill.stages.filter.rejection import Rejection, setting
from seqdistill.stages.filter.workers import each
from seqdistill.tasks.answer_form import AnswerForm

SPAN_ROWS = 2000
SPAN_BYTES = 4 << 20  # a span ends with the line that reaches this: what is in memory at once does not grow with the texts
FEWEST_ANSWER_WORDS = 10
LARGEST = sys.float_info.max
NEITHER = ("", "")  # no value for prompt and completion


@dataclass
class Facts:
    """What is known of n rows. Every array has n rows in file order; names are numbered in order of first appearance."""

    offsets: Ints  # of the line in the file
    ids: Hashes  # a hash of the sample's id
    prompts: Hashes  # a hash of the prompt's id
    samples: Ints  # the sample's number
    scores: NDArray[np.float64]  # a number under the key "score", where the file has it
    groups: Hashes  # a hash of the prompt's group; that of "" where it has none
    held_out: NDArray[np.bool_]  # whether the prompt, or its group, is for validation
    plain: NDArray[np.bool_]  # whether the line has a sample's keys and no other
    digests: Hashes  # (n, 2)
    answers: Hashes  # a hash of the completion's words; 0 where it is short, or a value of the answers' form
    openings: Hashes  # a hash of the completion's first words; 0 when it has fewer
    numbers: Hashes  # a hash of the numbers in the row
    agreements: NDArray[np.int8]  # with the reference, see `agreement`
    labels: list[str]  # the choice that the completion makes, where there are choices
    slices: list[str]
    teachers: list[str]
    scripts: list[tuple[str, str]]  # of the prompt and of the completion; empty where another one may be meant
    languages: list[tuple[str, str]]  # likewise, where a rule needs them
    refused: NDArray[np.bool_]
    sets: Sets
    rejections: dict[int, Rejection]
    hits: dict[int, Hit]
    personal: dict[int, dict[str, int]]  # how many values of each kind, for rows with personal data

    def __len__(self) -> int:
        return len(self.offsets)


ARRAYS = (
    "offsets",
    "ids",
    "prompts",
    "samples",
    "scores",
    "groups",
    "held_out",
    "plain",
    "digests",
    "answers",
    "openings",
    "numbers",
    "refused",
    "agreements",
)
LISTS = ("labels", "slices", "teachers", "scripts", "languages")


@dataclass(frozen=True)
class Span:
    """Some lines of the samples file."""

    path: Path
    number: int  # of the first line, from 1
    offset: int  # of the first line
    rows: int  # lines
    size: int  # bytes


def scan(path: Path, config: FilterConfig, form: AnswerForm, index: ItemIndex, folder: Path, progress: Progress) -> Facts:
    """The facts of a samples file. Raises UsageError naming the line for a row that is no sample, or one id used twice."""
    progress.start("reading the samples", path.stat().st_size, "B")
    with tempfile.TemporaryFile(dir=folder, prefix=".pairs.") as spill:
        joined = _FactsBuilder(spill)
        work = functools.partial(facts_of, config=config, form=form, index=index)
        for part, span in each(work, list(spans(path, config.limit)), config):
            joined.add(part)
            progress.advance(span.size)
        facts = joined.facts()
    progress.end()
    _check_ids(facts, path)
    return facts


def spans(path: Path, limit: int | None) -> Iterator[Span]:
    """The file in spans of at most SPAN_ROWS lines and about SPAN_BYTES; with `limit`, only the first lines."""
    number, offset, rows, size = 1, 0, 0, 0
    with path.open("rb") as file:
        for line in itertools.islice(file, limit):
            rows, size = rows + 1, size + len(line)
            if rows == SPAN_ROWS or size >= SPAN_BYTES:
                yield Span(path, number, offset, rows, size)
                number, offset, rows, size = number + rows, offset + size, 0, 0
    if rows:
        yield Span(path, number, offset, rows, size)


def facts_of(span: Span, config: FilterConfig, form: AnswerForm, index: ItemIndex) -> Facts:
    """The facts of one span; rows are numbered from its first, offsets are the file's."""
    rows: list[tuple[int, Sample, float, bool]] = []
    offset = span.offset
    with span.path.open("rb") as file:
        file.seek(offset)
        for number, line in enumerate(itertools.islice(file, span.rows), span.number):
            if line.strip():
                place = f"{span.path}:{number}"
                row = read_row(line, place)
                rows.append((offset, Sample.from_row(row, place), _score(row.get("score")), row.keys() == SAMPLE_KEYS.keys()))
            offset += len(line)
    samples = [sample for _, sample, _, _ in rows]
    prompts, completions = [sample.prompt_text for sample in samples], [sample.text for sample in samples]
    prompt_words, completion_words = words(prompts), words(completions)
    rejections = {row: rejection for row, sample in enumerate(samples) if (rejection := _rejection(sample, config, form))}
    hits = {hit.row: hit for hit in index.look("completion", completions, completion_words, prompts)}
    hits |= {hit.row: hit for hit in index.look("prompt", prompts, prompt_words)}
    prompt_ids = hashes_of([sample.prompt_id for sample in samples])
    numbers = {"prompt": prompt_words.numbers, "pair": prompt_words.numbers * np.uint64(3) + completion_words.numbers}
    near = config.near_duplicates
    same = mix(numbers.get(near.scope, completion_words.numbers)) if near.numbers else np.zeros(len(rows), np.uint64)
    return Facts(
        offsets=np.array([row[0] for row in rows], np.int64),
        ids=hashes_of([sample.id for sample in samples]),
        prompts=prompt_ids,
        samples=np.array([sample.sample for sample in samples], np.int64),
        scores=np.array([row[2] for row in rows]),
        groups=hashes_of([sample.group or "" for sample in samples]),
        held_out=np.array([is_for_validation(sample.prompt_id, sample.group, config) for sample in samples], bool),
        plain=np.array([row[3] for row in rows], bool),
        digests=np.frombuffer(b"".join(map(digest, samples)), np.uint64).reshape(-1, 2),
        answers=np.zeros(len(rows), np.uint64) if form else _answers(completion_words),
        openings=openings(completions, completion_words),
        numbers=same ^ mix(prompt_ids.copy()) if near.scope == "within-prompt" else same,
        agreements=np.array([agreement(sample, form) for sample in samples], np.int8),
        labels=[label(sample, form) for sample in samples],
        slices=[sample.slice or "" for sample in samples],
        teachers=[sample.teacher for sample in samples],
        scripts=[_scripts(sample) if config.integrity.script_share else NEITHER for sample in samples],
        languages=[_languages(sample) if config.integrity.language_share else NEITHER for sample in samples],
        refused=np.array([refusal(text) is not None for text in completions], bool),
        sets=_sets(near.scope, prompt_words, completion_words),
        rejections=rejections,
        hits=hits,
        personal=_personal(samples, config.personal_data),
    )


def _score(value: Any) -> float:
    """A row's own score; 0 where it has none that is a number."""
    return float(min(max(value, -LARGEST), LARGEST)) if isinstance(value, (int, float)) else 0.0


def _scripts(sample: Sample) -> tuple[str, str]:
    both = script(sample.prompt_text), script(sample.text)
    return NEITHER if both[0] != both[1] and may_change_script(sample.prompt, sample.text) else both


def _languages(sample: Sample) -> tuple[str, str]:
    both = language(sample.prompt_text), language(sample.text)
    return NEITHER if both[0] != both[1] and may_change_language(sample.prompt, both[1]) else both


def _rejection(sample: Sample, config: FilterConfig, form: AnswerForm) -> Rejection | None:
    rejection = integrity(sample, config.integrity)
    if not rejection and config.schema and (fault := form.fault(sample.text)):
        rejection = Rejection("schema", fault, (setting("schema", False),))
    # A reason may quote the text, and reports contain reasons.
    return rejection and replace(rejection, reason=hidden(rejection.reason, config.personal_data.phone_regions))


def _personal(samples: list[Sample], config: PersonalDataConfig) -> dict[int, dict[str, int]]:
    if config.action == "off":
        return {}
    counted = ((row, count(sample, config.phone_regions)) for row, sample in enumerate(samples))
    return {row: counts for row, counts in counted if counts}


def _answers(completions: Words) -> Hashes:
    """(n,) a hash of each completion's words; 0 for a label, a value, a short refusal, which repeat by their nature."""
    lengths = np.diff(completions.bounds)
    alone: Ints = np.concatenate((np.zeros(1, np.int64), np.cumsum(completions.alone, dtype=np.int64)))
    characters = alone[completions.bounds[1:]] - alone[completions.bounds[:-1]]
    short = lengths - characters // 2 < FEWEST_ANSWER_WORDS  # two characters of a script without spaces are about a word
    return np.where(short, np.uint64(0), sequence_hashes(completions))


def _sets(scope: str, prompt: Words, completion: Words) -> Sets:
    match scope:
        case "off":
            return Sets(np.empty(0, np.uint64), np.zeros(len(prompt.bounds), np.int64))
        case "pair":
            return pair_sets(prompt, completion)
        case "prompt":
            return pair_sets(prompt)
    return pair_sets(completion)


def hashes_of(names: Sequence[str]) -> Hashes:
    """The hash of each name, as in `Facts`."""
    digests = (hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest() for name in names)
    return np.frombuffer(b"".join(digests), np.uint64).copy()


@dataclass
class _FactsBuilder:
    """Batches' facts put end to end; the word pairs go to a temporary file."""

    spill: IO[bytes]
    parts: list[Facts] = field(default_factory=list)
    rejections: dict[int, Rejection] = field(default_factory=dict)
    hits: dict[int, Hit] = field(default_factory=dict)
    personal: dict[int, dict[str, int]] = field(default_factory=dict)
    rows: int = 0
    sizes: list[Ints] = field(default_factory=list)

    def add(self, part: Facts) -> None:
        self.rejections |= {self.rows + row: rejection for row, rejection in part.rejections.items()}
        self.hits |= {self.rows + row: hit for row, hit in part.hits.items()}
        self.personal |= {self.rows + row: counts for row, counts in part.personal.items()}
        self.rows += len(part)
        self.sizes.append(part.sets.sizes)
        self.spill.write(part.sets.hashes.data)  # not tofile, whose error on a full disk does not say so
        part.sets = Sets(np.empty(0, np.uint64), np.zeros(1, np.int64))
        part.rejections, part.hits, part.personal = {}, {}, {}
        self.parts.append(part)

    def facts(self) -> Facts:
        sizes = np.concatenate([np.zeros(1, np.int64), *self.sizes])
        self.spill.flush()
        total = int(sizes.sum())
        hashes = np.memmap(self.spill, np.uint64, "r", shape=(total,)) if total else np.empty(0, np.uint64)
        columns: dict[str, Any] = {name: _concatenated([getattr(part, name) for part in self.parts]) for name in ARRAYS}
        lists: dict[str, Any] = {
            name: list(itertools.chain.from_iterable(getattr(part, name) for part in self.parts)) for name in LISTS
        }
        sets = Sets(hashes, np.cumsum(sizes))
        return Facts(**columns, **lists, sets=sets, rejections=self.rejections, hits=self.hits, personal=self.personal)


def _concatenated(parts: list[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def _check_ids(facts: Facts, path: Path) -> None:
    order = np.argsort(facts.ids, kind="stable")
    twice = np.flatnonzero(facts.ids[order][1:] == facts.ids[order][:-1])
    if len(twice):
        with Rows(path, facts) as read:
            name = read(int(order[twice[0]])).id
        raise UsageError(f"{path}: two samples have the id {name!r}", "give each sample its own id")


class Rows:
    """The rows of a scanned file, read again by number. Use it as a context manager."""

    def __init__(self, path: Path, facts: Facts) -> None:
        self._path, self._facts, self._file = path, facts, path.open("rb")
        self._changes: dict[int, list[Callable[[Sample], Sample]]] = {}

    def change(self, row: int, how: Callable[[Sample], Sample]) -> None:
        """From here on the row reads as `how` makes it."""
        self._changes.setdefault(row, []).append(how)

    def line(self, row: int) -> str:
        """One row's line as it is written: as it was read, less the keys that are no sample's, with its changes."""
        if self._facts.plain[row] and row not in self._changes:
            return self._line(row).decode("utf-8").strip() + "\n"
        return to_line(self(row))

    def __call__(self, row: int) -> Sample:
        """One row's sample."""
        place = f"{self._path}: row {row + 1}"
        sample = Sample.from_row(read_row(self._line(row), place), place)
        for how in self._changes.get(row, ()):
            sample = how(sample)
        return sample

    def _line(self, row: int) -> bytes:
        self._file.seek(int(self._facts.offsets[row]))
        return self._file.readline()

    def __enter__(self) -> "Rows":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
