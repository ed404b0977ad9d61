"""Eval's numbers, computed again from the answers in predictions.jsonl and the replies in journal.jsonl. Runs no model.

Taken as written: the scores of a user's own metric, which is code; the human labels; facts of a model (its size, its
price), of the machine and of the run's cost before eval.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from seqdistill.engines import Completion, Request
from seqdistill.errors import SeqdistillError
from seqdistill.journal.prices import FREE, written_price
from seqdistill.journal.storage import Journal, completion_of
from seqdistill.recipe.tables import EvalConfig, ModelConfig
from seqdistill.records import fingerprint, read_json, read_jsonl, request_seed
from seqdistill.runs import Run
from seqdistill.stages.evaluate.answers import Answer, Scoring
from seqdistill.stages.evaluate.baselines import trained_on, training_file
from seqdistill.stages.evaluate.contestants import Contestant
from seqdistill.stages.evaluate.cost import measured_inputs, terms_of, with_costs
from seqdistill.stages.evaluate.deferral import DeferralTarget, with_cost
from seqdistill.stages.evaluate.forced import forced_document
from seqdistill.stages.evaluate.judging import CHOICES, numbers_of, pairs_of
from seqdistill.stages.evaluate.latency import latencies
from seqdistill.stages.evaluate.safety.document import safety_document
from seqdistill.stages.evaluate.scores import explained_with, found_in, margin_points, regressions_in, times, usage
from seqdistill.stages.evaluate.table import Settings
from seqdistill.stages.evaluate.verdict import verdict
from seqdistill.stages.evaluate.written import answer_of, form_in, measures_in, own_measures_in, scores_in
from seqdistill.tasks.rubrics import choice_in
from seqdistill.version import source_sha256

CLOSE, LEAST = 1e-4, 2e-6  # relative and absolute: what sums in another order on another machine can move
TIMES = (
    *("p50", "p95", "first_token_p50", "first_token_p95", "latency_tokens_per_second"),
    *("latency_basis", "latency_requests", "at_limit"),
)

Problems = Iterator[tuple[Path, str]]


@dataclass(frozen=True)
class Written:
    """What eval wrote."""

    run: Run
    scores: dict[str, Any]
    answers: list[Answer]
    sent: list[dict[str, Any]]  # the lines of safety.jsonl
    judgements: list[dict[str, Any]] | None  # None: a run without a judge

    @classmethod
    def of(cls, run: Run) -> "Written":
        """Reads the files of a finished eval."""

        def rows(name: str) -> list[dict[str, Any]] | None:
            path = run.file("eval", name)
            return [row for _, row in read_jsonl(path)] if _wrote(run, path) else None

        answers = [answer_of(row) for _, row in read_jsonl(run.file("eval", "predictions.jsonl"))]
        return cls(run, scores_in(run), answers, rows("safety.jsonl") or [], rows("judgements.jsonl"))

    def file(self, name: str) -> Path:
        """One of eval's files."""
        return self.run.file("eval", name)


def differing(run: Run) -> Problems:
    """Each file that does not follow from those it was made from, and where; answers that are not in the journal."""
    written = Written.of(run)
    unfounded = next(_unfounded_scores(written), None)
    if unfounded:
        yield unfounded
        return
    path = written.file("scores.json")
    if place := difference(_configured(written), written.scores, exact=True):
        yield path, f"is not what the recipe in manifest.json says: {place}"
    elif place := difference(_from_answers(written), written.scores):
        yield path, f"does not follow from predictions.jsonl: {place}"
    elif place := difference(_costs(written.scores), written.scores, exact=True):
        yield path, f"does not follow from its own cost.inputs, cost.terms and cost.upfront: {place}"
    elif is_in_our_words(run) and verdict(written.scores) != written.scores["verdict"]:
        yield path, "the verdict does not follow from the scores"
    journal_path = written.file("journal.jsonl")
    if not journal_path.is_file():
        yield journal_path, "missing"
        return
    deferral = written.file("deferral.json")
    held = read_json(deferral) if _wrote(run, deferral) else None
    if held is not None and held != written.scores["deferral"]:
        yield deferral, "is not what scores.json says of it"
    try:
        with Journal(journal_path, writable=False) as journal:
            yield from _from_journal(written, journal)
    except (SeqdistillError, KeyError, ValueError) as error:
        yield journal_path, f"cannot be read: {error}"


# --- from the answers -------------------------------------------------------------------------------------------------


