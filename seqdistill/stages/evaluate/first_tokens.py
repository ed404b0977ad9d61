"""The threshold for an answer of which only the first tokens are known, as in a stream, with the promise of the whole ones.

The confidence in some first tokens is another number than that in all: its threshold is found anew, by the same steps on the
same halves of the test prompts, from the log-probabilities in eval's journal. Runs no model.
"""

from dataclasses import replace

from seqdistill.confidence import confidence_in
from seqdistill.engines.logprobs import logprobs_in
from seqdistill.errors import UsageError
from seqdistill.journal.storage import Journal, completion_of
from seqdistill.records import read_jsonl
from seqdistill.runs import Run
from seqdistill.stages.evaluate.answers import Answer
from seqdistill.stages.evaluate.deferral import DeferralTarget, deferral
from seqdistill.stages.evaluate.written import answer_of, document_of


def first_tokens_threshold(run: Run, tokens: int) -> float | None:
    """The threshold of the confidence in the first `tokens` tokens; None where none holds the promise, or none was made.

    Raises UsageError for damaged files.
    """
    files = {name: run.file("eval", name) for name in ("deferral.json", "scores.json", "predictions.jsonl", "journal.jsonl")}
    if not all(path.is_file() for path in files.values()):
        return None
    written, scores = document_of(run, "deferral.json"), document_of(run, "scores.json")
    try:
        if written["target"] is None or written["confidence"] != "logprob":
            return None
        promise = DeferralTarget(*(written[name] for name in ("target", "risk", "good_enough", "samples")))
        identity = scores["models"]["student"]["identity"]
    except (LookupError, TypeError) as error:
        raise UsageError(
            f"{files['deferral.json']}, or scores.json beside it: damaged: {error} is not there",
            f"run `seqdistill eval {run.shell}` again",
        ) from None
    with Journal(files["journal.jsonl"], writable=False) as journal:
        first = {
            row["id"]: confidence_in(found.logprobs[:tokens])
            for row in journal.rows()
            if row["model"] == identity and (found := logprobs_in(completion_of(row, "").raw)) and found.logprobs
        }
    by_role: dict[str, list[Answer]] = {role: [] for role in scores["models"]}
    for _, row in read_jsonl(files["predictions.jsonl"]):
        answer = answer_of(row)
        if answer.scores is None:
            continue
        if answer.model == "student" and answer.confidence:
            answer = replace(answer, confidence=first.get(f"{answer.prompt.id}:student"))
        by_role[answer.model].append(answer)
    comparator = (scores["judged"] or {}).get("other")
    threshold = deferral(by_role, scores["primary"], comparator, scores["margin"], promise, scores["seed"])["threshold"]
    return None if threshold is None else float(threshold)
