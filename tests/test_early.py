"""What train would refuse is refused before the teacher gets its first request: by `run`, and by `generate` alone."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer
from conftest import CHATML, make_tiny_model
from test_api import tables, toml

from seqdistill.cli import main
from seqdistill.errors import UsageError
from seqdistill.progress import Silent
from seqdistill.recipe.tables import TrainConfig
from seqdistill.records import Prompt, write_jsonl
from seqdistill.stages.train.preflight import check_prompts

NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
NO_SYSTEM_TEXT = CHATML.replace("{% for message in messages %}", "{% for message in messages if message['role'] != 'system' %}")
LAST_USER = (
    "{% for m in messages if m['role'] == 'user' %}{% if loop.last %}{% set place.at = messages.index(m) %}{% endif %}"
    "{% endfor %}"
)
LAST_TURN = "{% set place = namespace(at=0) %}" + LAST_USER + CHATML.replace("in messages %}", "in messages[place.at:] %}")
DROPPING = CHATML.replace("{{ message['content'] }}", "{{ message['content'][:4] }}")
NO_END = CHATML.replace("<|im_end|>", "")
LATE_PREFIX = CHATML.replace("assistant\n{% endif %}", "assistant\nAnswer: {% endif %}")
FORGETFUL = CHATML.replace("message['content']", "message['content'].split('</think>')[-1].strip()")
LONG = "a notice of the town " * 60  # more tokens than the tiny model's 1,024
SYSTEM = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is shut?"}]

TURNS = [{"role": role, "content": text} for role, text in (("user", "First?"), ("assistant", "Yes."), ("user", "Then?"))]

Change = Callable[[Path, dict[str, Any]], None]  # (the folder of the test, the recipe)


def student(template: str | None = CHATML, **config: Any) -> Change:
    """Gives the student another chat template and other values in its config.json."""

    def change(folder: Path, recipe: dict[str, Any]) -> None:
        copy = folder / "student"
        shutil.copytree(recipe["student"]["model"], copy)
        (copy / "chat_template.jinja").unlink()
        if template is not None:
            (copy / "chat_template.jinja").write_text(template)
        known = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps({**known, **config}))
        recipe["student"]["model"] = str(copy)

    return change


def files(**changed: bytes | None) -> Change:
    """Gives the student other files; None: without it. `__` in a name is a dot."""

    def change(folder: Path, recipe: dict[str, Any]) -> None:
        student()(folder, recipe)
        for name, content in changed.items():
            file = folder / "student" / name.replace("__", ".")
            file.unlink(missing_ok=True)
            if content is not None:
                file.write_bytes(content)

    return change


def prompts(*rows: Any) -> Change:
    """Adds prompts."""

    def change(_folder: Path, recipe: dict[str, Any]) -> None:
        file = Path(recipe["task"]["prompts"])
        known = [json.loads(line) for line in file.read_text().splitlines()]
        write_jsonl(file, [*known, *({"prompt": row} for row in rows)])

    return change


def local_teacher(token: str = "", **changed: Any) -> Change:
    """A teacher in this process, with another tokenizer or config than the student's."""

    def change(folder: Path, recipe: dict[str, Any]) -> None:
        teacher = make_tiny_model(folder / "teacher")
        if token:
            file = teacher / "tokenizer.json"
            file.write_text(file.read_text().replace('"!":', f'"{token}":'))
        config = json.loads((teacher / "config.json").read_text())
        (teacher / "config.json").write_text(json.dumps({**config, **changed}))
        recipe["teacher"] = {"model": str(teacher), "engine": "transformers"}

    return change


def having(**wanted: Any) -> Change:
    """Sets keys of the recipe: table, or table__key."""

    def change(_folder: Path, recipe: dict[str, Any]) -> None:
        for name, value in wanted.items():
            table, _, key = name.partition("__")
            recipe[table] = {**recipe.get(table, {}), **(value if not key else {key: value})}

    return change


