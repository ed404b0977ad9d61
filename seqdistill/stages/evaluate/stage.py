"""Stage 4, the proof: base, student, teacher and ceiling answer the held-out prompts; scores, intervals and a report.

Files: journal.jsonl (every answer ever requested), predictions.jsonl, scores.json, deferral.json,
report.html, manifest.json; safety.jsonl where [eval.safety] sends something, forced.jsonl with teacher_forced, judgements.jsonl
with pairwise.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict

from seqdistill.cards import write_model_card
from seqdistill.engines import PERMANENT_ERRORS, Completion
from seqdistill.errors import Incomplete
from seqdistill.progress import Progress
from seqdistill.recipe.tables import Recipe
from seqdistill.records import Prompt, write_json, write_jsonl
from seqdistill.runs import Run
from seqdistill.stages.evaluate.answers import scored
from seqdistill.stages.evaluate.asking import Unreachable, ask_all
from seqdistill.stages.evaluate.contestants import Contestant, recorded_teacher
from seqdistill.stages.evaluate.forced import forced_rows, partial_file
from seqdistill.stages.evaluate.inputs import Inputs
from seqdistill.stages.evaluate.judging import check_rubric, judge_pairs, labels_of
from seqdistill.stages.evaluate.outputs import NOT_RECORDED, with_outputs
from seqdistill.stages.evaluate.report.page import write_report
from seqdistill.stages.evaluate.result import OUTPUTS, EvalResult, paths_of
from seqdistill.stages.evaluate.safety.items import rows as safety_rows
from seqdistill.stages.evaluate.scores import scores_of, usage
from seqdistill.stages.evaluate.written import scores_in


def evaluate(run: Run, recipe: Recipe, progress: Progress) -> EvalResult:
    """Scores the contestants on the test prompts, writes the files and returns what was found.

    Raises UsageError without a test set or a trained student, and Incomplete, after writing everything else, when requests
    failed: their prompts are left out of every score, and the next run requests them again.
    """
    inputs = Inputs.of(run, recipe)
    recipe, record = inputs.recipe, inputs.record
    optional = {"safety": inputs.safety, "forced": recipe.eval.teacher_forced, "judgements": recipe.eval.pairwise}
    paths = paths_of(run, (*OUTPUTS, *(f"{name}.jsonl" for name, wanted in optional.items() if wanted)))
    if record.up_to_date():
        scores = scores_in(run)
        with suppress(OSError):  # a run that cannot be written
            write_model_card(run, scores)  # the teacher's terms may be known since
        return EvalResult(scores, paths, 0.0, up_to_date=True)
    with run.locked("eval"):
        for difference in record.differences():
            progress.note(f"eval: {difference}")
        prompts = inputs.prompts(progress)
        contestants, recorded = with_outputs(inputs.competing(len(prompts)), prompts, inputs.template)
        primary = inputs.primary(prompts, contestants)
        labels = labels_of(recipe, prompts)
        check_rubric(recipe, prompts)
        try:
            completions, latencies = ask_all(run, recipe, contestants, prompts, progress, recorded, inputs.safety)
        except Unreachable as unreachable:
            contestants, recorded = without_teacher(run, inputs, contestants, prompts, unreachable, progress)
            completions, latencies = ask_all(run, recipe, contestants, prompts, progress, recorded, inputs.safety)
        answers = scored(contestants, prompts, completions, inputs.scoring)
        forced = forced_rows(paths["forced"], contestants, answers, progress) if recipe.eval.teacher_forced else None
        judge, judgements = judge_pairs(run, recipe, answers, labels, progress) if recipe.eval.pairwise else (None, [])
        safety = safety_rows(inputs.safety, completions)
        scores = scores_of(run, recipe, contestants, inputs.scoring, primary, answers, latencies, safety, judge, forced)
        rows = {"safety": safety, "forced": forced[0] if forced else [], "judgements": judgements}
        beside = {f"{name}.jsonl": lines for name, lines in rows.items() if name in paths}
        with record.new_files() as new:
            predictions = new / "predictions.jsonl"
            write_jsonl(predictions, (answer.row() for answer in answers))
            for name, lines in beside.items():
                write_jsonl(new / name, lines)
            write_json(new / "scores.json", scores)
            write_json(new / "deferral.json", scores["deferral"])
            write_report(new / "report.html", run, scores, (answer.row() for answer in answers), predictions)
        if forced:
            partial_file(paths["forced"]).unlink(missing_ok=True)
        write_model_card(run, scores)
        failures, for_good = _failures(completions, progress)
        record.finish(
            dict.fromkeys(OUTPUTS) | {"predictions.jsonl": len(answers)} | {name: len(lines) for name, lines in beside.items()},
            status="incomplete" if failures or inputs.is_without_teacher(contestants) else "complete",
            config={name: asdict(getattr(recipe, name)) for name in ("task", "generate", "eval")},
            counts={"prompts": len(prompts), "answers": len(completions), "failed": failures.total() + for_good.total()},
            usage={contestant.role: usage(contestant, answers) for contestant in contestants if contestant.model}
            | ({"judge": {"usd": judge["usd"]}} if judge else {}),
            models={contestant.role: contestant.identity for contestant in contestants if contestant.identity},
            verdict=scores["verdict"],
        )
    if failures:
        raise Incomplete(
            f"{failures.total()} of {len(completions)} requests failed ({_counted(failures)}); {paths['report']} is of the "
            f"{scores['n']} prompts that every model answered",
            f"run again to retry {failures.total()}",
        )
    return EvalResult(scores, paths, time.time() - record.started, up_to_date=False)


def _failures(completions: Mapping[str, Completion], progress: Progress) -> tuple[Counter[str], Counter[str]]:
    """How many requests failed, by error: those that the next run sends again, and those that fail for good, which it notes."""
    failed = Counter(one.error for one in completions.values() if one.error and one.error != NOT_RECORDED)
    for_good = Counter({error: count for error, count in failed.items() if error in PERMANENT_ERRORS})
    if for_good:
        progress.note(
            f"eval: {for_good.total()} requests cannot be answered ({_counted(for_good)}); their prompts are left out of every "
            "score"
        )
    return failed - for_good, for_good


def _counted(failures: Counter[str]) -> str:
    """ "3 timeout, 1 http 500"."""
    return ", ".join(f"{count} {error}" for error, count in failures.most_common())


def without_teacher(
    run: Run,
    inputs: Inputs,
    contestants: Sequence[Contestant],
    prompts: Sequence[Prompt],
    unreachable: Unreachable,
    progress: Progress,
) -> tuple[list[Contestant], dict[str, Completion]]:
    """The contestants with the recorded teacher for the one that cannot be reached, and all recorded answers.

    Raises the teacher's error where the run has too few recorded answers.
    """
    why = f"the teacher cannot be reached ({unreachable.error.message})"
    recorded = {contestant.role: contestant for contestant in recorded_teacher(run, why)}
    competing = [recorded.get(contestant.role, contestant) for contestant in contestants]
    taken, found = with_outputs(competing, prompts, inputs.template)
    if any(contestant.role == "teacher" and contestant.absent for contestant in taken):
        raise unreachable.error
    progress.note(f"eval: {why}; the student is compared with its recorded answers; the next run tries again")
    return taken, found
