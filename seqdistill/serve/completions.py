"""The teacher's completions as a chat endpoint gives them: whole replies, and the chunks of a stream. Knows no HTTP."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from seqdistill.engines import Completion
from seqdistill.engines.replies import choices_in
from seqdistill.serve.chat import Chat
from seqdistill.serve.stops import until_stop
from seqdistill.serve.student import Chunk
from seqdistill.serve.teacher import cut


def reply_of(completions: Sequence[Completion], *, with_logprobs: bool = False) -> dict[str, Any]:
    """Completions as the reply of a chat endpoint."""
    choices = []
    for number, one in enumerate(completions):
        message = {"role": "assistant", "content": one.content} | ({"reasoning": one.reasoning} if one.reasoning else {})
        raw = (choices_in(one.raw) or [{}])[0]
        choice = {"index": number, "message": message, "finish_reason": finish_reason_of(one.finish_reason), "logprobs": None}
        choices.append(choice | ({"logprobs": raw.get("logprobs")} if with_logprobs else {}))
    return {"choices": choices, "usage": usage_of(completions)}


def usage_of(completions: Sequence[Completion]) -> dict[str, int]:
    """The tokens of completions of one prompt, as a chat endpoint reports them."""
    prompt = max((one.prompt_tokens for one in completions), default=0)
    written = sum(one.completion_tokens + one.hidden_tokens for one in completions)
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def finish_reason_of(reason: str) -> str:
    """A finish reason as OpenAI writes it."""
    return reason if reason in ("stop", "length", "content_filter") else "stop"


async def chunks_of(
    texts: "asyncio.Queue[tuple[int, str] | None]",
    first: tuple[int, str] | None,
    answer: "asyncio.Task[tuple[list[Completion], float | None]]",
    chat: Chat,
) -> AsyncGenerator[list[Chunk], None]:
    """The teacher's answer as chunks: its text as it comes, and at the end what was not shown yet."""
    written = [""] * chat.n  # what has come
    shown = [""] * chat.n  # what was passed on
    part = first
    while part is not None:
        chunks: list[Chunk] = []
        while part is not None:
            number, text = part
            written[number] += text
            certain = until_stop(written[number], chat.stop, whole=False).text
            if new := certain[len(shown[number]) :]:
                shown[number] += new
                chunks.append({"choices": [{"index": number, "delta": {"content": new}, "finish_reason": None}]})
            if texts.empty():
                break
            part = texts.get_nowait()
        if chunks:
            yield chunks
        if part is not None:
            part = await texts.get()
    completions, usd = await answer
    completions = [cut(one, chat.stop) for one in completions]
    for number, one in enumerate(completions):
        rest = one.content.removeprefix(shown[number]) if one.content.startswith(shown[number]) else ""
        choice: dict[str, Any] = {
            "index": number,
            "delta": {"content": rest} if rest else {},
            "finish_reason": finish_reason_of(one.finish_reason),
        }
        if chat.logprobs:
            choice["logprobs"] = (choices_in(one.raw) or [{}])[0].get("logprobs")
        yield [{"choices": [choice]}]
    yield [{"choices": [], "usage": usage_of(completions), "usd": usd}]