def _unfounded_scores(written: Written) -> Problems:
    """Answers in predictions.jsonl whose scores are not those of their texts."""
    by_prompt: dict[str, dict[str, Completion]] = {}
    for answer in written.answers:
        by_prompt.setdefault(answer.prompt.id, {})[answer.model] = answer.completion
    shown = {answer.prompt.id: answer.prompt for answer in written.answers if answer.model == "student"}
    scoring, own = _scoring(written.scores), own_measures_in(written.scores)
    for answer in written.answers:
        if answer.scores is None:
            continue
        found = scoring.scores(by_prompt[answer.prompt.id], answer.model, shown[answer.prompt.id])
        found |= {measure.name: answer.scores.get(measure.name) for measure in own}
        if place := difference(found, answer.scores):
            where = f"the scores of {answer.prompt.id}, {answer.model}, do not follow from the answers: {place}"
            yield written.file("predictions.jsonl"), where


def _scoring(scores: Mapping[str, Any]) -> Scoring:
    form = form_in(scores)
    return Scoring(measures_in(scores), form, form.kind)


def _from_answers(written: Written) -> dict[str, Any]:
    """All of scores.json that follows from the answers, the training data and what was read beside them."""
    run, scores, answers = written.run, written.scores, written.answers
    scoring = _scoring(scores)
    settings = Settings(
        list(scores["models"]),
        [*own_measures_in(scores), *scoring.measures],
        scores["primary"],
        scores["margin"],
        scores["resamples"],
        scores["seed"],
        DeferralTarget(*(scores["deferral"][name] for name in ("target", "risk", "good_enough", "samples"))),
    )
    document = found_in(answers, settings, replace(scoring, measures=settings.measures))
    if _has_inputs(run, "training data", "rejected rows"):
        document["regressions"] = regressions_in(answers, settings, explained_with(run, scores["regressions"]["most"]))
    if _has_inputs(run, "training data"):
        margin, training = scores["safety"]["margin"], training_file(run)
        document["safety"] = safety_document(written.sent, answers, training, margin, scores["resamples"], scores["seed"])
        document["trained_on"] = trained_on(training, (one.prompt for one in answers if one.model == "student"))
    if forced := scores.get("teacher_forced"):
        read = [row for _, row in read_jsonl(written.file("forced.jsonl"))]
        document["teacher_forced"] = forced_document(read, forced["reason"], scores["resamples"], scores["seed"])
    return document


def _costs(scores: Mapping[str, Any]) -> dict[str, Any]:
    """All of scores.json that follows from its own cost.inputs, cost.terms and cost.upfront."""
    cost = scores["cost"]
    found = with_costs(scores, cost["inputs"], cost["terms"], cost["upfront"])
    return found | {"deferral": with_cost(scores["deferral"], scores["models"])}


def _configured(written: Written) -> dict[str, Any]:
    """All of scores.json that [eval] of the recipe says, as the manifest holds it."""
    table = (written.run.manifest("eval") or {}).get("config", {}).get("eval", {})
    found = {name: table[name] for name in ("temperature", "resamples", "seed", "max_tokens") if table.get(name) is not None}
    config = _config(written.run)
    found |= {"margin": margin_points(config), "prompts": len({answer.prompt.id for answer in written.answers})}
    found["cost"] = {"terms": terms_of(config, written.scores["deferral"])}
    for part, configured in (
        ("safety", {"margin": (table.get("safety") or {}).get("margin")}),
        (
            "deferral",
            {"samples": table.get("agreement"), **{name: table.get(name) for name in ("target", "risk", "good_enough")}},
        ),
        ("regressions", {"most": table.get("regressions")}),
    ):
        known = written.scores.get(part) or {}
        if said := {name: value for name, value in configured.items() if value is not None and name in known}:
            found[part] = said
    return found


def is_in_our_words(run: Run) -> bool:
    """Whether eval's sentences were written by this very code: another version, or another checkout of it, has other words."""
    return bool((run.manifest("eval") or {}).get("source") == source_sha256())


def _has_inputs(run: Run, *names: str) -> bool:
    """Whether eval's inputs of these names, where it read them, are still there: a copied run may have left them behind."""
    inputs = (run.manifest("eval") or {}).get("inputs", {})
    return all((run.path / inputs[name]["path"]).exists() for name in names if name in inputs)


def _wrote(run: Run, path: Path) -> bool:
    """Whether eval's last run wrote a file."""
    outputs = (run.manifest("eval") or {}).get("outputs", ())
    return any(run.path / output["path"] == path for output in outputs)


# --- from the journal -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reply:
    """A line of the journal."""

    model: str  # its identity
    request: Request
    completion: Completion


