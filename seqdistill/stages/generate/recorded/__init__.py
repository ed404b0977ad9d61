"""`import`: recorded answers become journal lines and samples, as if the teacher had been sent their prompts.

Here is the stage. `rows` knows the shapes in which answers are held, `replies` and `streams` the APIs that wrote them, `pairs`
which reply answers which request, `views` which of the task's prompts it is; `store` keeps it on disk meanwhile. Sends nothing.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from seqdistill.engines import Completion
from seqdistill.engines.logprob_file import write_logprobs
from seqdistill.engines.logprobs import logprobs_in
from seqdistill.engines.models import identity, teacher_name
from seqdistill.engines.replies import as_dict, as_list, chosen
from seqdistill.errors import UsageError
from seqdistill.fences import unfenced
from seqdistill.journal.storage import Journal, request_key
from seqdistill.progress import Progress
from seqdistill.recipe.tables import GenerateConfig, Recipe, TeacherConfig
from seqdistill.records import Prompt, Sample, file_sha256, read_samples, request_seed, write_jsonl
from seqdistill.rights import check_training_allowed, teachers_in
from seqdistill.runs import Run, StageRecord
from seqdistill.stages.generate.plan import Planned, Teacher, plan_requests
from seqdistill.stages.generate.recorded.exchange import Exchange, Row, exchanges, has_tools
from seqdistill.stages.generate.recorded.pairs import Pair, Pairs
from seqdistill.stages.generate.recorded.replies import NONE_RECORDED, chat_reply, messages_in
from seqdistill.stages.generate.recorded.rows import HINT, call_in, columns_in, exchanges_in, opened, takes_back
from seqdistill.stages.generate.recorded.store import Store
from seqdistill.stages.generate.recorded.views import Views, views_of
from seqdistill.stages.generate.samples import LOGPROBS, sample_of
from seqdistill.tasks.prompt_files import RECORDED_KEYS, check_columns, check_found
from seqdistill.tasks.row_files import Unread, read_rows

NOTED = 3  # lines that could not be read, of which a note says why; all are in failures.jsonl
NAMELESS = "recorded"  # the teacher of answers that do not name their model


@dataclass(frozen=True)
class ImportResult:
    """What was taken in, in counts; `path` is samples.jsonl."""

    read: int
    samples: int  # in samples.jsonl now
    new: int
    known: int  # brought by an earlier import already
    updated: int  # of the known, those whose reference, slice, finish reason or student's view changed
    taken_back: int  # of what was read: corrected later, or rated below 0, in a log of `serve`
    unread: int  # listed with file and line in failures.jsonl
    skipped: int  # rows that hold nothing to be learnt: weight 0, an answer marked as bad, a trace's spans
    without_finish_reason: int  # of the new: taken as `stop`
    matched: int | None  # answers whose prompt the task's prompts or template knew; None where it has neither
    teachers: list[str]
    path: Path


@dataclass
class _Read:
    """What reading the files came to."""

    unread: int = 0
    first_unread: list[Row] = field(default_factory=list)
    first_hint: str = ""  # what to do about the first of them
    exchanges: int = 0
    skipped: int = 0
    unanswered: int = 0  # requests of batches
    with_tools: int = 0  # rows whose request names tools
    repeated: tuple[int, int] = (0, 0)  # ids of prompts that say the same, and how many prompts these are
    in_part: int = 0  # answers that are one field of an object of no known API
    first_in_part: str = ""
    without_finish_reason: int = 0
    taken_back: int = 0


def import_recorded(run: Run, recipe: Recipe, files: Sequence[Path], progress: Progress) -> ImportResult:
    """Puts recorded answers into the run's journal and writes samples.jsonl, so that `filter` continues from there.

    The teacher is the recipe's, or else the model that each answer names, or else "recorded". A plain line's own `id` is its
    prompt's. An import adds to earlier imports; an answer that one of them brought is not taken again, only what is newly known
    of it. What feedback in a log of `serve` corrects or rates below 0 is left out. Raises UsageError, before anything is
    written, when no line can be read, when a batch's reply could belong to several requests, for a run whose samples were
    generated, and for a teacher whose terms forbid training.
    """
    check_training_allowed(teachers_in(recipe))
    _check_not_generated(run)
    check_columns(recipe.task.columns)
    views = views_of(recipe.task, progress)
    with ExitStack() as stack:
        store = stack.enter_context(Store())
        read = _read(store, files, recipe, views, progress)
        if not read.exchanges:
            raise _nothing_read(read)
        stack.enter_context(run.locked("generate"))
        imports = _add_earlier(run, store)
        record = StageRecord(run, "generate", {"imported": True}, {str(file): file for file in files})
        with Journal(run.file("generate", "journal.jsonl")) as journal:
            new, updated, has_logprobs = _store_samples(store, recipe, journal, read)
            logprobs = 0
            with record.new_files(LOGPROBS) as folder:
                counts = _write_samples(folder, store)
                if has_logprobs or run.file("generate", LOGPROBS).exists():
                    named = ((row["id"], row["completion"]["raw"]) for row in journal.rows() if store.has_sample(row["id"]))
                    logprobs = write_logprobs(folder / LOGPROBS, named)
                write_jsonl(folder / "failures.jsonl", store.unread())
        teachers = counts.pop("teachers")
        record.finish(
            {
                "samples.jsonl": counts["samples"],
                "failures.jsonl": read.unread,
                **({LOGPROBS: logprobs} if logprobs else {}),
            },
            config=asdict(recipe),
            counts={**counts, "new": new, "reused": counts["samples"] - new, "failed": read.unread},
            spent_usd=None,
            assumed_usd=None,
            imported=True,
            imports=[*imports, {"files": {str(file): file_sha256(file) for file in files}, "answers": read.exchanges}],
            without_finish_reason=read.without_finish_reason,
            teacher={"name": ", ".join(teachers), "identity": ", ".join(teachers), "engine": "recorded"},
        )
    path = run.file("generate", "samples.jsonl")
    known_task = views.differ or recipe.task.prompts is not None
    _say(read, views, progress)
    return ImportResult(
        read=read.exchanges + read.unread,
        samples=counts["samples"],
        new=new,
        known=read.exchanges - read.taken_back - new,
        updated=updated,
        unread=read.unread,
        skipped=read.skipped,
        taken_back=read.taken_back,
        without_finish_reason=read.without_finish_reason,
        matched=views.matched if known_task else None,
        teachers=teachers,
        path=path,
    )


def _nothing_read(read: _Read) -> UsageError:
    first = "".join(f": {one['id']}: {one['message']}" for one in read.first_unread[:1])
    skipped = f"; {read.skipped} rows hold nothing to be learnt, or a bad answer" if read.skipped else ""
    return UsageError(f"no recorded completion could be read{first}{skipped}", read.first_hint or HINT)


def _check_not_generated(run: Run) -> None:
    """Raises UsageError for a run whose answers were paid for: an import would put its samples in the place of those."""
    manifest, path = run.manifest("generate"), run.file("generate", "journal.jsonl")
    if manifest is None and path.exists():
        with Journal(path, writable=False) as journal:
            paid = any(row.get("paid", True) for row in journal.rows())
    else:
        paid = manifest is not None and not manifest.get("imported")
    if paid:
        raise UsageError(
            f"{run.path}: its samples were generated, and an import would replace them",
            "import into a run of its own; to have both, import first and let `generate` request only what is missing",
        )


# --- reading ----------------------------------------------------------------------------------------------------------


def _read(store: Store, files: Sequence[Path], recipe: Recipe, views: Views, progress: Progress) -> _Read:
    """Reads the files into the store; what cannot be read is listed with its reason.

    Raises UsageError for a file that cannot be opened, and for a reply that could answer several requests.
    """
    read = _Read()

    def unread(place: str, error: UsageError) -> None:
        message = error.message.removeprefix(f"{place}: ")
        row = {"id": place, "prompt_id": None, "sample": None, "error": "unreadable", "message": message}
        store.add_unread(row)
        read.first_hint = read.first_hint if read.unread else error.hint
        read.unread += 1
        read.first_unread += [row] if read.unread <= NOTED else []

    pairs = Pairs(store, unread)
    columns, columns_found, last = recipe.task.columns, set[str](), dict[str, Any]()
    for path in _named_once(files, progress):
        pairs.begin_file(str(path))
        for place, last in read_rows(path, progress, unread):
            columns_found |= columns_in(last, columns)
            for row in opened(last, columns):
                try:
                    corrects = takes_back(row)
                    if corrects is not False:
                        store.take_back(str(call_in(row)), None if corrects is True else corrects)
                    found = None if pairs.takes(row) else exchanges_in(row, place)
                    if found is None:
                        _take_pairs(pairs.add(row, place), store, views, read, unread)
                    read.skipped += found == []
                    _take(found or (), store, views, read, call_in(row), corrects=corrects is True)
                    read.with_tools += any(has_tools(row, one.messages) for one in found or ())
                except UsageError as error:
                    unread(place, error)
        _take_pairs(pairs.end_file(), store, views, read, unread)
    if last:
        others = recipe.task.prompts or recipe.task.test  # files that the rest of the columns may be those of
        wanted = {key: column for key, column in columns.items() if key in RECORDED_KEYS or not others}
        check_found(wanted, columns_found, last, str(path))
    _take_pairs(pairs.finish(), store, views, read, unread)
    read.skipped += pairs.skipped
    read.unanswered = store.unanswered()
    read.repeated = store.repeated_prompts()
    return read


def _named_once(files: Sequence[Path], progress: Progress) -> Iterator[Path]:
    """The files without those that are named again: their answers would count twice."""
    seen: set[Path] = set()
    for path in files:
        if path.resolve() in seen:
            progress.note(f"{path}: named twice, read once")
        else:
            seen.add(path.resolve())
            yield path


def _take_pairs(pairs: Iterable[Pair], store: Store, views: Views, read: _Read, unread: Unread) -> None:
    for place, request, reply, row in pairs:
        try:
            found = exchanges(messages_in(request, place), chat_reply(reply, place), row, place, reply)
            _take(found, store, views, read)
            read.with_tools += any(has_tools(as_dict(request), one.messages) for one in found)
        except UsageError as error:
            unread(place, error)


def _take(
    found: Iterable[Exchange], store: Store, views: Views, read: _Read, call: str | None = None, *, corrects: bool = False
) -> None:
    for exchange in found:
        prompt = views.prompt_of(exchange)
        if not store.says_the_same(prompt.id, prompt.teacher_messages):
            raise UsageError(f"{exchange.place}: the id {prompt.id!r} is also that of another prompt")
        store.add_exchange(exchange, prompt, call, corrects=corrects)
        read.exchanges += 1
        if exchange.left_out:
            read.in_part += 1
            read.first_in_part = read.first_in_part or f"{exchange.place}: {', '.join(exchange.left_out)}"


# --- samples ----------------------------------------------------------------------------------------------------------


def _add_earlier(run: Run, store: Store) -> list[Any]:
    """Adds the samples that earlier imports brought; returns what the manifest says of those imports.

    Without a manifest, an import was stopped between its samples and its manifest.
    """
    path = run.file("generate", "samples.jsonl")
    if path.exists():
        for sample in read_samples(path):
            store.add_sample(sample, earlier=True)
    return as_list((run.manifest("generate") or {}).get("imports"))


def _store_samples(store: Store, recipe: Recipe, journal: Journal, read: _Read) -> tuple[int, int, bool]:
    """Journal lines and samples of what was read; how many are new, how many known ones changed, whether any has logprobs.

    Another answer to a prompt is its next sample, also when it says the same; what an earlier import brought is left out.
    """
    new = updated = 0
    has_logprobs = False
    read.taken_back = store.taken_back()
    for exchange, prompt in store.exchanges():
        teacher, completion = _teacher(recipe.teacher, exchange), _in_form(exchange.completion, recipe.generate)
        if (earlier := store.take_earlier(prompt.id, teacher.name, completion.content)) is not None:
            position, sample = earlier
            if (newer := _updated(sample, exchange, prompt)) != sample:
                store.replace_sample(position, newer)
                updated += 1
            continue
        if completion.finish_reason == NONE_RECORDED:
            completion = replace(completion, finish_reason="stop")
            read.without_finish_reason += 1
        planned = _planned(prompt, teacher, recipe.generate, store.next_number(prompt.id, teacher.name))
        key = request_key(planned.request, teacher.identity)
        if key not in journal:
            journal.append(teacher.identity, [(key, planned.request, completion)], paid=False)
        store.add_sample(sample_of(planned, completion))
        has_logprobs = has_logprobs or logprobs_in(completion.raw) is not None
        new += 1
    return new, updated, has_logprobs


def _in_form(completion: Completion, config: GenerateConfig) -> Completion:
    """A completion as `generate` would have stored it: with a form for the answers, what is in their code fence."""
    if config.choices:
        return replace(completion, content=chosen(completion.content))
    return replace(completion, content=unfenced(completion.content)) if config.schema else completion


def _updated(sample: Sample, exchange: Exchange, prompt: Prompt) -> Sample:
    """An earlier import's sample with what this import knows of it."""
    reason = exchange.completion.finish_reason
    return replace(
        sample,
        prompt=prompt.messages,
        reasoning=exchange.completion.reasoning or sample.reasoning,
        finish_reason=sample.finish_reason if reason == NONE_RECORDED else reason,
        reference=prompt.reference or sample.reference,
        slice=prompt.slice or sample.slice,
        group=prompt.group or sample.group,
    )


