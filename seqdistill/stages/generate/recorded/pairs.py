"""Which reply answers which request, where they are rows of their own: batches, streams, stored completions, trees, bare logs.

A reply is never paired by guess: one that could answer more than one request is refused. Does not know what a row says.
"""

import json
import math
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from seqdistill.engines.replies import as_dict
from seqdistill.errors import UsageError
from seqdistill.stages.generate.recorded.exchange import Row, reply_of, request_of
from seqdistill.stages.generate.recorded.store import Store
from seqdistill.stages.generate.recorded.streams import assembled, is_chunk, is_last
from seqdistill.tasks.messages import is_tree_message
from seqdistill.tasks.row_files import Unread

NAMES = ("custom_id", "recordId", "key")  # of a request in a batch: OpenAI and Anthropic, Bedrock, Gemini
MOST_PENDING = 10_000  # requests that wait for a reply; beyond these, the oldest is dropped
OPEN_STREAMS = 64  # beyond these, the oldest that has sent its last event is closed
OF_A_CALL = ("requestid", "reqid", "xrequestid", "callid", "correlationid")  # names of one call, in its request and its reply
OF_A_SESSION = ("responseid", "traceid", "sessionid", "conversationid", "threadid")  # of several calls, of which both are one
STORED = re.compile(r"(.+)-(\d+)")  # the id of a message of a stored completion: "chatcmpl-123-0"

NO_REQUEST = "no request before it, one of another name, or more than one that waits for a reply"

Pair = tuple[str, Any, Any, Row]  # place, request, reply, the row with what is known beside them


@dataclass
class _Stream:
    place: str
    chunks: list[Any]
    request: Any
    row: Row


