"""The student in this process: what waits is computed together, in one thread, and its tokens are passed on as they come.

A request that nobody waits for any more leaves at the next token, with its batch once nobody waits for any of it.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from seqdistill.engines import Completion, Request
from seqdistill.engines.streams import joined
from seqdistill.errors import SeqdistillError
from seqdistill.serve.stops import until_stop
from seqdistill.serve.student import Chunk, StudentFailed, TooLong, Wanted

if TYPE_CHECKING:
    from seqdistill.engines.transformers_local import TransformersEngine

MOST_WAITING = 4096  # requests that wait for the model


@dataclass
class _Job:
    """One answer that is wanted."""

    request: Request
    number: int  # which choice it is
    stops: tuple[str, ...]
    put: Callable[["Chunk | Completion | StudentFailed"], None]  # its next part, from any thread
    passed_on: str = ""  # of its text
    answer: str = ""  # the whole of it, once it is there
    tokens: int = 0  # whose log-probabilities were
    over: bool = False  # nobody waits for more


@dataclass
class LocalStudent:
    """The student that an engine has loaded."""

    name: str
    engine: "TransformersEngine"
    _waiting: list[_Job] = field(default_factory=list)
    _worker: "asyncio.Task[None] | None" = None
    _count: int = 0

    async def answer(self, wanted: Wanted) -> dict[str, Any]:
        """Raises StudentFailed."""
        jobs: list[_Job] = []
        reply = joined([chunk async for part in self._chunks(wanted, jobs) for chunk in part])
        for choice in reply["choices"]:
            choice["message"]["content"] = jobs[choice["index"]].answer
        return reply

    def stream(self, wanted: Wanted) -> AsyncGenerator[list[Chunk], None]:
        """Raises StudentFailed."""
        return self._chunks(wanted, [])

    async def _chunks(self, wanted: Wanted, jobs: list[_Job]) -> AsyncGenerator[list[Chunk], None]:
        """The chunks of a stream; adds to `jobs` one for each choice."""
        if len(self._waiting) + wanted.n > MOST_WAITING:
            raise StudentFailed(f"{MOST_WAITING} requests wait for it")
        loop, parts = asyncio.get_running_loop(), asyncio.Queue[Chunk | Completion | StudentFailed]()

        def put(part: Chunk | Completion | StudentFailed) -> None:
            loop.call_soon_threadsafe(parts.put_nowait, part)

        jobs += [_Job(self._request(wanted, number), number, wanted.stop, put) for number in range(wanted.n)]
        self._waiting += jobs
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        try:
            done: list[Completion] = []
            while len(done) < len(jobs):
                arrived = [await parts.get()]
                while not parts.empty():
                    arrived.append(parts.get_nowait())
                if chunks := [part for part in arrived if isinstance(part, dict)]:
                    yield chunks
                if failures := [part for part in arrived if isinstance(part, StudentFailed)]:
                    raise failures[0]
                done += [part for part in arrived if isinstance(part, Completion)]
            written = sum(one.completion_tokens for one in done)
            prompt = done[0].prompt_tokens
            usage = {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
            yield [{"choices": [], "usage": usage}]
        finally:
            for job in jobs:
                job.over = True

    def _request(self, wanted: Wanted, number: int) -> Request:
        self._count += 1
        return Request(
            id=str(self._count),
            messages=wanted.messages,
            max_tokens=wanted.max_tokens,
            temperature=wanted.temperature,
            top_p=wanted.top_p,
            seed=wanted.seed + number,
            schema=wanted.schema,
            logprobs=wanted.top_logprobs,
        )

    async def _work(self) -> None:
        """Computes what waits until nothing does."""
        try:
            while self._waiting:
                jobs = {job.request.id: job for job in self._waiting if not job.over}
                self._waiting = []
                await asyncio.to_thread(self._compute, jobs)
        finally:
            self._worker = None

    def _compute(self, jobs: dict[str, _Job]) -> None:
        def heard(name: str, tokens: list[int], logprobs: Callable[[], dict[str, Any]]) -> None:
            job = jobs[name]
            if not job.over:
                self._pass_on(job, self.engine.text_of(tokens, job.request), logprobs, None)

        def done(completion: Completion) -> None:
            job = jobs[completion.id]
            if job.over:
                job.put(completion)
            elif completion.error is not None:
                failure = TooLong if completion.error == "too long" else StudentFailed
                job.put(failure(f"{completion.error}: {completion.message}"))
            else:
                found = completion.raw.get("logprobs") or {}
                self._pass_on(job, completion.content, lambda: found, completion.finish_reason)
                job.put(completion)

        try:
            self.engine.answer_all(
                [job.request for job in jobs.values()], heard, done, lambda names: all(jobs[name].over for name in names)
            )
        except SeqdistillError as error:
            for job in jobs.values():
                job.put(StudentFailed(error.message))
        except Exception as error:  # noqa: BLE001 - whatever torch raises: those who wait must hear of it
            for job in jobs.values():
                job.put(StudentFailed(f"{type(error).__name__}: {error}"[:300]))

    def _pass_on(self, job: _Job, text: str, logprobs: Callable[[], dict[str, Any]], finish: str | None) -> None:
        """Passes on what is new in an answer, up to the first of the texts that end it. What was is not taken back."""
        answer, at_stop = until_stop(text, job.stops, whole=finish is not None)
        if at_stop:
            finish = "stop"
        if not finish:
            if text.endswith("\ufffd"):
                return  # half of a character
            answer = answer.rstrip()  # the end of an answer is without the white space of its template
        else:
            job.answer = answer
        new = answer[len(job.passed_on) :] if answer.startswith(job.passed_on) else ""
        places = _places(self.engine, logprobs(), job.tokens) if job.request.logprobs is not None else []
        if not (new or places or finish):
            return
        job.passed_on, job.tokens = job.passed_on + new, job.tokens + len(places)
        choice: dict[str, Any] = {"index": job.number, "delta": {"content": new} if new else {}, "finish_reason": finish}
        if places:
            choice["logprobs"] = {"content": places}
        job.put({"choices": [choice]})
        if at_stop:
            job.over = True

    async def close(self) -> None:
        """Waits for the token that is computed, and frees the model."""
        for job in self._waiting:
            job.over = True
        if self._worker is not None:
            await self._worker
        await self.engine.close()


def _places(engine: "TransformersEngine", noted: dict[str, Any], start: int) -> list[dict[str, Any]]:
    """The tokens from a place on with their log-probabilities, as a chat endpoint reports them."""
    ids, values = noted.get("token_ids") or [], noted.get("logprobs") or []
    tops, top_values = noted.get("top_token_ids") or [], noted.get("top_logprobs") or []
    places = []
    for at in range(start, len(values)):
        likeliest = zip(tops[at], top_values[at], strict=True) if at < len(tops) else ()
        one = {**_token(engine, ids[at]), "logprob": values[at]}
        places.append({**one, "top_logprobs": [{**_token(engine, token), "logprob": value} for token, value in likeliest]})
    return places


def _token(engine: "TransformersEngine", token: int) -> dict[str, Any]:
    text = engine.token_text(token)
    return {"token": text, "bytes": list(text.encode("utf-8", "replace"))}