@dataclass(frozen=True)
class Replies:
    """The journal's lines, without the raw replies."""

    by_text: dict[tuple[str, str, str], list[Reply]] = field(default_factory=dict)  # by request id, model, content
    by_key: dict[str, Reply] = field(default_factory=dict)  # those of the judge
    safe: set[tuple[str, str, str | float]] = field(default_factory=set)  # model, messages, and the answer or its loss

    @classmethod
    def of(cls, journal: Journal, judge: str | None, *, safety: bool) -> "Replies":
        """Reads them. `judge` is the judge's identity; `safety`: whether something was sent for safety."""
        found = cls()
        known = {one.name for one in fields(Request)}
        for line in journal.rows():
            completion = completion_of(line, line["id"])
            if safety:
                answer = completion.raw.get("nll", completion.content)
                found.safe.add((line["model"], fingerprint(line["request"]["messages"]), answer))
            request = Request(line["id"], **{name: value for name, value in line["request"].items() if name in known})
            reply = Reply(line["model"], request, replace(completion, raw={}))
            if line["model"] == judge:
                found.by_key[line["key"]] = reply
            found.by_text.setdefault((line["id"], line["model"], completion.content), []).append(reply)
        return found


def _from_journal(written: Written, journal: Journal) -> Problems:
    judge = written.scores.get("judge") or {}
    replies = Replies.of(journal, judge.get("identity"), safety=bool(written.sent))
    if unknown := next(_unjournalled(written, replies), None):
        yield unknown
        return
    found: dict[str, Any] = {"models": {}, "cost": {"inputs": {}}}
    for role, facts in written.scores["models"].items():
        if facts.get("engine") is None:
            continue
        of_model, of_cost = _measured(written, journal, replies, role)
        found["models"][role] = {name: value for name, value in of_model.items() if name in facts}
        if role in written.scores["cost"]["inputs"]:
            found["cost"]["inputs"][role] = of_cost
    student = found["models"].get("student", {})
    found |= {name: student.get(name) for name in ("p50", "p95")}
    if place := difference(found, written.scores, exact=True):
        yield written.file("scores.json"), f"does not follow from journal.jsonl: {place}"
    if written.judgements is not None:
        yield from _judge(written, replies, judge)


def _behind(written: Written, replies: Replies, answer: Answer) -> list[Reply]:
    """The journal's lines with this text for this prompt; a line may have been written for another role's same request."""
    models = written.scores["models"]
    keys = [(f"{answer.prompt.id}:{role}", models[answer.model]["identity"], answer.text) for role in models]
    return [reply for key in keys for reply in replies.by_text.get(key, ())]


def _is_of(answer: Answer, reply: Reply) -> bool:
    """Whether tokens and seconds are the reply's."""
    completion = reply.completion
    written = answer.completion.completion_tokens, answer.completion.seconds
    return written == (completion.completion_tokens, round(completion.seconds, 6))


def _unjournalled(written: Written, replies: Replies) -> Problems:
    """Answers of model contestants that the journal does not hold under their prompt, or what was `sent` for safety."""
    path, models = written.file("journal.jsonl"), written.scores["models"]
    for answer in written.answers:
        facts = models[answer.model]
        if facts.get("identity") is None or facts.get("engine") is None or answer.completion.error is not None:
            continue
        found = _behind(written, replies, answer)
        if not found:
            yield path, f"does not hold the answer of {answer.model} to {answer.prompt.id}"
        elif not any(_is_of(answer, reply) for reply in found):
            where = f"tokens or seconds of {answer.model}'s answer to {answer.prompt.id} are not those in journal.jsonl"
            yield written.file("predictions.jsonl"), where
    for row in written.sent:
        identity, said = models[row["model"]].get("identity"), row["completion"] if row["nll"] is None else row["nll"]
        if row["error"] is None and (identity, fingerprint(row["prompt"]), said) not in replies.safe:
            yield path, f"does not hold the answer of {row['model']} to {row['kind']} {row['id']}"


