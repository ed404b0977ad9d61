"""The content of scores.json: the table, and beside it who each model is, how it was prompted, what it took, on which machine.

It describes itself: what each measure and each contestant is called is in it. Verdict, report and terminal only read it.
"""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seqdistill.engines import PERMANENT_ERRORS
from seqdistill.engines.loading import neutralised_settings
from seqdistill.engines.transformers_local import BATCH_SIZE
from seqdistill.journal.prices import FREE, known_usd
from seqdistill.metrics import Measure
from seqdistill.metrics.text import chrf_signature
from seqdistill.recipe.tables import EvalConfig, ModelConfig, Recipe
from seqdistill.rights import license_in
from seqdistill.runs import Run
from seqdistill.stages.evaluate import baselines
from seqdistill.stages.evaluate.answers import Answer, Scoring
from seqdistill.stages.evaluate.asking import max_tokens
from seqdistill.stages.evaluate.class_table import class_table
from seqdistill.stages.evaluate.contestants import Contestant
from seqdistill.stages.evaluate.cost import inputs_of, terms_of, upfront_of, with_costs
from seqdistill.stages.evaluate.deferral import DeferralTarget, deferral, with_cost
from seqdistill.stages.evaluate.forced import forced_document
from seqdistill.stages.evaluate.latency import Latencies
from seqdistill.stages.evaluate.outputs import NOT_RECORDED
from seqdistill.stages.evaluate.regressions import Sources, regressions
from seqdistill.stages.evaluate.safety.document import safety_document
from seqdistill.stages.evaluate.statistics.intervals import ENOUGH
from seqdistill.stages.evaluate.table import Settings, methods, tabulate
from seqdistill.stages.evaluate.verdict import verdict
from seqdistill.stages.evaluate.weights import size_of


def scores_of(
    run: Run,
    recipe: Recipe,
    contestants: Sequence[Contestant],
    scoring: Scoring,
    primary: str,
    answers: Sequence[Answer],
    latencies: Mapping[str, Latencies],
    safety: Sequence[Mapping[str, Any]],
    judge: Mapping[str, Any] | None,
    forced: tuple[Sequence[Mapping[str, Any]], str | None] | None,
) -> dict[str, Any]:
    """The document, with how long each model takes by role, the lines of safety.jsonl, and what the judge found, if used.
    `forced` are the lines of forced.jsonl, and why there are none.

    Where the task has a form it also holds the form, and the teacher's request settings.
    """
    form = {name: value for name in ("schema", "choices") if (value := getattr(recipe.generate, name))}
    settings = Settings(
        [contestant.role for contestant in contestants],
        scoring.measures,
        primary,
        margin_points(recipe.eval),
        recipe.eval.resamples,
        recipe.eval.seed,
        DeferralTarget(recipe.eval.target, recipe.eval.risk, recipe.eval.good_enough, recipe.eval.agreement),
    )
    found = found_in(answers, settings, scoring)
    for contestant in contestants:
        found["models"][contestant.role] = {
            **_facts(run, recipe, contestant, answers),
            **times(latencies.get(contestant.role)),
            **found["models"][contestant.role],
        }
    inputs, terms = inputs_of(recipe, contestants, answers, latencies), terms_of(recipe.eval, found["deferral"])
    costs = with_costs(found, inputs, terms, upfront_of(run, recipe))
    for role, of in costs.pop("models").items():
        found["models"][role] |= of
    found |= {**costs, **{name: found["models"]["student"].get(name) for name in ("p50", "p95")}}
    found["deferral"] = with_cost(found["deferral"], found["models"])
    found["regressions"] = regressions_in(answers, settings, explained_with(run, recipe.eval.regressions))
    config = recipe.eval
    training = baselines.training_file(run)
    found["safety"] = safety_document(safety, answers, training, config.safety.margin, config.resamples, config.seed)
    document = {
        **found,
        "primary_named": recipe.task.primary is not None,
        "prompts": len({answer.prompt.id for answer in answers}),
        "trained_on": baselines.trained_on(training, (answer.prompt for answer in answers if answer.model == "student")),
        "teacher_license": license_in(run) or recipe.teacher.license,
        **({"form": form} if form else {}),
        **({"judge": judge} if judge else {}),
        **({"teacher_forced": forced_document(*forced, config.resamples, config.seed)} if forced else {}),
        "temperature": recipe.eval.temperature,
        "max_tokens": max_tokens(recipe),
        "resamples": recipe.eval.resamples,
        "seed": recipe.eval.seed,
        "methods": methods(scoring.measures, chrf_signature()),
        "machine": _machine(),
    }
    return {"verdict": verdict(document), **document}


def margin_points(config: EvalConfig) -> float:
    """The margin in percentage points; below 1 it is configured as a share."""
    return round(config.margin * 100, 9) if 0 < config.margin < 1 else config.margin


