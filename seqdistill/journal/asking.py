"""The asker: the one way in which a request leaves the program, and the rule that nothing is requested twice.

What it yields is in the journal before. Knows neither prompts nor samples.
"""

import asyncio
import contextlib
import signal
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from seqdistill.engines import Answering, Completion, Engine, Pace, Request, neutralised, open_engine
from seqdistill.errors import Stopped, UsageError
from seqdistill.journal.budget import Budget, Source
from seqdistill.journal.prices import FREE, TIER_EXAMPLE, shared_as_priced
from seqdistill.journal.storage import Hold, Journal, request_key
from seqdistill.recipe.tables import ModelConfig

SYNC_SECONDS = 1.0
BILLED_MORE = 1.05  # times the configured price: less is rounding
LONG_PROMPT_TOKENS = 128_000  # where the first vendors charge more

Result = TypeVar("Result")

Missing = list[tuple[str, Request]]  # requests with their keys


def missing_requests(journal: Journal, model: str, requests: Sequence[Request], others: Sequence[Journal] = ()) -> Missing:
    """What a journal lacks of the requests to a model (its identity), each key once.

    What is in another run's journal is copied first.
    """
    missing: dict[str, Request] = {}
    for request in requests:
        key = request_key(request, model)
        if key in journal or key in missing:
            continue
        if other := next((other for other in others if key in other), None):
            journal.adopt(other, key)
        else:
            missing[key] = request
    return list(missing.items())


