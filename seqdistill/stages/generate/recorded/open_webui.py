"""Chats of Open WebUI, rewritten as rows that `rows` reads: the branch last seen of a history, or what somebody rated.

The program keeps thoughts and calls of tools in an answer's text, as HTML: they become reasoning and turns of their own.
"""

import html
import re
from collections.abc import Iterator

from seqdistill.engines.replies import as_dict
from seqdistill.stages.generate.recorded.exchange import Row
from seqdistill.stages.generate.recorded.trees import branch_of
from seqdistill.tasks.messages import is_conversation, role_of, structured

_DETAILS = re.compile(r'<details type="(reasoning|tool_calls|code_interpreter)"([^>]*)>(.*?)</details>\s*', re.DOTALL)
_ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')
_SUMMARY = re.compile(r"\s*<summary>.*?</summary>\s*", re.DOTALL)


def open_webui_chat(row: Row) -> Row | None:
    """The messages of a chat and its model; an answer that was rated as bad is marked so. None for any other row."""
    chat = as_dict(structured(row.get("chat")))
    if "snapshot" in row:
        chat = as_dict(as_dict(row["snapshot"]).get("chat"))
        chat = as_dict(chat.get("chat")) or chat
    history = as_dict(chat.get("history"))
    nodes = as_dict(history.get("messages"))
    rated = as_dict(row.get("meta")).get("message_id")
    branch = branch_of(nodes, rated if str(rated) in nodes else history.get("currentId"), "parentId")
    messages = branch or chat.get("messages")
    if not isinstance(messages, list) or not is_conversation(messages):
        return None
    is_bad = -1 in (as_dict(row.get("data")).get("rating"), as_dict(messages[-1].get("annotation")).get("rating"))
    turns = [turn for one in messages for turn in _turns_of(one)]
    if is_bad or messages[-1].get("error"):
        return {"prompt": turns[:-1], "completion": turns[-1:], "label": False}
    models = chat.get("models")
    model = models[0] if isinstance(models, list) and len(models) == 1 else None
    return {"messages": turns, "model": model, "system": as_dict(chat.get("params")).get("system")}


def _turns_of(message: Row) -> Iterator[Row]:
    """A message as the turns that it is: calls of tools and their results are turns before the answer."""
    content = message.get("content")
    if not isinstance(content, str) or role_of(message) != "assistant" or not _DETAILS.search(content):
        yield message
        return
    text, thoughts, at = "", "", 0
    for details in _DETAILS.finditer(content):
        text += content[at : details.start()]
        at = details.end()
        kind, body = details[1], html.unescape(_SUMMARY.sub("", details[3], count=1)).strip()
        if kind == "reasoning":
            thoughts += re.sub("^> ?", "", body, flags=re.MULTILINE)
            continue
        facts = {name: html.unescape(value) for name, value in _ATTRIBUTE.findall(details[2])}
        call = {"name": facts.get("name", kind), "arguments": facts.get("arguments") or (body if kind != "tool_calls" else "")}
        result = facts.get("result") or facts.get("output") or (body if kind == "tool_calls" else "")
        yield {"role": "assistant", "content": text.strip(), "tool_calls": [{"function": call}]}
        yield {"role": "tool", "content": _unquoted(result)}
        text = thoughts = ""
    yield {**message, "content": text + content[at:], **({"reasoning_content": thoughts} if thoughts else {})}


def _unquoted(result: str) -> str:
    """A result that the program wrote as the JSON of a text."""
    held = structured(f"[{result}]") if result.startswith('"') else None
    return held[0] if isinstance(held, list) and len(held) == 1 and isinstance(held[0], str) else result
