"""What one endpoint refuses in a request, learnt from its errors; later requests to it are sent in a form that it accepts.

Changes only what the engine itself puts into a request: a field that the user configured by name is never left out silently.
"""

import re
from collections.abc import Mapping
from typing import Any

from seqdistill.records import Message

DROPPABLE = ("top_logprobs", "logprobs", "temperature", "top_p", "seed", "response_format", "stream_options")
CHOSEN = ("temperature", "top_p", "logprobs", "top_logprobs", "response_format")  # whose value is the recipe's
ADAPTIONS = len(DROPPABLE) + 3  # further tries of one request: each field, the limit's name, the system message, a second form
LIMITS = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
_UNKNOWN = re.compile(
    r"unsupported|not? (?:be )?support|n[’']t support|unknown|unrecogni[sz]ed|unexpected|not permitted|extra (?:inputs|fields)"
    r"|not allowed|deprecated|cannot find|not known|no longer|(?<!\d )instead|unavailable|not available|not implemented"
    r"|not enabled|incompatible|not compatible|does not (?:accept|take)|not accepted|不支持",
    re.IGNORECASE,
)
_WRONG_VALUE = re.compile(
    r"only the default|strictly positive|invalid|cannot (?:both )?be|must (?:be|not)|should be|out of range|too (?:large|big)"
    r"|greater|less than|maximum|minimum|range|at (?:most|least)|非法|取值范围",
    re.IGNORECASE,
)
WRONG_SCHEMA = re.compile(
    r"invalid (?:\w+ )?schema|invalid_json_schema|In context=\(|schema (?:is invalid|conversion failed)|invalid grammar"
    r"|schema contains features|response_schema|invalid .{0,3}response_format\.json_schema\.",
    re.IGNORECASE,
)
_FORM_TYPE = re.compile(r"json_object|response_format['’`\"]?\.type")  # the kind of form is ours; the schema is the recipe's
_NO_SYSTEM = re.compile(
    r"(?:system|developer)['’`\"]? ?(?:role|message|prompt|instruction)s?\b.{0,80}(?:not|n[’']t|unsupported|disallow)"
    r"|(?:does not|doesn[’']t|do not|cannot|no) (?:support|accept|allow|take|handle)?.{0,20}['’`\"]?(?:system|developer)"
    r"['’`\"]?(?: (?:role|message|prompt|instruction)|\b.{0,20}model|['’`\"])"
    r"|unsupported (?:role|value)?.{0,20}\bsystem\b|roles must alternate|only user and assistant roles"
    r"|unknown role.{0,10}system|role.{0,10}system.{0,30}(?:not|n[’']t|unsupported|invalid)",
    re.IGNORECASE,
)


class Dialect:
    """How one endpoint wants its requests. Starts with what most know, and learns from refusals."""

    def __init__(self, limit: str = "max_tokens") -> None:
        """`limit` is the field in which the token limit is sent at first."""
        self._limit, self._renamed = limit, False
        self._dropped: set[str] = set()
        self._without_system = False

    def put(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A request's body, with the limit under max_tokens, as the endpoint takes it."""
        renamed = {self._limit if name == "max_tokens" else name: value for name, value in body.items()}
        if self._without_system:
            renamed["messages"] = _folded(renamed["messages"])
        return {name: value for name, value in renamed.items() if _kind(name, renamed) not in self._dropped}

    def learn(self, sent: Mapping[str, Any], error: Mapping[str, Any]) -> str | None:
        """What is new in what a refusal of a sent body says, in words, "" for what is known; None where it names nothing.

        Where it says something, the same request can be sent again: it will be put in other words.
        """
        message, param = str(error.get("message") or ""), _name(error.get("param"))
        reason = f"{error.get('code')} {error.get('type')} {message}"
        if (limit := self._other_limit(sent, param, message, reason)) is not None:
            return limit
        foldable = _folded(sent["messages"]) != sent["messages"]
        if foldable and (param is None or param == "messages") and _NO_SYSTEM.search(message):
            known, self._without_system = self._without_system, True
            return "" if known else "the system message goes at the head of the first user message"
        name = _refused(sent, param, message, reason)
        if name is None:
            return None
        kind = _kind(name, sent)
        known = kind in self._dropped
        self._dropped |= {kind, "top_logprobs"} if name == "logprobs" else {kind}
        return "" if known else f"{kind} is left out"

    def _other_limit(self, sent: Mapping[str, Any], param: str | None, message: str, reason: str) -> str | None:
        name = next(limit for limit in LIMITS if limit in sent) if LIMITS.keys() & sent.keys() else None
        if name is None or not (param == name or (param is None and _names(message, name))) or not _UNKNOWN.search(reason):
            return None
        if name != self._limit:
            return ""
        if self._renamed:
            return None
        self._limit, self._renamed = LIMITS[name], True
        return f"{name} is sent as {LIMITS[name]}"


def _refused(sent: Mapping[str, Any], param: str | None, message: str, reason: str) -> str | None:
    """The field that a refusal is about, of those that may be left out."""
    if WRONG_SCHEMA.search(reason):
        return None
    if param is not None and param not in DROPPABLE:
        return None
    named = (
        [param]
        if param is not None
        else [name for name in DROPPABLE if _names(message.lower(), name) or _names(message.lower(), name.replace("_", " "))]
    )
    if re.search(r"\bboth\b", message) and "temperature" in named and "top_p" in sent:
        return "top_p"
    name = next((name for name in named if name in sent), None)
    if name is None:
        return None
    if _UNKNOWN.search(reason):
        return name
    ours = sent[name] == 0 or _FORM_TYPE.search(message)
    chosen = name in CHOSEN and not ours  # a value of the user's: wrong, not unknown
    return None if chosen or not _WRONG_VALUE.search(reason) else name


def _kind(name: str, body: Mapping[str, Any]) -> str:
    """What of a field is left out: all of it, of a response format its type: many endpoints know one and not the other."""
    return f"{name} {body[name].get('type')}" if name == "response_format" else name


def _name(param: Any) -> str | None:
    """The field in an error's `param`, such as "temperature", "body.seed" or "messages[0].role"."""
    parts = re.findall(r"[A-Za-z_]+", str(param or "")) if param != "None" else []
    return next((part for part in parts if part != "body"), None)


def _names(message: str, name: str) -> bool:
    """Whether a message has a field's name as a word of its own."""
    return re.search(rf"(?<![\w-]){name}(?![\w-])", message) is not None


def _folded(messages: list[Message]) -> list[Message]:
    """The messages with the system messages at the head of the first user message, wherever it is; as they are without one."""
    system = [message["content"] for message in messages if message["role"] in ("system", "developer")]
    others = [message for message in messages if message["role"] not in ("system", "developer")]
    place = next((number for number, message in enumerate(others) if message["role"] == "user"), None)
    if not system or place is None:
        return messages
    others[place] = {"role": "user", "content": "\n\n".join([*system, others[place]["content"]])}
    return others
