"""Questions that carry their number, sent to one or more real HTTP servers through the openai engine."""

from typing import Any

from chat_server import Body, ChatServer
from engine_contract import ask

from seqdistill.engines import UNMETERED, Completion, Meter, Pace, Request, open_engine
from seqdistill.recipe.tables import ModelConfig


def requests(count: int, **settings: Any) -> list[Request]:
    return [Request(f"p{n}", [{"role": "user", "content": f"question {n}"}], 20, seed=n, **settings) for n in range(count)]


def number_of(body: Body) -> int:
    return int(body["messages"][-1]["content"].split()[-1])


def answers_of(
    *servers: ChatServer, count: int = 20, meter: Meter = UNMETERED, notes: list[str] | None = None, **settings: Any
) -> dict[str, Completion]:
    """The completions of `count` questions, by id; `settings` are those of Pace or of the model."""
    paces = {name: settings.pop(name) for name in list(settings) if name in Pace.__dataclass_fields__}
    model = ModelConfig(model="teacher", engine="openai", base_url=[server.url for server in servers], **settings)
    note = (lambda _: None) if notes is None else notes.append
    engine = open_engine(model, Pace(**{"concurrency": 8, "timeout": 60.0, "on_note": note, **paces}))
    return ask(engine, requests(count), meter)
