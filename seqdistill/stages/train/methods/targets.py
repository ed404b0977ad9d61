"""Stored targets: the log-probabilities of the teacher's likeliest tokens, put beside the student's rows token by token.

Owns which targets belong to a row and where they wait while a training reads them: on the disk, mapped into memory. Does not
know the loss.

A row's targets count when the stored token ids are the row's trained tokens, one by one. An edit by a person, masked personal
data or another tokenizer make other tokens; such a row is trained on its text alone, and counted.
"""

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from seqdistill.engines.loading import load
from seqdistill.engines.logprob_file import read_logprob_rows
from seqdistill.engines.logprobs import LOWEST, TEMPERATURES, TokenLogprobs, is_same_temperature, logprobs_in
from seqdistill.errors import UsageError
from seqdistill.recipe.tables import Recipe
from seqdistill.records import Sample
from seqdistill.runs import Run
from seqdistill.stages.train.methods import TrainingSetup
from seqdistill.stages.train.reading import Read
from seqdistill.stages.train.rendering import Row, Template, Unfit
from seqdistill.stages.train.vocabulary import read_kept

STALE = "its tokens are not those that the teacher wrote: edited, masked, or another tokenizer's"
UNREASONED = "its answer was scored without the reasoning that is trained before it"
TEXTS = "the endpoint named the tokens by their texts, not by their ids"
NO_NORMALIZER = "no normaliser is stored at [train] temperature"
NO_LIKELIEST = "no likeliest tokens are stored"
MISSING = "nothing is stored for it"
WAYS_OUT = {
    **dict.fromkeys((STALE, UNREASONED), "`seqdistill targets {run}` has a local teacher score the rows as they are now"),
    TEXTS: "with vLLM's server, set [teacher.options] return_tokens_as_token_ids = true and generate again",
    NO_NORMALIZER: "set [train] temperature = 1, or have a teacher in transformers score the rows at "
    f"{', '.join(f'{known:g}' for known in TEMPERATURES[:-1])} and {TEMPERATURES[-1]:g}: "
    "`seqdistill targets {run}`; [train] approximate = true compares the likeliest tokens alone, at any temperature",
    NO_LIKELIEST: "`seqdistill generate {run} --logprobs 20` stores 20 at each token",
    MISSING: "`seqdistill generate {run} --logprobs 20`, or `seqdistill targets {run}` for a local teacher",
}


def target_files(run: Run) -> dict[str, Path]:
    """The run's files with log-probabilities, by name; what `seqdistill targets` wrote comes last, and counts first."""
    files = {"logprobs": run.file("generate", "logprobs.parquet"), "targets": run.file("targets", "targets.parquet")}
    return {name: path for name, path in files.items() if path.exists()}


@dataclass(frozen=True)
class Targets:
    """The targets of many rows, in three arrays over all their trained tokens, mapped from the disk."""

    starts: Sequence[int]  # by row: its first trained token's place
    ids: Any  # (P, K) int32
    logprobs: Any  # (P, K) float32, at the training's temperature; -inf where fewer than K are stored
    found: Any  # (P) bool: whether there is a target

    def of(self, row: int, tokens: int) -> tuple[Any, Any, Any]:
        """(ids, logprobs, found) of a row's trained tokens, as tensors."""
        import torch

        place = slice(self.starts[row], self.starts[row] + tokens)
        ids, logprobs, found = (torch.from_numpy(numpy.array(part[place])) for part in (self.ids, self.logprobs, self.found))
        return ids.long(), logprobs, found


def read_targets(setup: TrainingSetup) -> Targets:
    """The targets of the checked rows. How many rows have them, and why others have none, goes to `setup.found`.

    Raises UsageError when no training row has any, and for a local teacher whose tokenizer is not the student's.
    """
    config, files = setup.recipe.train, target_files(setup.run)
    rows = [*setup.checked.train, *setup.checked.validation]
    numbers = {row.id: number for number, row in enumerate(rows)}
    samples = [sample for part in setup.samples.values() for sample in part]
    reasoned = {sample.id for sample in samples if sample.reasoning}
    numbering = student_numbering(setup.recipe, setup.tokenizer, setup.before_cuts)
    targets = _allocated(rows, max(map(_widest, files.values())), setup.run.file("train", ""))
    why_not = dict.fromkeys(range(len(rows)), MISSING)
    for kind, path in files.items():
        for name, stored in read_logprob_rows(path):
            if (number := numbers.get(name)) is None:
                continue
            thought = name in reasoned and not config.trains_reasoning
            fitted = fitted_targets(rows[number], stored, numbering, thought, config.temperature, config.approximate)
            if not isinstance(fitted, str) and fitted[0] and kind == "targets" and name in reasoned and not thought:
                fitted = UNREASONED
            if not isinstance(fitted, str):
                why_not.pop(number, None)
                first, ids, found = targets.starts[number] + fitted[0], *fitted[1:]
                _write_row(targets, first, ids, found, numbering, cut=setup.before_cuts is not None)
            elif number in why_not:
                why_not[number] = fitted
    _report(setup, rows, why_not)
    return targets


