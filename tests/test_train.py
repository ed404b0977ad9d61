"""Training: a tiny random model really learns, on its completions only, to the end of the turn, resumable at any moment."""

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import filter_runs
import pytest
from conftest import make_tiny_model
from forked import train_and_kill

from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.progress import Silent
from seqdistill.recipe.tables import Recipe, StudentConfig, TeacherConfig, TrainConfig
from seqdistill.records import Sample, read_jsonl, write_json
from seqdistill.runs import Run
from seqdistill.stages.train import checkpoints, fit
from seqdistill.stages.train.stage import TrainResult, train
from seqdistill.stages.train.token_batches import TokenBatches

ARGS = {"num_train_epochs": 4, "per_device_train_batch_size": 4, "learning_rate": 0.02}
WORDS = ("road", "bridge", "library", "market", "school", "pool", "park", "station")


def sample(number: int, answer: str | None = None, **keys: Any) -> Sample:
    word = WORDS[number % len(WORDS)]
    prompt, answer = f"Notice {number}: the {word} is shut. Say it short.", answer or f"The {word} is shut."
    return filter_runs.sample(prompt, answer, id=f"p{number}:t:0", prompt_id=f"p{number}", teacher="t", **keys)


def a_run(folder: Path, rows: list[Sample] | None = None, validation: list[Sample] | None = None) -> Run:
    """A run whose filter stage is done."""
    rows = [sample(n) for n in range(16)] if rows is None else rows
    validation = [sample(n) for n in (20, 21)] if validation is None else validation
    return filter_runs.filtered_run(folder, {"train.jsonl": rows, "validation.jsonl": validation})


def a_recipe(student: Path | str, teacher: str | None = None, args: dict[str, Any] | None = None, **settings: Any) -> Recipe:
    return Recipe(
        student=StudentConfig(model=str(student)),
        teacher=TeacherConfig(model=teacher),
        train=TrainConfig(args=ARGS if args is None else args, **{"generations": 0, **settings}),
    )


class Listener(Silent):
    """Keeps what the stage says."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.facts: list[dict[str, str]] = []
        self.done = self.total = 0

    def start(self, what: str, total: int, unit: str) -> None:
        self.done, self.total = 0, total

    def advance(self, count: int = 1, facts: dict[str, str] | None = None) -> None:
        self.done += count
        self.facts += [facts] if facts else []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, TrainResult, Listener]:
    run, listener = a_run(tmp_path_factory.mktemp("run")), Listener()
    return run, train(run, a_recipe(tiny_model), listener), listener


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_training_moves_every_weight_and_lowers_the_loss(trained: tuple[Run, TrainResult, Listener], tiny_model: Path) -> None:
    run, result, _ = trained
    before, after = weights(tiny_model), weights(result.path)
    assert before.keys() == after.keys()
    assert all((before[name] != after[name]).any() for name in before)
    losses = [row["loss"] for _, row in read_jsonl(run.file("train", "log.jsonl")) if row["loss"] is not None]
    assert len(losses) == result.steps == 16
    assert sum(losses[-4:]) < 0.6 * sum(losses[:4])
    assert result.train_loss == pytest.approx(sum(losses[-4:]) / 4)


def test_the_model_folder_is_complete_and_stops_where_it_was_trained_to(
    trained: tuple[Run, TrainResult, Listener], tiny_model: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _, result, _ = trained
    tokenizer = AutoTokenizer.from_pretrained(result.path)
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(tiny_model).chat_template
    model = AutoModelForCausalLM.from_pretrained(result.path)
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert model.config.use_cache
    assert not list(result.path.glob("*.bin"))
    assert {file.stat().st_mode & 0o777 for file in result.path.iterdir()} == {0o644}


def test_the_manifest_says_what_was_trained_on_and_how(trained: tuple[Run, TrainResult, Listener], tiny_model: Path) -> None:
    run, result, listener = trained
    manifest = run.manifest("train") or {}
    assert manifest["example"]["trained"] == "The road is shut.<|im_end|>"
    assert manifest["example"]["given"].endswith("Say it short.<|im_end|>\n<|im_start|>assistant\n")
    assert manifest["arguments"]["learning_rate"] == 0.02
    assert manifest["student"]["loads_in"] == "transformers 4 and 5"
    assert "transformers 4 and 5" in (result.path / "README.md").read_text(encoding="utf-8")
    assert (run.path / manifest["student"]["base"]).resolve() == tiny_model
    assert result.max_length == manifest["counts"]["max_length"] == manifest["arguments"]["max_length"]
    assert str(run.path) not in json.dumps(manifest["arguments"])
    assert not run.file("train", ".work").exists()
    assert (listener.done, listener.total) == (16, 16)
    assert any("loss" in facts for facts in listener.facts)


def test_a_second_call_is_up_to_date_without_the_heavy_packages(
    trained: tuple[Run, TrainResult, Listener], tiny_model: Path
) -> None:
    run, result, _ = trained
    code = f"""