@dataclass
class Pairs:
    """Takes half exchanges in the order of the files and gives whole ones as soon as they are."""

    store: Store
    unread: Unread
    skipped: int = 0  # answers that hold nothing to be learnt
    _file: int = 0
    _pending: "OrderedDict[str, tuple[str, Any, Row]]" = field(default_factory=OrderedDict)  # requests without a reply yet
    _streams: "OrderedDict[str, _Stream]" = field(default_factory=OrderedDict)

    def begin_file(self, file: str) -> None:
        """The rows that follow are of another file."""
        self._file = self.store.add_file(file)

    def takes(self, row: Row) -> bool:
        """Whether a row is certainly half an exchange: of a batch, of a stream, or a message of a stored completion."""
        named = batch_name(row) is not None and (request_of(row) is None or reply_of(row) is None)
        return named or is_chunk(row) or is_chunk(reply_of(row)) or _is_stored_message(row) or is_tree_message(row)

    def add(self, row: Row, place: str) -> Iterator[Pair]:
        """Takes one row; yields what it completes."""
        name = batch_name(row)
        if name is not None and request_of(row) is None:
            self.store.add_reply(self._file, place, name, row)
        elif name is not None and reply_of(row) is None and not is_chunk(row):
            self.store.add_request(self._file, place, name, request_of(row))
        elif is_tree_message(row):
            self.store.add_node(place, row)
        elif _is_stored_message(row):
            completion, number = _stored(row)
            message = {"role": row.get("role"), "content": row.get("content_parts") or row.get("content")}
            self.store.add_message(completion, number, {**message, "tool_calls": row.get("tool_calls")})
        elif is_chunk(row) or is_chunk(reply_of(row)):
            yield from self._add_chunk(row, place)
        elif request_of(row) is not None or not ({"choices", "output", "content", "candidates", "message"} & row.keys()):
            name = _own_name(row)
            self._pending[place if name is None or name in self._pending else name] = (place, request_of(row) or row, row)
            if len(self._pending) > MOST_PENDING:
                self._give_up(self._pending.popitem(last=False)[1][0])
        else:
            yield from self._answered(row, place)

    def _answered(self, reply: Row, place: str) -> Iterator[Pair]:
        """A bare reply: to the request of its name, to the only one that waits, or to a stored conversation."""
        request = self._request_for(reply)
        if request is None:
            self.store.add_bare_reply(self._file, place, str(reply.get("id") or place), reply)
        else:
            yield place, request[1], reply, {**request[2], "response": reply}

    def _request_for(self, reply: Mapping[str, Any]) -> tuple[str, Any, Row] | None:
        names = [str(reply[key]) for key in ("id", "response_id") if reply.get(key) is not None]
        names += _names(reply, OF_A_CALL).values()
        if not (named := [name for name in names if name in self._pending]) and len(self._pending) == 1:
            named = [*self._pending]
        if not named or _contradict(self._pending[named[0]][2], reply):
            return None
        return self._pending.pop(named[0])

    # --- streams ------------------------------------------------------------------------------------------------------

    def _add_chunk(self, row: Row, place: str) -> Iterator[Pair]:
        own = request_of(row) or (row if "messages" in row else None)
        chunk = row if is_chunk(row) else reply_of(row)
        name = str(chunk.get("id") or next(iter(_names(row, OF_A_CALL).values()), ""))
        if name not in self._streams:
            waiting = (place, own, row) if own is not None else self._request_for({**row, **chunk})
            self._streams[name] = _Stream(place, [], waiting[1] if waiting else None, waiting[2] if waiting else {})
        self._streams[name].chunks.append(chunk)
        if is_last(chunk):
            yield from self._close(name)
        elif len(self._streams) > OPEN_STREAMS:
            done = [one for one, stream in self._streams.items() if _has_ended(stream.chunks)]
            yield from self._close(done[0] if done else next(iter(self._streams)))

    def _close(self, name: str) -> Iterator[Pair]:
        stream = self._streams.pop(name)
        if stream.request is None:
            message = f"{stream.place}: a stream without its request: {NO_REQUEST}"
            self.unread(stream.place, UsageError(message))
        else:
            yield stream.place, stream.request, assembled(stream.chunks), stream.row

    def end_file(self) -> Iterator[Pair]:
        """Closes the streams of a file and gives up on its requests without a reply."""
        for name in list(self._streams):
            yield from self._close(name)
        for place, _, _ in self._pending.values():
            self._give_up(place)
        self._pending.clear()

    def _give_up(self, place: str) -> None:
        self.unread(place, UsageError(f"{place}: a request without an answer"))

    # --- batches and stored completions -------------------------------------------------------------------------------

    def finish(self) -> Iterator[Pair]:
        """The replies of all batch files with their requests, in order, and stored completions with their messages.

        Raises UsageError for a reply that could answer requests of several files.
        """
        for place, name, file, row in self.store.replies():
            request = self._batch_request(place, name, file)
            response = row.get("response")
            status = response.get("status_code") if isinstance(response, dict) else None
            reply = reply_of(row)
            if reply is None or (row.get("error") and not reply) or status not in (None, 200):
                said = row.get("error") or as_dict(reply).get("error") or response or row.get("result")
                self.unread(place, UsageError(f"{place}: the batch has no answer to {name!r}: {str(said)[:200]}"))
            elif isinstance(row.get("result"), dict) and row["result"].get("type") not in (None, "succeeded"):
                self.unread(place, UsageError(f"{place}: the batch has no answer to {name!r}: {str(row['result'])[:200]}"))
            elif request is None:
                message = f"{place}: no request with custom_id {name!r}: import the batch's input file with it"
                self.unread(place, UsageError(message))
            else:
                yield place, request, reply, row
        for place, answer, best in self.store.answers_in_trees():
            if not best or answer.get("deleted") or answer.get("review_result") is False:
                self.skipped += 1
            elif (turns := self._turns_before(answer, place)) is not None:
                yield place, turns, {"role": "assistant", "content": answer["text"]}, {"model": answer.get("model_name")}
        for place, name, _, reply in self.store.bare_replies():
            if messages := self.store.messages(name):
                yield place, {"messages": messages}, reply, {}
            else:
                self.unread(place, UsageError(f"{place}: a reply without its request: {NO_REQUEST}"))

    def _turns_before(self, answer: Mapping[str, Any], place: str) -> list[Any] | None:
        """The conversation that a message of a tree answers; None where a part of it is missing."""
        turns: list[Any] = []
        parent, seen = answer.get("parent_id"), set[str]()
        while isinstance(parent, str) and parent not in seen:
            seen.add(parent)
            if (node := self.store.node(parent)) is None:
                self.unread(place, UsageError(f"{place}: the message that it answers, {parent!r}, is not in these files"))
                return None
            turns.insert(0, {"role": node["role"], "content": node["text"]})
            parent = node.get("parent_id")
        return turns

    def _batch_request(self, place: str, name: str, file: int) -> Any:
        """The request of that name: the only one, the one in the reply's own file, or that of the input file before it.

        The last holds only where each input file that has the name holds its replies too, or is followed by its output files.
        """
        requests = self.store.requests(name)  # (file, place, request)
        different = {json.dumps(request, sort_keys=True) for _, _, request in requests}
        if len(different) <= 1:
            return requests[0][2] if requests else None
        own = [request for at, _, request in requests if at == file]
        if len(own) == 1:
            return own[0]
        files = [at for at, _, _ in requests]
        before = [at for at in files if at < file]
        outputs = self.store.files_with_replies()
        nexts = zip(files, [*files[1:], math.inf], strict=True)
        alternate = all(any(at <= output < following for output in outputs) for at, following in nexts)
        if own or not before or len(set(files)) != len(files) or not alternate:
            first, second = requests[0][1], next(at for _, at, request in requests if request != requests[0][2])
            raise UsageError(
                f"{place}: custom_id {name!r} is that of different requests, {first} and {second}",
                "name each batch's input file directly before its own output files, or import one batch at a time",
            )
        return next(request for at, _, request in requests if at == before[-1])


