"""Recorded completions: what was answered elsewhere becomes journal lines and samples, as if the teacher had been asked.

Decides which kinds of lines are understood. Reads chat-completions logs ({"request", "response"}), batch files (input and
output, joined by custom_id), {"prompt", "completion"} and {"messages"} lines. Asks nothing.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from seqdistill.engines import Completion, split_reasoning
from seqdistill.engines.logprob_file import write_logprobs
from seqdistill.engines.models import identity
from seqdistill.engines.replies import REASONING, choices_in, count, parse_choice
from seqdistill.errors import UsageError
from seqdistill.generate.plan import Planned, Teacher, plan_requests, teacher_name
from seqdistill.generate.samples import sample_of
from seqdistill.journal.storage import Journal, request_key
from seqdistill.progress import Progress
from seqdistill.recipe.tables import Recipe, TeacherConfig
from seqdistill.records import Message, Prompt, Sample, check_messages, prompt_id, read_row, read_samples, write_jsonl
from seqdistill.runs import Run, StageRecord

HINT = (
    'a line is {"request": {...}, "response": {...}}, a line of a batch input or output file, '
    '{"prompt": ..., "completion": ...} or {"messages": [...]}'
)
NAMELESS = "recorded"  # the teacher of answers that do not name their model
Row = dict[str, Any]


@dataclass(frozen=True)
class ImportResult:
    """What was taken in, in counts; `path` is samples.jsonl."""

    read: int
    samples: int  # in samples.jsonl now
    new: int
    known: int  # stood in the journal already
    unread: int  # listed with file and line in failures.jsonl
    teachers: list[str]
    path: Path


@dataclass(frozen=True)
class _Recorded:
    place: str
    model: str | None
    prompt: Prompt
    completion: Completion


def import_recorded(run: Run, recipe: Recipe, files: Sequence[Path], progress: Progress) -> ImportResult:
    """Puts recorded answers into the run's journal and writes samples.jsonl, so that `filter` goes on from there.

    The teacher is the recipe's, or else the model that each answer names, or else "recorded". A plain line's own `id` is its
    prompt's. What an earlier import brought stays. Raises UsageError when no line can be read.
    """
    unread: list[Row] = []
    read = list(_recorded(files, unread))
    if not read:
        first = f": {unread[0]['id']}: {unread[0]['message']}" if unread else ""
        raise UsageError(f"no recorded completion could be read{first}", HINT)
    with run.locked("generate"):
        earlier = _earlier(run)
        record = StageRecord(run, "generate", {"imported": True}, {str(file): file for file in files})
        record.begin()
        samples, new, logprobs = _store(run, recipe, read, earlier)
        write_jsonl(run.file("generate", "samples.jsonl"), samples.values())
        write_jsonl(run.file("generate", "failures.jsonl"), unread)
        counts = _counts(list(samples.values()), new, len(unread))
        teachers = list(dict.fromkeys(sample.teacher for sample in samples.values()))
        record.finish(
            {
                "samples.jsonl": len(samples),
                "failures.jsonl": len(unread),
                **({"logprobs.parquet": logprobs} if logprobs else {}),
            },
            config=asdict(recipe),
            counts=counts,
            spent_usd=None,
            assumed_usd=None,
            imported=True,
            teacher={"name": ", ".join(teachers), "identity": ", ".join(teachers), "engine": "recorded"},
        )
    for failure in unread[:3]:
        progress.note(f"{failure['id']}: not taken: {failure['message']}")
    if len(unread) > 3:
        progress.note(f"{len(unread)} lines were not taken; all are in {run.file('generate', 'failures.jsonl')}")
    path = run.file("generate", "samples.jsonl")
    return ImportResult(len(read) + len(unread), len(samples), new, len(read) - new, len(unread), teachers, path)


def _earlier(run: Run) -> dict[str, Sample]:
    """The samples that earlier imports brought."""
    manifest = run.manifest("generate")
    if manifest is None or not manifest.get("imported"):
        return {}
    return {sample.id: sample for sample in read_samples(run.file("generate", "samples.jsonl"))}


def _store(
    run: Run, recipe: Recipe, read: Sequence[_Recorded], samples: dict[str, Sample]
) -> tuple[dict[str, Sample], int, int]:
    """Journal lines, samples and log-probabilities of the answers; how many samples are new, and how many have logprobs.

    Another answer to a prompt is its next sample, also when it says the same; what an earlier import brought is left out.
    """
    new = 0
    known = Counter((sample.prompt_id, sample.teacher, sample.text) for sample in samples.values())
    taken = Counter((sample.prompt_id, sample.teacher) for sample in samples.values())
    with Journal(run.file("generate", "journal.jsonl")) as journal:
        for recorded in read:
            teacher = _teacher(recipe.teacher, recorded)
            content = (recorded.prompt.id, teacher.name, recorded.completion.content)
            if known[content] > 0:
                known[content] -= 1
                continue
            number = taken[content[:2]]
            taken[content[:2]] += 1
            asked = replace(recipe.generate, samples=number + 1)
            planned: Planned = plan_requests([recorded.prompt], [teacher], asked)[number]
            key = request_key(planned.request, teacher.identity)
            if key not in journal:
                journal.append(teacher.identity, [(key, planned.request, recorded.completion)], paid=False)
            samples[planned.request.id] = sample_of(planned, recorded.completion)
            new += 1
        replies = ((row["id"], row["completion"]["raw"]) for row in journal.rows() if row["id"] in samples)
        logprobs = write_logprobs(run.file("generate", "logprobs.parquet"), replies)
    return samples, new, logprobs


def _teacher(config: TeacherConfig, recorded: _Recorded) -> Teacher:
    named = replace(config, model=config.model or recorded.model or NAMELESS, engine="openai")
    return Teacher(teacher_name(named), identity(named), named, None)


def _counts(samples: Sequence[Sample], new: int, unread: int) -> dict[str, Any]:
    reasons: dict[str, int] = {}
    for sample in samples:
        reasons[sample.finish_reason] = reasons.get(sample.finish_reason, 0) + 1
    return {
        "prompts": len({sample.prompt_id for sample in samples}),
        "samples": len(samples),
        "new": new,
        "reused": len(samples) - new,
        "failed": unread,
        "finish_reasons": reasons,
        "think_only": sum(not sample.text.strip() and sample.reasoning is not None for sample in samples),
        "prompt_tokens": sum(sample.prompt_tokens for sample in samples),
        "completion_tokens": sum(sample.completion_tokens for sample in samples),
        "usd": None,
    }


# --- kinds of lines ---------------------------------------------------------------------------------------------------


def _recorded(files: Sequence[Path], unread: list[Row]) -> Iterator[_Recorded]:
    """The answers of the files; lines that hold none are added to `unread` with the reason."""
    rows = [found for path in files for found in _rows(path, unread)]
    requests = {str(row["custom_id"]): row["body"] for _, row in rows if _is_batch_request(row)}
    prompts: dict[str, list[Message]] = {}  # by id: what is asked
    for place, row in rows:
        if _is_batch_request(row):
            continue
        try:
            for recorded in _answers(row, place, requests):
                asked, name = recorded.prompt.messages, recorded.prompt.id
                if prompts.setdefault(name, asked) != asked:
                    raise UsageError(f"{place}: the id {name!r} is also that of another prompt")
                yield recorded
        except UsageError as error:
            unread.append(_unread(place, error))


def _rows(path: Path, unread: list[Row]) -> Iterator[tuple[str, Row]]:
    """("file:line", object) of each line; what is not one is added to `unread`."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "give a JSONL file") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            place = f"{path}:{number}"
            try:
                yield place, read_row(line, place)
            except UsageError as error:
                unread.append(_unread(place, error))