def _measured(written: Written, journal: Journal, replies: Replies, role: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """One model's usage and times, and those of its cost's inputs that follow from them."""
    facts = written.scores["models"][role]
    price = written_price(facts.get("price"))
    contestant = Contestant(
        role, facts["called"], facts["phrase"], ModelConfig(engine=facts["engine"]), facts["identity"], price=price
    )
    found: list[tuple[Answer, Request | None]] = []
    for answer in written.answers:
        if answer.model != role:
            continue
        reply = next((one for one in _behind(written, replies, answer) if _is_of(answer, one)), None)
        completion = answer.completion if reply is None or answer.completion.error else reply.completion
        found.append((replace(answer, completion=completion), reply.request if reply else None))
    answers = [answer for answer, _ in found]
    config = _config(written.run)
    timed = latencies(journal, contestant.source, _requests(found, written.scores["seed"]), config, _completions(answers))
    if role == "ceiling":  # the teacher again: it is not timed
        timed = replace(timed, latency=None, at_limit=None)
    of_model = {**usage(contestant, answers), **dict.fromkeys(TIMES), **times(timed)}
    answered = [one for one in _completions(answers) if one.error is None]
    of_cost = measured_inputs(contestant, answered, price, timed, config) if answered else {}
    unknown = set[str]()
    if len(answered) < len(answers):  # what a failure took is in no file
        unknown |= {"prompt_tokens", "seconds", "tokens_per_second", "usd"}
    if price == FREE:  # of a model on this machine, whether the recipe says so or nothing
        unknown |= {"token_usd"}
    known = [{name: value for name, value in of.items() if name not in unknown} for of in (of_model, of_cost)]
    return known[0], known[1]


def _completions(answers: Sequence[Answer]) -> list[Completion]:
    return [answer.completion for answer in answers]


def _config(run: Run) -> EvalConfig:
    """[eval] as the run had it, in what decides how latency was measured, what it costs, and the margin."""
    names = ("margin", "latency_requests", "p95_limit", "concurrency", "utilisation", "fallback_share", "shadow_share")
    table = (run.manifest("eval") or {}).get("config", {}).get("eval", {})
    return EvalConfig(**{name: table[name] for name in names if name in table})


def _requests(found: Sequence[tuple[Answer, Request | None]], seed: int) -> list[Request]:
    """The request for each answer, as the journal holds it; for one that failed, like the others."""
    like = next((request for _, request in found if request is not None), None)
    if like is None:
        return []
    return [
        request or replace(like, id=answer.prompt.id, messages=answer.messages, seed=request_seed(seed, answer.prompt.id, 0))
        for answer, request in found
    ]


def _judge(written: Written, replies: Replies, judge: Mapping[str, Any]) -> Problems:
    """Judgements that are not what the judge replied, and numbers that do not follow from them."""
    path, pairs, rows = written.file("judgements.jsonl"), pairs_of(written.answers), written.judgements or []
    if [row["id"] for row in rows] != [pair.student.prompt.id for pair in pairs]:
        yield path, "not one line for each prompt in predictions.jsonl"
        return
    read: list[Completion] = []
    for pair, row in zip(pairs, rows, strict=True):
        if len(row["requests"]) != (0 if pair.is_same else 2) or len(row["choices"]) != len(row["requests"]):
            yield (
                path,
                f"{row['id']}: {len(row['requests'])} requests, and the answers are {'the same' * pair.is_same or 'two'}",
            )
            return
        for key, choice in zip(row["requests"], row["choices"], strict=True):
            reply = None if key is None else replies.by_key.get(key)
            if key is not None and reply is None:
                yield written.file("journal.jsonl"), f"does not hold the judge's reply {key} on {row['id']}"
                return
            said = None if reply is None else choice_in(reply.completion.content, CHOICES)
            if said != choice:
                yield path, f"{row['id']}: the choice {choice!r} is not what the judge replied, {said!r}"
                return
            read += [reply.completion] if reply else []
    if not pairs:
        return
    price = written_price(judge["price"])
    if place := difference({"judge": numbers_of(pairs, rows, read, price)}, {"judge": judge}):
        yield written.file("scores.json"), f"does not follow from judgements.jsonl: {place}"


def difference(found: Any, written: Any, place: str = "", *, exact: bool = False) -> str | None:
    """Where two JSON values differ, by more than rounding unless `exact`; None where they agree.

    What only `written` has is not compared.
    """
    if isinstance(found, dict) and isinstance(written, dict):
        inner = ((found[key], written.get(key), f"{place}.{key}") for key in found)
    elif isinstance(found, (list, tuple)) and isinstance(written, list):
        if len(found) != len(written):
            return f"{place}: {len(written)} instead of {len(found)} entries"
        inner = ((a, b, f"{place}[{n}]") for n, (a, b) in enumerate(zip(found, written, strict=True)))
    elif isinstance(found, (int, float)) and isinstance(written, (int, float)):
        most = 0.0 if exact else max(LEAST, CLOSE * abs(found))
        return None if abs(found - written) <= most else f"{place}: {written} instead of {found}"
    else:
        return None if found == written else f"{place}: {written!r} instead of {found!r}"
    return next((where for a, b, at in inner if (where := difference(a, b, at, exact=exact))), None)
