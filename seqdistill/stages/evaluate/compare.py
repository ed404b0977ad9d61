"""`eval RUN --compare OTHER`: the students of two runs, paired by prompt, from what both runs' eval wrote. Runs no model.

The statistics are those of `table`, with the other student in the teacher's place. Decides what can be compared at all.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from seqdistill.engines import Completion
from seqdistill.errors import UsageError
from seqdistill.metrics import Measure
from seqdistill.recipe.tables import Recipe
from seqdistill.records import Prompt, read_jsonl
from seqdistill.runs import Run
from seqdistill.stages.evaluate.answers import Answer, Scoring
from seqdistill.stages.evaluate.conditions import check_conditions
from seqdistill.stages.evaluate.contestants import is_evaluated
from seqdistill.stages.evaluate.headline import headline
from seqdistill.stages.evaluate.regressions import cut
from seqdistill.stages.evaluate.scores import described, margin_points
from seqdistill.stages.evaluate.shown import counterpart, p_value, percent, point, prompts
from seqdistill.stages.evaluate.statistics.intervals import ENOUGH
from seqdistill.stages.evaluate.table import Settings, tabulate
from seqdistill.stages.evaluate.written import answer_of, document_of, form_in, measures_in, own_measures_in

STUDENT, OTHER = "student", "other"
SETTINGS = ("temperature", "max_tokens")  # of eval: what answers depend on


@dataclass(frozen=True)
class Comparison:
    """What two students' answers show. `scores` is the document, as `--json` prints it."""

    scores: dict[str, Any]

    @property
    def verdict(self) -> list[str]:
        """What the numbers say, in sentences, the headline first."""
        return list(self.scores["verdict"])

    @property
    def columns(self) -> list[str]:
        """The heads of `rows`."""
        return ["student of", *self._cells(STUDENT)]

    @property
    def rows(self) -> list[list[str]]:
        """One row a student, ready to print."""
        return [[self.scores["compared"][role], *self._cells(role).values()] for role in (STUDENT, OTHER)]

    @property
    def slice_columns(self) -> list[str]:
        """The heads of `slice_rows`."""
        return ["slice", "n", *(self.scores["compared"][role] for role in (STUDENT, OTHER)), "difference", "decision"]

    @property
    def slice_rows(self) -> list[list[str]]:
        """One row a slice, ready to print; none where the test set has no slices."""
        primary = self.scores["primary"]
        return [
            [
                part["slice"] or "–",
                str(part["n"]),
                *(percent(point(part["models"][role][primary])) for role in (STUDENT, OTHER)),
                percent(part["judged"], "+") if part["judged"] else "–",
                part["judged"]["decision"].lower() if part["judged"] else "–",
            ]
            for part in self.scores["slices"]
        ]

    def _cells(self, role: str) -> dict[str, str]:
        facts, primary, measures = self.scores["models"][role], self.scores["primary"], self.scores["measures"]
        cells = {measures[primary]["heading"]: percent(facts[primary])}
        other = counterpart(primary)
        if other and facts.get(other):
            cells[measures[other]["heading"]] = percent(point(facts[other]))
        more = {name: measures[name]["heading"] for name in ("valid", "stopped", "refused") if facts.get(name)}
        return cells | {heading: percent(point(facts[name])) for name, heading in more.items()}


def compare(run: Run, other: Run, recipe: Recipe) -> Comparison:
    """Compares the student of `run` with that of `other` on the test prompts that both answered, at [eval] margin.

    Raises UsageError where one of them has no finished eval, or has been trained again since, and for what cannot be compared:
    another template, no prompt in common, one id for two prompts, another metric, or answers of different teachers as the
    measure.
    """
    here, there = _Written.of(run), _Written.of(other)
    for one in (run, other):
        if is_evaluated(one, recipe) is False:
            raise UsageError(
                f"{one.path}: its eval is of an earlier student: the run was trained again since",
                f"run `seqdistill eval {one.shell}` first",
            )
    if here.template != there.template:
        raise UsageError(
            f"{run.path} and {other.path} were evaluated with different task templates: their students saw different prompts",
            "evaluate one of them with the other's template: seqdistill eval RUN --template FILE",
        )
    shared = [name for name in here.answers if name in there.answers]
    if not shared:
        raise UsageError(
            f"{run.path} and {other.path} have no test prompt in common that both students answered",
            "evaluate both on one test set: seqdistill eval RUN --test FILE",
        )
    primary = _primary(recipe, here)
    measures = [measure for measure in here.measures if measure.name in {one.name for one in there.measures}]
    _check_same(here, there, shared, primary, measures)
    check_conditions(recipe.eval.fail_under, measures, of_choices=())
    pairs = [(here.answers[name], replace(there.answers[name], model=OTHER)) for name in shared]
    answers = [answer for pair in pairs for answer in pair]
    margin = margin_points(recipe.eval)
    settings = Settings((STUDENT, OTHER), measures, primary, margin, recipe.eval.resamples, recipe.eval.seed, against=OTHER)
    found = tabulate(answers, settings)
    judged = found["judged"] or {}
    better, worse = _changed_items(pairs, primary)
    document = {
        "decision": judged.get("decision", "INCONCLUSIVE"),
        "margin": margin,
        "needed": judged.get("needed"),
        "primary": primary,
        "compared": _names(run, other),
        "prompts": {"shared": len(shared), STUDENT: len(here.answers), OTHER: len(there.answers)},
        "measures": described(measures),
        **{
            name: found[name]
            for name in ("n", "groups", "judged", "models", "comparisons", "kept", "gap_closed", "slices", "warning")
        },
        "few": ENOUGH,
        "worse": worse,
        "better": better,
        "notes": list(_notes(here, there, shared, primary)),
    }
    return Comparison({"verdict": list(_verdict(document)), **document})