def _unread(place: str, error: UsageError) -> Row:
    message = error.message.removeprefix(f"{place}: ")
    return {"id": place, "prompt_id": None, "sample": None, "error": "unreadable", "message": message}


def _is_batch_request(row: Row) -> bool:
    return "custom_id" in row and isinstance(row.get("body"), dict)


def _answers(row: Row, place: str, requests: Mapping[str, Row]) -> Iterator[_Recorded]:
    if "custom_id" in row:
        response = row.get("response")
        if not isinstance(response, dict) or response.get("status_code") != 200:
            raise UsageError(
                f"{place}: the batch has no answer to {row['custom_id']!r}: {str(row.get('error') or response)[:200]}"
            )
        if row["custom_id"] not in requests:
            raise UsageError(f"{place}: no request with custom_id {row['custom_id']!r}: import the batch's input file with it")
        yield from _replies(requests[row["custom_id"]], response.get("body"), row, place)
    elif "response" in row:
        request = row["request"] if isinstance(row.get("request"), dict) else row
        yield from _replies(request, row["response"], row, place)
    else:
        yield _plain(row, place)


def _replies(request: Row, response: Any, row: Row, place: str) -> Iterator[_Recorded]:
    """Each choice of a chat-completions reply."""
    if not (choices := choices_in(response)):
        raise UsageError(f"{place}: the response has no choices with a message")
    prompt = _prompt(_messages(request.get("messages"), place, "messages"), row, place)
    for number in range(len(choices)):
        completion = parse_choice("", response, number, 0.0)
        model = response.get("model") or request.get("model")
        yield _Recorded(place, str(model) if model else None, prompt, completion)


