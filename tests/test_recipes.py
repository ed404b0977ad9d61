"""Every shipped recipe by its name, on a tiny slice through all four stages: tiny models, and real servers for the endpoints.

Those that `init` copies are run in test_init.
"""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batch_server import BatchServer
from chat_server import Body, answer
from conftest import make_tiny_model
from test_init import ANYTHING, rows_of

from seqdistill.cli import main
from seqdistill.init import KINDS
from seqdistill.journal import batches
from seqdistill.records import Sample, read_samples
from seqdistill.runs import STAGES, Run
from seqdistill.tasks.templates import prompts_folder

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
SHIPPED = {file.parent.name for file in prompts_folder().glob("*/recipe.toml")}
DISSENTER = "gpt-4.1-mini"


def reply(body: Body) -> Body:
    """What the endpoint's models say: all the same, but for one of them."""
    return answer(
        {**body, "messages": [*body["messages"], {"role": "user", "content": "."}]} if body["model"] == DISSENTER else body
    )


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that is teacher and student: all its tokens but letters weigh nothing, so that its text is its tokens."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = make_tiny_model(tmp_path_factory.mktemp("models") / "writer")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    letters = set(tokenizer.convert_tokens_to_ids(list("abcdefghijklmnopqrstuvwxyz")))
    with torch.no_grad():
        model.get_input_embeddings().weight[[token for token in range(len(tokenizer)) if token not in letters]] = 0
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    """The endpoint of every hosted model, with its Batch API."""
    monkeypatch.setattr(batches, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-test")
    with BatchServer(model=None, reply=reply) as served:
        monkeypatch.setenv("OPENAI_BASE_URL", served.url)
        yield served


def through(run: Run, name: str, *flags: str, student: Path | str) -> list[Sample]:
    """Runs a shipped recipe on four prompts and four test prompts; returns what was trained on, validation included."""
    short = ["--limit", "4", "--student", str(student), "--set", "train.args.max_steps=1", "-q"]
    assert main(["run", str(run.path), "-c", name, *short, *ANYTHING, *flags]) == 0
    assert all(run.manifest(stage) for stage in STAGES)
    return [row for part in ("train", "validation") for row in read_samples(run.file("filter", f"{part}.jsonl"))]


def set_(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def test_a_long_teacher_prompt_is_learnt_behind_a_short_one(server: BatchServer, writer: Path, tmp_path: Path) -> None:
    rows = through(Run(tmp_path / "run"), "long-prompt", student=writer)
    sent = [body["messages"] for body in server.requests]
    assert all("Borderline cases:" in messages[0]["content"] for messages in sent)
    assert len(rows) == 4 and all([message["role"] for message in row.prompt] == ["user"] for row in rows)
    assert {row.prompt[0]["content"] for row in rows} <= {messages[-1]["content"] for messages in sent}


def test_of_several_teachers_the_answer_of_the_majority_is_learnt(server: BatchServer, writer: Path, tmp_path: Path) -> None:
    rows = through(Run(tmp_path / "run"), "several-teachers", *set_("filter.score.by=vote"), student=writer)
    samples = list(read_samples(tmp_path / "run/generate/samples.jsonl"))
    teachers = {row.teacher for row in samples}
    assert len(samples) == 12 and len(teachers) == 3 and DISSENTER in teachers
    assert len(rows) == 4 and DISSENTER not in {row.teacher for row in rows}


def test_a_chain_is_cut_in_steps_and_its_student_is_the_next_run_s_teacher(writer: Path, tmp_path: Path) -> None:
    first, second = Run(tmp_path / "first"), Run(tmp_path / "second")
    through(first, "chain", "--teacher", str(writer), *set_("train.steps=3,2"), student="shrink:2")
    assert len((first.manifest("train") or {})["steps"]) == 1
    rows = through(second, "notices", "--teacher", f"run:{first.path}", student="shrink:1")
    assert {row.teacher for row in rows} == {"first"}
    assert (second.manifest("train") or {})["student"]["layers"] == [0]


def test_self_distillation_is_one_model_with_and_without_the_instructions(writer: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    rows = through(run, "self-distillation", "--teacher", str(writer), student=writer)
    assert len(rows) == 4 and all("Rewritten:" not in row.prompt[-1]["content"] for row in rows)
    journal = (run.path / "generate/journal.jsonl").read_text()
    assert journal.count("Keep every fact and name.") >= 4
    generated, trained = run.manifest("generate") or {}, run.manifest("train") or {}
    assert generated["teacher"]["identity"] == trained["student"]["identity"]
    lm_eval_can_load(run, rows[0])


def lm_eval_can_load(run: Run, row: Sample) -> None:
    """The trained folder loads and scores as lm-eval's `hf` model does it: its calls, without lm-eval itself."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder = str(run.file("train", "model"))
    how: dict[str, Any] = {"revision": "main", "trust_remote_code": False}
    assert AutoConfig.from_pretrained(folder, **how).architectures == ["LlamaForCausalLM"]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", device_map={"": "cpu"}, **how)
    tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, **how)
    context = tokenizer.apply_chat_template(row.prompt, tokenize=False, add_generation_prompt=True)
    trained = tokenizer.apply_chat_template([*row.prompt, *row.completion], tokenize=False)
    assert trained.startswith(context + row.text) and tokenizer.pad_token_id is not None
    whole = tokenizer.encode(context + row.text, add_special_tokens=False)
    before = tokenizer.encode(context, add_special_tokens=False)
    assert whole[: len(before)] == before and len(whole) > len(before)
    with torch.no_grad():
        logprobs = model(torch.tensor([whole])).logits.log_softmax(-1)[0]
    assert all(logprobs[at - 1, whole[at]] < 0 for at in range(len(before), len(whole)))


def test_recorded_completions_are_a_teacher_without_a_request(
    server: BatchServer, writer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "run")
    log = str(prompts_folder() / "recorded" / "answers.jsonl")
    assert main(["import", str(run.path), log, "-c", "recorded", "--json", "-q"]) == 0
    taken = json.loads(capsys.readouterr().out)
    assert taken["matched"] == taken["samples"] == 18, "every answer has the student's view"
    rows = through(run, "recorded", student=writer)
    tested = {row["prompt"] for row in rows_of(prompts_folder() / "classify" / "test.jsonl")}
    assert rows and not tested & {row.prompt[-1]["content"] for row in rows}
    scores = json.loads(run.file("eval", "scores.json").read_text())
    assert scores["n"] == 4 and server.requests == []


def test_a_hosted_teacher_answers_through_its_batch_api_at_half_the_price(
    server: BatchServer, writer: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    rows = through(run, "hosted-batch", student=writer)
    tested = {row["prompt"] for row in rows_of(prompts_folder() / "summarize" / "test.jsonl")}
    assert (len(rows), len(server.batches)) == (4, 2), "under a budget the first batch holds one request"
    assert {body["messages"][-1]["content"] for body in server.requests} <= tested, "eval's own prompts, one at a time"
    price = {"prompt": 0.25, "completion": 2.0}
    billed = sum(
        one["prompt_tokens"] * price["prompt"] + one["completion_tokens"] * price["completion"] for one in server.usages[:4]
    )
    assert (run.manifest("generate") or {})["spent_usd"] == pytest.approx(billed / 1e6 / 2)


def test_what_people_edit_is_learnt_and_what_they_reject_is_not(server: BatchServer, writer: Path, tmp_path: Path) -> None:
    run, sheet = Run(tmp_path / "run"), tmp_path / "rows.csv"
    start = ["run", str(run.path), "-c", "human-review", "--limit", "4", "--student", str(writer), "-q", *ANYTHING]
    assert main([*start, "--until", "filter"]) == 0
    assert main(["review", str(run.path), "--export", str(sheet)]) == 0
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0]["decision"], rejected = "reject", rows[0]["id"]
    rows[1] |= {"decision": "edit", "completion": "The printer is broken. Could someone look at it?"}
    with sheet.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    assert main(["review", str(run.path), "--import", str(sheet), "--reviewer", "Ines"]) == 0
    sent = len(server.requests)
    trained = {row.id: row.text for row in through(run, "human-review", student=writer)}
    assert len(rows) == 8 and len(trained) == 7 and rejected not in trained
    assert trained[rows[1]["id"]] == rows[1]["completion"]
    assert len(server.requests) - sent == 8, "eval's requests alone: four prompts, teacher and ceiling"


def test_the_readme_names_every_shipped_recipe_and_each_is_run_by_a_test() -> None:
    table = README[README.index("### Ready-made recipes") :].split("\n### ")[0]
    named = {name for cell in re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE) for name in re.findall(r"`([a-z-]+)`", cell)}
    source = Path(__file__).read_text(encoding="utf-8")
    assert named == SHIPPED == {name for name in SHIPPED if name in KINDS or f'"{name}"' in source}


def test_a_recipe_s_mistyped_name_is_answered_with_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(tmp_path / "run"), "-c", "self-distilation"]) == 2
    assert "did you mean 'self-distillation'" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()
