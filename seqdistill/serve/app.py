"""The HTTP side: an OpenAI-compatible endpoint with its errors, limits and headers. Decides nothing about answers."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seqdistill.engines.replies import as_dict
from seqdistill.engines.usage import count
from seqdistill.errors import UsageError
from seqdistill.records import from_json
from seqdistill.serve.access import check_key, check_local
from seqdistill.serve.bodies import MOST_BODY, body_of
from seqdistill.serve.cascade import Cascade, FromTeacher, Head, IncomingRequest, Parts
from seqdistill.serve.chat import BadRequest, read_chat
from seqdistill.serve.cors import allow, preflight
from seqdistill.serve.http_errors import JSON_HEADERS, HttpError
from seqdistill.serve.log import Exchange, Log, answer_id
from seqdistill.serve.metrics import CONTENT_TYPE, Metrics
from seqdistill.serve.replies import Events, encoded, headers_of, whole, written_choices
from seqdistill.serve.routing import uniform_draw
from seqdistill.serve.student import Chunk, StudentFailed
from seqdistill.serve.teacher import TeacherFailed

if TYPE_CHECKING:
    from aiohttp import web

HEAD_SECONDS = 60.0  # within which a request's head must be there, or the next request of an open connection
WRITE_SECONDS = 30.0  # within which a client must take what is sent to it
NOTE_EACH_SECONDS = 60.0  # for a student that fails
TEACHER_RETRY_SECONDS = 5  # after which a client may try again where the teacher is busy, or the student away
RETRY_SECONDS = 1  # after which a client may try again where too many requests are under way
MOST_RATING = 1e9
WRITE_BUFFER = 1 << 16  # bytes that wait for a slow client at most
STREAM_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

Handler = Callable[["web.Request"], Awaitable["web.StreamResponse"]]


@dataclass(frozen=True)
class Limits:
    """What clients may do."""

    concurrency: int = 1024
    key: str | None = None
    shadow: float = 0.0  # share of the student's answers that the teacher checks
    shadows: int = 32  # of these checks, under way at most
    origins: tuple[str, ...] = ()  # of pages that may use the server in a browser
    only_local: bool = False  # whether a page in a browser of this machine is refused: there is no key that it lacks


class App:
    """The handlers of one server."""

    def __init__(
        self,
        cascade: Cascade,
        name: str,
        limits: Limits,
        metrics: Metrics,
        log: Log,
        gauges: Callable[[], dict[str, tuple[str, float]]],
        on_note: Callable[[str], None],
    ) -> None:
        self.cascade, self.name, self._limits = cascade, name, limits
        self.metrics, self._log, self._gauges = metrics, log, gauges
        cascade.on_teacher = self._by_teacher
        self._listed = {"id": name, "object": "model", "created": int(time.time()), "owned_by": "seqdistill"}
        self._shadows: set[asyncio.Task[None]] = set()
        self._on_note, self._noted_at = on_note, -NOTE_EACH_SECONDS

    def runner(self, shutdown_seconds: float) -> "web.AppRunner":
        """What serves the application; a client that goes away cancels its request."""
        from aiohttp import web

        return web.AppRunner(
            self._application(),
            handler_cancellation=True,
            access_log=None,
            logger=_server_log(),
            keepalive_timeout=HEAD_SECONDS,
            shutdown_timeout=shutdown_seconds,
            auto_decompress=False,  # aiohttp's own answer to what it cannot decompress is plain text
        )

    def _application(self) -> "web.Application":
        from aiohttp import web

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._guarded(request, handler)

        async def prepared(request: web.Request, response: web.StreamResponse) -> None:
            allow(request, response, self._limits.origins)

        app = web.Application(client_max_size=MOST_BODY, middlewares=[guard])
        app.on_response_prepare.append(prepared)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/feedback", self._feedback)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{name:.+}", self._model)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        return app

    # --- around every request ---

    async def _guarded(self, request: "web.Request", handler: Handler) -> "web.StreamResponse":
        from aiohttp import web

        if allowed := preflight(request, self._limits.origins):
            return allowed
        try:
            if request.path != "/health":
                if self._limits.only_local:
                    check_local(request, self._limits.origins)
                if self._limits.key is not None:
                    check_key(request, self._limits.key)
            return await handler(request)
        except HttpError as error:
            failure = error
        except web.HTTPException as error:
            known = "POST /v1/chat/completions, POST /feedback, GET /v1/models, /health, /metrics"
            failure = HttpError(error.status, "unknown_url", f"no {request.method} {request.path} here; there are {known}")
        except (ConnectionError, TimeoutError):
            raise
        except Exception as error:
            if request.writer.output_size:  # the status is sent
                raise
            _server_log().exception("Error handling request")
            failure = HttpError(500, "internal_error", f"the server failed: {type(error).__name__}; its log says where")
        self.metrics.count("errors", code=failure.code)
        return failure.response()

    # --- what is served ---

    async def _models(self, _request: "web.Request") -> "web.StreamResponse":
        return _json({"object": "list", "data": [self._listed]})

    async def _model(self, request: "web.Request") -> "web.StreamResponse":
        if request.match_info["name"] != self.name:
            raise HttpError(404, "model_not_found", f"the model served here is {self.name}", param="model")
        return _json(self._listed)

    async def _health(self, _request: "web.Request") -> "web.StreamResponse":
        return _json({"status": "ok", "teacher_only": self.cascade.switch.teacher_only})

    async def _metrics(self, _request: "web.Request") -> "web.StreamResponse":
        from aiohttp import web

        return web.Response(body=self.metrics.text(self._gauges()).encode(), headers={"Content-Type": CONTENT_TYPE})

    async def _chat(self, request: "web.Request") -> "web.StreamResponse":
        if self.metrics.in_flight >= self._limits.concurrency:
            message = f"{self._limits.concurrency} requests are under way, which is the limit"
            raise HttpError(429, "too_many_requests", message, retry_after=RETRY_SECONDS)
        self.metrics.in_flight += 1
        try:
            return await self._answered(request)
        except asyncio.CancelledError:  # the client went away
            self.metrics.count("vanished")
            raise
        except (ConnectionError, TimeoutError):  # it does not take what is sent to it
            self.metrics.count("vanished")
            if request.transport is not None:
                request.transport.abort()
            raise asyncio.CancelledError from None
        finally:
            self.metrics.in_flight -= 1

    async def _answered(self, request: "web.Request") -> "web.StreamResponse":
        began = time.perf_counter()
        content = await body_of(request)
        try:
            chat = read_chat(content)
            incoming = self.cascade.incoming(chat, request.headers.get("x-request-id"))
        except BadRequest as error:
            raise HttpError(400, "invalid_request", error.message, param=error.param) from None
        except UsageError as error:
            raise HttpError(400, "invalid_request", f"{error.message}; {error.hint}", param="messages") from None
        envelope = {"id": incoming.id, "created": int(time.time())}
        student: str | None = None
        try:
            if chat.stream:
                head, there, parts = await self.cascade.stream(incoming)
                async with aclosing(parts):
                    events = Events(chat, head, envelope)
                    response = await self._stream(request, headers_of(head, chat), there, parts, events)
                answers, usage = list(zip(events.texts, events.finish_reasons, strict=True)), events.usage
            else:
                answered = await self.cascade.answer(incoming)
                head, student = answered.head, answered.student
                answers, usage = written_choices(answered.reply), answered.reply.get("usage")
                response = _json(whole(answered.reply, head, envelope, chat.logprobs), headers_of(head, chat))
        except TeacherFailed as error:
            retry_after = TEACHER_RETRY_SECONDS if error.is_passing else None
            raise HttpError(
                error.status, error.code, error.message, retry_after=retry_after, is_final=not error.is_passing
            ) from None
        finally:
            if self.cascade.failed:
                self._student_failed(self.cascade.failed)
                self.cascade.failed = None
        self.metrics.count("requests", model=head.by, reason=head.reason)
        self.metrics.took(head.by, time.perf_counter() - began)
        for of in ("prompt", "completion"):
            if tokens := count(as_dict(usage).get(f"{of}_tokens")):
                self.metrics.count("tokens", tokens, model=head.by, of=of)
        self._log_answers(incoming, head, answers, student)
        return response

    def _log_answers(self, incoming: IncomingRequest, head: Head, answers: list[tuple[str, str]], student: str | None) -> None:
        """Logs each choice, by its text and finish reason in `answers`; `student` is what it would have said as the first one.

        The teacher may check the student's first choice.
        """
        exchanges = [
            Exchange(
                answer_id(incoming.id, number),
                incoming.teacher,
                text=text,
                finish_reason=finish_reason,
                student=student if number == 0 else None,
                **_about(head),
            )
            for number, (text, finish_reason) in enumerate(answers)
        ]
        for one in exchanges:
            if head.by == "student" or not one.text:
                self._log.answered(one)  # the teacher's answers were logged when they were stored
        first = exchanges[0]
        may_be_checked = self._limits.shadow > 0 and head.by == "student" and first.text
        if may_be_checked and uniform_draw("shadow", [], first.id) < self._limits.shadow:
            self._shadow(incoming, first)

    def _by_teacher(self, one: FromTeacher) -> None:
        """Logs an answer of the teacher, whether its caller takes it or has gone: it is paid."""
        exchange = Exchange(
            answer_id(one.incoming.id, one.number),
            one.incoming.teacher,
            text=one.text,
            finish_reason=one.finish_reason,
            student=one.student,
            **_about(one.head),
        )
        self._log.answered(exchange)

    def _student_failed(self, why: str) -> None:
        self.metrics.count("student_failures")
        now = time.monotonic()
        if now - self._noted_at >= NOTE_EACH_SECONDS:
            self._on_note(f"serve: the student failed: {why}")
            self._noted_at = now

    def _shadow(self, incoming: IncomingRequest, exchange: Exchange) -> None:
        """Has the teacher check an answer of the student, in nobody's way."""
        if len(self._shadows) >= self._limits.shadows:
            self.metrics.count("shadows", outcome="skipped")
            return
        task = asyncio.create_task(self._checked(incoming, exchange))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)

    async def _checked(self, incoming: IncomingRequest, exchange: Exchange) -> None:
        try:
            completion, usd = await self.cascade.check(incoming)
        except TeacherFailed as error:
            self.metrics.count("shadows", outcome=error.code)
            return
        if not completion.content.strip():  # it says nothing of the student's
            self.metrics.count("shadows", outcome="empty")
            return
        self.metrics.count("shadows", outcome="checked")
        self._log.shadowed(exchange, completion.content, self.cascade.teacher_name, completion.finish_reason, usd)

    async def finish(self, seconds: float) -> None:
        """Waits for the teacher's checks that are under way, at most this long."""
        if self._shadows:
            await asyncio.wait(self._shadows, timeout=seconds)

    async def _feedback(self, request: "web.Request") -> "web.StreamResponse":
        try:
            body = from_json(await body_of(request))
        except ValueError as error:
            raise HttpError(400, "invalid_request", f"the body is not JSON: {error}") from None
        body = as_dict(body)
        name, completion, rating = (body.get(key) for key in ("id", "completion", "rating"))
        if not isinstance(name, str):
            raise HttpError(400, "invalid_request", "id is not the id of an answer", param="id")
        if completion is not None and not (isinstance(completion, str) and completion.strip()):
            raise HttpError(400, "invalid_request", "completion is not a text", param="completion")
        if rating is not None and (type(rating) not in (int, float) or not abs(rating) <= MOST_RATING):
            raise HttpError(400, "invalid_request", f"rating is not a number up to {MOST_RATING:g}", param="rating")
        if completion is None and rating is None:
            raise HttpError(400, "invalid_request", "neither completion, a corrected answer, nor rating, a number, is there")
        try:
            known = self._log.feedback(name, completion, None if rating is None else float(rating))
        except OSError as error:
            raise HttpError(507, "not_logged", f"the log cannot be written: {error.strerror}; send it again later") from None
        if not known:
            raise HttpError(404, "unknown_id", f"{name[:100]}: not one of the latest answers of this server", param="id")
        self.metrics.count("feedback", kind="rating" if completion is None else "correction")
        return _json({"id": name, "status": "logged"})

    async def _stream(
        self, request: "web.Request", headers: dict[str, str], there: list[Chunk], parts: Parts, events: Events
    ) -> "web.StreamResponse":
        from aiohttp import HttpVersion11, web

        headers = {**STREAM_HEADERS, **headers}
        response: web.StreamResponse
        if request.version < HttpVersion11:  # it ends with the connection
            response = web.StreamResponse(headers=headers)
        else:
            response = web.Response(headers=headers)  # its headers leave with the first text
            response.enable_chunked_encoding()
        writer = await response.prepare(request)
        assert writer is not None
        if request.transport is not None:
            request.transport.set_write_buffer_limits(high=WRITE_BUFFER)
        try:
            await _write(request, writer.write, events.of(there))
            async for part in parts:
                await _write(request, writer.write, events.of(part))
            end = events.end()
        except (TeacherFailed, StudentFailed) as failure:  # the status is sent: all that is left is an event
            self.metrics.count("errors", code="broken_off")
            events.texts = [""] * len(events.texts)
            end = events.broken_off(HttpError(502, "broken_off", f"the answer broke off: {failure}").body().decode())
        await _write(request, writer.write_eof, end)
        return response


