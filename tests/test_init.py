"""`init`: a folder to start from for each kind of task, and from recorded completions a student and a verdict."""

import contextlib
import errno
import itertools
import json
import os
import shlex
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer

from seqdistill import api
from seqdistill.cli import main
from seqdistill.init import FILES, KINDS
from seqdistill.recipe.reading import read_recipe
from seqdistill.runs import STAGES, Run
from seqdistill.tasks.prompt_files import load_prompts
from seqdistill.tasks.templates import load_template, prompts_folder

TINY = "train.args.per_device_train_batch_size=2"
ANYTHING = [  # a tiny model's answers would all be rejected
    *("--set", "filter.integrity.finish_reasons=[]", "--set", "filter.integrity.markup=false"),
    *("--set", "filter.integrity.max_repetition=1.0", "--set", "filter.integrity.script_share=0.0"),
    *("--set", "filter.integrity.constant_share=1.0", "--set", "filter.near_duplicates.scope=off"),
    *("--set", "filter.schema=false", "--set", "filter.duplicates=false"),
    *("--set", "filter.score.by=none", "--set", "generate.max_tokens=6", "--set", TINY),
    *("--set", "train.unfit=drop", "--set", "eval.latency_requests=0", "--set", "eval.resamples=100"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_a_recipe_with_ten_prompts_and_a_test_set(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    assert main(["init", str(folder), "--kind", kind]) == 0
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "README.md"])
    assert str(folder) in (folder / "README.md").read_text()
    template = load_template(str(folder / "task.toml"))
    prompts, test = (load_prompts(str(folder / f"{name}.jsonl"), template) for name in ("prompts", "test"))
    assert len(prompts) == 10 and len(test) >= 6
    assert not {prompt.id for prompt in prompts} & {prompt.id for prompt in test}
    read_recipe(folder / "recipe.toml")


@pytest.mark.parametrize("kind", KINDS)
def test_a_kinds_recipe_goes_through_all_four_stages(kind: str, tmp_path: Path, tiny_model: Path) -> None:
    run = tmp_path / "run"
    with ChatServer(model=None) as server:
        start = ["run", str(run), "-c", str(prompts_folder() / kind / "recipe.toml"), "-q", *ANYTHING]
        assert main([*start, "--teacher-base-url", server.url, "--student", str(tiny_model), "--smoke", "4"]) == 0
    assert all(Run(run).manifest(stage) for stage in STAGES)


def test_the_rows_of_a_kind_are_counted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["init", str(tmp_path / "mine"), "--kind", "classify", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["prompts"], made["test_prompts"], made["run"]) == (10, 8, None)


@pytest.mark.parametrize("kind", KINDS)
def test_the_commands_of_the_page_are_taken_with_the_recipe_beside_it(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    assert main(["init", "mine", "--kind", kind]) == 0
    page = Path("mine/README.md").read_text().splitlines()
    commands = [shlex.split(line)[1:] for line in page if line.startswith("seqdistill run ")]
    assert len(commands) == 2 and "--budget" in commands[1]
    with ChatServer(model=None) as server:
        for command in commands:
            more = ["--until", "generate", "--teacher-base-url", server.url, "--student", str(tiny_model), "-q"]
            more += ["--set", "filter.schema=false"]  # this server knows no form
            assert main([*command, *more]) == 0
    assert (Run(Path("runs/mine")).manifest("generate") or {})["spent_usd"] > 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--kind", "sumarize"], "did you mean 'summarize'"),
        (["--from", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["--from", "few.jsonl"], "too few to learn from"),
        (["--from", "no.jsonl"], "no.jsonl"),
        (["--from", "few.jsonl", "--kind", "extract"], "--kind extract with --from"),
        (["--from", "fragen.csv"], "columns of other names: --column prompt=COLUMN"),
        (["--from", "fragen.csv", "--column", "promt=Frage"], "unknown key 'promt', did you mean 'prompt'"),
        (["--from", "fragen.csv", "--column", "Frage"], "--column Frage: no ="),
        (["--column", "prompt=Frage"], "--column without --from"),
    ],
)
def test_what_init_refuses_leaves_nothing_behind(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few.jsonl").write_text(fine_tuning(range(3))["tuned.jsonl"])
    (tmp_path / "no.jsonl").write_text('{"nothing": 1}\n')
    (tmp_path / "fragen.csv").write_text("Frage;answer\nWarum?;Darum.\n")
    assert main(["init", "mine", *words]) == 2
    assert says in " ".join(capsys.readouterr().err.split()) and not (tmp_path / "mine").exists()


def test_commands_of_a_folder_with_spaces_can_be_pasted(tmp_path: Path) -> None:
    folder, log = tmp_path / "it's mine", tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps({"prompt": f"Number {n}", "completion": f"It is {n}"}) + "\n" for n in range(20)))
    recipe = str(folder / "recipe.toml")
    assert shlex.split(api.init(folder).next) == ["seqdistill", "run", "runs/smoke", "-c", recipe, "--smoke", "8"]
    page = [shlex.split(line) for line in (folder / "README.md").read_text().splitlines() if line.startswith("seqdistill ")]
    assert ["seqdistill", "doctor", "-c", recipe] in page and page[2][2] == "runs/it's mine"
    recorded = api.init(tmp_path / "from a log", recorded=[log])
    assert shlex.split(recorded.next) == ["seqdistill", "run", str(tmp_path / "from a log" / "run")]
    assert shlex.split(str(api.status(tmp_path / "from a log" / "run").next)) == shlex.split(recorded.next)


