"""What an import has read, on disk while it is at work: memory does not grow with the files.

A temporary SQLite database that nobody else sees, gone when it is closed. Rows are ASCII JSON, and what they are found by is
fitted into what SQLite holds. Does not know run directories.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from typing import Any

from seqdistill.engines import Completion
from seqdistill.records import Message, Prompt, Sample, fingerprint
from seqdistill.stages.generate.recorded.exchange import Exchange

CACHE_KIB = 8192
TABLES = """
CREATE TABLE files (number INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE requests (name TEXT, file INTEGER, place TEXT, content TEXT);
CREATE INDEX request_name ON requests (name);
CREATE TABLE replies (number INTEGER PRIMARY KEY, bare INTEGER, name TEXT, file INTEGER, place TEXT, content TEXT);
CREATE TABLE messages (name TEXT, number INTEGER, content TEXT);
CREATE INDEX message_name ON messages (name);
CREATE TABLE nodes (name TEXT PRIMARY KEY, parent TEXT, place TEXT, role TEXT, rank REAL, content TEXT);
CREATE INDEX node_parent ON nodes (parent);
CREATE TABLE unread (number INTEGER PRIMARY KEY, content TEXT);
CREATE TABLE prompts (id TEXT PRIMARY KEY, said TEXT);
CREATE TABLE exchanges (number INTEGER PRIMARY KEY, call TEXT, prompt_id TEXT, said BLOB, prompt TEXT, content TEXT);
CREATE INDEX exchange_call ON exchanges (call);
CREATE TABLE taken_back (prompt TEXT, said BLOB, PRIMARY KEY (prompt, said));
CREATE TABLE samples (position INTEGER PRIMARY KEY, id TEXT, prompt TEXT, teacher TEXT, said BLOB, number INTEGER,
                      earlier INTEGER, content TEXT);
CREATE INDEX sample_id ON samples (id);
CREATE INDEX sample_text ON samples (prompt, teacher, said);
CREATE INDEX sample_number ON samples (prompt, teacher, number);
"""


class _Database(sqlite3.Connection):
    """A database that takes whatever ids, places and numbers a log holds."""

    def execute(self, query: str, values: Any = (), /) -> sqlite3.Cursor:
        return super().execute(query, tuple(map(_fitted, values)))


def _fitted(value: Any) -> Any:
    """A value as SQLite can hold it: half characters are escaped, and whole numbers have 64 bits."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return min(max(value, -(1 << 63)), (1 << 63) - 1) if isinstance(value, int) else value


class Store:
    """The rows, exchanges and samples of one import. Use it as a context manager."""

    def __init__(self) -> None:
        # without a name: a file of its own, removed when closed
        self._db = sqlite3.connect("", isolation_level=None, factory=_Database)
        self._db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.executescript(TABLES)
        self._db.execute("BEGIN")
        self._outputs: list[int] | None = None

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    # --- halves of exchanges ------------------------------------------------------------------------------------------

    def add_file(self, name: str) -> int:
        """The number of a new file."""
        return int(self._db.execute("INSERT INTO files (name) VALUES (?)", (name,)).lastrowid or 0)

    def add_request(self, file: int, place: str, name: str, request: Any) -> None:
        """A request of a batch."""
        self._db.execute("INSERT INTO requests VALUES (?, ?, ?, ?)", (name, file, place, json.dumps(request)))

    def add_reply(self, file: int, place: str, name: str, row: Any, *, bare: bool = False) -> None:
        """A row that holds the reply of a batch."""
        self._db.execute(
            "INSERT INTO replies (bare, name, file, place, content) VALUES (?, ?, ?, ?, ?)",
            (bare, name, file, place, json.dumps(row)),
        )

    def add_bare_reply(self, file: int, place: str, name: str, reply: Any) -> None:
        """A reply by itself, whose conversation may still come."""
        self.add_reply(file, place, name, reply, bare=True)

    def add_message(self, name: str, number: int, message: Any) -> None:
        """A message of a stored completion."""
        self._db.execute("INSERT INTO messages VALUES (?, ?, ?)", (name, number, json.dumps(message)))

    def requests(self, name: str) -> list[tuple[int, str, Any]]:
        """(file, place, request) of every request of that name, in the order of the files."""
        found = self._db.execute("SELECT file, place, content FROM requests WHERE name = ? ORDER BY file, rowid", (name,))
        return [(file, place, json.loads(content)) for file, place, content in found]

    def replies(self) -> Iterator[tuple[str, str, int, Any]]:
        """(place, name, file, row) of every batch reply, in order."""
        return self._replies(bare=False)

    def bare_replies(self) -> Iterator[tuple[str, str, int, Any]]:
        """(place, name, file, reply) of every reply by itself, in order."""
        return self._replies(bare=True)

    def _replies(self, *, bare: bool) -> Iterator[tuple[str, str, int, Any]]:
        found = self._db.execute("SELECT place, name, file, content FROM replies WHERE bare = ? ORDER BY number", (bare,))
        return ((place, name, file, json.loads(content)) for place, name, file, content in found)

    def unanswered(self) -> int:
        """How many requests of batches have no reply. Called when all are read."""
        ((count,),) = self._db.execute(
            "SELECT COUNT(*) FROM requests WHERE name NOT IN (SELECT name FROM replies WHERE NOT bare)"
        ).fetchall()
        return int(count)

    def files_with_replies(self) -> list[int]:
        """The files that hold replies of batches. Called when all are read."""
        if self._outputs is None:
            found = self._db.execute("SELECT DISTINCT file FROM replies WHERE NOT bare ORDER BY file")
            self._outputs = [file for (file,) in found]
        return self._outputs

    def messages(self, name: str) -> list[Any]:
        """The messages of a stored completion, in order."""
        found = self._db.execute("SELECT content FROM messages WHERE name = ? ORDER BY number", (name,))
        return [json.loads(content) for (content,) in found]

    def add_node(self, place: str, row: Any) -> None:
        """A message of a tree. One that is there already stays."""
        rank = row.get("rank") if isinstance(row.get("rank"), (int, float)) else None
        self._db.execute(
            "INSERT OR IGNORE INTO nodes (name, parent, place, role, rank, content) VALUES (?, ?, ?, ?, ?, ?)",
            (row["message_id"], row.get("parent_id"), place, row["role"], rank, json.dumps(row)),
        )

    def answers_in_trees(self) -> Iterator[tuple[str, Any, bool]]:
        """(place, message, whether none of its siblings has a better rank) of each answer in a tree, in order."""
        found = self._db.execute(
            "SELECT place, content, rank IS (SELECT MIN(rank) FROM nodes s WHERE s.parent = n.parent AND s.role = n.role) "
            "FROM nodes n WHERE role = 'assistant' ORDER BY rowid"
        )
        return ((place, json.loads(content), bool(best)) for place, content, best in found)

    def node(self, name: str) -> Any:
        """A message of a tree by its id; None for one that is not there."""
        found = self._db.execute("SELECT content FROM nodes WHERE name = ?", (name,)).fetchone()
        return None if found is None else json.loads(found[0])

    def add_unread(self, row: Any) -> None:
        """A line that could not be read."""
        self._db.execute("INSERT INTO unread (content) VALUES (?)", (json.dumps(row),))

    def unread(self) -> Iterator[Any]:
        """Every line that could not be read, in order."""
        return (json.loads(content) for (content,) in self._db.execute("SELECT content FROM unread ORDER BY number"))

    # --- exchanges ----------------------------------------------------------------------------------------------------

    def add_exchange(self, exchange: Exchange, prompt: Prompt, call: str | None, *, corrects: bool) -> None:
        """An answer with the prompt that it answers, and the id of the request by which it can be taken back."""
        content = {**vars(exchange), "completion": vars(exchange.completion)}
        said = _digest(exchange.completion.content)
        self._db.execute("DELETE FROM taken_back WHERE ? AND prompt = ? AND said = ?", (corrects, prompt.id, said))
        self._db.execute(
            "INSERT INTO exchanges (call, prompt_id, said, prompt, content) VALUES (?, ?, ?, ?, ?)",
            (call, prompt.id, said, json.dumps(vars(prompt)), json.dumps(content)),
        )

    def take_back(self, call: str, text: str | None) -> None:
        """What answered this request so far is a wrong answer to its prompt: all of it, or what says the text."""
        said = None if text is None else _digest(text)
        self._db.execute(
            "INSERT OR IGNORE INTO taken_back SELECT prompt_id, said FROM exchanges WHERE call = ? AND (? IS NULL OR said = ?)",
            (call, said, said),
        )

    def taken_back(self) -> int:
        """How many of the answers were taken back; removes those from the samples of earlier imports."""
        self._db.execute("DELETE FROM samples WHERE earlier AND (prompt, said) IN (SELECT prompt, said FROM taken_back)")
        ((count,),) = self._db.execute(
            "SELECT COUNT(*) FROM exchanges WHERE (prompt_id, said) IN (SELECT prompt, said FROM taken_back)"
        ).fetchall()
        return int(count)

    def exchanges(self) -> Iterator[tuple[Exchange, Prompt]]:
        """Every answer that was not taken back, in the order in which they were read."""
        query = "SELECT prompt, content FROM exchanges WHERE (prompt_id, said) NOT IN (SELECT prompt, said FROM taken_back)"
        for prompt, content in self._db.execute(f"{query} ORDER BY number"):
            said = json.loads(content)
            exchange = Exchange(**{**said, "completion": Completion(**said["completion"])})
            yield exchange, Prompt(**json.loads(prompt))

    def says_the_same(self, prompt: str, messages: list[Message]) -> bool:
        """Whether no other prompt of that id was seen; from now on, these messages are the id's."""
        said = fingerprint(messages)
        self._db.execute("INSERT OR IGNORE INTO prompts VALUES (?, ?)", (prompt, said))
        ((seen,),) = self._db.execute("SELECT said FROM prompts WHERE id = ?", (prompt,)).fetchall()
        return bool(seen == said)

    def repeated_prompts(self) -> tuple[int, int]:
        """How many ids share their messages with another id, and how many prompts these are. Called when all are read."""
        ((ids, prompts),) = self._db.execute(
            "SELECT COALESCE(SUM(ids), 0), COUNT(*) FROM (SELECT COUNT(*) AS ids FROM prompts GROUP BY said) WHERE ids > 1"
        ).fetchall()
        return int(ids), int(prompts)

    # --- samples ------------------------------------------------------------------------------------------------------

    def add_sample(self, sample: Sample, *, earlier: bool = False) -> None:
        """A sample; `earlier` is one that an earlier import brought."""
        self._db.execute(
            "INSERT INTO samples (id, prompt, teacher, said, number, earlier, content) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                sample.id,
                sample.prompt_id,
                sample.teacher,
                _digest(sample.text),
                sample.sample,
                earlier,
                json.dumps(vars(sample)),
            ),
        )

    def take_earlier(self, prompt: str, teacher: str, text: str) -> tuple[int, Sample] | None:
        """The position and content of an earlier import's sample that says this and was not taken yet; None for none."""
        found = self._db.execute(
            "SELECT position, content FROM samples WHERE prompt = ? AND teacher = ? AND said = ? AND earlier LIMIT 1",
            (prompt, teacher, _digest(text)),
        ).fetchone()
        if found is None:
            return None
        self._db.execute("UPDATE samples SET earlier = 0 WHERE position = ?", found[:1])
        return found[0], Sample(**json.loads(found[1]))

    def replace_sample(self, position: int, sample: Sample) -> None:
        """Puts a sample in another's place; prompt, teacher and text are the same."""
        self._db.execute("UPDATE samples SET content = ? WHERE position = ?", (json.dumps(vars(sample)), position))

    def next_number(self, prompt: str, teacher: str) -> int:
        """The number of the next sample of a teacher to a prompt."""
        ((last,),) = self._db.execute(
            "SELECT MAX(number) FROM samples WHERE prompt = ? AND teacher = ?", (prompt, teacher)
        ).fetchall()
        return 0 if last is None else int(last) + 1

    def has_sample(self, name: str) -> bool:
        """Whether there is a sample of that id."""
        return self._db.execute("SELECT 1 FROM samples WHERE id = ?", (name,)).fetchone() is not None

    def prompts(self) -> int:
        """How many prompts have samples."""
        ((found,),) = self._db.execute("SELECT COUNT(DISTINCT prompt) FROM samples").fetchall()
        return int(found)

    def samples(self) -> Iterator[Sample]:
        """Every sample: those of earlier imports, then the new ones, in order."""
        for (content,) in self._db.execute("SELECT content FROM samples ORDER BY position"):
            yield Sample(**json.loads(content))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]
