"""The filter stage end to end: what goes, why, and that two runs write the same bytes."""

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from filter_runs import filtered, kept_ids, make_run, rows_of, rules_of, sample

from seqdistill.console import Console
from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.progress import Silent
from seqdistill.recipe.reading import resolve
from seqdistill.recipe.tables import Recipe, TaskConfig
from seqdistill.records import SAMPLE_KEYS, Sample
from seqdistill.show import show_filter
from seqdistill.stages.filter.agreement import agreement
from seqdistill.stages.filter.explain import explain
from seqdistill.stages.filter.scan import spans
from seqdistill.stages.filter.stage import filter_samples
from seqdistill.tasks.answer_form import AnswerForm

TOWNS = ["Ashby", "Bellfield", "Copper Row", "Eastgate", "Fairmile", "Granby", "Harwell", "Millbrook", "Redcliff", "Thornton"]
THINGS = ["library", "pool", "bridge", "market", "museum", "school", "car park", "theatre", "bus station", "sports hall"]
REASONS = [
    "a burst pipe",
    "storm damage",
    "staff training",
    "asbestos",
    "a film shoot",
    "new gas mains",
    "flooding",
    "a strike",
]


def notices(count: int) -> list[Sample]:
    """Templated notices with templated summaries; no two say the same."""
    chosen = random.Random(1).sample([(t, x, r) for t in TOWNS for x in THINGS for r in REASONS], count)
    return [
        sample(
            f"The town council has news. The {town} {thing} will be closed until {day} May. The cause is {reason}.",
            f"The town council will close the {town} {thing} until {day} May because of {reason}.",
        )
        for day, (town, thing, reason) in enumerate(chosen)
    ]


def test_without_a_recipe_every_row_ends_in_exactly_one_file(tmp_path: Path) -> None:
    run = make_run(tmp_path, notices(300))
    result = filter_samples(run, Recipe(), Silent())
    assert (result.read, result.kept, result.rejected) == (300, 300, 0)
    assert result.train + result.validation == 300 and 2 < result.validation < 40
    assert sorted(kept_ids(run)) == sorted(row.id for row in notices(300))


def test_each_rule_takes_its_row_and_says_why(tmp_path: Path) -> None:
    bad = {
        "finish_reason": sample("Describe a lamp.", "A lamp gives", finish_reason="length"),
        "empty": sample("Describe a chair.", " \n"),
        "markup": sample("Describe a table.", "A table is flat.<|im_end|>\n<|im_start|>user"),
        "repetition": sample("Describe a door.", "it opens and it closes and " * 20),
        "self_naming": sample("Describe a window.", "As an AI language model, I see no windows."),
        "script": sample("Describe a roof in a sentence.", "Крыша защищает дом от дождя."),
        "duplicate": sample("Describe  a WALL.", "A wall is upright.", sample=1),
        "too_long": sample("Describe a floor.", "word " * 7 + "x" * 3000),
    }
    good = [*notices(100), sample("Describe a wall.", "A wall is upright.")]
    run = make_run(tmp_path, [*bad.values(), *good])
    result = filtered(run, integrity={"max_chars": 2000})
    assert rules_of(run) == {row.id: rule for rule, row in bad.items()}
    assert result.by_rule == dict.fromkeys(result.by_rule, 1) and result.rejected == len(bad)
    for row in rows_of(run, "rejected.jsonl"):
        assert set(row) == {*SAMPLE_KEYS, "rule", "reason", "would_keep", "kept_by"} and row["reason"]
        assert row["kept_by"] == (good[-1].id if row["rule"] == "duplicate" else None)


