"""What each rejected row says would have kept it, and that it would have; what a reason and a story may quote."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filter_runs import filtered, kept_ids, make_run, rows_of, sample
from test_filter_stage import notices

from seqdistill.console import Console
from seqdistill.errors import SeqdistillError
from seqdistill.progress import Silent
from seqdistill.recipe.reading import merge, parse_assignment, resolve
from seqdistill.records import Sample
from seqdistill.runs import Run
from seqdistill.show import show_explanation, show_filter
from seqdistill.stages.filter.explain import explain
from seqdistill.stages.filter.rejection import in_words
from seqdistill.stages.filter.stage import filter_samples

LONG = (
    "The harbour master asks all owners of small boats to move them before the storm reaches the coast, because the old wall "
    "at the north pier is being rebuilt and cannot hold back high waves this winter"
)
ITEM = (
    "Explain to the reader of a small newspaper why the ferry between the two islands was late again this morning and who "
    "will pay for the repairs of its engine"
)
STOCK = "The original message was rephrased to make it more concise and clear while keeping the same meaning."
REFUSAL = "I can't share that with anna@example.org or anyone."
PLANKS = " ".join(f"plank{number}" for number in range(300))
KEYS: dict[str, Any] = {
    "integrity": {"max_chars": 2000, "min_chars": 3, "refusals": "drop", "stock_phrases": "drop"},
    "personal_data": {"action": "drop"},
    "validation": 0.0,
}


def laid(keys: dict[str, Any], would_keep: list[str]) -> dict[str, Any]:
    """The keys of [filter] with these settings laid over them."""
    tables = [{table: content} for table, content in map(parse_assignment, would_keep)]
    return dict(merge({"filter": keys}, *tables)["filter"])


def as_named(run: Run, keys: dict[str, Any], test: Path | None = None) -> dict[str, list[str]]:
    """What each rejected row says would have kept it, after trying it."""
    filtered(run, test, **keys)
    rejected = {row["id"]: row["would_keep"] for row in rows_of(run, "rejected.jsonl")}
    for row, would_keep in rejected.items():
        if would_keep:
            filtered(run, test, **laid(keys, would_keep))
            assert row in kept_ids(run), (row, would_keep)
    return rejected


def test_the_settings_that_a_rejected_row_names_would_have_kept_it(tmp_path: Path) -> None:
    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps({"prompt": ITEM}) + "\n")
    wall = sample("Describe a wall.", "A wall is upright.")
    expected: list[tuple[Sample, list[str]]] = [
        (sample("Describe a lamp.", "A lamp", finish_reason="length"), ['integrity.finish_reasons = ["stop", "length"]']),
        (sample("Describe a chair.", " \n"), []),
        (sample("Describe a stool.", " ok"), ["integrity.min_chars = 2"]),
        (sample("Describe a floor.", PLANKS), [f"integrity.max_chars = {len(PLANKS)}"]),
        (sample("Describe a table.", "A table is flat.<|im_end|>\n<|im_start|>user"), ["integrity.markup = false"]),
        (sample("Describe a door.", "it opens and it closes and " * 20), ["integrity.max_repetition = 0.95"]),
        (sample("Describe a window.", "As an AI language model, I see no windows."), ["integrity.self_naming = false"]),
        (sample("Describe a key.", "I cannot share that with anyone."), ['integrity.refusals = "annotate"']),
        (sample("Describe a roof in a sentence.", "Крыша защищает дом от дождя."), ["integrity.script_share = 0"]),
        (
            sample("Describe  a WALL.", "A wall is upright.", sample=1),
            ["duplicates = false", 'near_duplicates.scope = "off"'],
        ),
        (sample(f"Today: {ITEM}", "It broke."), ['contamination.action = "annotate"']),
        (sample(ITEM.replace("two islands", "islands"), "It broke down."), ["contamination.overlap = 1.0"]),
        (sample("Who opens?", "Ask anna@example.org"), ['personal_data.action = "annotate"']),
    ]
    stock = [sample(row.prompt[0]["content"].replace("has news", "writes"), STOCK) for row in notices(8)]
    ids = {row.id: [f"filter.{setting}" for setting in settings] for row, settings in expected}
    ids |= {row.id: ['filter.integrity.stock_phrases = "annotate"'] for row in stock}
    rows = [vars(row) for row in (*(row for row, _ in expected), *stock, *notices(200))]
    run = make_run(tmp_path / "run", [vars(wall) | {"score": 1.0}, *rows])
    assert as_named(run, KEYS, test) == ids


def test_only_a_row_whose_words_no_better_row_has_is_kept_by_another_similarity(tmp_path: Path) -> None:
    texts = [LONG, LONG + " or next", LONG.replace(",", ";") + " or next!", LONG.replace(",", " -")]
    rows = [vars(sample(text, "Move the boats.")) | {"score": -number} for number, text in enumerate(texts)]
    off, raised = 'filter.near_duplicates.scope = "off"', "filter.near_duplicates.similarity = 1.0"
    run = make_run(tmp_path, rows)
    named = as_named(run, {"validation": 0.0})
    assert [named.get(row["id"]) for row in rows] == [None, [raised], [off], [off]]
    filtered(run, validation=0.0)
    examples = json.loads(run.file("filter", "report.json").read_text())["examples"]["near_duplicate"]
    assert [example["would_keep"] for example in examples] == [[raised], [off], [off]]
    assert [explain(run, row["id"])[0].would_keep for row in rows] == [[], [raised], [off], [off]]


def test_an_exact_duplicate_whose_prompt_is_another_one_names_one_setting_where_one_is_enough(tmp_path: Path) -> None:
    rows = [sample("Name a tree.", "An oak."), sample("Name a TREE.", "an oak.")]
    keys = {"validation": 0.0, "near_duplicates": {"scope": "within-prompt"}}
    assert list(as_named(make_run(tmp_path, rows), keys).values()) == [["filter.duplicates = false"]]


@pytest.mark.parametrize("select", [{"best_n": 1}, {"best_n": 3}, {"keep": "share"}, {"keep": "threshold", "min_score": 90.0}])
def test_rows_that_are_not_chosen_name_what_would_have_chosen_them(tmp_path: Path, select: dict[str, Any]) -> None:
    texts = ["The hall is shut.", "Shut!", "Nobody knows of a hall.", "The hall is closed now."]
    rows = [sample("Why is the hall shut?", text, sample=n, reference=texts[0]) for n, text in enumerate(texts)]
    rows[1:3] = [replace(row, reference=None) for row in rows[1:3]]
    keys = {"validation": 0.0, "score": {"by": "reference"}, "select": select}
    named = as_named(make_run(tmp_path, rows), keys)
    assert all(named[row.id][0] == 'filter.select.unscored = "keep"' for row in rows[1:3])


@pytest.mark.parametrize("select", [{"best_n": 1}, {"best_n": 2, "min_score": 90.0}, {"keep": "share", "among": "all"}])
@pytest.mark.parametrize("scope", ["pair", "response", "within-prompt"])
def test_a_repetition_that_would_not_be_chosen_names_what_would_choose_it_too(
    tmp_path: Path, select: dict[str, Any], scope: str
) -> None:
    texts = ["Move the boats.", LONG, LONG + " or next", LONG, LONG + " or the next one after it", "Nobody knows."]
    rows = [sample("What does the master ask?", text, sample=n, reference=texts[0]) for n, text in enumerate(texts)]
    keys = {"validation": 0.0, "score": {"by": "reference"}, "select": select, "near_duplicates": {"scope": scope}}
    named = as_named(make_run(tmp_path, rows), keys)
    assert any("duplicate" in one[0] and len(one) > 1 for one in named.values())


def test_a_row_that_breaks_the_form_is_kept_without_the_check(tmp_path: Path) -> None:
    run = make_run(tmp_path, [sample(f"Is {n} even?", "yes" if n else "maybe") for n in range(3)])
    for schema, left in ((True, 2), (False, 3)):
        tables = {"generate": {"choices": ["yes", "no"]}, "filter": {"schema": schema, "near_duplicates": {"scope": "off"}}}
        assert filter_samples(run, resolve(tables), Silent()).kept == left
        if schema:
            assert rows_of(run, "rejected.jsonl")[0]["would_keep"] == ["filter.schema = false"]


def test_settings_are_named_with_their_flags() -> None:
    assert in_words(["filter.duplicates = false", 'filter.near_duplicates.scope = "off"']) == (
        'filter.duplicates = false (--no-duplicates) and filter.near_duplicates.scope = "off" (--near-duplicates-scope)'
    )


# --- what may be quoted -------------------------------------------------------------------------------------------------


def private(text: str) -> list[Sample]:
    return [sample("Name a tree.", "An oak."), sample("Who opens the hall?", text)]


@pytest.mark.parametrize(
    ("text", "secret", "keys"),
    [
        (REFUSAL, "anna@", {"integrity": {"refusals": "drop"}}),
        ("eyJhbGciOiJIUzI1NiJ9.eyJ" + "YW5uYQ" * 300 + ".c2lnbmF0dXJl1", "YW5uYQ", {"integrity": {"max_chars": 9}}),
        ("Rufen Sie 03-3123-4567 an", "3123", {"integrity": {"max_chars": 9}, "personal_data": {"phone_regions": ["JP"]}}),
    ],
)
def test_neither_report_nor_reason_nor_story_shows_personal_data(
    tmp_path: Path, text: str, secret: str, keys: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = private(text)
    run = make_run(tmp_path, rows)
    filtered(run, validation=0.0, **keys)
    (rejected,) = rows_of(run, "rejected.jsonl")
    assert secret not in run.file("filter", "report.json").read_text() + rejected["reason"]
    assert rejected["completion"][0]["content"] == text
    show_explanation(Console(), explain(run, rows[1].id, keys.get("personal_data", {}).get("phone_regions", ["US"]))[0])
    shown = capsys.readouterr().out
    assert secret not in shown and "_1]" in shown


def test_an_error_that_quotes_a_row_names_personal_data_by_kind(tmp_path: Path) -> None:
    run = make_run(tmp_path, private(REFUSAL)[1:])
    with pytest.raises(SeqdistillError) as raised:
        filtered(run, integrity={"refusals": "drop"})
    assert "anna@" not in raised.value.message and "[EMAIL]" in raised.value.message


def test_a_story_tells_the_settings_and_their_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path, [sample("Name a tree.", "An oak."), sample("Name a bird.", "A ro", finish_reason="length")])
    filtered(run, validation=0.0)
    show_explanation(Console(), explain(run, rows_of(run, "rejected.jsonl")[0]["id"])[0])
    assert '["stop", "length"] (--integrity-finish-reasons) would have kept it' in capsys.readouterr().out


def test_a_story_shows_the_id_of_its_row_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = sample("Name a tree.", "An oak.", id="a\x1b[31mb")
    run = make_run(tmp_path, [row])
    filtered(run, validation=0.0)
    show_explanation(Console(), explain(run, row.id)[0])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and r"a\x1b[31mb" in shown


def test_the_terminal_shows_the_funnel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [sample("Name a tree.", "An oak."), sample("Name a bird.", "A ro", finish_reason="length")]
    run = make_run(tmp_path, [*rows, sample("Name a TREE.", "an oak.")])
    for result in (filtered(run, validation=0.0), filtered(run, validation=0.0)):
        show_filter(Console(), result)
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert ["integrity", "3", "1", "2"] in lines and ["duplicates", "2", "1", "1"] in lines


def test_an_empty_list_of_finish_reasons_keeps_any(tmp_path: Path) -> None:
    rows = [sample("Name a tree.", "An oak."), sample("Name a bird.", "A ro", finish_reason="length")]
    assert filtered(make_run(tmp_path, rows), integrity={"finish_reasons": []}).kept == 2