def _plain(row: Row, place: str) -> _Recorded:
    """{"prompt", "completion"}, each text or messages, or {"messages"} that end with the answer."""
    if "completion" in row:
        prompt = row.get("prompt")
        asked = _messages([{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt, place, "prompt")
        given = row["completion"]
        answer = _messages([{"role": "assistant", "content": given}] if isinstance(given, str) else given, place, "completion")
    else:
        *asked, last = _messages(row.get("messages"), place, "messages")
        answer = [last]
    if len(answer) != 1 or answer[0]["role"] != "assistant":
        raise UsageError(f"{place}: the last message is not the assistant's answer")
    thoughts = next((row[key] for key in REASONING if isinstance(row.get(key), str)), None)
    content, reasoning = split_reasoning(answer[0]["content"], thoughts)
    completion = Completion(
        id="",
        content=content,
        reasoning=reasoning,
        finish_reason=str(row.get("finish_reason") or "stop"),
        prompt_tokens=count(row.get("prompt_tokens")) or 0,
        completion_tokens=count(row.get("completion_tokens")) or 0,
        raw=row,
    )
    model = row.get("model") or row.get("teacher")
    return _Recorded(place, str(model) if model else None, _prompt(asked, row, place), completion)


def _prompt(messages: list[Message], row: Row, place: str) -> Prompt:
    if not messages or messages[-1]["role"] != "user":
        raise UsageError(f"{place}: nothing is asked: no user message before the answer")
    texts = {key: row[key] if isinstance(row.get(key), str) and row[key].strip() else None for key in ("reference", "slice")}
    own = row.get("prompt_id", row.get("id")) if "completion" in row or "messages" in row else None
    name = own if isinstance(own, str) and own.strip() else prompt_id(messages)
    return Prompt(name, messages, messages, texts["reference"], texts["slice"])


def _messages(value: Any, place: str, key: str) -> list[Message]:
    """Chat messages as APIs log them: other keys are left out, text parts are joined, `developer` is `system`."""
    cleaned: Any = value
    if isinstance(value, list):
        with suppress(TypeError, KeyError, AttributeError):
            cleaned = [
                {"role": {"developer": "system"}.get(m["role"], m["role"]), "content": _joined(m["content"])} for m in value
            ]
    return check_messages(cleaned, place, key)


def _joined(content: Any) -> Any:
    if isinstance(content, list) and all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
        return "".join(part["text"] for part in content)
    return content