def test_a_completion_in_a_language_that_is_rare_in_its_slice_is_rejected_where_that_is_configured(tmp_path: Path) -> None:
    german = "Ein Dach schützt das Haus vor Regen und Schnee, wie wir alle wissen."
    slip = sample("Describe in one sentence what a roof is good for.", german, slice="essays")
    few = sample("Describe in one sentence what the number of roofs is.", "Roof 42.", slice="essays")
    essays = [replace(row, slice="essays") for row in notices(100)]
    meant = [
        sample(
            f"Translate into German what I wrote to you on page {n}.",
            f"{german} Das steht auf Seite {n}.",
            slice="translations",
        )
        for n in range(40)
    ]
    run = make_run(tmp_path, [slip, few, *essays, *meant])
    assert filtered(run, near_duplicates={"scope": "off"}).rejected == 0
    filtered(run, near_duplicates={"scope": "off"}, integrity={"language_share": 0.02})
    (row,) = rows_of(run, "rejected.jsonl")
    assert (row["id"], row["rule"], row["would_keep"]) == (slip.id, "language", ["filter.integrity.language_share = 0"])
    assert row["reason"] == "written in de, its prompt in en, unasked; so are 1 of 101 of its slice"


def test_two_runs_write_the_same_bytes_and_a_third_does_nothing(tmp_path: Path) -> None:
    rows = notices(200) + [sample(f"Say {n}", f"{n} it is, as you asked me to say it", sample=0) for n in range(50)]
    first, second = make_run(tmp_path / "a", rows), make_run(tmp_path / "b", rows)
    assert not filtered(first).up_to_date and not filtered(second).up_to_date
    names = ("train.jsonl", "validation.jsonl", "rejected.jsonl", "report.json")
    assert [first.file("filter", n).read_bytes() for n in names] == [second.file("filter", n).read_bytes() for n in names]
    again = filtered(first)
    assert again.up_to_date and again.kept == filtered(second).kept
    assert not filtered(first, seed=1).up_to_date


def test_nothing_is_left_behind_but_the_outputs(tmp_path: Path) -> None:
    run = make_run(tmp_path, notices(50))
    filtered(run)
    names = {path.name for path in (tmp_path / "filter").iterdir()}
    assert names == {"train.jsonl", "validation.jsonl", "rejected.jsonl", "report.json", "manifest.json", ".lock"}


def test_a_prompt_never_stands_on_both_sides_of_the_split(tmp_path: Path) -> None:
    answers = ["Wear a coat.", "Take an umbrella.", "Stay at home and read.", "Light the stove."]
    rows = [sample(f"What helps against {n} days of rain?", a, sample=i) for n in range(100) for i, a in enumerate(answers)]
    run = make_run(tmp_path, rows)
    filtered(run, validation=0.2)
    train, validation = ({row["prompt_id"] for row in rows_of(run, f"{name}.jsonl")} for name in ("train", "validation"))
    assert validation and not train & validation


def test_a_group_is_in_one_of_train_validation_and_test_alone(tmp_path: Path) -> None:
    def row(n: int) -> Sample:
        return sample(
            f"What does page {n} of the {n // 4}th book say?", f"It says {n}.", group=None if n < 8 else f"book {n // 4}"
        )

    (tmp_path / "test.jsonl").write_text('{"prompt": "Who wrote it?", "group": "book 7"}\n{"prompt": "And when?"}\n')
    run = make_run(tmp_path / "run", [row(n) for n in range(160)])
    keys = {"validation": 0.3, "near_duplicates": {"scope": "off"}}
    result = filtered(run, tmp_path / "test.jsonl", **keys)
    assert result.by_rule == {"contamination": 4} and result.kept == 156, "rows without a group are in no group"
    assert {one["reason"] for one in rows_of(run, "rejected.jsonl")} == {"prompts of its group, 'book 7', are in the test set"}
    sides = [{one["group"] for one in rows_of(run, f"{name}.jsonl")} - {None} for name in ("train", "validation")]
    assert len(sides[0]) > 15 and len(sides[1]) > 4 and not sides[0] & sides[1]
    assert filtered(run, tmp_path / "test.jsonl", **keys, contamination={"action": "annotate"}).kept == 160
    with pytest.raises(SeqdistillError) as raised:
        filtered(make_run(tmp_path / "held out", [row(n) for n in range(28, 32)]), tmp_path / "test.jsonl", **keys)
    assert "hold out other prompts or groups" in (raised.value.hint or "")


