"""Public data sets whose rows need more than other names, rewritten as rows that `rows` reads.

Knows questions about a passage, several answers to one prompt with scores, two that were compared, calls of functions, and
instructions in two parts.
Does not read replies.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from seqdistill.engines.replies import as_dict, objects
from seqdistill.stages.generate.recorded.exchange import Row
from seqdistill.stages.generate.recorded.trees import best_rank
from seqdistill.tasks.messages import call_text, is_conversation, structured, tools_text

QUESTIONS = ("prompt", "question", "query", "user_input", "instruction", "problem", "text", "input", "inputs")
PASSAGES = ("context", "contexts", "passage", "retrieved_contexts", "retrieval_context")
MAYBE_PASSAGES = (  # or the names of those
    *("passages", "documents", "source_documents", "retrieved_documents", "retrieved_docs", "document", "article", "paragraph"),
    *("story", "knowledge"),
)
ANSWERS = ("response", "answer", "completion", "output", "text", "content")
MARKS = ("correctness_math_verify", "correctness", "is_correct", "correct", "correctness_llama")  # of each of several answers
NAMES = re.compile(r"\s*(?:[\w./:-]*[\d_./:][\w./:-]*\s*)+", re.ASCII)  # of documents: ids, files, addresses
TEXTS = ("page_content", "text", "content", "passage_text")  # of one passage
NO_ANSWERS = ("proof", "notfound")  # what NuminaMath has in the place of one
SCORES = ("overall_score", "score", "rating", "reward")


def _question_about(row: Row) -> Row | None:
    """A question and the passage that it is about: SQuAD, and what tools that evaluate retrieval write."""
    questions = ("question", "query", "user_input", *(("input",) if "retrieval_context" in row else ()))
    question = next((key for key in questions if isinstance(row.get(key), str)), None)
    if question is None or row.keys() & {"messages", "prompt", "instruction", "conversations"}:
        return None
    texts = {key: text for key in (*PASSAGES, *MAYBE_PASSAGES) if (text := _passage(row.get(key)))}
    passage = next((text for key, text in texts.items() if key in PASSAGES or not NAMES.fullmatch(text)), "")
    answers = structured(row.get("answers"))
    accepted = answers.get("text") if isinstance(answers, Mapping) else answers
    beside = {}
    if isinstance(accepted, list) and all(isinstance(text, str) for text in accepted) and "answer" not in row:
        beside = {"completion": accepted[0] if accepted else ""}
    elif isinstance(accepted, list) and accepted and all(isinstance(as_dict(one).get("text"), str) for one in accepted):
        best = next((one for one in accepted if one.get("selected") is True), None)
        scored = [one for one in accepted if isinstance(one.get("pm_score"), (int, float))]  # of Stack Exchange
        best = best or max(scored, key=lambda one: float(one["pm_score"]), default=accepted[0])
        beside = {"completion": best["text"]}
    elif isinstance(one := as_dict(row.get("answer")).get("value"), str) and "aliases" in row["answer"]:
        beside = {"answer": one}
    elif isinstance(row.get("answer"), list) and all(isinstance(one, str) for one in row["answer"]) and row["answer"]:
        beside = {"answer": row["answer"][0]}
    if not passage and not beside:
        return None
    prompt = f"{row[question]}\n\n{passage}" if passage and passage not in row[question] else row[question]
    return {
        **{key: value for key, value in row.items() if key not in (question, *PASSAGES, *MAYBE_PASSAGES, "answers")},
        "prompt": prompt,
        **beside,
    }


def _passage(value: Any) -> str:
    """A passage's text: a text, several, or HotpotQA's sentences under titles."""
    value = structured(value)
    if isinstance(value, Mapping) and isinstance(sentences := value.get("sentences"), list):
        value = ["".join(one) for one in sentences if isinstance(one, list) and all(isinstance(part, str) for part in one)]
    if isinstance(value, Mapping) and isinstance(value.get("passage_text"), list):  # MS MARCO
        value = value["passage_text"]
    if isinstance(value, list):
        held = [next((one[key] for key in TEXTS if one.get(key)), None) if isinstance(one, Mapping) else one for one in value]
        value = "\n\n".join(one for one in held if isinstance(one, str) and one.strip())
    return value.strip() if isinstance(value, str) else ""


def _calls(row: Row) -> Row | None:
    """A query and the calls of functions that answer it, as xLAM has them; as text, the functions in a system message."""
    calls, prompt = structured(row.get("answers")), row.get("query")
    if not isinstance(prompt, str) or not isinstance(calls, list) or not calls or "tools" not in row:
        return None
    if not all(isinstance(one, Mapping) and isinstance(one.get("name"), str) and "arguments" in one for one in calls):
        return None
    tools = structured(row["tools"])
    return {
        "id": row.get("id"),
        "system": tools_text(tools if isinstance(tools, list) else [tools]),
        "prompt": prompt,
        "completion": "\n".join(map(call_text, calls)),
    }


def _worked_out(row: Row) -> Row | None:
    """A problem with a solution that is worked out and its short answer, which is the reference."""
    prompt = next((key for key in ("problem", "question", "prompt") if isinstance(row.get(key), str)), None)
    solution, answer = row.get("solution"), row.get("answer")
    if prompt is None or not isinstance(solution, str) or not solution.strip() or not isinstance(answer, (str, int, float)):
        return None
    if row.keys() & {"messages", "completion", "response", "output", "generations"} or str(answer).strip() == solution.strip():
        return None
    rest = {key: value for key, value in row.items() if key not in ("solution", "answer")}
    is_good = not any(str(row.get(f"{one}_is_valid")).lower() in ("no", "incomplete") for one in ("problem", "solution"))
    reference = row.get("reference") or (None if answer in NO_ANSWERS else answer)
    return {**rest, "completion": solution, "reference": reference, **({} if is_good else {"label": False})}


def _defined(row: Row) -> Row | None:
    """A task's definition and one of its inputs, as in Natural Instructions."""
    task, prompt = row.get("definition"), row.get("inputs", row.get("input"))
    if (
        not isinstance(task, str)
        or not isinstance(prompt, str)
        or "instruction" in row
        or not row.keys() & {"targets", "output"}
    ):
        return None
    rest = {key: value for key, value in row.items() if key not in ("definition", "inputs", "targets")}
    return {**rest, "instruction": task, "input": prompt, "output": row.get("output", row.get("targets"))}