def test_columns_of_recorded_completions_are_named_and_kept_in_the_recipe(tmp_path: Path) -> None:
    rows = "".join(f"Zahl {n}?;Das ist {n}.\n" for n in range(20))
    (tmp_path / "log.csv").write_text(f'Frage;"Antwort ""kurz"""\n{rows}')
    words = ["prompt=Frage", 'completion=Antwort "kurz"']
    result = api.init(tmp_path / "mine", recorded=[tmp_path / "log.csv"], columns=words)
    assert (result.prompts, result.test_prompts) == (20, 4)
    recipe = read_recipe(tmp_path / "mine" / "recipe.toml")
    assert recipe["task"]["columns"] == {"prompt": "Frage", "completion": 'Antwort "kurz"'}


@contextlib.contextmanager
def failing_at(file: int, error: BaseException) -> Iterator[None]:
    """Within the block the N-th file that is copied, flushed to the disk or put in place raises an error."""
    calls = itertools.count(1)

    def failing(act: Any) -> Any:
        def fails(*of: Any) -> Any:
            if next(calls) == file:
                raise error
            return act(*of)

        return fails

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((os, "replace"), (os, "fsync"), (Path, "rename"), (shutil, "copyfile")):
            patch.setattr(owner, name, failing(getattr(owner, name)))
        yield


def test_init_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["init", str(tmp_path)]) == 2
    assert "not an empty folder" in capsys.readouterr().err and [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_that_was_there_and_empty_is_there_and_empty_after_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "no.jsonl").write_text('{"nothing": 1}\n')
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    assert main(["init", ".", "--from", "../no.jsonl"]) == 2
    assert main(["init", ".", "--from", ".."]) == 2
    assert "a folder" in capsys.readouterr().err and list((tmp_path / "mine").iterdir()) == []