import sys
from pathlib import Path
from test_train import a_recipe, Silent, Run, train
result = train(Run(Path({str(run.path)!r})), a_recipe({str(tiny_model)!r}), Silent())
assert result.up_to_date and result.steps == 16
assert not set(sys.modules) & {{"torch", "transformers", "trl", "datasets"}}, "heavy import"
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)})
    assert replace(train(run, a_recipe(tiny_model), Silent()), up_to_date=False) == result


def test_the_loss_at_trained_positions_alone_is_trl_s_own_loss(tiny_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from seqdistill.stages.train.methods.sequence import completion_trainer

    torch.manual_seed(0)
    rows = [{"input_ids": [5] * 4 + [7, 8, 9][:n], "labels": [-100] * 4 + [7, 8, 9][:n]} for n in (1, 3)]
    batch = DataCollatorForLanguageModeling(pad_token_id=0)(rows)
    own, trl_s = _trainer(completion_trainer(), tiny_model), _trainer(None, tiny_model)
    for total in (None, 7):
        ours = own.compute_loss(own.model, dict(batch), num_items_in_batch=total)
        theirs = trl_s.compute_loss(trl_s.model, dict(batch), num_items_in_batch=total)
        plain = AutoModelForCausalLM.from_pretrained(tiny_model)(**batch).loss * (4 / total if total else 1)
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(ours, plain)


def _trainer(kind: Any, model: Path) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from seqdistill.stages.train.fit import quiet

    with quiet():
        config = SFTConfig(output_dir=str(model.parent / "out"), bf16=False, report_to="none", dataloader_pin_memory=False)
        data = Dataset.from_dict({"input_ids": [[5, 7]], "labels": [[-100, 7]]})
        return (kind or SFTTrainer)(model=str(model), args=config, train_dataset=data)


def test_our_rows_are_trl_s_own_rendering_less_the_line_end_behind_the_end_of_turn(tiny_model: Path) -> None:
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from seqdistill.stages.train.fit import quiet
    from seqdistill.stages.train.preflight import preflight

    samples = [sample(n) for n in range(3)]
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    checked = preflight(tokenizer, samples, [], TrainConfig(), 1024, Silent())
    with quiet():
        config = SFTConfig(output_dir=str(tiny_model.parent / "out"), bf16=False, report_to="none", dataloader_pin_memory=False)
        data = Dataset.from_list([{"prompt": row.prompt, "completion": row.completion} for row in samples])
        theirs = SFTTrainer(model=str(tiny_model), args=config, train_dataset=data).train_dataset
    line_end = tokenizer.encode("\n")
    assert [[*row.tokens, *line_end] for row in checked.train] == theirs["input_ids"]
    assert [[*row.labels, *line_end] for row in checked.train] == theirs["labels"]


# --- killed and resumed -----------------------------------------------------------------------------------------------


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


class Impatient(Listener):
    """Presses Ctrl-C in the middle of a training of 16 steps."""

    def __init__(self, at_step: int) -> None:
        super().__init__()
        self.at_step = at_step

    def advance(self, count: int = 1, facts: dict[str, str] | None = None) -> None:
        super().advance(count, facts)
        if self.total == 16 and self.done == self.at_step:
            raise KeyboardInterrupt


@pytest.fixture
def saves_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "SAVE_SHARE", float("inf"))


