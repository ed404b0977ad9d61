"""`serve`: sets up student, teacher, budget and journal of a run, and serves until it is stopped."""

import asyncio
import contextlib
import gc
import os
import shlex
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import islice
from typing import Self

from seqdistill.engines import Completion, Pace
from seqdistill.engines.chat_templates import with_own_template
from seqdistill.engines.models import identity
from seqdistill.engines.options import addresses, check_options, fields_of
from seqdistill.errors import UsageError
from seqdistill.journal.asking import Asker, run_async
from seqdistill.journal.budget import Budget, Source, check_prices
from seqdistill.journal.prices import FREE, price_of
from seqdistill.journal.storage import Journal, completion_of, row_in
from seqdistill.progress import Progress, Silent
from seqdistill.recipe.remembered import generated_with
from seqdistill.recipe.tables import Recipe
from seqdistill.records import read_json
from seqdistill.rights import check_training_allowed
from seqdistill.runs import Run
from seqdistill.serve.access import LOCAL_HOSTS
from seqdistill.serve.app import App, Limits
from seqdistill.serve.cascade import Cascade, Defaults
from seqdistill.serve.cors import check_origins
from seqdistill.serve.log import Log
from seqdistill.serve.metrics import Metrics
from seqdistill.serve.process import check_free, connections, import_what_requests_need, listen, stopping
from seqdistill.serve.routing import TEACHER_ONLY, ServedThreshold, Switch, promise_in
from seqdistill.serve.student import EndpointStudent, Student, served_names
from seqdistill.serve.teacher import Teacher
from seqdistill.serve.views import views_of
from seqdistill.stages.evaluate.contestants import is_evaluated
from seqdistill.tasks.answer_form import AnswerForm

FINISH_SECONDS = 30.0  # for what is under way when the server is stopped
FIRST_LINES = 200  # of a journal
WITHOUT_TEACHER = ("error", "student")
OF_THE_STUDENT = ("share", "shadow", "threshold", "decide_on", "without_teacher")  # options that --record has no use for


@dataclass(frozen=True)
class ServeOptions:
    """How a run is served. USD, seconds, shares from 0 to 1."""

    host: str = "127.0.0.1"
    port: int = 8080
    api_key_env: str | None = None
    no_key: bool = False
    budget: float | None = None
    share: float = 1.0
    shadow: float = 0.0
    decide_on: int = 16
    threshold: float | None = None
    without_teacher: str = "error"
    record: bool = False
    concurrency: int = 1024
    cors_origin: Sequence[str] = ()


@dataclass(frozen=True)
class ServeResult:
    """What a server did until it was stopped."""

    requests: int
    by_student: int
    by_teacher: int
    paid_usd: float
    held_usd: float


def serve(
    run: Run, recipe: Recipe, options: ServeOptions, progress: Progress, first_threshold: float | None = None
) -> ServeResult:
    """Serves until it is interrupted. `first_threshold` is that of the confidence in the first tokens of a stream.

    Raises UsageError for what cannot be served, before anything is sent.
    """

    async def until_stopped(setup: _Setup) -> ServeResult:
        async with setup.opened() as opened, stopping(opened.switch, progress) as stopped:
            progress.note(setup.announcement(opened.port))
            gc.collect()
            gc.freeze()  # what is loaded stays: it is not searched for garbage again
            await stopped.wait()
        return setup.result(opened)

    with _prepared(run, recipe, options, progress, first_threshold) as setup:
        return run_async(until_stopped(setup))


class Serving:
    """A server in a thread of its own; a context manager, for notebooks and tests. `url` is its base URL."""

    def __init__(
        self,
        run: Run,
        recipe: Recipe,
        options: ServeOptions | None = None,
        progress: Progress | None = None,
        first_threshold: float | None = None,
    ) -> None:
        """Raises what `serve` does when it is entered."""
        self._prepared = _prepared(run, recipe, options or ServeOptions(port=0), progress or Silent(), first_threshold)
        self._ready: Future[Opened] = Future()

    def __enter__(self) -> Self:
        self._setup = self._prepared.__enter__()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        try:
            self.opened = self._ready.result()
        except BaseException:
            self._thread.join()
            self._prepared.__exit__(None, None, None)
            raise
        self.url = f"http://127.0.0.1:{self.opened.port}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._prepared.__exit__(None, None, None)

    def result(self) -> ServeResult:
        """What the server did."""
        return self._setup.result(self.opened)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with self._setup.opened() as opened:
                self._ready.set_result(opened)
                await self._stop.wait()
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)