def prompts_of(run: Run) -> dict[str, Prompt]:
    """The test prompts that a run's student answered, as it was shown them, by id. Raises UsageError before eval."""
    return {name: answer.prompt for name, answer in _Written.of(run).answers.items()}


def compare_form(run: Run, answers: Mapping[str, Completion], called: str, recipe: Recipe) -> dict[str, Any]:
    """The student of a run in another form (quantised, say) beside the student itself, paired by prompt, at [eval] margin.

    `answers` are the other form's, by prompt id; failed ones are left out. Returns decision, margin, needed, primary, n, judged
    and the models' scores ("student" is the other form, "other" the student as trained), the verdict in sentences, and the
    form's scores by prompt.
    """
    here = _Written.of(run)
    form, measures = form_in(here.scores), measures_in(here.scores)
    names = {measure.name for measure in measures}
    own = str(here.scores["primary"])
    primary = own if own in names else next(name for name in ("chrf_teacher", "chrf_reference") if name in names)
    scoring = Scoring(measures, form, form.kind)
    both: list[Answer] = []
    for name, answer in here.answers.items():
        completion = answers.get(name)
        if completion is None or completion.error is not None:
            continue
        together = {STUDENT: completion}
        if name in here.teacher:
            together["teacher"] = Completion(name, here.teacher[name])
        scores = scoring.scores(together, STUDENT, answer.prompt)
        both += [replace(answer, completion=completion, scores=scores), replace(answer, model=OTHER)]
    margin = margin_points(recipe.eval)
    found = tabulate(
        both, Settings((STUDENT, OTHER), measures, primary, margin, recipe.eval.resamples, recipe.eval.seed, against=OTHER)
    )
    judged = found["judged"] or {"decision": "INCONCLUSIVE", "needed": None}
    document = {
        "decision": judged["decision"],
        "margin": margin,
        "needed": judged["needed"],
        "primary": primary,
        "scores": {one.prompt.id: (one.scores or {}).get(primary) for one in both[::2]},
        "same": sum(one.text == other.text for one, other in zip(both[::2], both[1::2], strict=True)),
        **{name: found[name] for name in ("n", "judged", "models", "slices")},
    }
    phrase = described(measures)[primary]["phrase"]
    return {
        "verdict": [
            headline(judged, margin, f"the student as {called}", "the student as trained")
            if found["judged"]
            else f"INCONCLUSIVE: {phrase} applies to no answer of both.",
            f"Measured by {phrase} on {prompts(found['n'])}; {document['same']} answers are the same text.",
            *([f"{found['warning']}."] if found["warning"] else []),
        ],
        **document,
    }


@dataclass(frozen=True)
class _Written:
    """What a run's eval wrote: the student's answers by prompt, those that have scores, and the document of scores.json."""

    run: Run
    scores: dict[str, Any]
    template: str
    answers: dict[str, Answer]
    teacher: dict[str, str]  # the teacher's answers by prompt

    @classmethod
    def of(cls, run: Run) -> "_Written":
        path = run.need("eval", "predictions.jsonl")
        run.need("eval", "scores.json")
        scores = document_of(run, "scores.json")
        template = (run.manifest("eval") or {}).get("settings", {}).get("task.template", "")
        answers: dict[str, Answer] = {}
        teacher: dict[str, str] = {}
        for place, row in read_jsonl(path):
            try:
                if row["model"] == STUDENT and row["scores"] is not None:
                    answers[row["id"]] = answer_of(row)
                elif row["model"] == "teacher" and row["completion"]:
                    teacher[row["id"]] = row["completion"][-1]["content"]
            except (KeyError, TypeError, IndexError):
                raise UsageError(f"{place}: no line that eval wrote", f"run `seqdistill eval {run.shell}` again") from None
        return cls(run, scores, template, answers, teacher)

    @property
    def measures(self) -> list[Measure]:
        return [*own_measures_in(self.scores), *measures_in(self.scores)]


def _names(run: Run, other: Run) -> dict[str, str]:
    """What the two are called: their folders' names, with as many folders above as tell them apart."""
    one, two = run.path.absolute().parts, other.path.absolute().parts
    depth = next((n for n in range(1, max(len(one), len(two)) + 1) if one[-n:] != two[-n:]), 1)
    return {STUDENT: "/".join(one[-depth:]), OTHER: "/".join(two[-depth:])}