def test_a_split_that_would_leave_nothing_to_train_on_is_not_made(tmp_path: Path) -> None:
    for n in range(20):
        run = make_run(tmp_path / str(n), [sample(f"Only prompt {n}", "An answer.")])
        assert filtered(run, validation=0.5).train == 1


def test_stock_phrases_are_counted_or_go_and_templated_openings_stay(tmp_path: Path) -> None:
    rows = notices(400)
    stock = "The original message was rephrased to make it more concise and clear while keeping the same meaning."
    spoilt = [sample(row.prompt[0]["content"].replace("has news", "writes"), stock) for row in rows[:8]]
    run = make_run(tmp_path, [*rows, *spoilt])
    assert filtered(run).rejected == 0
    report = json.loads(run.file("filter", "report.json").read_text())
    assert report["annotated"]["stock_phrases"] == 8
    result = filtered(run, integrity={"stock_phrases": "drop"})
    assert result.by_rule == {"stock_phrase": 8}
    assert set(rules_of(run)) == {row.id for row in spoilt}
    report = json.loads(run.file("filter", "report.json").read_text())
    assert report["annotated"]["stock_phrases"] == 0 and report["stock_phrases"] == [
        {"opening": "The original message was", "rows": 8, "share": round(8 / 408, 4)}
    ]


CONSTANT = "I am glad that you asked, and I will be happy to help you with that today."


def test_one_completion_to_most_prompts_is_rejected_and_to_many_is_reported(tmp_path: Path) -> None:
    rows = notices(200)
    for times, by_rule in ((150, {"constant": 150}), (30, {})):
        spoilt = [sample(row.prompt[0]["content"], CONSTANT) for row in rows[:times]] + rows[times:]
        run = make_run(tmp_path / str(times), spoilt)
        result = filtered(run)
        assert result.by_rule == by_rule
        assert any(f"one completion answers {times} prompts" in warning for warning in result.warnings)
    labels = [sample(row.prompt[0]["content"], "None of the above") for row in rows]
    assert filtered(make_run(tmp_path / "labels", labels)).warnings == []


def test_a_rule_that_takes_many_prompts_and_a_slice_that_loses_most_of_its_rows_are_reported(tmp_path: Path) -> None:
    rows = [replace(row, slice="a") for row in notices(100)]
    rows += [
        replace(row, slice="b", finish_reason="length", prompt_id=f"{row.prompt_id}b", id=f"b{row.id}") for row in notices(50)
    ]
    result = filtered(make_run(tmp_path, rows))
    first, second = result.warnings
    assert first.startswith("the rule 'finish_reason' rejects 50 of 150 prompts (33%): finish_reason is 'length'")
    assert "(--integrity-finish-reasons) would keep it" in first
    assert second == "the slice 'b' loses 50 of 50 rows, 50 of them by the rule 'finish_reason'"
    assert filtered(make_run(tmp_path / "c", notices(50))).warnings == []


def test_no_warning_proposes_to_train_on_the_test_set(tmp_path: Path) -> None:
    test, asked = tmp_path / "test.jsonl", "How many boats of the northern harbour carried stone to the island in the winter of"
    years = range(1900, 1920)
    test.write_text("".join(json.dumps({"prompt": f"{asked} {year}?"}) + "\n" for year in years[:10]))
    run = make_run(tmp_path / "run", [sample(f"{asked} {year}?", f"There were {year % 7} boats.") for year in years])
    with pytest.raises(SeqdistillError) as raised:
        filtered(run, test)
    assert "masked = false" in (raised.value.hint or "") and "annotate" not in str(raised.value.hint)
    result = filtered(run, test, contamination={"masked": False}, near_duplicates={"scope": "off"})
    warned = next(warning for warning in result.warnings if "'contamination' rejects 10 of 20 prompts" in warning)
    assert "(50%), 10 of them test prompts themselves: " in warned and "annotate" not in warned
    assert result.kept == 10, "what the hint says keeps what is no copy"


