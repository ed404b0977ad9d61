"""What the rows of logs and data sets are made of: messages, requests, replies, and what an import reads from them."""

import json
from collections.abc import Sequence
from typing import Any

ASKED = {"role": "user", "content": "2 + 3?"}
ANSWER = {"role": "assistant", "content": "5"}
CHAT = {"model": "m", "messages": [ASKED]}
CHOICE = {"index": 0, "message": ANSWER, "finish_reason": "stop"}
REPLY = {"id": "chatcmpl-1", "object": "chat.completion", "model": "m", "choices": [CHOICE]}
REPLY["usage"] = {"prompt_tokens": 7, "completion_tokens": 3}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}

RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "model": "m",
    "status": "completed",
    "output": [
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "5", "annotations": []}]},
    ],
    "usage": {"input_tokens": 7, "output_tokens": 3},
}
CLAUDE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "text", "text": "5"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 7, "output_tokens": 3},
}
OLLAMA = {"model": "m", "created_at": "t", "done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 3}
GEMINI = {
    "candidates": [
        {"content": {"role": "model", "parts": [{"text": "hm", "thought": True}, {"text": "5"}]}, "finishReason": "STOP"}
    ],
    "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 3},
    "modelVersion": "m",
}
CONVERSE = {"output": {"message": {"role": "assistant", "content": [{"text": "5"}]}}, "stopReason": "end_turn"}
CONVERSE["usage"] = {"inputTokens": 7, "outputTokens": 3}


def chunk(delta: dict[str, Any], reason: str | None = None, name: str = "chatcmpl-1") -> dict[str, Any]:
    choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
    return {"id": name, "object": "chat.completion.chunk", "model": "m", "choices": choices}


def with_usage(one: dict[str, Any]) -> dict[str, Any]:
    return {**one, "choices": [{**one["choices"][0], "usage": REPLY["usage"]}]}


USAGE = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", "choices": [], "usage": REPLY["usage"]}
CHUNKS = [
    chunk({"role": "assistant", "content": ""}),
    chunk({"reasoning_content": "h"}),
    chunk({"reasoning_content": "m"}),
    chunk({"content": "5"}),
    chunk({}, "stop"),
    USAGE,
]
SSE = "".join(f"data: {json.dumps(one)}\n\n" for one in CHUNKS) + "data: [DONE]\n\n"
CLAUDE_EVENTS = [
    {"type": "message_start", "message": {**CLAUDE, "content": [], "stop_reason": None, "usage": {"input_tokens": 7}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "5"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
    {"type": "message_stop"},
]
GEMINI_DUMP = {  # as Google's package for Python prints it
    "candidates": [
        {
            "content": {
                "role": "model",
                "parts": [{"text": "hm", "thought": True, "function_call": None}, {"text": "5", "inline_data": None}],
            },
            "finish_reason": "STOP",
            "citation_metadata": None,
        }
    ],
    "model_version": "m",
    "usage_metadata": {"prompt_token_count": 7, "candidates_token_count": 3, "thoughts_token_count": None},
    "prompt_feedback": None,
}
USAGE_DUMP = {**GEMINI_DUMP, "candidates": [{"content": {"parts": None, "role": None}, "finish_reason": "STOP"}]}
GEMINI_CHUNKS = [
    {**GEMINI, "candidates": [{"content": {"role": "model", "parts": [{"text": "hm", "thought": True}]}}]},
    {"candidates": [{"content": {"role": "model", "parts": [{"text": "5"}]}, "index": 0}]},
    {**GEMINI, "candidates": [{"content": {"parts": [{"text": ""}], "role": "model"}, "finishReason": "STOP"}]},
]
OLLAMA_CHUNKS = [
    {"model": "m", "message": {"role": "assistant", "content": "5"}, "done": False},
    {**OLLAMA, "message": {"role": "assistant", "content": ""}},
]
LANGFUSE = {"id": "o1", "traceId": "t1", "type": "GENERATION", "name": "add", "level": "DEFAULT", "model": "m"}
PROMPTFOO = {
    "provider": {"id": "m", "label": ""},
    "prompt": {"raw": "2 + 3?", "label": "{{q}}"},
    "vars": {"q": "2 + 3?"},
    "response": {"output": "5", "tokenUsage": {"total": 10, "prompt": 7, "completion": 3}, "finishReason": "stop"},
    "testCase": {"vars": {"q": "2 + 3?"}, "assert": [{"type": "equals", "value": "5"}]},
    "success": True,
}
OPEN_AI_EVENTS = [{"type": "response.created", "response": {"status": "in_progress"}}, {"type": "response.output_text.delta"}]
OPEN_AI_EVENTS.append({"type": "response.completed", "response": RESPONSE})

Rows = dict[str, Sequence[Any]]
Cases = dict[str, tuple[Sequence[Any], Sequence[tuple[list[str], str]], int]]  # rows; prompts and answers; how many are skipped

SUM = (["2 + 3?"], "5")
LONGER = [(["2 + 3?"], "5"), (["2 + 3?", "5", "And 1?"], "6")]
TASK = (["Add.\n\n2 + 3?"], "5")
QA = (["Capital?\n\nParis is the capital."], "Paris")
FIVE = "<tool_response>\n5\n</tool_response>"
AFTER_CALL = (
    ["2 + 3?", '<tool_call>\n{"name": "add", "arguments": {"a": 2}}\n</tool_call>', "<tool_response>\n5\n</tool_response>"],
    "5",
)