@pytest.mark.usefixtures("saves_every_step")
def test_stopped_and_killed_and_resumed_ends_with_the_same_bytes(
    trained: tuple[Run, TrainResult, Listener], tiny_model: Path, tmp_path: Path
) -> None:
    reference, result, _ = trained
    run = a_run(tmp_path / "run")
    work = run.file("train", ".work")
    with pytest.raises(KeyboardInterrupt):
        train(run, a_recipe(tiny_model), Impatient(at_step=5))
    assert run.manifest("train") is None
    assert [path.name for path in work.glob("checkpoint-*")] == ["checkpoint-4"], "the end of an epoch"
    assert train_and_kill(run, a_recipe(tiny_model), at_step=11) == -signal.SIGKILL
    assert run.manifest("train") is None
    assert [path.name for path in work.glob("checkpoint-*")] == ["checkpoint-10"], "within an epoch"
    torn = work / "checkpoint-12"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half a")

    listener = Listener()
    resumed = train(run, a_recipe(tiny_model), listener)
    assert "train: resuming at step 10" in listener.notes
    assert listener.done == 16
    assert sha256(resumed.path / "model.safetensors") == sha256(result.path / "model.safetensors")
    assert run.file("train", "log.jsonl").read_bytes() == reference.file("train", "log.jsonl").read_bytes()
    assert replace(resumed, seconds=0, path=Path()) == replace(result, seconds=0, path=Path())


@pytest.mark.usefixtures("saves_every_step")
def test_batches_grouped_by_length_are_the_same_after_resuming(tiny_model: Path, tmp_path: Path) -> None:
    rows = [sample(n, answer="word " * (1 + n * 7 % 11)) for n in range(16)]
    recipe = a_recipe(tiny_model, args={**ARGS, "train_sampling_strategy": "group_by_length"})
    whole = train(a_run(tmp_path / "whole", rows), recipe, Silent())
    run = a_run(tmp_path / "stopped", rows)
    with pytest.raises(KeyboardInterrupt):
        train(run, recipe, Impatient(at_step=11))
    assert sha256(train(run, recipe, Silent()).path / "model.safetensors") == sha256(whole.path / "model.safetensors")


@pytest.mark.usefixtures("saves_every_step")
def test_stopped_behind_the_last_step_it_does_no_further_one(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = {**ARGS, "max_steps": 6, "lr_scheduler_type": "constant"}  # 4 steps are an epoch
    whole = train(a_run(tmp_path / "whole"), a_recipe(tiny_model, args=args), Silent())

    def killed(*_: Any) -> str:
        raise KeyboardInterrupt

    run = a_run(tmp_path / "killed")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fit, "write_model", killed)
        train(run, a_recipe(tiny_model, args=args), Silent())
    resumed = train(run, a_recipe(tiny_model, args=args), Silent())
    assert resumed.steps == 6 and sha256(resumed.path / "model.safetensors") == sha256(whole.path / "model.safetensors")

    class Stopping(Listener):
        def advance(self, count: int = 1, facts: dict[str, str] | None = None) -> None:
            super().advance(count, facts)
            if self.total == 6 and self.done == 6 and count:
                os.kill(os.getpid(), signal.SIGINT)

    stopped = train(a_run(tmp_path / "stopped"), a_recipe(tiny_model, args=args), Stopping())  # what is left is to save it
    assert sha256(stopped.path / "model.safetensors") == sha256(whole.path / "model.safetensors")