def batch_name(row: Mapping[str, Any]) -> str | None:
    """The name by which a batch's request and reply belong together; None for a row of no batch."""
    key = next((key for key in NAMES if row.get(key) not in (None, "")), None)
    if key is None or (key == "key" and not row.keys() & {"request", "response", "error"}):
        return None
    name = row[key]
    return str(int(name)) if isinstance(name, float) and name.is_integer() else str(name)


def _own_name(row: Row) -> str | None:
    own = next((row[key] for key in ("request_id", "id", "response_id") if row.get(key) not in (None, "")), None)
    return next(iter(_names(row, OF_A_CALL).values()), None) if own is None else str(own)


def _names(row: Mapping[str, Any], keys: Sequence[str]) -> dict[str, str]:
    """The names that a row or its metadata has under `keys`, which are in lower case and without _ and -."""
    folded = {re.sub("[_-]", "", key).lower(): one for key, one in {**as_dict(row.get("metadata")), **row}.items()}
    return {key: str(folded[key]) for key in keys if isinstance(folded.get(key), (str, int)) and folded[key] != ""}


def _contradict(request: Row, reply: Mapping[str, Any]) -> bool:
    """Whether a name that a request and a reply both have differs: then they are not of one call."""
    one, other = (_names(row, (*OF_A_CALL, *OF_A_SESSION)) for row in (request, reply))
    return any(one[key] != other[key] for key in one.keys() & other.keys())


def _is_stored_message(row: Row) -> bool:
    is_message = "role" in row and bool(row.keys() & {"content", "content_parts", "tool_calls"})
    return is_message and isinstance(row.get("id"), str) and STORED.fullmatch(row["id"]) is not None


def _stored(row: Row) -> tuple[str, int]:
    match = STORED.fullmatch(row["id"])
    assert match is not None
    return match[1], int(match[2])


def _has_ended(chunks: list[Any]) -> bool:
    return any(as_dict(choice).get("finish_reason") for chunk in chunks for choice in chunk.get("choices") or [])