class Asker:
    """Sends requests to models, within the budget, and stores what comes back. An async context manager."""

    def __init__(
        self, journal: Journal, budget: Budget, pace: Pace, opener: Callable[[ModelConfig, Pace], Engine] = open_engine
    ) -> None:
        """Opens no engine yet."""
        self.journal, self.budget, self.pace, self._opener = journal, budget, pace, opener
        self._open: tuple[Source, Engine] | None = None
        self._endpoints: list[tuple[Source, Engine]] = []  # kept for what they have learnt; they hold nothing while closed
        self._opening = asyncio.Lock()
        self._under_way: dict[str, asyncio.Task[Completion]] = {}  # single requests, by key
        self._noted = set[tuple[str, str]]()  # of which model's cost, by identity, what was said
        self.neutralised: dict[str, list[str]] = {}  # by model identity, of the local models that were opened

    async def ask(
        self, source: Source, requests: Sequence[Request], others: Sequence[Journal] = ()
    ) -> AsyncGenerator[Completion, None]:
        """Sends what the journal lacks and yields each new completion, failures included, after it is stored.

        The engine is opened only when something must be sent, and stays open until a request for another model. Requests with
        the same key are sent once. Raises Incomplete when the next request could break the cap.
        """
        missing = {
            request.id: (key, request) for key, request in missing_requests(self.journal, source.identity, requests, others)
        }
        if not missing:
            return
        engine = await self._engine(source)
        meter, batch = _Meter(self.journal, self.budget, source), list[Completion]()
        syncing = asyncio.create_task(_sync_each_second(self.journal))
        try:
            wanted = [request for _, request in missing.values()]
            async with contextlib.aclosing(engine.stream(wanted, meter)) as completions:
                async for completion in completions:
                    batch.append(completion)
                    if completion.batch_left:
                        continue
                    self.store(source, [(*missing.pop(one.id), one) for one in batch])
                    for stored in batch:
                        yield stored
                    batch = []
        finally:
            syncing.cancel()
        if missing:
            raise self.budget.reached(source)

    async def answer(
        self, source: Source, request: Request, on_chunk: Callable[[dict[str, Any]], None] | None = None
    ) -> Completion:
        """The answer to one request that somebody waits for: from the journal, or else sent now and stored.

        `on_chunk` receives the chunks of an answer that an endpoint streams. A failure is the completion's; only an answer is
        in the journal, and it is awaited and stored although the caller may be cancelled. Several may be under way at once, all
        to the same source; one with the same key is not sent again. Raises Incomplete when it could break the cap.
        """
        key = request_key(request, source.identity)
        if key in self.journal:
            return replace(self.journal.read(key, request.id), hold=None)
        same = self._under_way.get(key)
        if same is None:
            task = self._under_way[key] = asyncio.create_task(self._send(source, key, request, on_chunk))
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
            return await asyncio.shield(task)
        return replace(await asyncio.shield(same), id=request.id, hold=None)

    async def _send(
        self, source: Source, key: str, request: Request, on_chunk: Callable[[dict[str, Any]], None] | None
    ) -> Completion:
        async with self._opening:
            engine = await self._engine(source)
        meter = _Meter(self.journal, self.budget, source, key)
        if isinstance(engine, Answering):
            completion = await engine.answer(request, meter, on_chunk)
        else:
            async with self._opening:  # an engine in this process answers one call at a time
                completion = next(iter([one async for one in engine.stream([request], meter)]), None)
        if completion is None:
            raise self.budget.reached(source)
        self.store(source, [(key, request, completion)])
        await asyncio.to_thread(self.journal.sync)
        return completion

    async def open(self, source: Source) -> None:
        """Opens the engine before the first request, so that nobody waits while a model is loaded."""
        async with self._opening:
            await self._engine(source)

    async def finish(self, seconds: float) -> None:
        """Waits for the single requests that are under way, which may be paid, at most this long."""
        if self._under_way:
            await asyncio.wait(self._under_way.values(), timeout=seconds)
        for task in [*self._under_way.values()]:
            task.cancel()

    def store(self, source: Source, batch: Sequence[tuple[str, Request, Completion]], settles: Hold | None = None) -> None:
        """Puts completions that belong together into the journal, with what they cost; failures are not in it.

        `settles` is their own upper bound, where they were sent under a hold of many.
        """
        answered = [
            (key, request, replace(completion, hold=None) if completion.uncounted else completion)
            for key, request, completion in batch
            if completion.error is None
        ]
        if answered:
            shared = shared_as_priced([completion for _, _, completion in answered], source.price)
            answered = [(key, request, one) for (key, request, _), one in zip(answered, shared, strict=True)]
            usd = [source.cost(completion) for completion in shared]
            self.journal.append(source.identity, answered, usd=usd, settles=settles)
            self._check_bill(source, [completion for _, _, completion in answered])

    def _check_bill(self, source: Source, answered: Sequence[Completion]) -> None:
        """Says once what the configured price leaves out: what an endpoint bills beyond it, and longer prompts' own price.

        Raises UsageError where that price is 0 and there is a cap: nothing would be held for what is under way.
        """
        if source.price is None:
            return
        billed = sum(completion.billed_usd or 0.0 for completion in answered)
        if billed and source.price == FREE and self.budget.is_capped:
            raise UsageError(
                f"{source.name}: the endpoint reports a bill of {billed:.6f} USD for an answer, and the configured price is 0",
                "a budget needs the real price: correct it and run again; what was answered is kept",
            )
        known = sum(source.price.list_usd(completion) for completion in answered)
        if billed > known * BILLED_MORE:
            more = f"{billed / known:.1f} times as much as" if known else "which is more than"
            self._note_once(
                source,
                "bill",
                f"the endpoint reports a bill of {billed:.6f} USD for an answer, {more} the configured price "
                "comes to; its bill is what counts against the budget: correct the price",
            )
        longest = max(completion.prompt_tokens for completion in answered)
        if longest > LONG_PROMPT_TOKENS and source.price != FREE and not source.price.tiers and not billed:
            self._note_once(
                source,
                "long prompts",
                f"a prompt has {longest:,} tokens, and some vendors charge more for long ones: if this one does, add to its "
                f"price {TIER_EXAMPLE}",
            )

    def _note_once(self, source: Source, what: str, text: str) -> None:
        if (source.identity, what) not in self._noted:
            self._noted.add((source.identity, what))
            self.pace.on_note(f"{source.name}: {text}")

    def endpoint(self, source: Source) -> Engine | None:
        """The engine of an endpoint that was used before, with what it has learnt of it."""
        return next((engine for known, engine in self._endpoints if known == source), None)

    async def _engine(self, source: Source) -> Engine:
        if self._open is not None and self._open[0] == source:
            return self._open[1]
        await self.close()
        engine = self.endpoint(source) or self._opener(source.config, self.pace)
        if isinstance(engine, Answering) and self.endpoint(source) is None:
            self._endpoints.append((source, engine))
        self._open = source, engine
        if (settings := neutralised(engine)) and source.identity not in self.neutralised:
            self.neutralised[source.identity] = settings
            self.pace.on_note(f"{source.name}: generation_config.json is not applied to its answers: {', '.join(settings)}")
        return engine

    async def close(self) -> None:
        """Closes the engine that is open."""
        opened, self._open = self._open, None
        if opened is not None:
            await opened[1].close()

    async def __aenter__(self) -> "Asker":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Meter:
    """What one model's requests are paid from: with a key, first from what was set aside under it."""

    def __init__(self, journal: Journal, budget: Budget, source: Source, key: str = "") -> None:
        self._journal, self._budget, self._source, self._key = journal, budget, source, key

    def hold(self, requests: Sequence[Request]) -> str | None:
        self._budget.unreserve(self._key)
        hold = self._budget.bound(self._source, requests)
        return self._journal.hold(self._source.identity, len(requests), hold) if self._budget.fits(hold) else None

    def release(self, hold: str) -> None:
        self._journal.release(hold)


