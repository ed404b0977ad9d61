"""Results of evaluations, rewritten as rows that `rows` reads; and which answers did not pass.

Knows OpenAI's evals, Inspect, lm-eval and DeepEval, and Promptfoo's verdict. Does not read replies.
"""

from collections.abc import Callable, Mapping
from typing import Any

from seqdistill.engines.replies import as_dict
from seqdistill.stages.generate.recorded.exchange import Row
from seqdistill.stages.generate.recorded.traces import reply_of_messages
from seqdistill.tasks.messages import is_assistant, is_conversation, structured

REFERENCES = ("reference", "ground_truth", "expected", "expected_output", "target", "ideal", "label", "correct_answer")
INSPECT_WRONG = ("I", "N")  # https://inspect.aisi.org.uk/scorers.html: incorrect, no answer
LM_EVAL_METRICS = ("exact_match", "acc", "pass@1")  # of files without a list of their metrics


def is_failed_test(row: Mapping[str, Any]) -> bool:
    """Whether an answer did not pass the evaluation that it is a row of."""
    if "raw" in as_dict(row.get("prompt")):  # Promptfoo
        is_answered = as_dict(structured(row.get("response"))).get("output") not in (None, "")
        return is_answered and row.get("success") is False and not row.get("error")
    if row.get("object") == "eval.run.output_item":  # OpenAI
        return row.get("status") == "fail"
    if row.keys() & {"metricsData", "metrics_data"}:  # DeepEval
        return row.get("success") is False
    if is_inspect_sample(row):
        values = [as_dict(score).get("value") for score in as_dict(row.get("scores")).values()]
        return bool(values) and all(isinstance(one, (str, bool)) and one in (*INSPECT_WRONG, False) for one in values)
    if _is_lm_eval_sample(row):
        names = row["metrics"] if isinstance(row.get("metrics"), list) else LM_EVAL_METRICS
        scores = [row[name] for name in names if isinstance(name, str) and name in row]
        return bool(scores) and all(isinstance(one, (int, float)) and one == 0 for one in scores)
    return False


def is_inspect_sample(row: Mapping[str, Any]) -> bool:
    """Whether a row is a sample of a log of Inspect."""
    return "target" in row and isinstance(as_dict(row.get("output")).get("choices"), list)


def _is_lm_eval_sample(row: Mapping[str, Any]) -> bool:
    return "resps" in row and "arguments" in row


def _openai_eval(row: Row) -> Row | None:
    """An output item of an OpenAI eval; a `sampling` event of the package openai/evals."""
    if row.get("type") == "sampling" and "prompt" in (data := as_dict(row.get("data"))):
        sampled = data.get("sampled")
        return {
            "prompt": data["prompt"],
            "completion": sampled[0] if isinstance(sampled, list) and len(sampled) == 1 else sampled,
        }
    sample = as_dict(row.get("sample"))
    if not is_conversation(sample.get("input")):
        return None
    item = as_dict(row.get("datasource_item"))
    request = {"model": sample.get("model"), "messages": sample["input"]}
    return {"request": request, "response": reply_of_messages(sample.get("output"), sample), "reference": reference_of(item)}


def _inspect_sample(row: Row) -> Row | None:
    if not is_inspect_sample(row):
        return None
    messages, prompt = row.get("messages"), row.get("input")
    if isinstance(messages, list) and is_conversation(messages) and is_assistant(messages[-1]):
        prompt = messages[:-1]
    choices = [{**as_dict(one), "finish_reason": as_dict(one).get("stop_reason")} for one in row["output"]["choices"]]
    return {"request": {"messages": prompt} if isinstance(prompt, list) else {"prompt": prompt}} | {
        "response": {**row["output"], "choices": choices},
        "reference": reference_of(row),
    }


def _lm_eval_sample(row: Row) -> Row | None:
    if not _is_lm_eval_sample(row):
        return None
    arguments, responses = row["arguments"], row["resps"]
    first = next(iter(arguments.values()), None) if isinstance(arguments, Mapping) else arguments
    first = first[0] if isinstance(first, list) and first else first
    prompt = first.get("arg_0") if isinstance(first, Mapping) else first[0] if isinstance(first, list) and first else first
    while isinstance(responses, list) and len(responses) == 1:
        responses = responses[0]
    if isinstance(prompt, str) and isinstance(responses, str):
        return {"prompt": prompt, "completion": responses, "reference": reference_of(row)}
    return None


def with_snake_names(row: Row) -> Row:
    """A test of DeepEval with the names of its package in place of those of its files; any other row as it is."""
    names = {"actualOutput": "actual_output", "expectedOutput": "expected_output", "retrievalContext": "retrieval_context"}
    return {names.get(key, key): value for key, value in row.items()} if "actualOutput" in row else row


def reference_of(row: Mapping[str, Any]) -> Any:
    """What an evaluation expected of an answer, under whichever name; None for nothing."""
    return next((row[key] for key in REFERENCES if isinstance(row.get(key), (str, int, float)) and row[key] != ""), None)


EVALUATIONS: tuple[Callable[[Row], Row | None], ...] = (_openai_eval, _inspect_sample, _lm_eval_sample)