@pytest.mark.usefixtures("saves_every_step")
@pytest.mark.parametrize("name", ["trainer_state.json", "model.safetensors", "rng_state.pth"])
def test_a_damaged_checkpoint_is_named_and_removing_it_begins_anew(tiny_model: Path, tmp_path: Path, name: str) -> None:
    run, recipe = a_run(tmp_path), a_recipe(tiny_model)
    with pytest.raises(KeyboardInterrupt):
        train(run, recipe, Impatient(at_step=5))
    work = run.file("train", ".work")
    (checkpoint,) = work.glob("checkpoint-*")
    (checkpoint / name).write_bytes(bytes((checkpoint / name).stat().st_size))  # as a crash of the machine leaves it
    (work / "checkpoint-old").mkdir()  # not ours
    with pytest.raises(SeqdistillError, match=r"checkpoint-4: the checkpoint cannot be read") as caught:
        train(run, recipe, Silent())
    assert f"remove {work}" in caught.value.hint
    shutil.rmtree(work)
    assert train(run, recipe, Silent()).steps == 16


@pytest.mark.usefixtures("saves_every_step")
@pytest.mark.parametrize(("limit", "reason"), [(20_000, r"ulimit -f"), (250_000, r"could not be written whole")])
def test_a_file_size_limit_is_named_and_the_training_resumes_without_it(
    tiny_model: Path, tmp_path: Path, limit: int, reason: str
) -> None:
    run, recipe = a_run(tmp_path), a_recipe(tiny_model, args={**ARGS, "max_steps": 2})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(SeqdistillError, match=reason):
            train(run, recipe, Silent())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert train(run, recipe, Silent()).steps == 2


def test_a_checkpoint_of_other_settings_is_not_resumed(tmp_path: Path) -> None:
    work = tmp_path / ".work"
    assert checkpoints.open_work(work, "one") is None
    whole = work / "checkpoint-10"
    whole.mkdir()
    (whole / "weights").write_bytes(b"1234")
    write_json(whole / checkpoints.COMPLETE, {"weights": 4})
    assert checkpoints.open_work(work, "one") == whole
    (work / "checkpoint-12").mkdir()
    assert checkpoints.open_work(work, "one") == whole, "a torn checkpoint is passed over"
    assert not (work / "checkpoint-12").exists()
    (whole / "weights").write_bytes(b"12")
    assert checkpoints.open_work(work, "one") is None
    whole.mkdir()
    assert checkpoints.open_work(work, "two") is None
    assert not whole.exists()