def _planned(prompt: Prompt, teacher: Teacher, config: GenerateConfig, number: int) -> Planned:
    """The sample as `generate` would plan it, so that it does not request it again."""
    first = plan_requests([prompt], [teacher], replace(config, samples=1))[0]
    seed = request_seed(config.seed, prompt.id, number)
    request = replace(first.request, id=f"{prompt.id}:{teacher.name}:{number}", seed=seed)
    return replace(first, number=number, request=request)


def _teacher(config: TeacherConfig, exchange: Exchange) -> Teacher:
    named = replace(config, model=config.model or exchange.model or NAMELESS, engine="openai")
    return Teacher(teacher_name(named), identity(named), named, None)


def _write_samples(folder: Path, store: Store) -> dict[str, Any]:
    """Writes samples.jsonl and counts."""
    reasons: Counter[str] = Counter()
    teachers: dict[str, None] = {}
    counts = Counter(think_only=0, prompt_tokens=0, completion_tokens=0, samples=0)

    def counted() -> Iterator[Sample]:
        for sample in store.samples():
            reasons[sample.finish_reason] += 1
            teachers[sample.teacher] = None
            counts["samples"] += 1
            counts["think_only"] += not sample.text.strip() and sample.reasoning is not None
            counts["prompt_tokens"] += sample.prompt_tokens
            counts["completion_tokens"] += sample.completion_tokens
            yield sample

    write_jsonl(folder / "samples.jsonl", counted())
    return {**counts, "prompts": store.prompts(), "finish_reasons": dict(reasons), "usd": None, "teachers": list(teachers)}