@dataclass(frozen=True)
class Opened:
    """A server that listens."""

    port: int
    switch: Switch
    metrics: Metrics


@contextlib.contextmanager
def _prepared(
    run: Run, recipe: Recipe, options: ServeOptions, progress: Progress, first_threshold: float | None
) -> "Iterator[_Setup]":
    """What was checked, with the server's journal open."""
    key = _key(options)
    check_origins(options.cors_origin or ())
    recipe = replace(recipe, generate=generated_with(recipe, run.manifest("generate")))
    form = AnswerForm(recipe.generate.schema, tuple(recipe.generate.choices))
    form.check()
    if options.without_teacher not in WITHOUT_TEACHER:
        raise UsageError(f"--without-teacher {options.without_teacher!r}", f"one of: {', '.join(WITHOUT_TEACHER)}")
    _check_record(options)
    promise = ServedThreshold(0.0) if options.record else _promise(run, recipe, options, first_threshold)
    source = _source(recipe, options, promise, progress)
    if not options.record and not recipe.student.base_url:
        run.need("train", "model")
    with run.locked("serve"), Journal(run.file("serve", "journal.jsonl")) as journal:
        budget = Budget([journal], {} if source is None else {source.identity: source.price}, options.budget)
        yield _Setup(run, recipe, options, progress, key, form, promise, source, journal, budget)