async def _write(request: "web.Request", write: Callable[[bytes], Awaitable[None]], text: str) -> None:
    """Writes a part of a stream, if there is any. Raises TimeoutError for a client that does not take it."""
    content, transport = text.encode("utf-8", "replace"), request.transport
    if not content:
        return
    if len(content) < WRITE_BUFFER and transport is not None and not transport.get_write_buffer_size():
        await write(content)  # it waits for nobody
        return
    async with asyncio.timeout(WRITE_SECONDS):
        await write(content)


def _about(head: Head) -> dict[str, Any]:
    return {name: getattr(head, name) for name in ("model", "by", "confidence", "decided_on", "usd")}


def _server_log() -> logging.Logger:
    """Where faults of the server are logged; what is no HTTP is its sender's fault, and answered by 400."""
    from aiohttp.http import HttpProcessingError
    from aiohttp.web import RequestPayloadError

    def is_ours(record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError | RequestPayloadError))

    log = logging.getLogger("seqdistill.serve.requests")
    log.filters = [is_ours]
    return log


def _json(value: dict[str, Any], headers: dict[str, str] | None = None) -> "web.Response":
    from aiohttp import web

    return web.Response(body=encoded(value).encode("utf-8", "replace"), headers={**JSON_HEADERS, **(headers or {})})