def fitted_targets(
    row: Row, stored: TokenLogprobs, numbering: Any, thought: bool, temperature: float, approximate: bool
) -> tuple[int, list[list[int]], Any] | str:
    """(how many trained tokens come before, likeliest ids, their log-probabilities at the temperature), or why there are none.

    With `approximate` the log-probabilities lack a constant. An answer behind reasoning that is not trained on has its
    targets at the end of what is stored, and what the student's template writes before an answer (an empty think block) may
    have none; an endpoint's targets may end before the end of the turn.
    """
    labels, ids = row.tokens[row.start :], stored.token_ids
    if ids is None:
        return TEXTS
    if not stored.top_token_ids or not all(stored.top_token_ids):
        return NO_LIKELIEST
    own, before = _renumbered(ids, numbering).tolist(), row.answer - row.start
    first, skipped = 0, 0
    if own not in (labels, labels[:-1]):
        answer = labels[before:]
        written = next((part for part in (answer, answer[:-1]) if part and own[-len(part) :] == part), None)
        if written is None or not (thought or len(written) == len(own)):
            return STALE
        first, skipped = len(own) - len(written), before
    normalizers = [0.0] * len(ids) if approximate or temperature == 1 else _normalizers(stored, temperature)
    if normalizers is None:
        return NO_NORMALIZER
    at_temperature = []
    for place, normalizer in zip(stored.top_logprobs[first:], normalizers[first:], strict=True):
        values = numpy.array(place, dtype=numpy.float64)
        at_temperature.append(numpy.where(values > LOWEST, values / temperature - normalizer, -numpy.inf))
    return skipped, stored.top_token_ids[first:], at_temperature


def why_without(recipe: Recipe, read: Read | None, answers: Iterable[tuple[Sample, Mapping[str, Any]]]) -> str | None:
    """Why none of these answers, each with its raw reply, has targets; None where one has them, or where it is not known.

    Without the student (`read`) their tokens are not compared with its own.
    """
    config, reasons = recipe.train, Counter[str]()
    template = Template(read.tokenizer, read.stops) if read else None
    numbering = student_numbering(recipe, read.tokenizer, read.before_cuts) if read else None
    for sample, raw in answers:
        stored = logprobs_in(raw)
        if stored is None or stored.token_ids is None:
            reasons[MISSING if stored is None else TEXTS] += 1
            continue
        if template is None:
            return None
        try:
            row = template.render(sample, config.trains_reasoning)
        except Unfit:
            continue
        thought = bool(sample.reasoning) and not config.trains_reasoning
        fitted = fitted_targets(row, stored, numbering, thought, config.temperature, config.approximate)
        if not isinstance(fitted, str):
            return None
        reasons[fitted] += 1
    return reasons.most_common(1)[0][0] if reasons else None


def _normalizers(stored: TokenLogprobs, temperature: float) -> list[float] | None:
    """The normaliser at each token for a temperature; None where it was not stored."""
    for place, known in enumerate(stored.temperatures or ()):
        if is_same_temperature(known, temperature) and stored.log_normalizers:
            return [values[place] for values in stored.log_normalizers]
    return None


def _write_row(
    targets: Targets, start: int, ids: list[list[int]], logprobs: Sequence[Any], numbering: Any, *, cut: bool
) -> None:
    """Writes a row's targets to their place. What fills up to K, and a token that the student lacks, gets the probability 0.

    Of a vocabulary that was cut, the likeliest tokens that are left share what the teacher gave to others, which are nearly all
    among those that were cut: in the bucket of all others, an eighth of it on the demo, it would teach the student to say
    something else (one seed: 4.6 chrF less, +-2.4). A place where none of the likeliest is left has no target.
    """
    targets.found[start : start + len(ids)] = True
    for place, (listed, values) in enumerate(zip(ids, logprobs, strict=True), start):
        tokens = _renumbered(listed, numbering)
        known = tokens >= 0
        first = tokens[known][0] if known.any() else 0
        targets.ids[place] = first
        targets.logprobs[place] = -numpy.inf
        targets.ids[place, : len(tokens)] = numpy.where(known, tokens, first)
        targets.logprobs[place, : len(tokens)] = numpy.where(known, values, -numpy.inf)
        if cut:
            share = float(numpy.exp(numpy.asarray(values)[known]).sum())
            targets.found[place] = share > 0
            targets.logprobs[place] = targets.logprobs[place] - numpy.log(share) if share > 0 else 0.0  # a number for the loss


