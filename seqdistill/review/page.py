"""The review page: a run's rows in the browser of the person at this machine, decided with the keyboard.

Serves 127.0.0.1 only, behind a random token in the address and a check of the Host header, and sends rows one screen at a
time. A decision is in decisions.jsonl before the page shows it. Does not apply decisions: the filter does.
"""

import getpass
import hmac
import json
import secrets
import threading
from array import array
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from seqdistill.decisions import (
    Decision,
    appending,
    decisions_file,
    holding,
    now,
    overrules,
    read_decisions,
    read_from,
    seen_text,
    summary,
)
from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.progress import Progress
from seqdistill.records import conversation_text
from seqdistill.review.filtered_rows import FilteredRows, Row
from seqdistill.review.spreadsheet import export_csv, import_csv
from seqdistill.runs import Run

SHOWS = ("all", "open", "reviewed", "kept", "rejected")
MOST_BODY = 4 << 20  # bytes of a request
MOST_ROWS = 200  # rows in one answer
OPENING = 160  # characters of a completion in the list
VIEWS = 16  # selections that are remembered

PAGES = {
    "": ("review.html", "text/html"),
    "review.css": ("review.css", "text/css"),
    "review.js": ("review.js", "text/javascript"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def review(
    run: Run, port: int, export: Path | None, import_: Path | None, reviewer: str | None, progress: Progress
) -> dict[str, Any]:
    """Imports or exports decisions as CSV, or serves the page until its Finish button; returns the counts of decisions.

    Raises UsageError when the run has no filtered rows, the port is taken or the CSV is wrong.
    """
    name = reviewer or _login()
    result: dict[str, Any] = {}
    if import_:
        result |= {"imported": import_csv(run, import_, name)}
    if export:
        result |= {"rows": export_csv(run, export), "path": str(export)}
    if not (export or import_):
        with Review(run, name) as session, serve(session, port) as server:
            progress.note(
                f"review: {server.url}\nFinish on the page, or Ctrl-C; every decision is on the disk when the page says so"
            )
            server.serve_forever(poll_interval=0.2)
    return result | {"reviewer": name, **summary(read_decisions(run)), "decisions": str(decisions_file(run))}


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user on this machine: a container
        return "unknown"


# --- what is reviewed -----------------------------------------------------------------------------------------------------


class Review:
    """One person's review of a run: its rows, the selected views, the decisions. A context manager."""

    def __init__(self, run: Run, reviewer: str) -> None:
        self.run, self.reviewer = run, reviewer
        self._stack = ExitStack()
        self._rows = self._stack.enter_context(FilteredRows(run))
        self._append = self._stack.enter_context(appending(run))
        self._lock = threading.Lock()
        self._views: dict[int, array[int]] = {}
        self._last_view = 0
        self._held: dict[str, Decision] = {}
        self._offset = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def about(self) -> dict[str, Any]:
        """The run and what can be chosen from."""
        rules = Counter(rule for rule in self._rows.rules if rule)
        return {
            "run": self.run.path.absolute().name,
            "rows": len(self._rows),
            "reviewer": self.reviewer,
            "rules": sorted(rules.items()),
        }

    def select(self, show: str, rule: str, text: str) -> dict[str, Any]:
        """A selection of rows, which stays as it is while its rows are decided. Its number names it from here on."""
        if show not in SHOWS:
            raise UsageError(f"show is {show!r}", f"one of: {', '.join(SHOWS)}")
        held = self._decisions()
        needle = text.strip().casefold()
        chosen = [n for n in range(len(self._rows)) if self._is_listed(n, show, rule, held) and self._says(n, needle)]
        view = array("L", sorted(chosen, key=lambda n: bool(self._rows.rules[n])))  # first what is trained on
        first = next((at for at, n in enumerate(view) if self._rows.ids[n] not in held), 0)
        with self._lock:
            self._last_view += 1
            self._views[self._last_view] = view
            if len(self._views) > VIEWS:
                del self._views[next(iter(self._views))]
            return {"view": self._last_view, "first": first, **self._progress(view, held)}

    def _is_listed(self, number: int, show: str, rule: str, held: dict[str, Decision]) -> bool:
        if rule and self._rows.rules[number] != rule:
            return False
        match show:
            case "open" | "reviewed":
                return (self._rows.ids[number] in held) == (show == "reviewed")
            case "kept" | "rejected":
                return (self._rows.file_of(number) == "rejected") == (show == "rejected")
        return True

    def _says(self, number: int, needle: str) -> bool:
        if not needle:
            return True
        quoted = json.dumps(needle, ensure_ascii=False)[1:-1]
        if quoted not in self._rows.line(number).decode("utf-8", "replace").casefold():
            return False  # the whole line is quickly searched; whether it was a text that matched is seen below
        row = self._rows[number]
        texts = (row.sample.id, conversation_text(row.sample.prompt), row.sample.text, row.sample.reference, row.reason)
        return any(needle in (text or "").casefold() for text in texts)

    def _progress(self, view: "array[int]", held: dict[str, Decision]) -> dict[str, Any]:
        reviewed = sum(self._rows.ids[number] in held for number in view)
        return {"count": len(view), "reviewed": reviewed, "outdated": self._rows.outdated()}

    def screen(self, view: int, start: int, count: int) -> dict[str, Any]:
        """Some rows of a selection, in short, and how much of it is reviewed."""
        numbers, held = self._view(view), self._decisions()
        rows = [self._rows[number] for number in numbers[max(0, start) : max(0, start) + min(count, MOST_ROWS)]]
        return {"rows": [self._short(row, held.get(row.sample.id)) for row in rows], **self._progress(numbers, held)}

    def _short(self, row: Row, decision: Decision | None) -> dict[str, Any]:
        text = decision.completion if decision and decision.completion else row.sample.text
        return {
            "number": row.number,
            "file": row.file,
            "rule": row.rule,
            "text": text[:OPENING],
            "decision": decision.decision if decision else None,
        }

    def _view(self, view: int) -> "array[int]":
        with self._lock:
            if view not in self._views:
                raise UsageError("this selection is no longer remembered", "select again")
            return self._views[view]

    def detail(self, number: int) -> dict[str, Any]:
        """Everything about one row."""
        row, decision = self._row(number), self._decisions().get(self._rows.ids[number])
        better = None if row.kept_by is None else self._rows.number_of(row.kept_by)
        sample = row.sample
        return {
            "number": number,
            "id": sample.id,
            "file": row.file,
            "rule": row.rule,
            "reason": row.reason,
            "final": not overrules(Decision("", "accept", None, "", "", ""), row.rule),
            "kept_by": row.kept_by,
            "would_keep": row.would_keep,
            "kept_text": None if better is None else self._rows[better].sample.text,
            "prompt": sample.prompt,
            "completion": sample.text,
            "reasoning": sample.reasoning,
            "reference": sample.reference,
            "facts": {
                "slice": sample.slice,
                "teacher": sample.teacher,
                "ended by": sample.finish_reason,
                "tokens": sample.completion_tokens,
                "id": sample.id,
            },
            "decision": None
            if decision is None
            else {"decision": decision.decision, "completion": decision.completion, "reviewer": decision.reviewer},
        }

    def _row(self, number: int) -> Row:
        try:
            return self._rows[number]
        except IndexError:
            raise UsageError(f"there is no row {number}", f"rows are 0 to {len(self._rows) - 1}") from None

    def decide(self, number: int, word: str, completion: str | None, view: int) -> dict[str, Any]:
        """Writes one decision down; it is on the disk when this returns."""
        row = self._row(number)
        seen = seen_text(row.sample, self._decisions().get(row.sample.id))
        decision = Decision(row.sample.id, word, completion, seen, self.reviewer, now())
        if not overrules(decision, row.rule):
            raise UsageError(f"the rule {row.rule} cannot be overruled", "what is in the test set is never trained on")
        try:
            self._append(decision)
        except ValueError as error:
            raise UsageError(str(error), "decide again") from None
        held = self._decisions()
        return {"row": self._short(row, held.get(row.sample.id)), **self._progress(self._view(view), held)}

    def _decisions(self) -> dict[str, Decision]:
        """What holds now, decisions of other reviewers of the same run included."""
        path = decisions_file(self.run)
        with self._lock:
            size = path.stat().st_size
            if size < self._offset:
                self._held, self._offset = {}, 0
            if size > self._offset:
                new = list(read_from(path, self._offset))
                self._held = holding((decision for decision, _ in new), self._held)
                self._offset = new[-1][1] if new else self._offset
            return self._held


# --- the server -----------------------------------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """The page's server; `url` is its address with the token."""

    daemon_threads = True

    def __init__(self, session: Review, port: int) -> None:
        self.session, self.token = session, secrets.token_urlsafe(24)
        super().__init__(("127.0.0.1", port), Handler)
        self.port = int(self.server_address[1])
        self.hosts = (f"127.0.0.1:{self.port}", f"localhost:{self.port}")
        self.url = f"http://127.0.0.1:{self.port}/{self.token}/"


def serve(session: Review, port: int) -> Server:
    """A server bound to a port of 127.0.0.1, 0 for a free one. Raises UsageError when the port is taken."""
    try:
        return Server(session, port)
    except OSError as error:
        raise UsageError(f"--port {port}: {error.strerror}", "pass another port, or leave --port out for a free one") from None


class _Refused(Exception):
    """A request that is not answered, with its status."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    """One request. Nothing is answered without the token and this server's own Host."""

    server: Server
    server_version, sys_version = "seqdistill", ""
    timeout = 30.0
    finished = False

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)
        if self.finished:  # and answered
            threading.Thread(target=self.server.shutdown).start()

    def log_message(self, *_: Any) -> None:
        """Nothing: the address holds the token."""

    def _answer(self, act: Callable[[str, dict[str, str]], tuple[bytes, str]]) -> None:
        try:
            page, query = self._page()
            self._send(HTTPStatus.OK, *act(page, query))
        except _Refused as error:
            self._send(error.status, *_json({"error": str(error)}))
        except SeqdistillError as error:
            status = HTTPStatus.CONFLICT if isinstance(error, UsageError) else HTTPStatus.INSUFFICIENT_STORAGE
            self._send(status, *_json({"error": error.message, "next": error.hint}))

    def _page(self) -> tuple[str, dict[str, str]]:
        """The requested page, after the token. Raises _Refused."""
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or hosts[0] not in self.server.hosts:  # or a site's name that was made to mean 127.0.0.1
            raise _Refused(
                HTTPStatus.MISDIRECTED_REQUEST, f"this server is {self.server.hosts[0]} and answers to no other name"
            )
        parts = urlsplit(self.path)
        token, slash, page = parts.path.removeprefix("/").partition("/")
        if not slash or not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise _Refused(HTTPStatus.FORBIDDEN, "open the address that `seqdistill review` printed")
        return page, dict(parse_qsl(parts.query))

    def _get(self, page: str, query: dict[str, str]) -> tuple[bytes, str]:
        session = self.server.session
        if page in PAGES:
            name, kind = PAGES[page]
            return resources.files("seqdistill.review").joinpath(name).read_bytes(), f"{kind}; charset=utf-8"
        try:
            match page:
                case "about":
                    return _json(session.about())
                case "select":
                    return _json(session.select(query.get("show", "all"), query.get("rule", ""), query.get("text", "")))
                case "screen":
                    return _json(session.screen(int(query["view"]), int(query["start"]), int(query["count"])))
                case "row":
                    return _json(session.detail(int(query["number"])))
        except (KeyError, ValueError) as error:
            raise _Refused(HTTPStatus.BAD_REQUEST, f"not understood: {error}") from None
        raise _Refused(HTTPStatus.NOT_FOUND, "no such page")

    def _post(self, page: str, _: dict[str, str]) -> tuple[bytes, str]:
        body = self._body()
        if page == "finish":
            self.finished = True
            return _json({})
        if page != "decide":
            raise _Refused(HTTPStatus.NOT_FOUND, "no such page")
        match body:
            case {"number": int(number), "decision": str(word), "completion": str() | None as completion, "view": int(view)}:
                return _json(self.server.session.decide(number, word, completion, view))
        raise _Refused(HTTPStatus.BAD_REQUEST, "a decision has number, decision, completion and view")

    def _body(self) -> dict[str, Any]:
        """The JSON object that the page sent; no other site can send one."""
        origin, kind = self.headers.get("Origin"), self.headers.get("Content-Type", "")
        if origin not in (None, *(f"http://{host}" for host in self.server.hosts)) or kind != "application/json":
            raise _Refused(HTTPStatus.FORBIDDEN, "only the review page itself may decide")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MOST_BODY:
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MOST_BODY} bytes")
        try:
            body = json.loads(self.rfile.read(int(length)))
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise _Refused(HTTPStatus.BAD_REQUEST, "not a JSON object")
        return body

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _json(value: dict[str, Any]) -> tuple[bytes, str]:
    return json.dumps(value).encode(), "application/json"
