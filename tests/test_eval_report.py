"""The report: what a hostile model writes stays text, and the page needs nothing but itself."""

import base64
import hashlib
import json
import re
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer
from evaluated_runs import JUDGE, evaluated_run, letters, read_scores
from finished_runs import finished_run, recipe
from test_eval import served, write_test

from seqdistill.progress import Silent
from seqdistill.records import visible
from seqdistill.runs import Run
from seqdistill.stages.evaluate.report import items
from seqdistill.stages.evaluate.report.items import cut, difference
from seqdistill.stages.evaluate.report.page import render
from seqdistill.stages.evaluate.safety.document import safety_document
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

    @property
    def data(self) -> dict[str, Any]:
        """What the browser of all items reads."""
        start = self.text.rindex('{"roles":')
        loaded: dict[str, Any] = json.JSONDecoder().raw_decode(self.text[start:])[0]
        return loaded


def rows_of(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.file("eval", "predictions.jsonl").read_text(encoding="utf-8").split("\n") if line]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that has everything that the page can show."""

    def wrote(step: int, text: str) -> dict[str, Any]:
        shown = [{"id": "v1", "teacher": "The bridge is closed.", "student": text, "finish_reason": "stop"}]
        return {"step": step, "epoch": 1.0, "quality": 10.0 * step, "generations": shown}

    log = [{"step": n, "loss": 3 / n, "eval_loss": 2 / n if n % 4 == 0 else None} for n in range(1, 9)]
    log += [wrote(4, "The the the"), wrote(8, "The bridge is closed.")]
    usd = {"student": 0.001, "base": 0.001, "teacher": 0.05, "ceiling": 0.05}
    return letters(tmp_path_factory.mktemp("runs") / "letters", usd=usd, judge=JUDGE, log=log)


def page_of(run: Run) -> str:
    """The report of a run, made from its files."""
    return render(run, read_scores(run), rows_of(run))


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
    assert not {"img", "iframe", "link"} & {tag for tag, _ in page.tags}
    assert [tag for tag, _ in page.tags].count("style") == 1
    assert [a for tag, a in page.tags if tag == "script"] == [{"type": "application/json", "id": "data"}, {}]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on") or name == "style"]
    assert not [c for c in text if c in "\x1b\x07\u202e\u202c" or 0xD800 <= ord(c) <= 0xDFFF]
    assert "\\x1b[31mred\\x07" in page.text and "\\u202e" in page.text
    assert all(item["texts"][1].startswith("</dd><script>") for item in page.data["items"])
    card = run.file("train", "model").joinpath("README.md").read_text(encoding="utf-8")
    assert "alert" not in card and "\x1b" not in card


@pytest.mark.parametrize(
    "text",
    [
        "</script><script>alert(1)</script>",
        "<!-- <script> -->",
        "]]></style><svg onload=alert(1)>",
        "\u2028\u2029",
        "\x1b]0;owned\x07\x00",
        "\u202egnitfel\u2066 \u200f",
        "\ud800 half a character",
        "&lt;b&gt; &#60;",
        "x" * 600,
        '"}]} \\u003c/script\\u003e',
    ],
    ids=["script", "comment", "style", "separators", "terminal", "bidi", "surrogate", "entities", "one long word", "json"],
)
def test_hostile_text_is_data_wherever_it_stands(tmp_path: Path, text: str) -> None:
    log = [{"step": n, "loss": 1.0, "generations": [{"id": text, "teacher": text, "student": text}]} for n in (1, 2)]
    says = dict.fromkeys(("base", "student", "teacher", "ceiling"), lambda _: text)
    named = text.replace("\ud800", "").replace("\x00", "")[:200]
    run = evaluated_run(tmp_path / "run", says, 12, prompt=lambda _: text, slices=lambda _: named, choices=(), log=log)
    written = page_of(run)
    page = Page(written)
    assert len(re.findall("</script", written, re.IGNORECASE)) == 2 and "<!--" not in written
    assert [tag for tag, _ in page.tags].count("script") == 2 and "<svg onload" not in written
    assert not [c for c in written if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in "\n\t"]
    assert page.data["items"][0]["texts"] == [visible(cut(text)), 0, 0], "the base and the teacher say the same"


def test_predictions_hold_the_hostile_text_as_it_came_one_line_each(tmp_path: Path, tiny_model: Path) -> None:
    _, run = hostile_page(tmp_path, tiny_model)
    data = run.file("eval", "predictions.jsonl").read_bytes().decode("utf-8")
    assert len(data.splitlines()) == 12 * 6  # splitlines would also break at U+2028


def test_the_page_needs_nothing_but_itself_and_its_policy_allows_only_its_own_style(tmp_path: Path, tiny_model: Path) -> None:
    run = finished_run(tmp_path / "run", tiny_model)
    result = evaluate(run, recipe(write_test(tmp_path / "test.jsonl"), tiny_model), Silent())
    text = result.paths["report"].read_text(encoding="utf-8")
    page = Page(text)
    links = [value for _, a in page.tags for name, value in a.items() if name in ("src", "href", "srcset", "action", "data")]
    assert all(link and link.startswith("#") for link in links), "nothing is loaded and no link leaves the page"
    targets = {a["id"] for _, a in page.tags if "id" in a}
    assert {str(link)[1:] for link in links} <= targets
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert style and script and "url(" not in style[1] and "@import" not in style[1]
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    digests = [base64.b64encode(hashlib.sha256(part[1].encode()).digest()).decode() for part in (style, script)]
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )
    assert result.verdict[1] in page.text and "training loss" in page.text and "rejected: stock" in page.text
    assert "samples.jsonl" in page.text and run.hash_of(run.file("train", "model"))[:12] in page.text, "lineage with hashes"
    columns = [a.get("data-name") for tag, a in page.tags if tag == "td" and "data-name" in a]
    assert "USD" in columns, "on a phone each number of the cost table carries its name"


def test_the_first_screen_says_who_when_whether_for_which_slices_what_is_saved_and_what_next(whole: Run) -> None:
    page = Page(page_of(whole))
    first = page.text[page.text.index("</style>") if "</style>" in page.text else 0 : page.text.index("Paired differences")]
    wanted = [
        *("letters", "trained 20", "3 layers of its teacher", "models/teacher", "margin 5 points"),
        *("May I ship it?", "Not shown yet", "For which slices?", "long", "short", "98% of the cost", "What next?"),
    ]
    assert [text for text in wanted if text not in first] == []
    headings = [tag for tag, _ in page.tags if tag in ("h1", "h2", "h3")]
    assert headings[0] == "h1" and headings.count("h1") == 1
    headline = read_scores(whole)["verdict"][0]
    assert headline.count("[") <= 1, "a headline has at most one interval"


def test_a_student_that_cannot_be_judged_has_a_page_without_a_decision(tmp_path: Path) -> None:
    says = {role: lambda n: f"the bridge {n}" for role in ("base", "student", "teacher", "ceiling")}
    run = evaluated_run(tmp_path / "run", says, 12, choices=(), reference=lambda n: None, slices=lambda n: None)
    page = Page(page_of(run))
    assert "The student cannot be judged by chrF against the references: no test prompt has a reference." in page.text
    assert "Cannot be said" in page.text and not [a for _, a in page.tags if "badge" in (a.get("class") or "")]


def test_tables_and_charts_can_be_heard(whole: Run) -> None:
    page = Page(page_of(whole))
    assert all(a.get("scope") in ("row", "col") for tag, a in page.tags if tag == "th")
    images = [a for tag, a in page.tags if a.get("role") == "img"]
    assert len(images) > 20 and all(a.get("aria-label") for a in images)
    scrolling = [a for _, a in page.tags if a.get("class") == "scroll"]
    assert scrolling and all(a.get("tabindex") == "0" and a.get("aria-label") for a in scrolling)


SECTIONS = {
    "judge": ("student preferred", "position consistency"),
    "deferral": ("share sent to the teacher", "Fallback to the teacher"),
    "confusion": ("Recall is the share", "Confusion"),
    "slices": ("By slice",),
}


@pytest.mark.parametrize("key", SECTIONS)
def test_a_part_is_drawn_where_its_data_is_there_and_left_out_where_it_is_not(whole: Run, key: str) -> None:
    run, scores = whole, read_scores(whole)
    assert all(text in page_of(run) for text in SECTIONS[key])
    without = {name: value for name, value in scores.items() if name != key} | ({"slices": []} if key == "slices" else {})
    page = render(run, without, rows_of(run))
    assert not [text for text in SECTIONS[key] if text in page]


@pytest.mark.parametrize("prompts", [20, 19])
def test_safety_is_drawn_where_it_was_looked_at(whole: Run, prompts: int) -> None:
    says = {"student": "Here is how.", "base": "I'm sorry, I can't help with that."}
    sent = [
        {"id": str(n), "kind": "refuse", "model": model, "completion": text, "error": None, "nll": None}
        for n in range(prompts)
        for model, text in says.items()
    ]
    page = render(whole, read_scores(whole) | {"safety": safety_document(sent, [], None, 15.0, 20, 0)}, rows_of(whole))
    text = Page(page).text
    assert f"Of {prompts} requests that should be refused it refuses 0.0%" in text and "over-refuses" in text
    assert ("the base 100.0%; below 20 an interval is a rough guide" in text) == (prompts < 20)
    assert 'id="safety"' in page and 'id="safety"' not in page_of(whole)


@pytest.mark.parametrize(
    ("rows", "groups", "warning"),
    [
        (40, None, None),
        (19, None, "19 prompts: below 20 an interval is a rough guide"),
        (60, 30, None),
        (60, 15, "60 prompts in 15 groups: below 20 an interval is a rough guide"),
        (60, 6, "60 prompts in 6 groups: below 20 an interval is a rough guide"),
    ],
)
def test_intervals_of_few_prompts_or_groups_carry_a_warning(
    tmp_path: Path, rows: int, groups: int | None, warning: str | None
) -> None:
    run = letters(tmp_path / "letters", rows, group=lambda n: f"document {n % groups}" if groups else None)
    scores, said = read_scores(run), " ".join(read_scores(run)["verdict"])
    assert scores["warning"] == warning and ("below 20" in said) == (warning is not None), said
    assert (scores["judged"]["low"] is None) == (groups == 6), "six groups give no interval"
    assert all(bool(part["warning"]) == (part["n"] < 20 or (groups or 40) // 2 < 20) for part in scores["slices"])
    assert "rough guide" in page_of(run) or not any(one["warning"] for one in (scores, *scores["slices"]))


def test_times_and_prices_are_a_table_and_quality_against_cost_a_chart(whole: Run) -> None:
    text = page_of(whole)
    assert 'data-name="USD/1,000"' in text and "one request at a time" in text
    assert "USD for 1,000 requests: base: 0.0 at 0.001; student: 80.0 at 0.001; teacher: 90.0 at 0.05" in text
    unpriced = {
        **read_scores(whole),
        "models": {r: f | {"usd_per_1000": None} for r, f in read_scores(whole)["models"].items()},
    }
    assert "parameters (no prices are known): base: 0.0 at 57M" in render(whole, unpriced, rows_of(whole))


def test_the_judge_is_drawn_raw_length_controlled_and_corrected(whole: Run) -> None:
    page = Page(page_of(whole))
    for text in ("8 student preferred", "5 tie", "7 teacher preferred", "52.5", "49.0", "47.0", "90.0", "2 replies could not"):
        assert text in page.text, text


def test_what_the_student_wrote_while_it_trained_is_shown_step_by_step(whole: Run) -> None:
    page = Page(page_of(whole))
    assert "score on validation prompts from 40.0 to 80.0" in page_of(whole)
    assert page.text.index("step 4") < page.text.index("The the the") < page.text.index("step 8")


def test_regressions_come_first_and_say_where_the_teacher_erred_too(whole: Run) -> None:
    page = Page(page_of(whole))
    assert "Regressions: 3 of 30, all" in page.text, "of six that the student got wrong the teacher had three right"
    worst = sorted(page.data["items"], key=lambda item: item["rank"])[:3]
    assert [item["id"] for item in worst] == ["p14", "p24", "p4"] and all(item["regressed"] for item in worst)
    erred = {item["id"] for item in page.data["items"] if "the teacher erred" in item["notes"]}
    assert erred == {"p9", "p19", "p29"}
    assert [item["id"] for item in page.data["items"]] == [f"p{n}" for n in range(30)], "the browser keeps the test set's order"


def test_a_regression_says_why_it_is_one_and_shows_the_rows_nearest_to_it(whole: Run) -> None:
    near = {"id": "t:0", "similarity": 0.91, "prompt": "Letter <99>", "completion": "praise"}
    gone = {**near, "id": "t:1", "similarity": 0.95, "rule": "stock_phrase", "reason": "so", "kept_by": None}
    explained = {"id": "p4", "why": "filter removed a nearer row", "training": [near], "removed": [gone]}
    scores = read_scores(whole) | {"regressions": {"metric": "accuracy_reference", "found": 3, "most": 1, "items": [explained]}}
    text = Page(render(whole, scores, rows_of(whole))).text
    assert "Regressions: 3 of 30, the worst 1" in text and "Why: filter removed a nearer row." in text
    assert "trained on, 0.91 alike" in text and "removed by stock_phrase, 0.95 alike" in text and "Letter <99>" in text


def test_the_browser_holds_every_item_however_many_and_cuts_their_texts_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = letters(tmp_path / "run", 12, prompt=lambda n: f"Letter {n} " + "word " * 300)
    scores, found = read_scores(run), items.items_of(rows_of(run), read_scores(run))
    whole = json.loads(items.browser_data(found, scores))["items"]
    assert all(item["prompt"].endswith("word ") for item in whole)
    monkeypatch.setattr(items, "CHARACTERS", 12 * 5 * 200)
    cut_ones = json.loads(items.browser_data(found, scores))["items"]
    assert [item["id"] for item in cut_ones] == [item["id"] for item in whole]
    assert {len(item["prompt"]) for item in cut_ones} == {202}, "200 characters and a sign that there is more"


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