async def _stoppable(work: Coroutine[Any, Any, Result]) -> Result:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    caught: list[signal.Signals] = []
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]

    def stop(number: signal.Signals) -> None:
        assert task is not None
        if caught:  # SIGHUP once more: where a terminal ends, its shell sends one and so does the kernel
            return
        caught.append(number)
        loop.remove_signal_handler(signal.SIGTERM)
        task.cancel()

    for number in numbers:
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):  # in a thread, signals are the main thread's
            loop.add_signal_handler(number, stop, number)
    try:
        return await work
    except asyncio.CancelledError:
        if not caught:
            raise
        raise Stopped(
            f"stopped by {caught[0].name}; what was answered is kept", "run the same command again: it resumes"
        ) from None
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _sync_each_second(journal: Journal) -> None:
    while True:
        await asyncio.sleep(SYNC_SECONDS)
        await asyncio.to_thread(journal.sync)


async def failures(
    asker: Asker, source: Source, requests: Sequence[Request], advance: Callable[[], None] = lambda: None
) -> dict[str, Completion]:
    """Sends what the journal lacks, and returns the requests that failed, by id. `advance` is called for each reply."""
    failed: dict[str, Completion] = {}
    async with contextlib.aclosing(asker.ask(source, requests)) as completions:
        async for completion in completions:
            advance()
            if completion.error is not None:
                failed[completion.id] = completion
    return failed


def answer(journal: Journal, model: str, request: Request, failed: Mapping[str, Completion]) -> Completion:
    """A request's completion: from the journal, or else from `failed` by id.

    A request that is in neither was not reached: its completion's error is "not sent".
    """
    key = request_key(request, model)
    if key in journal:
        return journal.read(key, request.id)
    return failed.get(request.id) or Completion(request.id, error="not sent", message="the run stopped before")


def answers(
    journal: Journal, model: str, requests: Sequence[Request], failed: Mapping[str, Completion]
) -> Iterator[tuple[Request, Completion]]:
    """Each request with its `answer`, in the order of the requests."""
    return ((request, answer(journal, model, request, failed)) for request in requests)


def run_async(work: Coroutine[Any, Any, Result]) -> Result:
    """Runs a coroutine to its end: in a thread of its own where a loop runs already, as in a notebook.

    A first SIGTERM or SIGHUP ends it as Ctrl-C does, what is under way included, with Stopped; a SIGTERM after it kills.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_stoppable(work))
    results: list[Result] = []
    errors: list[BaseException] = []
    runner, ended = asyncio.Runner(loop_factory=asyncio.new_event_loop), threading.Event()
    loop = runner.get_loop()
    task = loop.create_task(work)

    def finish() -> None:
        try:
            with runner:
                results.append(loop.run_until_complete(task))
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            errors.append(error)
        finally:
            ended.set()

    threading.Thread(target=finish).start()
    interrupted = False
    while not ended.is_set():  # Thread.join takes a thread for ended where it was interrupted
        try:
            ended.wait()
        except KeyboardInterrupt:
            interrupted = True
            with contextlib.suppress(RuntimeError):  # it has just ended
                loop.call_soon_threadsafe(task.cancel)
    if interrupted:
        raise KeyboardInterrupt
    if errors:
        raise errors[0]
    return results[0]
