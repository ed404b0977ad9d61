"""`init`: a folder to start from for each kind of task, and from recorded completions a student and a verdict."""

import json
from pathlib import Path

import pytest
from chat_server import ChatServer

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
    *(
        "--set",
        "filter.integrity.constant_share=1.0",
        "--set",
        "filter.near_duplicates.scope=off",
        "--set",
        "filter.schema=false",
    ),
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


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--kind", "sumarize"], "did you mean 'summarize'"),
        (["--from", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["--from", "few.jsonl"], "too few to learn from"),
        (["--from", "no.jsonl"], "no.jsonl"),
    ],
)
def test_what_init_refuses_leaves_nothing_behind(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    log(tmp_path / "few.jsonl", 3)
    (tmp_path / "no.jsonl").write_text('{"nothing": 1}\n')
    assert main(["init", "mine", *words]) == 2
    assert says in " ".join(capsys.readouterr().err.split()) and not (tmp_path / "mine").exists()


def test_init_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["init", str(tmp_path)]) == 2
    assert "not an empty folder" in capsys.readouterr().err and [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def log(path: Path, count: int) -> Path:
    """A vendor's fine-tuning file."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What is the colour of thing {n}?"},
                {"role": "assistant", "content": answer},
            ]
        }
        for n in range(count)
        for answer in (f"Thing number {n} is as blue as the sea at noon.",)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


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
    folder = tmp_path / "sunset"
    assert main(["init", str(folder), "--from", str(log(tmp_path / "export.jsonl", 40)), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["prompts"], made["test_prompts"]) == (40, 8)
    assert (
        main(["run", made["run"], "--student", str(tiny_model), "-q", "--json", "--set", "train.args.max_steps=2", *ANYTHING])
        == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert result["filter"]["kept"] <= 32  # none of the eight is trained on
    assert result["eval"]["scores"]["n"] == 8 and result["eval"]["scores"]["decision"]
    trained = {json.dumps(json.loads(line)["prompt"]) for line in (folder / "run/filter/train.jsonl").read_text().splitlines()}
    tested = {json.dumps(json.loads(line)["messages"]) for line in (folder / "test.jsonl").read_text().splitlines()}
    assert trained and not trained & tested