def _primary(recipe: Recipe, here: _Written) -> str:
    """The measure that decides: the one of [task] primary, or else the run's own."""
    named, own = recipe.task.primary, str(here.scores["primary"])
    if named is None:
        return own
    against = own.rpartition("_")[2]
    order = (named, f"{named}_{against}", f"{named}_reference", f"{named}_teacher")
    return next((name for name in order if name in here.scores["measures"]), own)


def _check_same(here: _Written, there: _Written, shared: Sequence[str], primary: str, measures: Sequence[Measure]) -> None:
    headings = [written.scores["measures"].get(primary, {}).get("heading") for written in (here, there)]
    if primary not in [measure.name for measure in measures] or headings[0] != headings[1]:
        raise UsageError(
            f"{there.run.path}: its eval has no {primary}, which {here.run.path} has",
            f"--primary names one of: {', '.join(measure.name for measure in measures)}",
        )
    for name in shared:
        mine, others = here.answers[name], there.answers[name]
        if mine.messages != others.messages:
            raise UsageError(
                f"the id {name!r} is that of one prompt in {here.run.path} and of another in {there.run.path}",
                "evaluate both on one test set: seqdistill eval RUN --test FILE",
            )
        if primary.endswith("_reference") and mine.prompt.reference != others.prompt.reference:
            raise UsageError(
                f"the prompt {name!r} has another reference in {there.run.path} than in {here.run.path}",
                "evaluate both on one test set, or compare by the teacher's answers: --primary",
            )
    identities = [written.scores["models"].get("teacher", {}).get("identity") for written in (here, there)]
    if primary.endswith("_teacher") and identities[0] != identities[1]:
        raise UsageError(
            f"by {primary} each student is measured against its own teacher: {' and '.join(map(_teacher, identities))}",
            f"compare by the references: --primary {counterpart(primary)}",
        )


def _teacher(identity: str | None) -> str:
    return identity or "recorded answers"


def _notes(here: _Written, there: _Written, shared: Sequence[str], primary: str) -> Iterator[str]:
    """What a reader of the comparison must know."""
    left_out = [(written.run.path, len(written.answers) - len(shared)) for written in (here, there)]
    if any(number for _, number in left_out):
        rest = " and ".join(f"{number} of {path}" for path, number in left_out if number)
        yield f"Only the {len(shared)} prompts that both have are compared; left out: {rest}."
    for name in SETTINGS:
        values = [written.scores.get(name) for written in (here, there)]
        if values[0] != values[1]:
            yield f"They answered with another {name}: {values[0]} and {values[1]}."
    if primary.endswith("_teacher"):
        unlike = sum(here.teacher.get(name) != there.teacher.get(name) for name in shared)
        if unlike:
            yield f"The teachers answered {unlike} of these prompts differently: each student is measured against its own."


def _changed_items(pairs: Sequence[tuple[Answer, Answer]], primary: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What got better and what got worse from the other student to this one, the largest difference first."""
    better: list[dict[str, Any]] = []
    worse: list[dict[str, Any]] = []
    for mine, others in pairs:
        scores = [(answer.scores or {}).get(primary) for answer in (mine, others)]
        if scores[0] is None or scores[1] is None or scores[0] == scores[1]:
            continue
        item = {
            "id": mine.prompt.id,
            "slice": mine.prompt.slice,
            "difference": round(scores[0] - scores[1], 6),
            "scores": dict(zip((STUDENT, OTHER), scores, strict=True)),
            "prompt": cut(mine.prompt.messages[-1]["content"]),
            "reference": None if mine.prompt.reference is None else cut(mine.prompt.reference),
            "answers": {STUDENT: cut(mine.text), OTHER: cut(others.text)},
        }
        (better if scores[0] > scores[1] else worse).append(item)
    better.sort(key=lambda item: (-item["difference"], item["id"]))
    worse.sort(key=lambda item: (item["difference"], item["id"]))
    return better, worse


def _verdict(document: Mapping[str, Any]) -> Iterator[str]:
    """The decision and what it rests on, in sentences."""
    mine, others = (document["compared"][role] for role in (STUDENT, OTHER))
    judged, phrase = document["judged"], document["measures"][document["primary"]]["phrase"]
    if judged is None:
        yield f"INCONCLUSIVE: {phrase} applies to no answer of both students."
        return
    yield headline(judged, document["margin"], f"the student of {mine}", f"that of {others}")
    cell = next(one for one in document["comparisons"] if one["metric"] == document["primary"])
    line = f"Measured by {phrase}, on {prompts(judged['n'])} that both answered"
    if "only_student" in cell:
        line += f"; right alone on {cell['only_student']}, wrong alone on {cell['only_other']}, McNemar {p_value(cell['p'])}"
    yield f"{line}."
    yield f"Better on {len(document['better'])} prompts, worse on {len(document['worse'])}."
    yield from document["notes"]
    if document["warning"]:
        yield f"{document['warning']}."
