"""The report: what a hostile model writes stays text, and the page needs nothing but itself."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from chat_server import ChatServer
from finished_runs import finished_run, recipe
from test_eval import served, write_test

from seqdistill.progress import Silent
from seqdistill.runs import Run
from seqdistill.stages.evaluate.report import difference
from seqdistill.stages.evaluate.stage import evaluate

HOSTILE = (
    '</dd><script>alert(1)</script><img src="http://evil.example/x.png" onerror="alert(2)"> {{ 7 * 7 }}'
    " <style>*{color:red}</style>"
    ' \x1b[31mred\x07 \u2028line\u2029 \u202egnitfel\u202c \ud800 "quotes" &amp; <a href="javascript:alert(3)">x</a>'
)


class Page(HTMLParser):
    """The tags and attributes of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile_page(tmp_path: Path, tiny_model: Path) -> tuple[str, Run]:
    def reply(body: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": HOSTILE}
        usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
        return {
            "id": "x", "object": "chat.completion", "created": 1, "model": body["model"], "usage": usage,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }  # fmt: skip

    run = finished_run(tmp_path / "run <b>&", tiny_model)
    plan = recipe(
        write_test(tmp_path / "test.jsonl", 12, reference=HOSTILE.replace("\ud800", ""), slice="<script>"), tiny_model
    )
    with ChatServer(reply=reply) as server:
        result = evaluate(run, served(plan, server), Silent())
    return result.paths["report"].read_text(encoding="utf-8"), run


def test_what_a_hostile_model_writes_stays_text(tmp_path: Path, tiny_model: Path) -> None:
    text, run = hostile_page(tmp_path, tiny_model)
    page = Page(text)
    assert "alert(1)" in page.text and "{{ 7 * 7 }}" in page.text
    assert not {"script", "img", "a", "iframe", "link", "form"} & {tag for tag, _ in page.tags}
    assert [tag for tag, _ in page.tags].count("style") == 1
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on") or name == "style"]
    assert not [c for c in text if c in "\x1b\x07\u202e\u202c" or 0xD800 <= ord(c) <= 0xDFFF]
    assert "\\x1b[31mred\\x07" in page.text and "\\u202e" in page.text
    card = run.file("train", "model").joinpath("README.md").read_text(encoding="utf-8")
    assert "alert" not in card and "\x1b" not in card


def test_predictions_hold_the_hostile_text_as_it_came_one_line_each(tmp_path: Path, tiny_model: Path) -> None:
    _, run = hostile_page(tmp_path, tiny_model)
    data = run.file("eval", "predictions.jsonl").read_bytes().decode("utf-8")
    assert len(data.splitlines()) == 12 * 6  # splitlines would also break at U+2028


def test_the_page_needs_nothing_but_itself_and_its_policy_allows_only_its_own_style(tmp_path: Path, tiny_model: Path) -> None:
    import base64
    import hashlib

    run = finished_run(tmp_path / "run", tiny_model)
    result = evaluate(run, recipe(write_test(tmp_path / "test.jsonl"), tiny_model), Silent())
    text = result.paths["report"].read_text(encoding="utf-8")
    page = Page(text)
    assert not [a for _, a in page.tags if {"src", "href", "srcset", "action", "data"} & set(a)]
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style and "url(" not in style[1] and "@import" not in style[1]
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert result.verdict[0] in page.text and "Training loss" in page.text and "rejected: stock" in page.text
    above = page.text[: page.text.index(result.verdict[1])]
    assert "trained 20" in above and "margin 5 points" in above, "who was compared, when, by what: above all else"
    assert result.verdict[0].count("[") <= 1, "a headline has at most one interval"
    columns = [a.get("data-name") for tag, a in page.tags if tag == "td" and "data-name" in a]
    assert "USD" in columns, "on a phone each number of the cost table carries its name"


def test_the_difference_marks_words_here_and_words_missing() -> None:
    parts = difference("The bus stops at Mill Lane.", "The bus halts at Mill Lane today.")
    assert [part for part in parts if part[0] != "same"] == [
        ("missing", "stops"),
        ("added", "halts"),
        ("missing", "Lane."),
        ("added", "Lane today."),
    ]
    shown = "".join(text for kind, text in parts if kind != "missing")
    assert " ".join(shown.split()) == "The bus halts at Mill Lane today."
    assert difference("one two three", "quite another thing") == [("same", "quite another thing")]
    assert difference("anything", "") == []