def _answered_often(row: Row) -> Row | None:
    """Several answers of one model to one prompt."""
    if (answers := _answers(row)) is None:
        return None
    choices = [{"message": {"content": one}, "finish_reason": reason} for one, reason in answers]
    request = {"prompt": _asked(row), "system": row.get("system_prompt")}
    return {**row, "request": request, "response": {"choices": choices}, "reference": _gold(row)}


def _asked(row: Row) -> str | None:
    return next((row[key] for key in QUESTIONS if isinstance(row.get(key), str) and row[key]), None)


def _answers(row: Row) -> list[tuple[str, Any]] | None:
    """The answers in a row of several, each with its finish reason; None for any other row."""
    answers = row.get("generations", row.get("responses"))
    if row.get("messages") or row.get("chosen") or not _asked(row) or not isinstance(answers, list) or not answers:
        return None
    if not all(isinstance(one, str) for one in answers):
        return None
    return list(zip(answers, _each(row, answers, "finish_reasons"), strict=True))


def _each(row: Row, answers: list[Any], *keys: str) -> list[Any]:
    """What a row says of each of its answers under the first of `keys` that it has; None of each without any."""
    found = (structured(row.get(key)) for key in keys)
    return next((one for one in found if isinstance(one, list) and len(one) == len(answers)), [None] * len(answers))


def _gold(row: Row) -> Any:
    answer = row.get("answer")
    return row.get("reference") or (answer if isinstance(answer, (str, int, float)) else None)


DATA_SETS: tuple[Callable[[Row], Row | None], ...] = (_calls, _question_about, _worked_out, _defined, _answered_often)


# --- several rows in one ----------------------------------------------------------------------------------------------


def _paragraphs(row: Row) -> list[Row] | None:
    """The questions about an article's paragraphs, as SQuAD's own files have them."""
    paragraphs = row.get("paragraphs")
    if not isinstance(paragraphs, list) or not all({"context", "qas"} <= as_dict(one).keys() for one in paragraphs):
        return None
    return [{**one, "context": part["context"]} for part in paragraphs for one in objects(part["qas"])]