def test_an_opening_that_most_completions_have_is_the_task_s_form(tmp_path: Path) -> None:
    rows = [sample(row.prompt[0]["content"], "Here is a summary: " + row.text) for row in notices(200)]
    assert filtered(make_run(tmp_path, rows)).rejected == 0


def test_exact_duplicates_ignore_case_space_and_unicode_form_but_not_numbers_or_punctuation(tmp_path: Path) -> None:
    rows = [
        sample("Où est le café ?", "Il est là."),
        sample("OÙ EST\n le cafe\u0301 ?", "il est  la\u0300.", sample=1),
        sample("Compute 12 + 30", "It is 42"),
        sample("Compute 12 + 31", "It is 43"),
        sample("Compute 12 - 30", "It is 42"),
    ]
    run = make_run(tmp_path, rows)
    filtered(run, near_duplicates={"scope": "off"})
    assert rules_of(run) == {rows[1].id: "duplicate"}


def test_the_row_with_the_better_score_is_kept_whatever_its_place(tmp_path: Path) -> None:
    rows = [sample("Name a tree.", "An oak.", sample=n).__dict__ | {"score": n == 2} for n in range(4)]
    run = make_run(tmp_path, [row | {"score": float(row["score"])} for row in rows])
    filtered(run)
    (kept,) = rows_of(run, "train.jsonl") + rows_of(run, "validation.jsonl")
    assert kept["sample"] == 2 and set(kept) == set(SAMPLE_KEYS)


def test_a_score_too_large_for_a_float_is_the_best_and_one_that_is_no_number_is_zero(tmp_path: Path) -> None:
    rows = [sample("Name a tree.", "An oak.", sample=n).__dict__ for n in range(5)]
    scores = [0.5, "high", 10**400, float("nan"), float("inf")]
    run = make_run(tmp_path, [])
    lines = [json.dumps(row | {"score": given}) for row, given in zip(rows, scores, strict=True)]
    run.file("generate", "samples.jsonl").write_text("\n".join(lines) + "\n")
    filtered(run)
    (kept,) = rows_of(run, "train.jsonl") + rows_of(run, "validation.jsonl")
    assert kept["sample"] == 2


def test_the_files_do_not_depend_on_how_much_is_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [*notices(150), *(sample(f"Où est {row.text}", row.text) for row in notices(60))]
    one, small = make_run(tmp_path / "one", rows), make_run(tmp_path / "small", rows)
    filtered(one)
    monkeypatch.setattr("seqdistill.stages.filter.scan.SPAN_BYTES", 2000)
    assert len(list(spans(small.file("generate", "samples.jsonl"), None))) > 20
    filtered(small)
    for name in ("train.jsonl", "validation.jsonl", "rejected.jsonl", "report.json"):
        assert one.file("filter", name).read_bytes() == small.file("filter", name).read_bytes()


def test_the_run_s_test_prompts_are_removed_in_either_view(tmp_path: Path) -> None:
    template = tmp_path / "task.toml"
    template.write_text(
        '[teacher]\nuser = "Say it in one short sentence: {{ prompt }}"\n[student]\nuser = "Shorten: {{ prompt }}"\n'
    )
    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps({"prompt": "The hall is shut today because the roof leaks badly."}) + "\n")
    rows = [
        *notices(50),
        sample("Shorten: the hall is shut today, because the roof leaks badly", "Leaky roof shuts the hall."),
        sample("Say it in one short sentence: The hall is shut today because the roof leaks badly.", "The hall is shut."),
    ]
    run = make_run(tmp_path / "run", rows)
    filter_samples(run, Recipe(task=TaskConfig(template=str(template), test=str(test))), Silent())
    assert rules_of(run) == {rows[-2].id: "contamination", rows[-1].id: "contamination"}
    hits = json.loads(run.file("filter", "report.json").read_text())["contamination"]["hits"]
    assert len(hits) == 2 and all("roof leaks badly" in hit["test_text"] for hit in hits)