@pytest.mark.parametrize("words", [["--kind", "extract"], ["--from", "log.jsonl"]], ids=["kind", "from"])
@pytest.mark.parametrize(
    ("folder", "error"),
    [("new", KeyboardInterrupt()), ("new/er", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))), (".", KeyboardInterrupt())],
)
def test_init_that_fails_at_any_file_leaves_the_folder_as_it_was_and_can_be_run_again(
    words: list[str], folder: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log.jsonl").write_text(fine_tuning(range(12))["tuned.jsonl"])
    words = [str(tmp_path / word) if word.endswith(".jsonl") else word for word in words]
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    place = Path(folder) if folder == "." else tmp_path / folder
    before = place.is_dir()
    for file in itertools.count(1, 1 if "--kind" in words else 3):  # the others take longer
        with failing_at(file, error):
            code = main(["init", str(place), *words])
        if code == 0:
            break
        assert code == (130 if isinstance(error, KeyboardInterrupt) else 1)
        assert (list(place.iterdir()) == []) if before else not place.exists()
    names = {path.name for path in place.iterdir()}
    assert file > 4 and names == (
        {*FILES, "README.md"} if "--kind" in words else {"recipe.toml", "test.jsonl", "README.md", "run"}
    )
    assert not [*tmp_path.rglob("*.tmp")]
    if "--from" in words:
        assert api.status(place / "run").stages[0].state == "done" and api.verify(place / "run").whole


# --- recorded completions, in the files that a vendor and its tools write ------------------------------------------------

SYSTEM = {"role": "system", "content": "You name colours. Answer in one sentence."}


def question(n: int) -> dict[str, str]:
    return {"role": "user", "content": f"What is the colour of thing {n}?"}


def answer(n: int) -> str:
    return f"Thing number {n} is as blue as the sea at noon."


def fine_tuning(numbers: Sequence[int]) -> dict[str, str]:
    """The file that a fine-tuning was started with."""
    replies = {n: {"role": "assistant", "content": answer(n), "weight": 1} for n in numbers}
    return {"tuned.jsonl": lines({"messages": [SYSTEM, question(n), reply]} for n, reply in replies.items())}


def stored_completions(numbers: Sequence[int]) -> dict[str, str]:
    """GET /v1/chat/completions, a page of them, and GET /v1/chat/completions/ID/messages for each, one after the other."""

    def completion(n: int) -> dict[str, Any]:
        message = {"role": "assistant", "content": answer(n), "tool_calls": None, "function_call": None}
        usage = {"prompt_tokens": 31, "completion_tokens": 12, "total_tokens": 43}
        facts = {"id": f"chatcmpl-{n:04}", "object": "chat.completion", "created": 1738960610, "model": "gpt-4o-2024-08-06"}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return {**facts, "choices": [choice], "usage": usage, "metadata": {"task": "colours"}, "tools": None}

    def messages(n: int) -> list[dict[str, Any]]:
        beside = {"name": None, "content_parts": None}
        return [{"id": f"chatcmpl-{n:04}-{at}", **one, **beside} for at, one in enumerate((SYSTEM, question(n)))]

    def page(rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {"object": "list", "data": rows, "first_id": rows[0]["id"], "last_id": rows[-1]["id"], "has_more": False}

    whole = json.dumps(page([completion(n) for n in numbers]), indent=2)
    return {"completions.json": whole, "messages.jsonl": lines(page(messages(n)) for n in numbers)}


def promptfoo(numbers: Sequence[int]) -> dict[str, str]:
    """`promptfoo eval --output results.json`; one of the calls failed."""

    def result(n: int) -> dict[str, Any]:
        raw = json.dumps([SYSTEM, question(n)], indent=2)
        case = {"vars": {"n": n}, "assert": [{"type": "equals", "value": answer(n)}], "options": {}, "metadata": {}}
        usage = {"total": 43, "prompt": 31, "completion": 12}
        response = {"output": answer(n), "tokenUsage": usage, "cached": False, "cost": 0.0001, "finishReason": "stop"}
        graded = {"pass": True, "score": 1, "reason": "All assertions passed", "componentResults": []}
        facts = {"promptIdx": 0, "testIdx": n, "success": True, "score": 1, "latencyMs": 523, "gradingResult": graded}
        prompt, provider = {"raw": raw, "label": "chat.json"}, {"id": "openai:chat:gpt-4o", "label": ""}
        return {**facts, "prompt": prompt, "provider": provider, "vars": {"n": n}, "response": response, "testCase": case}

    failed = {**result(999), "response": {}, "success": False, "error": "API error: 429 Too Many Requests"}
    results = {"version": 3, "prompts": [{"raw": "x", "label": "chat.json"}], "results": [*map(result, numbers), failed]}
    document = {"evalId": "eval-abc", "results": results, "config": {"tests": [{"vars": {"n": 1}}]}, "shareableUrl": None}
    return {"results.json": json.dumps(document, indent=2)}


KITS = {"a fine-tuning file": fine_tuning, "stored completions": stored_completions, "a Promptfoo export": promptfoo}


def lines(rows: Iterable[object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def init_from(folder: Path, *kits: dict[str, str]) -> int:
    """`init --from` of several files at once, into the folder's `sunset`."""
    words = []
    for name, text in [file for kit in kits for file in kit.items()]:
        (folder / name).write_text(text)
        words += ["--from", str(folder / name)]
    return main(["init", str(folder / "sunset"), *words, "--json"])


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("kind", KITS)
def test_what_a_closing_vendor_leaves_gives_a_run_with_a_test_set(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init_from(tmp_path, KITS[kind](range(15))) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["prompts"], made["test_prompts"]) == (15, 3)
    samples = rows_of(tmp_path / "sunset/run/generate/samples.jsonl")
    assert {(json.dumps(row["prompt"]), row["completion"][0]["content"]) for row in samples} == {
        (json.dumps([SYSTEM, question(n)]), answer(n)) for n in range(15)
    }
    asked = [row["messages"] for row in rows_of(tmp_path / "sunset/test.jsonl")]
    assert len(asked) == 3 and all(messages in [row["prompt"] for row in samples] for messages in asked)


def test_files_of_several_kinds_that_hold_the_same_prompts_are_one_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init_from(tmp_path, *(kit(range(15)) for kit in KITS.values())) == 0
    made = capsys.readouterr()
    assert json.loads(made.out)["prompts"] == 15
    assert all(row.get("reference") for row in rows_of(tmp_path / "sunset/test.jsonl")), "one of the files knows it"
    assert "answers come from 3 models: recorded, openai:chat:gpt-4o, gpt-4o-2024-08-06" in made.err
    recipe = tmp_path / "sunset/recipe.toml"
    recipe.write_text(recipe.read_text().replace("# [train.teacher", "[train.teacher").replace('# "', '"'))
    assert read_recipe(recipe)["train"]["teacher_weights"]["openai:chat:gpt-4o"] == 0


def test_a_group_of_recorded_prompts_is_held_out_as_a_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"Page {n}?", "completion": f"It says {n}.", "group": f"book {n // 4}"} for n in range(80)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["init", str(tmp_path / "mine"), "--from", str(tmp_path / "log.jsonl")]) == 0
    groups = [json.loads(line)["group"] for line in (tmp_path / "mine/test.jsonl").read_text().splitlines()]
    assert len(groups) == 16 and all(groups.count(name) == 4 for name in groups)
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row | {"group": 1}) + "\n" for row in rows))
    assert main(["init", str(tmp_path / "other"), "--from", str(tmp_path / "log.jsonl")]) == 2
    assert "groups are not split" in " ".join(capsys.readouterr().err.split())


def test_recorded_completions_become_a_student_and_a_verdict_in_two_commands(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = {fine_tuning: range(20), stored_completions: range(20, 30), promptfoo: range(30, 40)}
    assert init_from(tmp_path, *(kit(numbers) for kit, numbers in parts.items())) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["prompts"], made["test_prompts"]) == (40, 8)
    steps = ["--set", "train.args.max_steps=2"]
    assert main(["run", made["run"], "--student", str(tiny_model), "-q", "--json", *steps, *ANYTHING]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["filter"]["kept"] <= 32  # none of the eight is trained on
    assert result["eval"]["scores"]["n"] == 8 and result["eval"]["scores"]["decision"]
    trained = {json.dumps(row["prompt"]) for row in rows_of(tmp_path / "sunset/run/filter/train.jsonl")}
    tested = {json.dumps(row["messages"]) for row in rows_of(tmp_path / "sunset/test.jsonl")}
    assert trained and not trained & tested