@dataclass(frozen=True)
class _Setup:
    run: Run
    recipe: Recipe
    options: ServeOptions
    progress: Progress
    key: str | None
    form: AnswerForm
    promise: ServedThreshold
    source: Source | None
    journal: Journal
    budget: Budget

    @contextlib.asynccontextmanager
    async def opened(self) -> "AsyncIterator[Opened]":
        """Listens until the block ends; what is under way then is finished."""
        options, metrics = self.options, Metrics()
        await check_free(options.host, options.port)
        import_what_requests_need()
        cascade = await self._cascade()
        local = options.host in LOCAL_HOSTS and self.key is None
        concurrency = connections(options.concurrency, self.progress.note)
        shadow = options.shadow if cascade.teacher else 0.0
        limits = Limits(concurrency, self.key, shadow, origins=tuple(options.cors_origin or ()), only_local=local)
        log = Log(self.run.file("serve", "log.jsonl"), self.progress.note)
        app = App(cascade, self.run.path.absolute().name, limits, metrics, log, self._gauges, self.progress.note)
        runner = app.runner(FINISH_SECONDS)
        await runner.setup()
        try:
            yield Opened(await listen(runner, options.host, options.port), cascade.switch, metrics)
        finally:
            await runner.cleanup()
            await app.finish(FINISH_SECONDS)
            if cascade.teacher is not None:
                await cascade.teacher.finish(FINISH_SECONDS)
            if cascade.student is not None:
                await cascade.student.close()
            log.close()

    def result(self, opened: Opened) -> ServeResult:
        """What the server did."""
        by = opened.metrics.answered()
        paid, held = round(self.budget.paid_usd, 6), round(self.budget.held_usd, 6)
        return ServeResult(by.total(), by["student"], by["teacher"], paid, held)

    async def _cascade(self) -> Cascade:
        recipe, options = self.recipe, self.options
        generate = recipe.generate
        model = self.run.file("train", "model")
        teacher = None
        if self.source is not None:
            pace = Pace(
                concurrency=generate.concurrency,
                timeout=generate.timeout,
                connect_timeout=generate.connect_timeout,
                read_timeout=generate.read_timeout,
                capped=options.budget is not None,
                on_note=self.progress.note,
            )
            asker = Asker(self.journal, self.budget, pace)
            await asker.open(self.source)
            teacher = Teacher(self.source.name, self.source, asker)
            if first := _first_answer(self.run, ("generate", "serve"), self.source.identity):
                teacher.learn(first)
        return Cascade(
            views=views_of(recipe.task.template, model),
            form=self.form,
            defaults=Defaults(recipe.eval.max_tokens or generate.max_tokens, recipe.eval.temperature, generate.seed),
            promise=self.promise,
            switch=Switch(self.run.file("serve", TEACHER_ONLY)),
            student=None if options.record else await self._student(),
            teacher=teacher,
            share=options.share,
            student_without_teacher=options.without_teacher == "student",
        )

    async def _student(self) -> Student:
        student, trained = self.recipe.student, self.run.file("train", "model")
        if not student.base_url:
            return await self._local_student()
        if price_of(student.price, "student") not in (None, FREE):
            raise UsageError(
                "[student] price: a student that is paid by the token cannot be served: the budget is the teacher's",
                "serve the student yourself, with `vllm serve` say, and leave its price out",
            )
        model = replace(student, engine="openai", model=str(trained))
        check_options(model)
        address = addresses(model)[0]
        names = await served_names(address)
        wanted = [str(trained), str(trained.absolute()), student.model or ""]
        name = next((one for one in wanted if one in names), names[0] if len(names) == 1 else None)
        if names and name is None:
            raise UsageError(
                f"the student at {address.name} is none of: {', '.join(names[:20])}", "pass its name there with --student"
            )
        if len(student.base_url) > 1:
            self.progress.note(f"serve: of {len(student.base_url)} student URLs only {address.name} is used")
        served = EndpointStudent(
            name or student.model or str(trained),
            address,
            *fields_of(model),
            self.recipe.generate.timeout,
            self.options.concurrency,
            student.reasoning_tags,
        )
        evaluated = (self.run.manifest("eval") or {}).get("settings", {}).get("student.model")
        if first := _first_answer(self.run, ("eval",), evaluated):
            served.learn(first)
        return served

    async def _local_student(self) -> Student:
        """The trained model in this process."""
        trained = self.run.need("train", "model")
        if self.recipe.student.engine != "transformers":
            raise UsageError(
                f"the {self.recipe.student.engine} engine cannot serve a student in this process",
                f"start `vllm serve {trained}` and pass --student-base-url http://localhost:8000/v1",
            )
        from seqdistill.engines.transformers_local import TransformersEngine
        from seqdistill.serve.local import LocalStudent

        model = with_own_template(replace(self.recipe.student, model=str(trained), revision=None))
        self.progress.note(f"serve: loading {trained}")
        return LocalStudent(str(trained), await asyncio.to_thread(TransformersEngine, model))

    def _gauges(self) -> dict[str, tuple[str, float]]:
        return {
            "paid_usd": ("USD paid to the teacher, over restarts", self.budget.paid_usd),
            "held_usd": ("USD that may be billed beside what is paid", self.budget.held_usd),
        }

    def announcement(self, port: int) -> str:
        """The address, and what is promised."""
        shown = f"[{self.options.host}]" if ":" in self.options.host else self.options.host
        file = shlex.quote(str(self.run.file("serve", TEACHER_ONLY)))
        lines = [f"serve: http://{shown}:{port}/v1; Ctrl-C stops it, `touch {file}` sends everything to the teacher"]
        if self.run.file("serve", TEACHER_ONLY).exists() and not self.options.record:
            lines.append(f"everything goes to the teacher until `rm {file}`: the file is there already")
        if self.source is not None and not self.source.is_free and self.source.price != FREE:
            spent, cap = self.budget.paid_usd + self.budget.held_usd, self.options.budget
            capped = "the teacher's cost has no cap: --budget sets one"
            lines.append(capped if cap is None else f"{spent:.4f} of the teacher's {cap:g} USD are spent")
        promise = self.promise
        if promise.target is not None:
            risk = "" if promise.risk is None else f", with a risk of {promise.risk:g}"
            kept = f"the student's answers are kept from a confidence of {promise.threshold:g} on"
            lines.append(f"{kept}: at least {promise.target:.0%} of them are good enough{risk}")
            if not promise.decide_on:
                lines.append("streams are decided on whole answers: no threshold for their first tokens is known to hold it")
        return "\n".join(lines)