def test_a_changed_test_set_makes_the_stage_work_again(tmp_path: Path) -> None:
    test = tmp_path / "test.jsonl"
    test.write_text('{"prompt": "What is the tallest mountain of the Alps?"}\n')
    run = make_run(tmp_path / "run", [sample("What is the tallest mountain of the Alps?", "Mont Blanc."), *notices(20)])
    assert filtered(run, test).by_rule == {"contamination": 1}
    test.write_text('{"prompt": "What is the tallest mountain of the Andes?"}\n')
    result = filtered(run, test)
    assert not result.up_to_date and result.rejected == 0


def test_when_nothing_is_left_the_rule_and_the_setting_are_named(tmp_path: Path) -> None:
    run = make_run(tmp_path, [sample(f"Say {n}", "cut off he", finish_reason="length") for n in range(10)])
    with pytest.raises(SeqdistillError) as raised:
        filtered(run)
    assert (
        "'finish_reason' rejected 10 of 10" in raised.value.message
        and 'filter.integrity.finish_reasons = ["stop", "length"] (--integrity-finish-reasons)' in raised.value.hint
    )
    assert run.manifest("filter") is None


def test_a_run_without_samples_names_the_command_to_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        filter_samples(make_run(tmp_path, []).__class__(tmp_path / "none"), Recipe(), Silent())
    assert "seqdistill generate" in raised.value.hint


