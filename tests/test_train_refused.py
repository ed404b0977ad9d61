"""What training refuses before its first step, the earlier student untouched: arguments, rows, templates, students."""

from pathlib import Path
from typing import Any

import pytest
from conftest import make_tiny_model
from train_runs import ARGS, a_recipe, a_run, sample

from seqdistill.errors import UsageError
from seqdistill.progress import Silent
from seqdistill.recipe.tables import Recipe, StudentConfig, TeacherConfig, TrainConfig
from seqdistill.records import Sample
from seqdistill.runs import Run
from seqdistill.stages.train.arguments import check_arguments
from seqdistill.stages.train.stage import train


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"learning_rat": 1e-3}, r"\[train.args\] learning_rat: .*did you mean 'learning_rate'"),
        ({"learning_rate": "fast"}, r"learning_rate = 'fast': expected float"),
        ({"per_device_train_batch_size": 1.5}, r"batch_size = 1.5: expected int"),
        ({"output_dir": "/tmp"}, "output_dir: seqdistill sets it"),
        ({"save_steps": 5}, "save_steps: seqdistill sets it"),
        ({"lr_scheduler_type": "sideways"}, "sideways"),
        ({"model_init_kwargs": 3}, "model_init_kwargs = 3: expected dict"),
        ({"model_init_kwargs": '{"dtype": "bfloat16"}'}, "model_init_kwargs = '.*': expected a table"),
        ({"model_init_kwargs": {"torch_dtype": "bfloat16"}}, "torch_dtype = 'bfloat16' does not belong here"),
        ({"model_init_kwargs": {"revision": "v2"}}, "revision = 'v2' does not belong here"),
        ({"model_init_kwargs": {"trust_remote_code": True}}, "trust_remote_code = True does not belong here"),
        ({"model_init_kwargs": {"dtype": "float32", "subfolder": "x"}}, "subfolder = 'x' does not belong here"),
        ({"model_init_kwargs": {"load_in_4bit": True}}, "load_in_4bit = True does not belong here"),
        ({"model_init_kwargs": {"num_hidden_layers": 2}}, "num_hidden_layers = 2 does not belong here"),
        ({"model_init_kwargs": {"tie_word_embeddings": False}}, "tie_word_embeddings = False does not belong here"),
        ({"activation_offloading": True}, "activation_offloading = true: there is no GPU"),
        ({"ignore_data_skip": True}, "ignore_data_skip: seqdistill sets it"),
        ({"torch_dtype": "bfloat16"}, "torch_dtype: TRL's SFTConfig has no such argument"),
        ({"eval_strategy": "steps"}, "eval_strategy = 'steps' without eval_steps"),
        ({"eval_strategy": "epoch", "eval_steps": 2}, "eval_steps = 2 with eval_strategy = 'epoch': without effect"),
        ({"eval_strategy": "no", "eval_steps": 2}, "eval_steps = 2 with eval_strategy = 'no': without effect"),
        ({"num_train_epochs": 0}, "num_train_epochs = 0: no training step"),
        ({"report_to": "wandb"}, r"\[train.args\] report_to: the package of .wandb. is not installed"),
        ({"loss_type": "sideways"}, r"\[train.args\]: .*sideways"),
        ({"fsdp": "full_shard", "fsdp_config": "no/such.json"}, r"\[train.args\]: .*no/such.json"),
        ({"deepspeed": "no/such.json"}, r"\[train.args\]: .*(deepspeed|no/such.json)"),
        ({"learning_rate": -1.0}, r"\[train.args\]: .*-1.0"),
        ({"per_device_train_batch_size": 0}, r"per_device_train_batch_size = 0: less than 1"),
        ({"pad_to_multiple_of": 0}, r"pad_to_multiple_of = 0: less than 1"),
        ({"train_sampling_strategy": "group_by_lenght"}, r"'group_by_lenght': unknown.*did you mean 'group_by_length'"),
        ({"packing": True, "packing_strategy": "ffd"}, r"packing_strategy = 'ffd': unknown"),
        ({"log_level": "loud"}, r"log_level = 'loud': unknown"),
        ({"enable_jit_checkpoint": True}, r"enable_jit_checkpoint: seqdistill sets it"),
    ],
)
def test_a_wrong_train_argument_is_named(tiny_model: Path, tmp_path: Path, args: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        train(a_run(tmp_path), a_recipe(tiny_model, args=args), Silent())


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("warmup_ratio", "warmup_steps = 0.1"),
        ("group_by_length", 'train_sampling_strategy = "group_by_length"'),
        ("max_prompt_length", "no prompt is clipped"),
        ("lora_r", "[train.lora]"),
    ],
)
def test_an_argument_of_other_versions_says_where_it_is_now(name: str, hint: str) -> None:
    from trl import SFTConfig

    with pytest.raises(UsageError) as caught:
        check_arguments({name: 1}, SFTConfig)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("student", "args", "layers"),
    [("{own}", {**ARGS, "loss_type": "sideways"}, "influence"), ("shrink:9", ARGS, "even"), ("shrink:2", ARGS, "0,9")],
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
    assert checkpoint.exists()
    assert train(run, recipe, Silent()).up_to_date


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
    with pytest.raises(UsageError, match="at an endpoint"):
        train(a_run(tmp_path), recipe, Silent())


@pytest.mark.parametrize("table", ["student", "teacher"])
def test_a_run_s_own_training_is_neither_its_student_nor_its_teacher(
    trained: tuple[Run, Any, Any], tiny_model: Path, table: str
) -> None:
    run = trained[0]
    models = {"student": tiny_model, "teacher": str(tiny_model), table: f"run:{run.path}"}
    with pytest.raises(UsageError, match=rf"\[{table}\] model = 'run:.*this run itself"):
        train(run, a_recipe(**models), Silent())
    assert run.manifest("train") is not None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_tokens": 40}, r"batch_tokens = 40: the longest row has \d+ tokens"),
        ({"batch_tokens": 400, "args": {"packing": True}}, r"batch_tokens = 400 and \[train.args\] packing both say"),
        ({"batch_tokens": 400, "args": ARGS}, r"per_device_train_batch_size both say what a batch is"),
        ({"batch_tokens": 400, "method": "on_policy"}, r"batch_tokens = 400 does not apply to method = 'on_policy'"),
    ],
)
def test_batches_that_cannot_be_made_are_refused(
    tiny_model: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        train(a_run(tmp_path), a_recipe(tiny_model, str(tiny_model), **{"args": {}, **settings}), Silent())