def args(**wanted: Any) -> Change:
    return having(train__args=wanted)


MORE = prompts(*(f"What is number {n}?" for n in range(30)))  # of no group, so that some are for validation
SOFT = having(train__method="soft", generate__logprobs=5)
BEFORE_PAYING: list[tuple[str, list[Change], str]] = [  # found by `generate`, and by `run`: every fourth is tried
    ("no chat template", [student(None)], "has no chat template"),
    ("a template that drops the text", [student(DROPPING)], "does not see the user's text"),
    ("a template that drops the system message", [student(NO_SYSTEM_TEXT), prompts(SYSTEM)], "does not see the system's text"),
    ("a template that drops earlier turns", [student(LAST_TURN), prompts(TURNS)], "does not see the user's text 'First?'"),
    ("a template without an end of turn", [student(NO_END)], "never learn to stop"),
    ("another prefix when an answer follows", [student(LATE_PREFIX)], "renders the prompt differently"),
    ("a role that the template refuses", [student(NO_SYSTEM), prompts(SYSTEM)], "1 of 13 prompts cannot be trained on"),
    ("a prompt longer than the context", [prompts(LONG)], "1 of 13 prompts cannot be trained on"),
    ("all prompts longer", [student(max_position_embeddings=16), having(train__unfit="drop")], "12 of 12 prompts"),
    ("another number of layers", [args(model_init_kwargs={"num_hidden_layers": 1})], "num_hidden_layers = 1 does not belong"),
    ("quantised weights", [student(quantization_config={"quant_method": "gptq", "bits": 4})], "stored quantised (gptq)"),
    ("a key of a cut student", [having(train__layers="even")], "layers = 'even' has no effect without [student]"),
    ("a key without its term", [having(train__features_loss="mse")], "features_loss = 'mse' has no effect without features"),
    (
        "a weight of no rationale",
        [having(train__rationale_weight=2.0)],
        "rationale_weight = 2.0 has no effect without rationale",
    ),
    ("no references", [having(train__references="replace")], "references = 'replace' has no effect without reference_weight"),
    ("prompts of no quality", [having(train__best_prompts=5)], 'best_prompts = 5 has no effect without best = "quality"'),
    ("a small max_length", [args(max_length=16)], "raise max_length"),
    ("a prompt longer than a batch", [having(train__batch_tokens=20, train__args={})], "at least"),
    ("tokens beyond the embedding", [student(vocab_size=100)], "has embeddings for ids up to 99"),
    ("no references", [having(train__reference_weight=0.5)], "no prompt has a reference"),
    ("a teacher that answers nothing", [having(train__teacher_weights={"gpt": 2.0})], "no row is of the teacher 'gpt'"),
    ("a weight that is none", [having(train__teacher_weights={"teacher": "much"})], "has the weight 'much'"),
    ("reasoning that the template drops", [having(train__reasoning=True), student(FORGETFUL)], "does not keep the reasoning"),
    ("on_policy at an endpoint", [having(train__method="on_policy")], "is an endpoint"),
    ("features at an endpoint", [having(train__features=1.0)], "was not cut from its teacher"),
    (
        "preference with an untrained cut",
        [having(train__method="preference"), local_teacher(), having(student__model="shrink:2")],
        "was not trained",
    ),
    ("other tokens, soft", [SOFT, local_teacher(token="☃")], "has another tokenizer than the student"),
    ("other tokens, on_policy", [having(train__method="on_policy"), local_teacher(token="☃")], "has another tokenizer"),
    (
        "another embedding",
        [having(train__method="on_policy"), local_teacher(vocab_size=300)],
        "the teacher's embedding has 300",
    ),
    ("best without validation rows", [having(train__best="loss", filter__validation=0.0)], "needs validation rows"),
    (
        "best of too few prompts",
        [having(train__best="loss")],
        "raise [filter] validation (it is 0.1)",
    ),
    (
        "quality without a metric",
        [having(train__best="quality", task__primary="accuracy", filter__validation=0.4), MORE],
        "accuracy",
    ),
    (
        "batch_tokens in two processes",
        [having(train__batch_tokens=500, train__processes=2, train__args={})],
        "with 2 processes",
    ),
    ("a misspelt argument", [args(learning_rat=1.0)], "did you mean 'learning_rate'"),
    ("more layers than there are", [local_teacher(), having(student__model="shrink:9")], "not a number from 1 to 4"),
    ("an endpoint's layers", [having(student__model="shrink:2")], "its layers are not here"),
    ("a missing student", [having(student__model="./nowhere")], "no such file or folder"),
    ("steps that rise", [local_teacher(), having(student__model="shrink:3", train__steps="2,3")], "falling numbers"),
    ("a missing template", [having(student__chat_template="lama3")], "did you mean 'llama3'"),
]
BEFORE_A_RUN: list[tuple[str, list[Change], str]] = [  # found by `run`, for which the training is on this machine
    ("offloading without a GPU", [args(activation_offloading=True)], "activation_offloading = true: there is no GPU"),
    ("soft without log-probabilities", [having(train__method="soft")], "logprobs is not set"),
    ("soft without likeliest tokens", [SOFT, having(generate__logprobs=0)], "stores no likeliest tokens"),
    ("soft from OpenAI", [SOFT, having(teacher__base_url=[])], "names them by their texts"),
    ("soft at another temperature", [SOFT, having(train__temperature=2.0)], "can be compared at 1 alone"),
    ("soft at an unstored temperature", [SOFT, local_teacher(), having(train__temperature=2.5)], "1, 1.5, 2, 3, 4"),
    ("soft packed", [SOFT, args(packing=True)], "packing = True with method = 'soft'"),
    ("soft packed to validate", [SOFT, args(eval_packing=True)], "eval_packing = True with method = 'soft'"),
    ("soft with smoothing", [SOFT, args(label_smoothing_factor=0.1)], "label_smoothing_factor"),
    (
        "features packed",
        [local_teacher(), having(student__model="shrink:2", train__features=1.0), args(packing=True)],
        "layers are compared row by row",
    ),
    (
        "weights packed",
        [having(train__teacher_weights={"teacher": 0.5}), args(packing=True)],
        "packing = True with weights of rows",
    ),
    (
        "weights packed to validate",
        [having(train__teacher_weights={"teacher": 0.5}), args(eval_packing=True)],
        "eval_packing = True with weights of rows",
    ),
    ("an argument below its range", [args(neftune_noise_alpha=-1.0)], "[train.args] neftune_noise_alpha: training is not"),
    ("no loss", [having(train__method="preference"), args(loss_type=[])], "loss_type = []: names no loss"),
    ("FSDP in one process", [args(fsdp="full_shard")], "fsdp = 'full_shard': it spreads the weights"),
    ("an optimizer", [args(optim="adamm")], "adamm"),
    ("an optimizer's package", [args(optim="adamw_bnb_8bit")], "bitsandbytes"),
    ("a schedule", [args(lr_scheduler_type="linearr")], "linearr"),
    ("a schedule's keywords", [args(lr_scheduler_kwargs={"num_cycle": 2})], "num_cycle"),
    ("a tracker", [args(report_to="wandbb")], "wandbb"),
    ("a tracker's package", [args(report_to="comet_ml")], "'comet_ml' is not installed"),
    ("DeepSpeed's file", [args(deepspeed="none.json")], "install the package"),
    ("fp16 without a GPU", [args(fp16=True)], "CPUs do not train in fp16"),
    ("no epoch", [args(num_train_epochs=0.0)], "no training step"),
    (
        "no validation",
        [having(train__early_stopping=2, filter__validation=0.4), args(eval_strategy="no"), MORE],
        "eval_strategy is no",
    ),
    ("validations of too few prompts", [args(eval_strategy="steps", eval_steps=2)], "needs validation rows"),
    ("validation steps of too few prompts", [args(eval_steps=2)], "eval_steps = 2 needs validation rows"),
    ("model_init_kwargs in quotes", [args(model_init_kwargs='{"dtype": "bfloat16"}')], "expected a table"),
    ("another revision of the weights", [args(model_init_kwargs={"revision": "v2"})], "does not belong here"),
    ("validations of no number", [args(eval_strategy="steps")], "without eval_steps"),
    ("adapters nowhere", [having(train__lora={"r": 4, "target_modules": ["query"]})], "target_modules = query"),
    (
        "a first step with too many layers",
        [local_teacher(), having(student__model="shrink:2", train__steps="9,2")],
        "'9': not a number from 1 to 4",
    ),
    ("no weights", [files(model__safetensors=None)], "no file named model.safetensors"),
    ("weights of torch alone", [files(model__safetensors=None, pytorch_model__bin=b"x")], "convert others"),
    (
        "a pointer to weights",
        [files(model__safetensors=b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n")],
        "git lfs pull",
    ),
    (
        "a missing shard",
        [files(model__safetensors=None, model__safetensors__index__json=b'{"weight_map": {"a": "model-1.safetensors"}}')],
        "no file named model-1.safetensors",
    ),
]


def refused(command: str, changes: list[Change], folder: Path, tiny_model: Path) -> tuple[int, int]:
    """(the command's exit code, the requests that the teacher got)."""
    with ChatServer() as server:
        recipe: dict[str, Any] = tables(server, folder, tiny_model)
        for change in changes:
            change(folder, recipe)
        (folder / "recipe.toml").write_text(toml(recipe))
        return main([command, str(folder / "run"), "-c", str(folder / "recipe.toml")]), len(server.requests)


CASES = [(name, "generate", changes, says) for name, changes, says in BEFORE_PAYING]
CASES += [(name, "run", changes, says) for name, changes, says in [*BEFORE_PAYING[::4], *BEFORE_A_RUN]]


@pytest.mark.parametrize(
    ("name", "command", "changes", "says"), [pytest.param(*case, id=f"{case[1]}: {case[0]}") for case in CASES]
)
def test_nothing_is_requested_for_a_training_that_would_be_refused(
    name: str,
    command: str,
    changes: list[Change],
    says: str,
    tmp_path: Path,
    tiny_model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert refused(command, changes, tmp_path, tiny_model) == (2, 0), name
    assert says in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run" / "generate").exists()
    assert not [name for name in os.environ if name.startswith("ACCELERATE_")], "a check decides nothing for what comes later"


def test_what_another_machine_may_have_is_a_note(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    later: list[tuple[list[Change], str]] = [
        ([having(student__model="Qwen/Qwen3-0.6B")], "the prompts are not checked against it"),
        ([having(student__model="run:other")], "is not trained yet"),
        ([having(train__method="soft")], "`seqdistill targets`"),
        ([prompts(LONG), having(train__unfit="drop")], "1 of 13 prompts cannot be trained on"),
        ([args(fp16=True, report_to="comet_ml")], ""),
    ]
    for number, (changes, says) in enumerate(later):
        folder = tmp_path / str(number)
        folder.mkdir()
        code, requests = refused("generate", changes, folder, tiny_model)
        assert (code, requests) == (0, 12 + (changes[0] is later[3][0][0]))
        assert says in " ".join(capsys.readouterr().err.split())


def test_of_many_prompts_each_that_is_too_long_is_counted(tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    many = [Prompt(f"p{n}", [], [{"role": "user", "content": "x" * (200 if n in (30, 70) else 20)}]) for n in range(100)]
    settings = {"stops": [tokenizer.eos_token_id], "vocabulary": len(tokenizer)}
    with pytest.raises(UsageError, match=r"2 of 100 prompts .* the first is 'p30': 223 tokens, more than 100"):
        check_prompts(tokenizer, many, TrainConfig(), 100, Silent(), **settings)
    assert check_prompts(tokenizer, many, TrainConfig(), 223, Silent(), **settings) == 223