@pytest.mark.parametrize("by", ["none", "vote"])
def test_a_run_whose_requests_all_failed_says_so(tmp_path: Path, by: str) -> None:
    with pytest.raises(SeqdistillError, match="no samples in it"):
        filtered(make_run(tmp_path, []), score={"by": by})


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("{not json", "not JSON"),
        ("[1]", "not a JSON object"),
        ("[" * 100_000, "nested deeper than 100 levels"),
        ('{"id": "a"}', "'prompt_id' is missing"),
        (json.dumps(sample("A prompt", "An answer", sample=10**30).__dict__), "'sample' is 1000000000"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, wrong: str) -> None:
    run = make_run(tmp_path, notices(3))
    with run.file("generate", "samples.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UsageError) as raised:
        filtered(run)
    assert "samples.jsonl:4" in raised.value.message and wrong in raised.value.message


def test_an_id_used_twice_is_an_error(tmp_path: Path) -> None:
    rows = notices(3)
    with pytest.raises(UsageError, match="two samples have the id"):
        filtered(make_run(tmp_path, [*rows, rows[1]]))


def test_limit_reads_the_first_samples_only(tmp_path: Path) -> None:
    assert filtered(make_run(tmp_path, notices(30)), limit=7).read == 7


def test_hostile_text_neither_breaks_the_filter_nor_the_files(tmp_path: Path) -> None:
    nasty = ["\0", "\u2028\u2029\x85", "\ud800", '{"rule": "x"}\n', "}" * 50, "a" * 100_000, "\N{COMBINING ACUTE ACCENT}" * 999]
    rows = [sample(f"{text} prompt {n}", f"An answer to {text} of number {n}", slice=text) for n, text in enumerate(nasty)]
    rows += [sample(f"{text} cut {n}", f"{text} cut", finish_reason="length") for n, text in enumerate(nasty)]
    run = make_run(tmp_path, rows)
    result = filtered(run)
    assert result.read == len(rows) == result.kept + result.rejected
    assert set(json.loads(run.file("filter", "report.json").read_text(encoding="utf-8"))["by_slice"]) == {*nasty, ""}
    texts = Counter(
        row["completion"][0]["content"] for name in ("train", "validation", "rejected") for row in rows_of(run, f"{name}.jsonl")
    )
    assert texts == Counter(row.text for row in rows)


def test_the_report_says_how_often_the_teacher_differs_from_references_and_which_labels_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [("yes", "Yes"), ("no", "yes"), ("maybe", "no"), ("no", None), ("no", "no")]
    rows = [
        sample(f"Is row {n} a good one?", text, reference=gold, slice="ab"[n % 2]) for n, (text, gold) in enumerate(answers)
    ]
    run = make_run(tmp_path, rows)
    tables = {"generate": {"choices": ["yes", "no"]}, "filter": {"near_duplicates": {"scope": "off"}}}
    result = filter_samples(run, resolve(tables), Silent())
    assert result.references == {
        "compared": 4,
        "differ": 2,
        "kept": {"compared": 3, "differ": 1},
        "by_slice": {"a": {"compared": 3, "differ": 1}, "b": {"compared": 1, "differ": 1}},
    }
    assert result.labels == {"no": {"read": 3, "kept": 3}, "yes": {"read": 1, "kept": 1}}
    show_filter(Console(), result)
    shown = capsys.readouterr().out
    assert "the teacher differs from 2 of 4 (50.0%), of the kept from 1" in shown and "no 3 -> 3, yes 1 -> 1" in shown


@pytest.mark.parametrize(
    ("form", "text", "reference", "expected"),
    [
        (AnswerForm(), "Paris.", "paris", 1),
        (AnswerForm(), "1,050", "1050.0", 1),
        (AnswerForm(), "Rome", "Paris", 0),
        (AnswerForm(), "She sold 48 / 2 = 24 clips in May.\n#### 72", "72", 1),
        (AnswerForm(), "She sold 48 / 2 = 24 clips in May.", "72", 0),
        (AnswerForm(), "Step by step: it rains, so (A) is out. So the answer is (B).", "(B)", -1),
        (AnswerForm(), "Rome", None, -1),
        (AnswerForm(), "Rome", "a long reference that only a metric can be compared with", -1),
        (AnswerForm(schema={"type": "object"}), '{"b": 1.0, "a": 2}', '{"a": 2, "b": 1}', 1),
        (AnswerForm(schema={"type": "object"}), "no JSON", '{"a": 2, "b": 1}', 0),
        (AnswerForm(choices=("A", "B")), "B", "(b)", 1),
        (AnswerForm(choices=("A", "B")), "B", "C", -1),
        (AnswerForm(choices=("none of the above seven things", "b")), "b", "None of the above seven things", 0),
    ],
)
def test_a_completion_is_compared_with_its_reference_where_words_can_tell(
    form: AnswerForm, text: str, reference: str | None, expected: int
) -> None:
    assert agreement(sample("Which?", text, reference=reference), form) == expected


def test_explain_tells_a_row_s_story(tmp_path: Path) -> None:
    kept, repeated = sample("Name a tree.", "An oak."), sample("Name a TREE.", "an oak.", sample=1)
    cut = sample("Name a bird.", "A ro", finish_reason="length")
    run = make_run(tmp_path, [kept, repeated, cut])
    filtered(run, validation=0.0)
    (story,) = explain(run, repeated.id)
    assert (story.where, story.rule) == ("rejected", "duplicate")
    assert story.would_keep == ["filter.duplicates = false", 'filter.near_duplicates.scope = "off"']
    assert story.kept_by == kept and story.sample == repeated
    assert story.passed == ["integrity", "schema", "contamination", "personal_data"]
    (story,) = explain(run, kept.id)
    assert story.where == "train" and [row["id"] for row in story.instead_of] == [repeated.id]
    assert story.passed[3:5] == ["personal_data", "duplicates"] and story.rule is None
    assert explain(run, cut.id)[0].passed == []
    assert [story.sample.id for story in explain(run, kept.prompt_id)] == [kept.id], "a prompt's rows by the prompt's id"
    with pytest.raises(UsageError, match="no sample and no prompt has the id"):
        explain(run, "none")


def test_a_changed_step_is_named_by_its_dotted_name(tmp_path: Path) -> None:
    class Notes(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    notes: list[str] = []
    run = make_run(tmp_path, notices(3))
    filtered(run)
    filter_samples(run, resolve({"filter": {"near_duplicates": {"similarity": 0.9}, "workers": 1}}), Notes())
    assert notes == ["filter.near_duplicates.similarity: 0.8 -> 0.9"]