def found_in(answers: Sequence[Answer], settings: Settings, scoring: Scoring) -> dict[str, Any]:
    """All of the document that follows from the answers and the settings alone."""
    found = tabulate(answers, settings)
    judged = found["judged"] or {}
    document = {
        "decision": judged.get("decision", "INCONCLUSIVE"),
        "margin": settings.margin,
        "needed": judged.get("needed"),
        "primary": settings.primary,
        "measures": described(scoring.measures),
        **{name: found[name] for name in ("n", "groups", "judged", "models", "comparisons", "kept", "gap_closed", "warning")},
        "few": ENOUGH,
        "slices": found["slices"],
    }
    if settings.promise is not None:
        by_role = {role: [one for one in answers if one.model == role and one.scores is not None] for role in settings.roles}
        comparator = judged.get("other")
        document["deferral"] = deferral(by_role, settings.primary, comparator, settings.margin, settings.promise, settings.seed)
    if scoring.kind == "choices":
        against = "teacher" if settings.primary.endswith("_teacher") else "reference"
        if not any(answer.prompt.reference for answer in answers):
            against = "teacher"
        classes = class_table(answers, settings, scoring.form.choices, against)
        document["accuracy"] = document["models"]["student"][f"accuracy_{against}"]
        for role, cell in classes.pop("macro_f1_of").items():
            document["models"][role]["macro_f1"] = cell
        document["models"]["student"]["macro_f1"] = classes["macro_f1"]
        if "majority" in classes:
            classes["majority"] |= document["models"]["majority"][f"accuracy_{against}"] or {}
        document |= classes
    return document


def described(measures: Sequence[Measure]) -> dict[str, dict[str, Any]]:
    """What each measure is called and how it is read."""
    return {
        measure.name: {
            "heading": measure.heading,
            "phrase": measure.phrase,
            "against": measure.against,
            "share": measure.metric.share,
            "higher_is_better": measure.metric.higher_is_better,
        }
        for measure in measures
    }


def explained_with(run: Run, most: int) -> Sources:
    """What the run's regressions are explained with."""
    return Sources(baselines.training_file(run), baselines.rejected_file(run), most)


def regressions_in(answers: Sequence[Answer], settings: Settings, sources: Sources) -> dict[str, Any]:
    """The regressions by the metric that decides."""
    share = next(measure.metric.share for measure in settings.measures if measure.name == settings.primary)
    return regressions(answers, settings.primary, sources, share=share)


def _facts(run: Run, recipe: Recipe, contestant: Contestant, answers: Sequence[Answer]) -> dict[str, Any]:
    """Who a contestant is and what its answers took."""
    facts: dict[str, Any] = {"called": contestant.called, "phrase": contestant.phrase}
    if contestant.absent:
        facts["absent"] = contestant.absent
    if contestant.model is None:
        mine = [answer.completion for answer in answers if answer.model == contestant.role]
        lacking = sum(completion.error == NOT_RECORDED for completion in mine)
        return facts | ({"not_recorded": lacking} if lacking else {})
    return facts | {
        "name": _name(run, contestant.model.model or ""),
        "identity": contestant.identity,
        "engine": contestant.model.engine,
        "view": contestant.view,
        **({"asked_with": contestant.asked_with} if contestant.asked_with else {}),
        **({"neutralised": neutralised} if (neutralised := neutralised_settings(contestant.model)) else {}),
        "price": None if contestant.price is None else contestant.price.as_json(),
        **asdict(size_of(contestant.model)),
        **usage(contestant, answers),
        "speed_basis": _speed_basis(contestant.model, recipe.eval),
    }


def times(found: Latencies | None) -> dict[str, Any]:
    """How long a model takes: p50, p95, first_token_p50, first_token_p95 in seconds, latency_basis; with a limit, at_limit."""
    if found is None or found.latency is None:
        return {}
    row = found.latency.row()
    seconds = {name: row[name] for name in ("p50", "p95", "first_token_p50", "first_token_p95")}
    seconds["latency_tokens_per_second"] = row["tokens_per_second"]
    more = {"at_limit": found.at_limit.row()} if found.at_limit else {}
    return {**seconds, "latency_basis": row["basis"], "latency_requests": row["requests"], **more}


def usage(contestant: Contestant, answers: Sequence[Answer]) -> dict[str, Any]:
    """Failures, empty answers, tokens, seconds and cost of one model's answers, as the journal holds them.

    `unanswerable` are the failures that no further try would change.
    """
    mine = [answer.completion for answer in answers if answer.model == contestant.role]
    read, written = sum(c.prompt_tokens for c in mine), sum(c.completion_tokens for c in mine)
    seconds = sum(c.seconds for c in mine)
    usd = None if contestant.price == FREE else known_usd(contestant.price, mine)
    return {
        "failed": sum(c.error is not None for c in mine),
        "unanswerable": sum(c.error is not None and c.error.partition(": ")[0] in PERMANENT_ERRORS for c in mine),
        "empty": sum(c.error is None and not c.content.strip() for c in mine),
        "prompt_tokens": read,
        "completion_tokens": written,
        "seconds": round(seconds, 3),
        "tokens_per_second": round(written / seconds, 3) if seconds > 0 else None,
        "usd": None if usd is None else round(usd, 6),
    }


def _speed_basis(model: ModelConfig, config: EvalConfig) -> str:
    """Under what conditions a model's tokens/s was measured. Speeds on different bases must not be compared."""
    match model.engine:
        case "openai":
            return f"one request's stream at an endpoint, up to {config.concurrency} in flight, waiting included"
        case "vllm":
            return "vLLM in this process, loading excluded"
    return f"transformers in this process, batches of up to {model.options.get('batch_size', BATCH_SIZE)}, loading excluded"


def _name(run: Run, model: str) -> str:
    """A model's configured name; a path is shown without the place of this machine's folders."""
    path = Path(model)
    if not path.is_absolute():
        return model
    return str(path.relative_to(run.path.absolute())) if path.is_relative_to(run.path.absolute()) else path.name


def _machine() -> dict[str, Any]:
    import torch

    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), processor)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"processor": processor, "cpus": os.cpu_count(), "gpu": gpu, "system": platform.system()}