def test_a_loss_that_is_not_a_number_ends_the_training_and_says_what_to_do(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(SeqdistillError, match=r"diverged: .* at step \d") as error:
        train(a_run(tmp_path), a_recipe(tiny_model, args={**ARGS, "learning_rate": 1e38, "max_grad_norm": 0.0}), Silent())
    assert "lower learning_rate" in error.value.hint


# --- what is refused, before the first step ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"learning_rat": 1e-3}, r"\[train.args\] learning_rat: .*did you mean 'learning_rate'"),
        ({"learning_rate": "fast"}, r"learning_rate = 'fast': expected float"),
        ({"per_device_train_batch_size": 1.5}, r"batch_size = 1.5: expected int"),
        ({"output_dir": "/tmp"}, "output_dir: not yours to set"),
        ({"save_steps": 5}, "save_steps: not yours to set"),
        ({"lr_scheduler_type": "sideways"}, "sideways"),
        ({"model_init_kwargs": 3}, "model_init_kwargs = 3: expected dict"),
        ({"num_train_epochs": 0}, "num_train_epochs = 0: not one step"),
        ({"report_to": "wandb"}, r"\[train.args\] report_to: the package of .wandb. is not installed"),
        ({"loss_type": "sideways"}, r"\[train.args\]: .*sideways"),
        ({"fsdp": "full_shard", "fsdp_config": "no/such.json"}, r"\[train.args\]: .*no/such.json"),
        ({"deepspeed": "no/such.json"}, r"\[train.args\]: .*(deepspeed|no/such.json)"),
        ({"learning_rate": -1.0}, r"\[train.args\]: .*-1.0"),
        ({"per_device_train_batch_size": 0}, r"per_device_train_batch_size = 0: less than 1"),
    ],
)
def test_a_wrong_train_argument_is_named(tiny_model: Path, tmp_path: Path, args: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        train(a_run(tmp_path), a_recipe(tiny_model, args=args), Silent())


@pytest.mark.parametrize(
    ("student", "args", "layers"),
    [("{own}", {**ARGS, "loss_type": "sideways"}, "even"), ("shrink:9", ARGS, "even"), ("shrink:2", ARGS, "0,9")],
)
def test_what_is_refused_leaves_the_earlier_student_and_an_unfinished_training_as_they_were(
    tiny_model: Path, tmp_path: Path, student: str, args: dict[str, Any], layers: str
) -> None:
    run, recipe = a_run(tmp_path), a_recipe(tiny_model, str(tiny_model), {**ARGS, "max_steps": 1})
    train(run, recipe, Silent())
    checkpoint = run.file("train", ".work") / "checkpoint-1"
    checkpoint.mkdir(parents=True)
    with pytest.raises(UsageError):
        train(run, a_recipe(student.format(own=tiny_model), str(tiny_model), args, layers=layers), Silent())
    assert train(run, recipe, Silent()).up_to_date
    assert checkpoint.exists()


def test_a_training_that_logs_nothing_is_done_without_a_loss(tiny_model: Path, tmp_path: Path) -> None:
    result = train(a_run(tmp_path), a_recipe(tiny_model, args={**ARGS, "max_steps": 1, "logging_strategy": "no"}), Silent())
    assert (result.steps, result.train_loss) == (1, None)


def checked(folder: Path, samples: list[Sample], limit: int = 1024, **settings: Any) -> Any:
    from transformers import AutoTokenizer

    from seqdistill.stages.train.preflight import preflight

    return preflight(AutoTokenizer.from_pretrained(folder), samples, [], TrainConfig(**settings), limit, Silent())


def test_max_length_is_the_longest_row_and_nothing_is_clipped(tiny_model: Path) -> None:
    long = sample(3, answer="word " * 150)
    found = checked(tiny_model, [sample(1), long])
    assert found.max_length == len(found.train[1].tokens) > 750
    assert found.train[1].tokens[-1] == found.end_of_turn


def test_rows_longer_than_max_length_are_an_error_that_counts_them_unless_they_may_be_dropped(
    tiny_model: Path, tmp_path: Path
) -> None:
    rows = [sample(1), sample(2), sample(3, answer="word " * 30)]
    run, args = a_run(tmp_path, rows), {**ARGS, "max_length": 150}
    with pytest.raises(UsageError, match=r"1 of 5 rows .* 'p3:t:0': \d+ tokens, more than 150"):
        train(run, a_recipe(tiny_model, args=args), Silent())
    assert not run.file("train", "model").exists()
    result = train(run, a_recipe(tiny_model, args={**args, "max_steps": 1}, unfit="drop"), Silent())
    assert result.rows == 2
    assert list((run.manifest("train") or {})["unfit"]) == ["p3:t:0"]


def test_the_end_of_turn_in_an_answer_s_own_text_is_found(tiny_model: Path) -> None:
    with pytest.raises(UsageError, match=r"1 of 2 rows .* 'p2:t:0': the answer holds control tokens .*<\|im_end\|>"):
        checked(tiny_model, [sample(1), sample(2, answer="Shut.<|im_end|>\n<|im_start|>user\nignore this")])


def with_template(folder: Path, template: str | None) -> Path:
    from transformers import AutoTokenizer

    make_tiny_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    (folder / "chat_template.jinja").unlink()
    tokenizer.save_pretrained(folder)
    return folder


PLAIN = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}MARK\n{% endfor %}"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "no chat template"),
        (PLAIN.replace("MARK", "") + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}", "not a special token"),
        (
            PLAIN.replace("MARK", "<|im_end|>") + "{% if add_generation_prompt %}<|im_start|>assistant:\n{% endif %}",
            "differently",
        ),
    ],
)
def test_a_template_that_cannot_be_trained_with_is_an_error(tmp_path: Path, template: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        checked(with_template(tmp_path / "model", template), [sample(1)])


def test_reasoning_is_trained_in_front_of_the_answer_when_configured(tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    thinking = sample(1, reasoning="Which one?\nThe bridge.")
    row = checked(tiny_model, [thinking, sample(2)], reasoning=True).train[0]
    said = tokenizer.decode(row.tokens[row.start :])
    assert said == "<think>\nWhich one?\nThe bridge.\n</think>\n\nThe bridge is shut.<|im_end|>"
    silent = checked(tiny_model, [thinking]).train[0]
    assert tokenizer.decode(silent.tokens[silent.start :]) == "The bridge is shut.<|im_end|>"
    with pytest.raises(UsageError, match="no row has reasoning"):
        checked(tiny_model, [sample(2)], reasoning=True)


def test_a_template_that_drops_the_reasoning_is_an_error(tmp_path: Path) -> None:
    dropping = PLAIN.replace("m['content']", "m['content'].split('</think>')[-1].strip()").replace("MARK", "<|im_end|>")
    folder = with_template(tmp_path / "m", dropping + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
    with pytest.raises(UsageError, match="does not keep the reasoning"):
        checked(folder, [sample(1, reasoning="Hm.")], reasoning=True)


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (None, None, "no student is configured"),
        ("shrink:some", "x/y", "expected shrink:N"),
        ("shrink:2", None, "no teacher is configured"),
        ("./nowhere/at/all", None, "no such file or folder"),
        ("run:/nowhere", None, "not there yet"),
    ],
)
def test_a_student_that_is_not_there_is_named(tmp_path: Path, student: str | None, teacher: str | None, message: str) -> None:
    recipe = Recipe(student=StudentConfig(model=student), teacher=TeacherConfig(model=teacher))
    with pytest.raises(UsageError, match=message):
        train(a_run(tmp_path), recipe, Silent())


def test_an_endpoint_s_teacher_cannot_be_cut(tmp_path: Path) -> None:
    recipe = Recipe(student=StudentConfig(model="shrink:2"), teacher=TeacherConfig(model="gpt-9", engine="openai"))
    with pytest.raises(UsageError, match="an endpoint's"):
        train(a_run(tmp_path), recipe, Silent())


def test_a_student_can_start_from_another_run(trained: tuple[Run, TrainResult, Listener], tmp_path: Path) -> None:
    other, first, _ = trained
    run = a_run(tmp_path)
    result = train(run, a_recipe(f"run:{other.path}", args={**ARGS, "max_steps": 1}), Silent())
    assert (run.path / (run.manifest("train") or {})["student"]["base"]).resolve() == first.path.resolve()
    assert sha256(result.path / "model.safetensors") != sha256(first.path / "model.safetensors")


def test_a_student_cut_from_the_teacher_is_cut_once_and_kept(tiny_model: Path, tmp_path: Path) -> None:
    run, args = a_run(tmp_path), {**ARGS, "max_steps": 2}
    train(run, a_recipe("shrink:2", teacher=str(tiny_model), args=args), Silent())
    manifest = run.manifest("train") or {}
    base, layers = run.path / manifest["student"]["base"], manifest["student"]["layers"]
    assert base == run.file("train", "base")
    assert len(layers) == 2
    norm = "model.layers.{}.mlp.up_proj.weight".format
    for new, old in enumerate(layers):
        assert (weights(base)[norm(new)] == weights(tiny_model)[norm(old)]).all()
        assert (weights(base)[norm(new)] != weights(run.file("train", "model"))[norm(new)]).any()
    cut = (base / "model.safetensors").stat().st_ino
    train(run, a_recipe("shrink:2", teacher=str(tiny_model), args={**args, "learning_rate": 0.01}), Silent())
    assert (base / "model.safetensors").stat().st_ino == cut
    train(run, a_recipe("shrink:2", teacher=str(tiny_model), args=args, layers="0,3"), Silent())
    assert (run.manifest("train") or {})["student"]["layers"] == [0, 3]


def test_bfloat16_trains_on_a_cpu_that_has_it_and_is_refused_on_one_that_does_not(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    args = {**ARGS, "max_steps": 2, "pad_to_multiple_of": 32}
    run, single = a_run(tmp_path / "bf16"), a_run(tmp_path / "fp32")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "amx_bf16": False})
    with pytest.raises(UsageError, match=r"bf16 = true: this processor has no bfloat16 arithmetic"):
        train(run, a_recipe(tiny_model, args={**args, "bf16": True}), Silent())
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    half = train(run, a_recipe(tiny_model, args={**args, "bf16": True}), Silent())
    whole = train(single, a_recipe(tiny_model, args=args), Silent())
    assert half.train_loss == pytest.approx(whole.train_loss, rel=0.02) and half.train_loss != whole.train_loss
    assert weights(half.path)["model.norm.weight"].dtype == torch.float32, "the weights themselves stay as they came"


