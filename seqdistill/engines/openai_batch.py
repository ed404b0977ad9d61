"""The Batch endpoint of an OpenAI-compatible API: files up, one batch of chat requests, files down.

One HTTP exchange a method, and what a batch's files say as completions. Knows nothing of runs; what must be remembered
between two runs is its caller's to keep. https://platform.openai.com/docs/guides/batch
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from seqdistill.engines import Completion, Engine, Pace, Request
from seqdistill.engines.dialect import ADAPTIONS
from seqdistill.engines.endpoints import ADAPTABLE, BLOCKED
from seqdistill.engines.openai_api import OpenAIEngine
from seqdistill.engines.refusals import Who, is_blocked, refusal
from seqdistill.engines.replies import as_dict, broken_off, choices_in, error_of
from seqdistill.engines.usage import count
from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.recipe.tables import ModelConfig
from seqdistill.records import from_json

PATH = "/v1/chat/completions"
MOST_REQUESTS = 50_000  # in one file, as OpenAI limits it
MOST_BYTES = 200_000_000
MARK = "seqdistill"  # the key of a batch's metadata that holds its name
NOT_A_BATCH_API = "check the base URL, then run again; batches continue without us"
ENDED = ("completed", "failed", "expired", "cancelled")


class NotNow(SeqdistillError):
    """The endpoint could not be reached, or answered with what may pass."""


@dataclass(frozen=True)
class Batch:
    """A batch as the endpoint reports it."""

    id: str
    status: str
    files: tuple[str, ...] = ()  # ids of output and error file, those there are
    done: int = 0  # requests, failures included
    error: str = ""
    queue_full: bool = False  # it failed because it holds more than may wait in the endpoint's queue

    @property
    def ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.status in ENDED


class BatchEndpoint:
    """One model's Batch endpoint, used as a context manager. Of several base URLs the first: batches stay in one place."""

    def __init__(self, model: ModelConfig, pace: Pace, engine: Engine | None = None) -> None:
        """Sends nothing yet; `engine` is the model's, with what it has learnt of the endpoint.

        Raises UsageError for an engine that has no such endpoint, a missing key, a bad base URL.
        """
        if model.engine != "openai":
            raise UsageError(
                f"model {model.model!r}: the {model.engine} engine has no batch API", 'batch needs engine = "openai"'
            )
        self._engine, self._pace = engine if isinstance(engine, OpenAIEngine) else OpenAIEngine(model, pace), pace
        self._address = self._engine.addresses[0]
        self._most = MOST_REQUESTS  # in one batch; fewer where the queue takes no more
        self._waiting: set[str] = set()  # ids of batches that have not ended
        self._full = ""  # why the queue takes nothing at all
        self._is_limited = False
        self._adaptions = Counter[str]()  # by key
        self.name, self._who = self._address.name, Who(self._address.name, model.model, self._address.key_env)

    async def __aenter__(self) -> "BatchEndpoint":
        import openai

        timeout = openai.Timeout(max(600.0, self._pace.timeout), connect=self._pace.connect_timeout)
        self._connected: Any = self._engine.client(self._address, timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connected.close()

    def line(self, key: str, request: Request) -> bytes:
        """One line of the file to upload; `key` comes back with the answer."""
        row = {"custom_id": key, "method": "POST", "url": PATH, "body": self._engine.body(request)}
        return json.dumps(row).encode() + b"\n"

    async def upload(self, name: str, content: bytes) -> str:
        """The id of a new file. Nothing is billed for it. Raises UsageError where there is no batch API."""
        with self._client(self._pace.retries, "files") as client:
            return _id(await client.files.create(file=(f"{name}.jsonl", content), purpose="batch"))

    async def create(self, name: str, file: str) -> Batch:
        """Submits the file's requests: from here on they cost. Never sent twice: on NotNow, `find` looks for the batch."""
        with self._client(0, "batches") as client:
            made = await client.batches.create(
                completion_window="24h", endpoint=PATH, input_file_id=file, metadata={MARK: name}, timeout=120
            )
            return self._watched(_batch(made))

    async def find(self, name: str, file: str) -> Batch | None:
        """The batch of that name or of that file, which is nobody else's."""
        with self._client(self._pace.retries, "batches") as client:
            async for found in client.batches.list(limit=100):
                if (found.metadata or {}).get(MARK) == name or found.input_file_id == file:
                    return _batch(found)
        return None

    async def retrieve(self, batch: str) -> Batch:
        """The batch as it is now. Raises NotNow for what may pass."""
        with self._client(0, f"batch {batch}") as client:
            return self._watched(_batch(await client.batches.retrieve(batch, timeout=60)))

    def _watched(self, batch: Batch) -> Batch:
        """Remembers whether a batch is waiting in the queue."""
        (self._waiting.discard if batch.ended else self._waiting.add)(batch.id)
        return batch

    async def delete(self, file: str) -> None:
        """Removes a file, where the endpoint can."""
        with suppress(SeqdistillError), self._client(self._pace.retries, f"file {file}") as client:
            await client.files.delete(file)

    async def content(self, file: str) -> bytes:
        """A file's content."""
        with self._client(self._pace.retries, f"file {file}") as client:
            return bytes((await client.files.content(file, timeout=3600)).content)

    def completions(
        self, batch: Batch, contents: Sequence[bytes], requests: Mapping[str, Request]
    ) -> Iterator[tuple[str, Request, Completion]]:
        """Each request of an ended batch, by its key, with what came of it.

        A request that a completed batch does not mention, or whose reply holds no answer, may have been billed: `uncounted`.
        A batch that the queue had no room for yields nothing: its requests are still to be sent, in smaller parts. So does a
        request that was refused for a field: it is still to be sent, without it.
        Raises NotNow when the files hold nothing of the batch: they are not its files, and its answers are still to be had.
        """
        if batch.queue_full and self._makes_room(batch, len(requests)):
            return
        left = dict(requests)
        for content in contents:
            for line in content.splitlines():
                row = _row(line)
                key = str(row.get("custom_id"))
                if key in left and not self._is_adapted(key, left[key], row):
                    yield key, left[key], replace(self._completion(left[key], row), batched=True)
                left.pop(key, None)
        if contents and len(left) == len(requests):
            raise NotNow(f"{self.name}: the files of batch {batch.id} hold none of its answers", NOT_A_BATCH_API)
        for key, request in left.items():
            message = batch.error or f"the batch is {batch.status}, without an answer to this request"
            error, billed = f"batch {batch.status}", batch.status == "completed"
            failure = Completion(request.id, error=error, message=message, uncounted=billed, batched=True)
            yield key, request, failure

    def _makes_room(self, batch: Batch, size: int) -> bool:
        """Whether the requests of a batch that did not fit can be sent later or in smaller parts."""
        self._is_limited = True
        if self._waiting:
            return True
        if size == 1:
            self._full = batch.error
            return False
        self._most = min(self._most, (size + 1) // 2)
        self._pace.on_note(f"{self.name}: batches of at most {self._most:,} requests, one at a time: {batch.error}")
        return True

    def parts(self, requests: Sequence[tuple[str, Request]]) -> Iterator[list[tuple[str, Request]]]:
        """The requests that can be submitted now, in parts that one batch may hold. Raises NotNow for a full queue."""
        if self._full:
            raise NotNow(f"{self.name}: the queue is full: {self._full}", "run again when other batches have ended")
        if self._is_limited and self._waiting:
            return
        part: list[tuple[str, Request]] = []
        size = 0
        for key, request in requests:
            more = len(self.line(key, request))
            if part and (len(part) >= min(self._most, MOST_REQUESTS) or size + more > MOST_BYTES):
                yield part
                if self._is_limited:
                    return
                part, size = [], 0
            part.append((key, request))
            size += more
        if part:
            yield part

    def _is_adapted(self, key: str, request: Request, row: dict[str, Any]) -> bool:
        """Whether a line refuses a request for what can be put in other words: it will be."""
        status, body = _response(row)
        if f"http {status}" not in ADAPTABLE or self._adaptions[key] == ADAPTIONS:
            return False
        error = error_of(body)
        message = self._engine.without_secrets(str(error.get("message") or ""))
        change = self._engine.learn(request, {**error, "message": message})
        if change:
            self._pace.on_note(f"{self.name}: {change} from now on, as the endpoint says: {message[:200]}")
        self._adaptions[key] += change is not None
        return change is not None

    def _completion(self, request: Request, row: dict[str, Any]) -> Completion:
        status, body = _response(row)
        if status == 200 and is_blocked(body):
            body = {**body, "choices": [BLOCKED]}
        if status == 200 and choices_in(body):
            completion = self._engine.parse(request, body, 0.0)
            if completion.finish_reason != "error":
                return completion
            ended = broken_off(body, choices_in(body)[0])
            message = f"the endpoint broke this answer off: {ended}"[:500]
            return replace(completion, error="broken off", message=message, uncounted=True)
        error = error_of({"error": row["error"]} if row.get("error") else body)
        message = self._engine.without_secrets(str(error.get("message") or f"no answer: {row}"))[:500]
        if status is None or status == 200:
            kind = str(error.get("code") or "no answer")[:80]
            return Completion(request.id, error=kind, message=message, raw=error, uncounted=status == 200)
        failure = refusal(self._who, status, {**error, "message": message}, None, proven=True)
        billed = failure.may_be_billed
        if failure.is_content_filtered:  # an answer
            return Completion(request.id, finish_reason="content_filter", message=message, raw=error, uncounted=billed)
        return Completion(request.id, error=failure.kind, message=message, raw=error, uncounted=billed)

    @contextmanager
    def _client(self, retries: int, what: str) -> Iterator[Any]:
        """The library's client; its errors in this module's words."""
        import openai

        try:
            yield self._connected.with_options(max_retries=retries)
        except openai.APIStatusError as error:
            raise self._refusal(error, what) from None
        except openai.APIError as error:
            raise NotNow(f"{self.name}: {what}: {error.__cause__ or error}", "run again; batches continue without us") from None
        except (ValueError, TypeError, AttributeError, RecursionError) as error:  # the client makes objects of any JSON
            raise NotNow(f"{self.name}: {what}: the reply is not a Batch API's: {error}", NOT_A_BATCH_API) from None

    def _refusal(self, error: Any, what: str) -> SeqdistillError:
        message = f"{self.name} says {error.status_code} to {what}: {self._engine.without_secrets(error.message)[:300]}"
        status: int = error.status_code
        if status == 401:
            return UsageError(message, f"check the key in the environment variable {self._address.key_env}")
        if status in (404, 405, 501) and what in ("files", "batches"):
            return UsageError(f"{message}: this endpoint has no batch API", "run without --batch, or check the base URL")
        if status == 404:
            return SeqdistillError(message, "is it the same endpoint and account? Otherwise see batches.jsonl in the run")
        if status in (408, 409, 429) or status >= 500:
            return NotNow(message, "run again; batches continue without us")
        return SeqdistillError(message, "fix the cause and run again; nothing is requested twice")


def _id(reported: Any) -> str:
    if not isinstance(reported.id, str) or not reported.id:
        raise ValueError("no id")
    return reported.id


def _batch(reported: Any) -> Batch:
    files = tuple(file for file in (reported.output_file_id, reported.error_file_id) if file)
    counts = reported.request_counts
    errors = (reported.errors.data or []) if reported.errors else []
    error = "; ".join(str(one.message) for one in errors[:3])
    full = any("token_limit_exceeded" in str(one.code) or "nqueued" in str(one.message) for one in errors)
    done = (counts.completed or 0) + (counts.failed or 0) if counts else 0
    return Batch(_id(reported), str(reported.status), files, done, error, full and str(reported.status) == "failed")


def _response(row: dict[str, Any]) -> tuple[int | None, dict[str, Any]]:
    """The status and the body of the reply in one line."""
    response = as_dict(row.get("response"))
    body = response.get("body")
    return count(response.get("status_code")), as_dict(body[0] if isinstance(body, list) and body else body)


def _row(line: bytes) -> dict[str, Any]:
    try:
        return as_dict(from_json(line))
    except ValueError:
        return {}