def _say(read: _Read, views: Views, progress: Progress) -> None:
    """What a reader of the result must know: answers without a finish reason, prompts that were not found, lines not read."""
    if read.without_finish_reason:
        progress.note(
            f"{read.without_finish_reason} of the answers come without a finish reason and count as stop: "
            "whether they were cut off is not known"
        )
    if read.unanswered:
        progress.note(f"{read.unanswered} requests of the batch files have no reply in these files: are output files missing?")
    if read.with_tools:
        progress.note(
            f"{read.with_tools} answers were given with tools, which are no part of the prompts: the student does not see them"
        )
    if read.repeated[0]:
        ids, prompts = read.repeated
        progress.note(f"{ids} ids have the same messages as another id, {prompts} in all: each counts as a prompt of its own")
    if read.in_part:
        progress.note(
            f"{read.in_part} answers are the text of an object whose other fields are left out, first {read.first_in_part}"
        )
    if views.unmatched:
        progress.note(
            f"{views.unmatched} answers match no prompt of the task and no template, the first is {views.first_unmatched}: "
            "the student sees for them what the teacher was sent"
        )
    for failure in read.first_unread:
        progress.note(f"{failure['id']}: not taken: {failure['message']}")
    if read.unread > NOTED:
        progress.note(f"{read.unread} lines were not taken; all are in generate/failures.jsonl of the run")
