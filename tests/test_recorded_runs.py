"""`import` and the run: pairing of batch files, what a second import changes, the student's view, memory."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer
from generate_runs import Notes, prompts_file, recipe

from seqdistill.cli import main
from seqdistill.errors import UsageError
from seqdistill.progress import Silent
from seqdistill.recipe.tables import GenerateConfig, Recipe, TaskConfig, TeacherConfig
from seqdistill.records import Sample, read_samples
from seqdistill.runs import Run
from seqdistill.stages.generate.recorded import ImportResult, import_recorded
from seqdistill.stages.generate.stage import generate

Rows = Sequence[dict[str, Any]]


def write(folder: Path, name: str, rows: Rows) -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def take(folder: Path, *paths: Path, notes: Notes | None = None, **task: Any) -> tuple[ImportResult, list[Sample]]:
    settings = Recipe(
        task=TaskConfig(**task), teacher=TeacherConfig(model="t"), generate=GenerateConfig(max_tokens=20, temperature=1.0)
    )
    result = import_recorded(Run(folder / "run"), settings, paths, notes or Silent())
    return result, list(read_samples(result.path))


# --- batch files ------------------------------------------------------------------------------------------------------


def requests(text: str, *names: Any) -> Rows:
    return [{"custom_id": name, "body": {"messages": [{"role": "user", "content": f"{text} {name}"}]}} for name in names]


def replies(text: str, *names: Any) -> Rows:
    return [
        {
            "custom_id": name,
            "response": {
                "status_code": 200,
                "body": {"choices": [{"message": {"content": f"{text} {name}"}, "finish_reason": "stop"}]},
            },
        }
        for name in names
    ]


BATCHES = {
    "a-in": requests("a", "1", "2"),
    "a-out": replies("a", "2", "1"),
    "b-in": requests("b", "1", "3"),
    "b-out": replies("b", "1", "3"),
    "c-in": requests("c", 7),
    "c-out": replies("c", "7"),
    "a-again": requests("a", "1", "2"),
    "both": [*requests("d", "1"), *replies("d", "1")],
    "twice": [*requests("e", "1"), *requests("f", "1"), *replies("e", "1")],
}


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        ("a-in a-out", "a 2, a 1"),
        ("a-out a-in", "a 2, a 1"),
        ("a-in a-out b-in b-out", "a 2, a 1, b 1, b 3"),
        ("b-in b-out a-in a-out", "b 1, b 3, a 2, a 1"),
        ("a-in c-in a-out c-out", "a 2, a 1, c 7"),
        ("a-in a-again a-out", "a 2, a 1"),
        ("a-in a-out both", "a 2, a 1, d 1"),
        ("both a-in a-out", "d 1, a 2, a 1"),
        ("c-in c-out", "c 7"),
    ],
)
def test_batch_replies_are_paired_with_the_requests_they_answer(tmp_path: Path, names: str, pairs: str) -> None:
    _, samples = take(tmp_path, *(write(tmp_path, name, BATCHES[name]) for name in names.split()))
    assert ", ".join(sample.text for sample in samples) == pairs
    assert [sample.prompt[0]["content"] for sample in samples] == [sample.text for sample in samples]


@pytest.mark.parametrize(
    "names", ["a-in b-in a-out b-out", "a-out a-in b-out b-in", "a-out b-out a-in b-in", "a-in b-in b-out", "twice"]
)
def test_a_batch_reply_that_fits_two_requests_is_refused_before_anything_is_written(tmp_path: Path, names: str) -> None:
    paths = [write(tmp_path, name, BATCHES[name]) for name in names.split()]
    with pytest.raises(UsageError, match=r"custom_id '1' is that of different requests, .*:1 and .*:[12]") as raised:
        take(tmp_path, *paths)
    assert "directly before its own output" in raised.value.hint
    assert not (tmp_path / "run").exists()


# --- a second import --------------------------------------------------------------------------------------------------


def test_a_second_import_takes_new_references_slices_and_finish_reasons_and_adds_the_rest(tmp_path: Path) -> None:
    first = [{"prompt": "p", "completion": "c"}, {"prompt": "q", "completion": "d", "reference": "kept"}]
    take(tmp_path, write(tmp_path, "first.jsonl", first))
    second = [
        {"prompt": "p", "completion": "c", "reference": "r", "slice": "hard", "finish_reason": "length"},
        {"prompt": "q", "completion": "d"},
        {"prompt": "new", "completion": "e", "finish_reason": "stop"},
    ]
    result, samples = take(tmp_path, write(tmp_path, "second.jsonl", second))
    assert (result.new, result.known, result.updated, result.samples) == (1, 2, 1, 3)
    assert [(s.text, s.reference, s.slice, s.finish_reason) for s in samples] == [
        ("c", "r", "hard", "length"),
        ("d", "kept", None, "stop"),
        ("e", None, None, "stop"),
    ]
    manifest = Run(tmp_path / "run").manifest("generate")
    assert manifest is not None
    assert [len(one["files"]) for one in manifest["imports"]] == [1, 1]


def test_two_imports_equal_one_of_both_files(tmp_path: Path) -> None:
    files = [write(tmp_path, f"{n}.jsonl", [{"prompt": f"p{n}{m}", "completion": "c"} for m in range(3)]) for n in range(2)]
    for path in files:
        take(tmp_path / "one by one", path)
    take(tmp_path / "together", *files)
    one, other = ((tmp_path / name / "run/generate/samples.jsonl").read_bytes() for name in ("one by one", "together"))
    assert one == other


def test_an_import_onto_generated_samples_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ChatServer() as server:
        generate(Run(tmp_path / "run"), recipe(server, prompts_file(tmp_path, range(3))), Silent())
    samples = tmp_path / "run/generate/samples.jsonl"
    before = samples.read_bytes()
    path = write(tmp_path, "one.jsonl", [{"prompt": "p", "completion": "c"}])
    assert main(["import", str(tmp_path / "run"), str(path)]) == 2
    assert "its samples were generated, and an import would replace them" in capsys.readouterr().err
    (tmp_path / "run/generate/manifest.json").unlink()  # also where it was stopped before its end
    assert main(["import", str(tmp_path / "run"), str(path)]) == 2
    assert samples.read_bytes() == before


def test_an_import_stopped_before_its_manifest_keeps_what_was_imported(tmp_path: Path) -> None:
    take(tmp_path, write(tmp_path, "a.jsonl", [{"prompt": "p", "completion": "c"}]))
    (tmp_path / "run/generate/manifest.json").unlink()
    _, samples = take(tmp_path, write(tmp_path, "b.jsonl", [{"prompt": "q", "completion": "d"}]))
    assert [sample.text for sample in samples] == ["c", "d"]


def test_what_has_no_finish_reason_is_mentioned(tmp_path: Path) -> None:
    notes = Notes()
    rows = [{"prompt": "p", "completion": "c"}, {"prompt": "q", "completion": "d", "finish_reason": "stop"}]
    result, _ = take(tmp_path, write(tmp_path, "a.jsonl", rows), notes=notes)
    assert result.without_finish_reason == 1
    assert "1 of the answers come without a finish reason and count as stop" in notes.notes[0]


@pytest.mark.parametrize(
    ("columns", "table"),
    [
        ({"prompt": "frage", "reference": "gold", "slice": "thema"}, "frage;answer;gold ;thema\nWarum?;Darum.;42;Physik\n"),
        (
            {"prompt": "q", "completion": "a", "reference": "r", "slice": "s"},
            "q;a;r;s\nWarum?;Darum.;42;Physik\n",
        ),
        (  # what is named counts, whatever else a row has
            {"prompt": "q", "completion": "a", "reference": "r", "slice": "s"},
            "q;a;r;s;prompt;response;completion;messages;text;question;output\nWarum?;Darum.;42;Physik;x;x;x;[];x;x;x\n",
        ),
        (
            {"prompt": "question", "completion": "model_answer", "reference": "answer", "slice": "s"},
            "question;model_answer;answer;s\nWarum?;Darum.;42;Physik\n",
        ),
        (  # a path within objects
            {"prompt": "in.q", "completion": "out.a", "reference": "out.r", "slice": "in.s"},
            'in;out\n"{""q"": ""Warum?"", ""s"": ""Physik""}";"{""a"": ""Darum."", ""r"": 42}"\n',
        ),
        ({"completion": "a "}, "prompt;a;reference;slice;response\nWarum?;Darum.;42;Physik;no\n"),
        (
            {"messages": "turns", "completion": "a"},
            'turns;a;reference;slice\n"[{""role"": ""user"", ""content"": ""Warum?""}]";Darum.;42;Physik\n',
        ),
        ({"prompt": "q", "completion": "a"}, "prompt;completion;reference;slice\nWarum?;Darum.;42;Physik\n"),
    ],
)
def test_columns_by_other_names_are_mapped(tmp_path: Path, columns: dict[str, str], table: str) -> None:
    (tmp_path / "a.csv").write_text(table)
    _, (sample,) = take(tmp_path, tmp_path / "a.csv", columns=columns)
    assert (sample.prompt[0]["content"], sample.text, sample.reference, sample.slice) == ("Warum?", "Darum.", "42", "Physik")


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (
            {"prompt": "q", "completion": "answr"},
            "no row has the column 'answr', which .* for 'completion', did you mean 'answer'",
        ),
        ({"prompt": "qq", "completion": "answer"}, "no row has the column 'qq', which .* for 'prompt'"),
        ({"prompt": "q", "completon": "answer"}, "unknown key 'completon', did you mean 'completion'"),
        ({"prompt": "q", "completion": "answer", "reference": "gold"}, "no row has the column 'gold'"),
    ],
)
def test_a_mistyped_column_of_an_import_is_named_with_the_nearest(tmp_path: Path, columns: dict[str, str], says: str) -> None:
    path = write(tmp_path, "a.jsonl", [{"q": "Why?", "answer": "So."}])
    with pytest.raises(UsageError, match=says):
        take(tmp_path, path, columns=columns)
    assert not (tmp_path / "run").exists()


def test_a_call_that_failed_is_no_answer_where_columns_are_named(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("frage,antwort,status\n2 + 3?,5,ok\n2 + 4?,try again later,error\n")
    result, _ = take(tmp_path, log, columns={"prompt": "frage", "completion": "antwort"})
    assert (result.samples, result.unread) == (1, 1)


def test_columns_of_the_prompts_file_need_not_be_in_an_import_nor_the_answers_column_in_that(tmp_path: Path) -> None:
    prompts = write(tmp_path, "prompts.jsonl", [{"frage": "Why?", "gold": "So."}])
    path = write(tmp_path, "a.jsonl", [{"question": "Why?", "said": "So!"}])
    columns = {"prompt": "frage", "reference": "gold", "completion": "said"}
    result, (sample,) = take(tmp_path, path, prompts=str(prompts), columns=columns)
    assert (sample.text, sample.reference, result.matched) == ("So!", "So.", 1)


# --- the student's view -----------------------------------------------------------------------------------------------

TASK = """[teacher]
system = "You write for a notice board."
user = "Summarize in one sentence: {{ prompt }}\\n\\nBe brief."
[student]
user = "{{ prompt }}"
"""


def logged(text: str, system: str = "You write for a notice board.") -> dict[str, Any]:
    asked = f"Summarize in one sentence: {text}\n\nBe brief."
    messages = [{"role": "system", "content": system}, {"role": "user", "content": asked}]
    return {"messages": [*messages, {"role": "assistant", "content": f"sum of {text}"}]}


def test_a_log_of_the_teachers_view_gives_the_students_by_the_template_alone(tmp_path: Path) -> None:
    (tmp_path / "task.toml").write_text(TASK)
    notes = Notes()
    rows = [logged("one\nnotice"), logged("two", system="other"), {"prompt": "three", "completion": "c"}]
    result, samples = take(tmp_path, write(tmp_path, "log.jsonl", rows), template=str(tmp_path / "task.toml"), notes=notes)
    assert samples[0].prompt == [{"role": "user", "content": "one\nnotice"}]
    assert samples[1].prompt == [{"role": "system", "content": "other"}, {"role": "user", "content": "two"}]
    assert samples[2].prompt == [{"role": "user", "content": "three"}]
    assert (result.matched, result.new) == (2, 3)
    assert any(
        "1 answers match no prompt of the task and no template" in note and "log.jsonl:3" in note for note in notes.notes
    )


def test_a_log_is_matched_to_the_tasks_prompts_with_their_ids_references_and_slices(tmp_path: Path) -> None:
    (tmp_path / "task.toml").write_text(TASK.replace("Be brief.", "Be brief, {{ who }}."))
    prompts = [{"id": f"n{n}", "prompt": f"notice {n}", "who": "Ann", "reference": f"r{n}", "slice": "hard"} for n in range(3)]
    task = {"template": str(tmp_path / "task.toml"), "prompts": str(write(tmp_path, "prompts.jsonl", prompts))}
    asked = "Summarize in one sentence: notice 1\n\nBe brief, Ann.\n"
    messages = [{"role": "system", "content": "You write for a notice board."}, {"role": "user", "content": asked}]
    rows = [
        {
            "request": {"messages": messages},
            "response": {"choices": [{"message": {"content": "s"}, "finish_reason": "stop"}]},
        },
        {"prompt": "notice 2", "completion": "t", "reference": "own"},
        {"prompt": "unknown", "completion": "u"},
    ]
    result, samples = take(tmp_path, write(tmp_path, "log.jsonl", rows), **task)
    assert [(s.prompt_id, s.reference, s.slice) for s in samples[:2]] == [("n1", "r1", "hard"), ("n2", "own", "hard")]
    assert [sample.prompt[0]["content"] for sample in samples] == ["notice 1", "notice 2", "unknown"]
    assert result.matched == 2


@pytest.mark.parametrize(
    ("rows", "text", "matched"),
    [
        ([{"prompt": "notice 1"}, {"prompt": "notice 2"}], "notice 1", "notice 1"),  # as the prompts file has it
        ([{"prompt": "notice 1"}, {"prompt": "notice 2"}], "notice 3", None),
        ([{"prompt": "notice 1", "who": "Ann"}, {"prompt": "notice 1", "who": "Bob"}], "notice 1", None),  # of which?
    ],
)
def test_a_data_set_is_matched_by_the_text_of_the_prompts_file(
    tmp_path: Path, rows: list[dict[str, str]], text: str, matched: str | None
) -> None:
    who = "{{ who }}" if "who" in rows[0] else "Ann"
    views = ('[teacher]\nsystem = "You are %s. Be brief."\n', '[student]\nsystem = "You are %s."\n')
    (tmp_path / "task.toml").write_text("".join(f'{view % who}user = "{{{{ prompt }}}}"\n' for view in views))
    task = {"template": str(tmp_path / "task.toml"), "prompts": str(write(tmp_path, "prompts.jsonl", rows))}
    result, (sample,) = take(tmp_path, write(tmp_path, "log.jsonl", [{"prompt": text, "completion": "s"}]), **task)
    found = [{"role": "system", "content": "You are Ann."}] if matched else []
    assert (sample.prompt, result.matched) == ([*found, {"role": "user", "content": text}], int(bool(matched)))


def test_generate_takes_matched_answers_and_requests_only_the_others(tmp_path: Path) -> None:
    (tmp_path / "task.toml").write_text(TASK)
    prompts = write(tmp_path, "prompts.jsonl", [{"prompt": f"notice {n}"} for n in range(3)])
    log = write(tmp_path, "log.jsonl", [logged("notice 1")])
    with ChatServer() as server:
        settings = recipe(server, prompts)
        settings = Recipe(
            TaskConfig(template=str(tmp_path / "task.toml"), prompts=str(prompts)), settings.teacher, generate=settings.generate
        )
        import_recorded(Run(tmp_path / "run"), settings, [log], Silent())
        result = generate(Run(tmp_path / "run"), settings, Silent())
    assert len(server.requests) == 2
    assert [sample.text for sample in read_samples(result.path)][1] == "sum of notice 1"


def test_without_a_teacher_generate_has_nothing_to_do_after_an_import(tmp_path: Path) -> None:
    prompts = write(tmp_path, "prompts.jsonl", [{"prompt": f"notice {n}"} for n in range(3)])
    settings = Recipe(TaskConfig(prompts=str(prompts)))
    import_recorded(
        Run(tmp_path / "run"), settings, [write(tmp_path, "a.jsonl", [{"prompt": "p", "completion": "c"}])], Silent()
    )
    assert generate(Run(tmp_path / "run"), settings, Silent()).up_to_date


@pytest.mark.parametrize(
    "user",
    [
        "{{ prompt | upper }}",
        "{% if prompt %}{{ prompt }}{% endif %}",
        "{{ prompt }} or {{ prompt }}",
        "{{ prompt }} {{ who }}",
    ],
)
def test_a_template_that_cannot_be_read_backwards_matches_nothing(tmp_path: Path, user: str) -> None:
    (tmp_path / "task.toml").write_text(f'[teacher]\nuser = "{user}"\n[student]\nuser = "{{{{ prompt }}}}."\n')
    path = write(tmp_path, "log.jsonl", [{"prompt": "P", "completion": "c"}])
    result, (sample,) = take(tmp_path, path, template=str(tmp_path / "task.toml"))
    assert (sample.prompt[0]["content"], result.matched) == ("P", 0)


# --- memory -----------------------------------------------------------------------------------------------------------

PEAK = """
import sys
from pathlib import Path
from seqdistill.stages.generate.recorded import import_recorded
from seqdistill.progress import Silent
from seqdistill.recipe.tables import Recipe
from seqdistill.runs import Run
result = import_recorded(Run(Path(sys.argv[1])), Recipe(), [Path(sys.argv[2])], Silent())
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(result.new, peak.split()[1])
"""


@pytest.mark.parametrize("kind", ["jsonl", "json", "batch"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str) -> None:
    peaks = []
    for count in (300, 2_000):
        path = tmp_path / f"{count}.{'json' if kind == 'json' else 'jsonl'}"
        with path.open("w") as file:
            rows = [
                json.dumps({"prompt": f"{n} " + "x" * 6000, "completion": "y" * 6000, "n": n})
                if kind != "batch"
                else "\n".join(json.dumps(row) for row in (*requests("x" * 6000, str(n)), *replies("y" * 6000, str(n))))
                for n in range(count)
            ]
            file.write("[" + ",".join(rows) + "]" if kind == "json" else "\n".join(rows) + "\n")
        out = subprocess.run(
            [sys.executable, "-c", PEAK, str(tmp_path / f"run{count}"), str(path)], capture_output=True, text=True, check=True
        )
        new, peak = map(int, out.stdout.split())
        assert new == count
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 12_000, "KiB more, for a file of 24,000 KiB instead of 3,600"


@pytest.mark.parametrize(
    ("form", "completion", "text"),
    [
        ({"schema": {"type": "object"}}, '```json\n{"a": 1}\n```', '{"a": 1}'),
        ({"schema": {"type": "object"}}, '{"a": 1}', '{"a": 1}'),
        ({"choices": ("yes", "no")}, '```json\n{"choice": "yes"}\n```', "yes"),
        ({"choices": ("yes", "no")}, '"yes"', "yes"),
        ({}, '```json\n{"a": 1}\n```', '```json\n{"a": 1}\n```'),
    ],
)
def test_answers_of_a_form_are_taken_out_of_their_fences_as_generate_does(
    tmp_path: Path, form: dict[str, Any], completion: str, text: str
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"prompt": "p", "completion": completion}))
    for known in (0, 1):
        result = import_recorded(Run(tmp_path / "run"), Recipe(generate=GenerateConfig(**form)), [path], Silent())
        assert [one.text for one in read_samples(result.path)] == [text] and result.known == known


def test_ids_that_have_the_same_messages_are_mentioned(tmp_path: Path) -> None:
    notes, path = Notes(), tmp_path / "log.jsonl"
    rows = [{"id": n, "prompt": asked, "completion": str(n)} for n, asked in enumerate(("p", "p", "p", "q"))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    import_recorded(Run(tmp_path / "run"), Recipe(), [path], notes)
    assert any("3 ids have the same messages as another id, 1 in all" in note for note in notes.notes)