def _rated(row: Row) -> list[Row] | None:
    """Several models' answers to one prompt; with scores or ranks all but the best are marked as bad."""
    prompt = next((row[key] for key in QUESTIONS if row.get(key) and isinstance(row[key], (str, list))), None)
    held = next(
        (held for key in ("completions", "responses", "answers", "generations") if isinstance(held := row.get(key), list)), []
    )
    answers = [
        (as_dict(one), next((one[key] for key in ANSWERS if isinstance(one.get(key), str)), None))
        for one in held
        if isinstance(one, Mapping)
    ]
    if prompt is None or not answers or len(answers) != len(held) or any(text is None for _, text in answers):
        return None
    if is_conversation(held) or not any("model" in one or _score(one) is not None for one, _ in answers):
        return None
    best = best_rank([_score(one) for one, _ in answers])
    rows = []
    for one, text in answers:
        system = one.get("custom_system_prompt", row.get("system_prompt"))
        beside = {"model": one.get("model"), "system": system, "reference": row.get("reference")}
        rows.append({"prompt": prompt, "completion": text, "label": best is None or _score(one) == best, **beside})
    return rows


def _marked(row: Row) -> list[Row] | None:
    """Several answers to one prompt, of which a list beside them says which are right, how good each is, or whose."""
    if (answers := _answers(row)) is None:
        return None
    marks = _each(row, answers, *MARKS)
    found = _each(row, answers, "ratings", "rating", "scores", "rewards")
    scores = [-one if isinstance(one, (int, float)) else None for one in found]
    best = best_rank(scores)
    models = _each(row, answers, "generation_models", "generation_model", "model_names", "models")
    if not any(isinstance(one, (bool, int)) for one in marks) and best is None and not any(models):
        return None
    facts = {"prompt": _asked(row), "system": row.get("system_prompt"), "reference": _gold(row)}
    good = [mark is None or bool(mark) for mark in marks]
    return [
        {**facts, "completion": text, "finish_reason": reason, "model": model, "label": right and score == best}
        for (text, reason), model, right, score in zip(answers, models, good, scores, strict=True)
    ]


def _compared(row: Row) -> list[Row] | None:
    """Two answers to one prompt, of which somebody preferred one: PKU-SafeRLHF, HelpSteer3, Chatbot Arena's older tables."""
    pairs = (("response_0", "response_1"), ("response1", "response2"), ("response_a", "response_b"))
    names = next((names for names in pairs if all(row.get(name) for name in names)), None)
    prompt = structured(row.get("prompt", row.get("context")))
    if names is None or not isinstance(prompt, (str, list)) or not prompt:
        return None
    preferred = _preferred(row)
    return [
        {
            "messages": _alternating(prompt, structured(row[name])),
            "model": row.get(f"model_{'ab'[number]}") or row.get(f"{name}_source"),
            "label": number == preferred and row.get(f"is_{name}_safe") is not False,
        }
        for number, name in enumerate(names)
    ]


def _preferred(row: Row) -> int | None:
    """Which of two answers was preferred, 0 or 1; None for neither."""
    if isinstance(better := row.get("better_response_id"), int):
        return better
    if isinstance(preference := row.get("overall_preference"), (int, float)):  # of HelpSteer3, from -3 to 3
        return None if preference == 0 else int(preference > 0)
    return next((number for number in (0, 1) if row.get(f"winner_model_{'ab'[number]}") in (1, True, "1")), None)


def _alternating(prompt: Any, answered: Any) -> list[Row]:
    """The conversation of a prompt and its answer: texts, messages before a text, or a list of each side's turns."""
    if is_conversation(prompt):
        return [*prompt, {"role": "assistant", "content": answered}]
    sides = [one if isinstance(one, list) else [one] for one in (prompt, answered)]
    turns = zip(*sides, strict=False)
    return [{"role": role, "content": text} for pair in turns for role, text in zip(("user", "assistant"), pair, strict=True)]


def _score(answer: Mapping[str, Any]) -> float | None:
    """How bad an answer was found: its rank, or the negative of its score; None for one that nobody judged."""
    if isinstance(rank := answer.get("rank"), (int, float)):
        return float(rank)
    return next((-float(answer[key]) for key in SCORES if isinstance(answer.get(key), (int, float))), None)


DATA_SETS_WITHIN: tuple[Callable[[Row], list[Row] | None], ...] = (_paragraphs, _rated, _marked, _compared)