def _first_answer(run: Run, stages: Sequence[str], model: str | None) -> Completion | None:
    """An early answer of a model (its identity) in the journals of stages, without reading all of them; None without one."""
    for journal in (run.file(stage, "journal.jsonl") for stage in stages):
        if not journal.is_file():
            continue
        with journal.open("rb") as file:
            lines = (line for line in islice(file, FIRST_LINES) if line.startswith(b'{"key"') and line.endswith(b"\n"))
            rows = (row for row in map(row_in, lines) if row and row.get("model") == model)
            answers = (completion_of(row, "first") for row in rows)
            if found := next((one for one in answers if one.content), None):
                return found
    return None


def _key(options: ServeOptions) -> str | None:
    """The key that clients must send. Raises UsageError for a host that others can reach without one."""
    if options.api_key_env:
        key = os.environ.get(options.api_key_env, "").strip()
        if not key:
            raise UsageError(f"--api-key-env {options.api_key_env}: this environment variable is not set", "set it to the key")
        return key
    if options.host not in LOCAL_HOSTS and not options.no_key:
        raise UsageError(
            f"--host {options.host} without a key: everybody who reaches it could spend your budget",
            "name the environment variable that holds a key with --api-key-env, or pass --no-key",
        )
    return None


def _check_record(options: ServeOptions) -> None:
    """Raises UsageError for --record, which has no student, with an option that is about the student's answers."""
    default = ServeOptions()
    about_student = [name for name in OF_THE_STUDENT if getattr(options, name) != getattr(default, name)]
    if options.record and about_student:
        raise UsageError(
            f"--record has the teacher answer all, so --{about_student[0].replace('_', '-')} has no effect",
            "leave one of them out",
        )


def _promise(run: Run, recipe: Recipe, options: ServeOptions, first_threshold: float | None) -> ServedThreshold:
    path = run.file("eval", "deferral.json")
    try:
        document = read_json(path, f"run `seqdistill eval {run.shell}` again") if path.is_file() else {}
        promise = promise_in(document, options.threshold, str(path), run.path)
    except (ValueError, AttributeError, TypeError) as error:
        raise UsageError(f"{path}: damaged: {error}", f"run `seqdistill eval {run.shell}` again") from None
    if options.threshold is None and is_evaluated(run, recipe) is False:
        raise UsageError(
            f"{path}: what it promises is of an earlier student: the run was trained again after eval",
            f"run `seqdistill eval {run.shell}` again; or set --threshold, which is no promise",
        )
    return replace(promise, decide_on=options.decide_on, first_threshold=first_threshold)


def _source(recipe: Recipe, options: ServeOptions, promise: ServedThreshold, progress: Progress) -> Source | None:
    """The teacher as it is paid. Raises UsageError for a teacher that is needed and not there, and a budget without a price."""
    teacher = recipe.teacher
    if not teacher.model:
        if options.record:
            raise UsageError("--record without a teacher", "pass --teacher, or set model in the recipe's [teacher]")
        if options.share < 1 or options.shadow or (promise.threshold > 0 and options.without_teacher == "error"):
            raise UsageError(
                "no teacher is configured for what the student does not answer",
                "pass --teacher, or --without-teacher student to have the student answer all the same",
            )
        return None
    if options.record:
        check_training_allowed([teacher])
    check_options(teacher)
    if teacher.engine == "openai":
        addresses(teacher)  # its keys are there
    source = Source(teacher.model, identity(teacher), teacher, price_of(teacher.price))
    check_prices([source], progress, capped=options.budget is not None)
    return source
