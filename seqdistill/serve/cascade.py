"""One request answered: by the student, or where it is not sure enough by the teacher. Does not know HTTP.

The parts of an answer are those of a chat-completions stream. What its caller learns about an answer is its `Head`.
Records that every request has are named tuples here: a frozen dataclass takes ten times as long to make.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from seqdistill.confidence import confidence_in, confidence_of_text
from seqdistill.engines import Completion, Request
from seqdistill.engines.logprobs import chat_values
from seqdistill.engines.replies import as_dict
from seqdistill.engines.streams import joined
from seqdistill.records import Message, prompt_id, request_seed
from seqdistill.serve.chat import Chat
from seqdistill.serve.completions import chunks_of, finish_reason_of, reply_of
from seqdistill.serve.routing import ServedThreshold, Switch, uniform_draw
from seqdistill.serve.student import Chunk, Student, StudentFailed, TooLong, Wanted, texts_in
from seqdistill.serve.teacher import Stored, Teacher, TeacherFailed, cut
from seqdistill.serve.views import Views
from seqdistill.tasks.answer_form import AnswerForm

Parts = AsyncGenerator[list[Chunk], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Defaults:
    """How answers are requested where the caller does not say: as eval did, for which the promise holds."""

    max_tokens: int
    temperature: float
    seed: int


class Head(NamedTuple):
    """Who answers, how sure the student was, what it costs in USD: in a stream of the teacher, its upper bound."""

    by: str  # student | teacher
    model: str
    confidence: float | None
    usd: float | None
    reason: str  # why not the other one
    decided_on: int = 0  # the first tokens of a stream in which the student was so sure; 0: the whole answer


class Answered(NamedTuple):
    """An answer as a whole."""

    head: Head
    reply: dict[str, Any]  # choices and usage, in the form of a chat-completions reply
    student: str | None = None  # what the student would have said


class IncomingRequest(NamedTuple):
    """A request, and what is made of it."""

    chat: Chat
    name: str | None  # that the caller gave it
    student: list[Message]
    teacher: list[Message]
    draw: str  # what a sample is drawn by where the caller sends no seed
    id: str = ""  # of its answer


class Judged(NamedTuple):
    """What the student answered, and how sure it is."""

    reply: dict[str, Any]
    confidence: float | None
    keeps: bool


class Begun(NamedTuple):
    """A stream of the student that was decided on: the chunks that are there and those to come, and how sure it is."""

    held: list[Chunk]
    parts: Parts
    confidence: float | None
    decided_on: int
    keeps: bool


A = TypeVar("A", Judged, Begun)
Attempt = Callable[[Student, IncomingRequest], Awaitable[A]]  # a whole answer of the student, or a stream of it


class FromTeacher(NamedTuple):
    """One answer of the teacher, which is stored, though its caller may have gone."""

    incoming: IncomingRequest
    head: Head  # `usd` is that of this answer
    number: int  # which choice it is
    text: str
    finish_reason: str
    student: str | None  # what the student would have said


@dataclass
class Cascade:
    """A cascade of two models: student, teacher and the rule between them. Without a student the teacher answers all."""

    views: Views
    form: AnswerForm
    defaults: Defaults
    promise: ServedThreshold
    switch: Switch
    student: Student | None
    teacher: Teacher | None
    share: float = 1.0
    student_without_teacher: bool = False
    on_teacher: Callable[[FromTeacher], None] = lambda _: None
    failed: str | None = field(default=None)  # why the student gave no answer the last time

    def incoming(self, chat: Chat, name: str | None) -> IncomingRequest:
        """The request in both views. Raises UsageError for a variable of the template that it lacks."""
        views = self.views.of(chat.messages, chat.values)
        draw = secrets.token_hex(8) if name is None else name
        return IncomingRequest(chat, name, views["student"], views["teacher"], draw, f"chatcmpl-{secrets.token_hex(12)}")

    def route(self, incoming: IncomingRequest) -> str:
        """Why the teacher answers a request whatever the student would say; empty where the student is tried."""
        if self.student is None:
            return "no student"
        if self.switch.teacher_only:
            return "teacher only"
        if self.share < 1 and uniform_draw("share", incoming.student, incoming.name) >= self.share:
            return "share"
        return ""

    # --- whole answers ---

    async def answer(self, incoming: IncomingRequest) -> Answered:
        """The answer as a whole. Raises TeacherFailed where nobody can answer."""
        reason, judged = await self._tried(incoming, self._judged)
        if judged is not None and not reason:
            return Answered(self._student_head(judged.confidence, ""), judged.reply)
        try:
            return await self._by_teacher(incoming, reason, judged)
        except TeacherFailed:
            if (judged := await self._kept_instead(incoming, self._judged, reason, judged)) is None:
                raise
            return Answered(self._student_head(judged.confidence, "no teacher"), judged.reply)

    async def _tried(self, incoming: IncomingRequest, attempt: Attempt[A]) -> tuple[str, A | None]:
        """Why the teacher answers, empty where the student's answer is kept; and what the student made of the request."""
        reason = self.route(incoming)
        if reason or self.student is None:
            return reason, None
        made = await self._unless_it_fails(attempt(self.student, incoming))
        return "student failed" if made is None else "" if made.keeps else "not sure", made

    async def _kept_instead(self, incoming: IncomingRequest, attempt: Attempt[A], reason: str, made: A | None) -> A | None:
        """What the student answers where the teacher failed; None where it may not, or cannot."""
        if not self.student_without_teacher:
            return None
        if reason == "share" and self.student is not None:  # it was not tried
            return await self._unless_it_fails(attempt(self.student, incoming))
        return made

    async def _unless_it_fails(self, attempt: Awaitable[T]) -> T | None:
        """What the student makes of an attempt; None where it fails, and why is noted."""
        try:
            return await attempt
        except StudentFailed as error:
            self.failed = str(error)
            return None

    async def _judged(self, student: Student, incoming: IncomingRequest) -> Judged:
        wanted = self._wanted(incoming)
        try:
            reply = await student.answer(wanted)
        except TooLong as error:
            reply = await student.answer(wanted := self._with_fewer_tokens(wanted, error))
        return await self._judge(student, wanted, reply, incoming.chat)

    async def _judge(self, student: Student, wanted: Wanted, reply: dict[str, Any], chat: Chat) -> Judged:
        samples: list[str] = []
        if self.promise.kind == "agreement" and self.promise.samples:
            further = wanted._replace(n=self.promise.samples, temperature=1.0, top_logprobs=None, response_format=None)
            samples = texts_in(await student.answer(further))
        form = AnswerForm(chat.schema) if chat.schema is not None else self.form
        texts = texts_in(reply)
        answers = zip(reply["choices"], texts, strict=True)
        sure = [confidence_of_text(text, {"choices": [one]}, form, form.kind, samples) for one, text in answers]
        confidence = None if None in sure or not sure else min(one for one in sure if one is not None)
        if confidence is None and self.promise.threshold > 0 and all(texts):
            self.failed = "it reports no log-probabilities, so none of its answers can be kept"
        return Judged(reply, confidence, self._keeps(confidence, self.promise.threshold))

    @staticmethod
    def _keeps(confidence: float | None, threshold: float) -> bool:
        return threshold <= 0 or (confidence is not None and confidence >= threshold)

    async def _by_teacher(self, incoming: IncomingRequest, reason: str, judged: Judged | None) -> Answered:
        teacher = self._teacher(reason)
        students = [] if judged is None else texts_in(judged.reply)
        head = Head("teacher", teacher.name, judged.confidence if judged else None, None, reason)
        completions, usd = await teacher.answer(self._requests(incoming), stored=self._stored(incoming, head, students))
        completions = [cut(one, incoming.chat.stop) for one in completions]
        head = head._replace(usd=usd)
        return Answered(head, reply_of(completions, with_logprobs=incoming.chat.logprobs), students[0] if students else None)

    def _stored(self, incoming: IncomingRequest, head: Head, students: Sequence[str]) -> Stored:
        """Reports the teacher's answers to a request; `students` are the student's, by choice."""

        def stored(number: int, completion: Completion, usd: float | None) -> None:
            one = cut(completion, incoming.chat.stop)
            found = head._replace(usd=usd)
            student = students[number] if number < len(students) else None
            self.on_teacher(FromTeacher(incoming, found, number, one.content, finish_reason_of(one.finish_reason), student))

        return stored

    async def check(self, incoming: IncomingRequest) -> tuple[Completion, float | None]:
        """What the teacher says to a request that the student answered, and what that costs. Raises TeacherFailed."""
        chat = incoming.chat._replace(n=1, logprobs=False)
        (completion,), usd = await self._teacher("shadow").answer(self._requests(incoming._replace(chat=chat)))
        return cut(completion, incoming.chat.stop), usd

    @property
    def teacher_name(self) -> str:
        """The teacher's name, empty without one."""
        return "" if self.teacher is None else self.teacher.name

    def _teacher(self, reason: str) -> Teacher:
        if self.teacher is None:
            is_away = reason == "student failed"
            why = f"{reason}: {self.failed}" if is_away else reason
            message = f"no teacher is configured, and the student does not answer: {why}"
            raise TeacherFailed(503, "no_teacher", message, is_passing=is_away)
        return self.teacher

    # --- streams ---

    async def stream(self, incoming: IncomingRequest) -> tuple[Head, list[Chunk], Parts]:
        """Who answers, the chunks that are there already, and those to come, which are to be closed; the last has the usage.

        Raises TeacherFailed where nobody can answer; the generator raises it, or StudentFailed, where an answer breaks off.
        """
        reason, begun = await self._tried(incoming, self._begun)
        if begun is not None and not reason:
            return self._student_head(begun.confidence, "", begun.decided_on), begun.held, begun.parts
        if begun is not None and not self.student_without_teacher:
            await begun.parts.aclose()
        try:
            head, answer = await self._teacher_stream(incoming, reason, None if begun is None else begun.confidence)
        except TeacherFailed:
            if (begun := await self._kept_instead(incoming, self._begun, reason, begun)) is None:
                raise
            return self._student_head(begun.confidence, "no teacher"), begun.held, begun.parts
        if begun is not None and self.student_without_teacher:
            await begun.parts.aclose()
        return head, [], answer

    async def _begun(self, student: Student, incoming: IncomingRequest) -> Begun:
        """The student's stream up to where it is decided. Raises StudentFailed."""
        parts, held = student.stream(wanted := self._wanted(incoming)), list[Chunk]()
        try:
            try:
                confidence, finished = await self._first(parts, held, wanted.n)
            except TooLong as error:
                parts = student.stream(wanted := self._with_fewer_tokens(wanted, error))
                confidence, finished = await self._first(parts, held, wanted.n)
            if not finished:
                keeps = self._keeps(confidence, self._first_threshold)
                return Begun(held, parts, confidence, self.promise.decide_on, keeps)
            confidence = (await self._judge(student, wanted, joined(held), incoming.chat)).confidence
        except BaseException:
            await parts.aclose()
            raise
        keeps = self._keeps(confidence, self.promise.threshold if self._is_decided_whole else self._first_threshold)
        return Begun(held, parts, confidence, 0, keeps)

    @property
    def _is_decided_whole(self) -> bool:
        """Whether a stream is decided on the whole answer: its form, and the agreement with further ones, show at its end."""
        return not self.promise.decide_on or bool(self.form) or self.promise.kind == "agreement"

    @property
    def _first_threshold(self) -> float:
        first = self.promise.first_threshold
        return self.promise.threshold if first is None else first

    async def _first(self, parts: Parts, held: list[Chunk], n: int) -> tuple[float | None, bool]:
        """Takes what the decision needs: the first tokens of each choice, or all.

        Returns the confidence in these tokens, of the choice that is least sure; and whether all was taken.
        """
        values: list[list[float]] = [[] for _ in range(n)]  # log-probabilities, by choice
        whole, tokens = self._is_decided_whole, self.promise.decide_on
        async for part in parts:
            held += part
            if whole:
                continue
            for chunk in part:
                for choice in chunk["choices"]:
                    if (index := choice["index"]) >= n or len(values[index]) >= tokens:
                        continue
                    places = as_dict(choice.get("logprobs")).get("content")
                    values[index] += chat_values(places) if isinstance(places, list) else ()
            if min(map(len, values)) >= tokens:
                return min(confidence_in(one[:tokens]) for one in values), False
        return None, True

    async def _teacher_stream(self, incoming: IncomingRequest, reason: str, confidence: float | None) -> tuple[Head, Parts]:
        """Returns once the teacher's first text is there, so that a teacher that gives none is still an HTTP status."""
        teacher, requests = self._teacher(reason), self._requests(incoming)
        texts: asyncio.Queue[tuple[int, str] | None] = asyncio.Queue()
        head = Head("teacher", teacher.name, confidence, teacher.bound_usd(requests), reason)

        def on_text(number: int, text: str) -> None:
            texts.put_nowait((number, text))

        answer = asyncio.create_task(teacher.answer(requests, on_text, self._stored(incoming, head, [])))

        def ended(task: asyncio.Task[Any]) -> None:
            texts.put_nowait(None)
            if not task.cancelled():
                task.exception()  # where the caller has gone, nobody else takes it

        answer.add_done_callback(ended)
        try:
            first = await texts.get()
        except BaseException:
            answer.cancel()
            raise
        if first is None:
            _, usd = answer.result()  # raises its failure
            head = head._replace(usd=usd)
        return head, chunks_of(texts, first, answer, incoming.chat)

    # --- what is sent ---

    def _student_head(self, confidence: float | None, reason: str, decided_on: int = 0) -> Head:
        assert self.student is not None
        return Head("student", self.student.name, confidence, 0.0, reason, decided_on)

    def _wanted(self, incoming: IncomingRequest) -> Wanted:
        chat, how = incoming.chat, self._how(incoming.chat)
        return Wanted(
            messages=incoming.student,
            **how,
            seed=self._seed(incoming, 0) if how["temperature"] > 0 or self.promise.samples else self.defaults.seed,
            n=chat.n,
            stop=chat.stop,
            top_logprobs=chat.top_logprobs,
            response_format=chat.response_format,
            schema=chat.schema,
        )

    def _with_fewer_tokens(self, wanted: Wanted, failure: TooLong) -> Wanted:
        """The same with the tokens of eval's answers, where the caller allows more. Raises the failure where it does not.

        Applications send one limit to every model, often beyond the context of a student, which writes as little as ever.
        """
        if wanted.max_tokens <= self.defaults.max_tokens:
            raise failure
        return wanted._replace(max_tokens=self.defaults.max_tokens)

    def _requests(self, incoming: IncomingRequest) -> list[Request]:
        """The teacher's requests, one for each choice, in the task's form unless the caller wants another."""
        chat = incoming.chat
        formed = chat.schema is None
        return [
            Request(
                id=f"{prompt_id(incoming.teacher)}:{number}",
                messages=incoming.teacher,
                **self._how(chat),
                seed=self._seed(incoming, number),
                schema=(dict(self.form.schema) or None) if formed else chat.schema,
                response_format=chat.response_format,
                choices=(list(self.form.choices) or None) if formed else None,
                logprobs=chat.top_logprobs if chat.logprobs else None,
            )
            for number in range(chat.n)
        ]

    def _how(self, chat: Chat) -> dict[str, Any]:
        given = self.defaults
        return {
            "max_tokens": given.max_tokens if chat.max_tokens is None else chat.max_tokens,
            "temperature": given.temperature if chat.temperature is None else chat.temperature,
            "top_p": 1.0 if chat.top_p is None else chat.top_p,
        }

    def _seed(self, incoming: IncomingRequest, number: int) -> int:
        """A caller's seed, or one of the request's own: a sample that is requested twice is drawn twice.

        Under the same x-request-id it is the same sample, which is not paid twice.
        """
        if incoming.chat.seed is not None:
            return incoming.chat.seed if number == 0 else request_seed(incoming.chat.seed, "choice", number)
        if self._how(incoming.chat)["temperature"] > 0:
            return request_seed(self.defaults.seed, incoming.draw, number)
        return request_seed(self.defaults.seed, prompt_id(incoming.teacher), number)