def _allocated(rows: Sequence[Row], width: int, folder: Path) -> Targets:
    """Empty targets for the rows' trained tokens, in files that are gone when nobody reads them any more."""
    lengths = numpy.array([len(row.tokens) - row.start for row in rows])
    places = int(lengths.sum())

    def array(kind: str, *shape: int) -> Any:
        with tempfile.TemporaryFile(dir=folder) as file:
            return numpy.memmap(file, kind, "w+", shape=(places, *shape))

    starts = (numpy.cumsum(lengths) - lengths).tolist()
    return Targets(starts, array("int32", max(width, 1)), array("float32", max(width, 1)), array("bool"))


def _widest(path: Path) -> int:
    """The most likeliest tokens that a file stores at any place."""
    import pyarrow.compute
    import pyarrow.parquet

    widest = 0
    for batch in pyarrow.parquet.ParquetFile(path).iter_batches(columns=["top_logprobs"]):
        lengths = pyarrow.compute.list_value_length(pyarrow.compute.list_flatten(batch.column(0)))
        widest = max(widest, pyarrow.compute.max(lengths).as_py() or 0)
    return widest


def _renumbered(ids: Sequence[int], numbering: Any) -> Any:
    """The student's ids of the teacher's tokens, as an array; -1 for those that it lacks."""
    tokens = numpy.array(ids, dtype=numpy.int64)
    return numpy.where(tokens < len(numbering), numbering[numpy.minimum(tokens, len(numbering) - 1)], -1)


def student_numbering(recipe: Recipe, tokenizer: Any, before_cuts: Sequence[int] | None) -> Any:
    """An array with the student's id of each of the teacher's tokens, by their ids; -1 for a token that the student lacks.

    `before_cuts` are the ids that the student's tokens had before its vocabulary was cut, if it was. An embedding that is
    longer than its tokenizer makes no difference. Raises UsageError for a local teacher whose token ids mean other tokens
    than the student's. An endpoint's tokenizer is not here: there the stored ids are compared with each row.
    """
    tokens = {number: token for token, number in tokenizer.get_vocab().items()}
    own = {before: number for number, before in enumerate(before_cuts or range(max(tokens) + 1))}  # by the id before any cut
    local = [teacher for teacher in recipe.each_teacher if teacher.engine != "openai" and teacher.model]
    cuts = [read_kept(teacher) for teacher in local]
    for teacher, cut in zip(local, cuts, strict=True):
        for token, number in sorted(load("AutoTokenizer", teacher).get_vocab().items(), key=lambda item: item[1]):
            mine = own.get(cut[number] if cut else number)
            if mine is not None and tokens.get(mine, token) != token:
                raise UsageError(
                    f"teacher {teacher.model!r} has another tokenizer than the student: its token {number} is {token!r}, the "
                    f"student's is {tokens[mine]!r}, so its probabilities are of other tokens",
                    "use a student of the teacher's family, or method = 'sequence', which needs the text alone",
                )
    if any(cut != cuts[0] for cut in cuts):
        raise UsageError("the teachers have different vocabularies, cut from one", "use one teacher, or method = 'sequence'")
    before = (cuts[0] if cuts else None) or range(max(own) + 1)  # by the teacher's id
    return numpy.array([own.get(number, -1) for number in before])


def _report(setup: TrainingSetup, rows: Sequence[Row], why_not: dict[int, str]) -> None:
    """Notes how many rows have targets. Raises UsageError when no training row has any."""
    trained = len(setup.checked.train)
    without = {number: reason for number, reason in why_not.items() if number < trained}
    if len(without) == trained:
        reason, count = Counter(without.values()).most_common(1)[0]
        first = next(rows[number].id for number, found in without.items() if found == reason)
        raise UsageError(
            f"[train] method = 'soft': none of {trained} rows has targets that can be used; of {count} rows, the first is "
            f"{first!r}: {reason}{f' = {setup.recipe.train.temperature:g}' if reason == NO_NORMALIZER else ''}",
            WAYS_OUT[reason].format(run=setup.run.shell),
        )
    reasons = dict(sorted(Counter(why_not.values()).items()))
    setup.found["targets"] = {"rows": len(rows) - len(why_not), "text_only": reasons}
    for reason, count in reasons.items():
        first = next(rows[number].id for number, found in why_not.items() if found == reason)
        setup.progress.note(f"train: {count} of {len(rows)} rows have no targets, the first is {first!r}: {reason}")
