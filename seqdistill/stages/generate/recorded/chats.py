"""Conversations as chat programs and collections of them keep them, rewritten as rows that `rows` reads.

Knows the exports of ChatGPT and Claude, threads of OpenAssistant, votes between two conversations, and turns that are one text
or pairs; `open_webui` knows that program's, `trees` knows the trees of all of them. Does not read replies.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from seqdistill.engines.replies import as_dict, objects
from seqdistill.stages.generate.recorded.exchange import Row
from seqdistill.stages.generate.recorded.open_webui import open_webui_chat
from seqdistill.stages.generate.recorded.trees import branch_of
from seqdistill.tasks.marked_turns import marked_turns
from seqdistill.tasks.messages import is_conversation, plain_messages, structured

_CITATION = re.compile("\ue200[^\ue200\ue201]*\ue201|【\\d+(?::\\d+)?†[^】]*】")  # marks of sources, in ChatGPT's export


def _chatgpt(row: Row) -> Row | None:
    """A conversation as ChatGPT exports it: a tree, of which the branch last seen counts."""
    nodes, name = row.get("mapping"), row.get("current_node")
    if not isinstance(nodes, Mapping) or not name:
        return None
    messages: list[Row] = []
    model, thoughts = None, ""
    for message in (as_dict(node.get("message")) for node in branch_of(nodes, name, "parent")):
        content, role = as_dict(message.get("content")), as_dict(message.get("author")).get("role")
        if content.get("content_type") == "thoughts":
            found = [one.get("content") for one in objects(content.get("thoughts"))]
            thoughts = "\n".join(one for one in found if isinstance(one, str))
            continue
        if content.get("content_type") in ("user_editable_context", "model_editable_context"):  # custom instructions, memory
            texts = [content.get(key) for key in ("user_profile", "user_instructions", "model_set_context")]
            if wanted := "\n\n".join(one for one in texts if isinstance(one, str) and one.strip()):
                messages.append({"role": "system", "content": wanted})
            continue
        parts = held if isinstance(held := content.get("parts"), list) else [content.get("text")]
        said = [part for part in parts if part not in ("", None)]
        hidden = as_dict(message.get("metadata")).get("is_visually_hidden_from_conversation") and role == "system"
        if hidden or not said or all(isinstance(part, str) and not part.strip() for part in said):
            continue
        if (
            role == "assistant"
            and message.get("recipient") not in (None, "all")
            and all(isinstance(part, str) for part in said)
        ):
            call = {"name": str(message["recipient"]), "arguments": "".join(said)}
            messages.append({"role": role, "content": "", "tool_calls": [{"function": call}]})
        elif role in ("user", "assistant", "system", "tool"):
            text = _CITATION.sub("", "".join(said)) if all(isinstance(one, str) for one in said) else said
            messages.append({"role": role, "content": text, "files": as_dict(message.get("metadata")).get("attachments")})
        if role == "assistant":
            facts = as_dict(message.get("metadata"))
            messages[-1] |= {"finish_reason": as_dict(facts.get("finish_details")).get("type"), "reasoning_content": thoughts}
            model, thoughts = facts.get("model_slug") or model, ""
    return {"messages": messages, "model": model}


def _claude(row: Row) -> Row | None:
    """A conversation as Claude exports it, with the text of what was attached."""
    said = row.get("chat_messages")
    if not isinstance(said, list) or not any(as_dict(one).get("attachments") for one in said):
        return None
    return {**row, "chat_messages": [_with_attachments(one) for one in said]}


def _with_attachments(message: Any) -> Any:
    attached = message.get("attachments") if isinstance(message, Mapping) else None
    texts = [one.get("extracted_content") for one in objects(attached)]
    found = [text for text in texts if isinstance(text, str) and text.strip()]
    if not found:
        return message
    read = [one.get("file_name") for one in objects(attached) if one.get("extracted_content")]
    files = [one for one in objects(message.get("files")) if one.get("file_name") not in read]
    content = message.get("content") or [{"type": "text", "text": message.get("text") or ""}]
    parts = content if isinstance(content, list) else [{"type": "text", "text": str(content)}]
    return {**message, "files": files, "content": [*parts, *({"type": "text", "text": f"\n\n{text}"} for text in found)]}


def _thread(row: Row) -> Row | None:
    """A branch of one of OpenAssistant's trees."""
    return {**row, "messages": row["thread"]} if "thread_id" in row and is_conversation(row.get("thread")) else None


def _vote(row: Row) -> Row | None:
    """Two models' conversations, of which people chose one."""
    winner = {"model_a": "a", "model_b": "b"}.get(str(row.get("winner")))
    if not {"winner", "conversation_a", "conversation_b"} <= row.keys():
        return None
    if winner is None:
        return {"prompt": row["conversation_a"], "completion": row["conversation_b"], "label": False}
    return {"messages": row[f"conversation_{winner}"], "model": row.get(f"model_{winner}")}


def _turns(row: Row) -> Row | None:
    """Turns of a data set as one text, as texts in turn (LIMA, UltraChat), or as pairs of input and output."""
    for key in ("conversations", "conversation", "data"):
        value = structured(row.get(key))
        if isinstance(value, list) and len(value) > 1 and all(isinstance(one, str) and one.strip() for one in value):
            roles = ("user", "assistant")
            turns = [{"role": roles[number % 2], "content": text} for number, text in enumerate(value)]
            return {**{name: one for name, one in row.items() if name != key}, "messages": turns}
    for key in ("text", "chosen", "chat", "conversation", "conversations", "messages"):
        value = row.get(key)
        if isinstance(value, str) and (key != "messages") and (messages := marked_turns(value)):
            beside = {name: one for name, one in row.items() if name not in (key, "rejected")}
            if isinstance(system := beside.get("system"), str):
                beside["system"] = system.removeprefix("SYSTEM:").strip()
            return {**beside, "messages": messages}
        if isinstance(value, (list, dict)) and (messages := plain_messages(value)) and messages != value:
            return {**row, key: messages}
    return None


CHATS: tuple[Callable[[Row], Row | None], ...] = (_chatgpt, _claude, open_webui_chat, _thread, _vote, _turns)