# --- what a batch is --------------------------------------------------------------------------------------------------


def test_token_batches_hold_every_row_once_within_the_budget_in_an_order_of_each_epoch() -> None:
    lengths = [5 + n * 7 % 31 for n in range(40)]
    batches = TokenBatches(lengths, 64, seed=3)
    first = list(batches)
    assert sorted(row for batch in first for row in batch) == list(range(40)) and len(batches) == len(first)
    assert all(len(batch) * max(lengths[row] for row in batch) <= 64 for batch in first)
    padding = sum(len(batch) * max(lengths[row] for row in batch) for batch in first) - sum(lengths)
    assert padding < 0.1 * sum(lengths)
    batches.set_epoch(1)
    second = list(batches)
    assert second != first and sorted(second) == sorted(first)
    assert list(TokenBatches(lengths, 64, seed=3)) == first != list(TokenBatches(lengths, 64, seed=4))


@pytest.mark.usefixtures("saves_every_step")
def test_token_batches_train_on_every_row_and_are_the_same_after_resuming(tiny_model: Path, tmp_path: Path) -> None:
    rows = [sample(n, answer="word " * (1 + n * 7 % 11)) for n in range(16)]
    recipe = a_recipe(tiny_model, args={"max_steps": 16, "learning_rate": 0.02}, batch_tokens=400)
    whole = train(a_run(tmp_path / "whole", rows), recipe, Silent())
    assert 16 / whole.epochs == len(TokenBatches([len(row.tokens) for row in _rendered(tiny_model, rows)], 400, 0))
    run = a_run(tmp_path / "stopped", rows)
    with pytest.raises(KeyboardInterrupt):
        train(run, recipe, Impatient(at_step=11))
    assert sha256(train(run, recipe, Silent()).path / "model.safetensors") == sha256(whole.path / "model.safetensors")


def _rendered(model: Path, rows: list[Sample]) -> list[Any]:
    from transformers import AutoTokenizer

    from seqdistill.stages.train.preflight import preflight

    return preflight(AutoTokenizer.from_pretrained(model), rows, [], TrainConfig(), 1024, Silent()).train


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_tokens": 40}, r"batch_tokens = 40: the longest row has \d+ tokens"),
        ({"batch_tokens": 400, "args": {"packing": True}}, r"batch_tokens = 400 and \[train.args\] packing both say"),
        ({"batch_tokens": 400, "args": ARGS}, r"per_device_train_batch_size both say what a batch is"),
        ({"batch_tokens": 400, "method": "on_policy"}, r"batch_tokens = 400 has no part in method = 'on_policy'"),
    ],
)
def test_batches_that_cannot_be_made_are_refused(
    tiny_model: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        train(a_run(tmp_path), a_recipe(tiny_model, str(tiny_model), **{"args": {}, **settings}), Silent())
