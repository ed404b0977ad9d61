"""One training in two processes: the same loss and weights as in one, started by us or by torchrun, resumable."""

import json
import os
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from test_preflight import a_recipe, a_run, rows
from train_runs import Listener, trainer_of, weights

from seqdistill.errors import Busy, UsageError
from seqdistill.recipe.tables import TrainConfig
from seqdistill.runs import Run
from seqdistill.stages.train.launch import keep, keeps_weights_apart, launcher_arguments
from seqdistill.stages.train.stage import train

STEPS = {"max_steps": 6, "learning_rate": 0.01}
ONE, TWO = ({**STEPS, "per_device_train_batch_size": size} for size in (4, 2))


def losses(run: Run) -> list[float]:
    lines = [json.loads(line) for line in run.file("train", "log.jsonl").read_text().splitlines()]
    return [line[name] for line in lines for name in ("loss", "eval_loss") if line[name] is not None]


@pytest.fixture(scope="module")
def one(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = a_run(tmp_path_factory.mktemp("one"), rows(16))
    train(run, a_recipe("shrink:2", ONE, teacher=tiny_model, layers="0,3"), Listener())
    return run


def check_same(run: Run, one: Run) -> None:
    import torch

    assert losses(run) == pytest.approx(losses(one), rel=1e-4)
    ours, theirs = (weights(each.file("train", "model")) for each in (run, one))
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-3, atol=1e-4)


def test_two_processes_train_as_one_does(one: Run, tiny_model: Path, tmp_path: Path) -> None:
    run, listener = a_run(tmp_path, rows(16)), Listener()
    recipe = a_recipe("shrink:2", TWO, teacher=tiny_model, layers="0,3", processes=2)
    assert train(run, recipe, listener).steps == 6
    check_same(run, one)
    assert (listener.done, listener.total) == (6, 6)
    assert "train: the loss is on 'Number 0 is it.<|im_end|>' in the first row" in listener.notes
    assert train(run, recipe, listener).up_to_date


def test_torchrun_s_second_process_is_let_in(one: Run, tiny_model: Path, tmp_path: Path) -> None:
    run = a_run(tmp_path, rows(16))
    settings = {"train.args.max_steps": 6, "train.args.learning_rate": 0.01, "train.args.per_device_train_batch_size": 2}
    flags = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    student = ["--student", "shrink:2", "--teacher", str(tiny_model), "--layers", "0,3"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, "-m", "seqdistill", "train", str(run.path), *student, *flags, "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 6
    check_same(run, one)


def test_what_one_process_refuses_is_said_as_if_there_were_one(tiny_model: Path, tmp_path: Path) -> None:
    run = a_run(tmp_path)
    with pytest.raises(UsageError, match=r"learning_rat: .*did you mean 'learning_rate'"):
        train(run, a_recipe(tiny_model, {"learning_rat": 1.0}, processes=2), Listener())
    with run.locked("train"), pytest.raises(Busy, match="is at work on the train stage"):
        train(run, a_recipe(tiny_model, processes=2), Listener())


# --- by accelerate, with a file of `accelerate config` ---------------------------------------------------------------

ALONE = "compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\nuse_cpu: true\nmixed_precision: 'no'\nnum_processes: 1\n"
FSDP = "compute_environment: LOCAL_MACHINE\ndistributed_type: FSDP\nnum_processes: 2\nfsdp_config:\n  fsdp_version: 2\n"


def test_a_training_that_accelerate_starts_is_the_same(one: Run, tiny_model: Path, tmp_path: Path) -> None:
    config = tmp_path / "accelerate.yaml"
    config.write_text(ALONE)
    run, listener = a_run(tmp_path / "run", rows(16)), Listener()
    recipe = a_recipe("shrink:2", ONE, teacher=tiny_model, layers="0,3", accelerate_config=str(config))
    assert train(run, recipe, listener).steps == 6
    assert (listener.done, listener.total) == (6, 6)
    check_same(run, one)
    assert train(run, recipe, listener).up_to_date


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("distributed_type: FSDP\nnum_proceses: 2\n", "accelerate cannot read it: .*num_proceses"),
        ("distributed_type: [", "accelerate cannot read it"),
        ("nothing", "accelerate cannot read it"),
        ("distributed_type: MULTI_GPU\nnum_processes: many\n", "num_processes = 'many': expected a whole number"),
        (
            "distributed_type: MULTI_GPU\nnum_processes: 4\nnum_machines: 2\n",
            "num_machines = 2: a run is trained on one machine",
        ),
        (FSDP, "distributed_type = FSDP needs GPUs, and there are none"),
        (ALONE.replace("num_processes: 1", "num_processes: 3"), "distributed_type = NO starts one process, and 3 are"),
        (ALONE.replace("'no'", "fp8"), "mixed_precision = 'fp8': not possible here"),
    ],
)
def test_an_accelerate_config_that_cannot_be_used_is_refused(
    tiny_model: Path, tmp_path: Path, content: str | None, message: str
) -> None:
    config = tmp_path / "accelerate.yaml"
    if content is not None:
        config.write_text(content)
    with pytest.raises(UsageError, match=rf"\[train\] accelerate_config = .*{message}"):
        train(a_run(tmp_path / "run"), a_recipe(tiny_model, accelerate_config=str(config)), Listener())


@pytest.mark.parametrize(
    ("content", "args", "processes", "message"),
    [
        (ALONE, {}, 2, "distributed_type = NO starts one process, and 2 are configured"),
        (ALONE.replace("'no'", "fp16"), {}, 1, "accelerate's mixed_precision: fp16 = true: there is no GPU"),
        (ALONE.replace("'no'", "bf16"), {}, 1, "accelerate's mixed_precision: bf16 = true: this processor has no bfloat16"),
        (ALONE.replace("'no'", "bf16"), {"bf16": False}, 1, r"mixed_precision = bf16, and \[train.args\] say that it is not"),
        (ALONE.replace("'no'", "bf16"), {"fp16": True}, 1, r"mixed_precision = bf16, and \[train.args\] say fp16"),
        (ALONE, {"deepspeed": {"zero_optimization": {"stage": 3}}}, 1, r"\[train.args\] deepspeed = .* in parts"),
        (None, {"deepspeed": {"zero_optimization": {"stage": 3}}}, 1, r"\[train.args\] deepspeed = .* in parts"),
        (None, {"deepspeed": "{folder}/zero.json"}, 1, r"\[train.args\] deepspeed = '.*zero.json': ZeRO stage 3"),
    ],
    ids=str,
)
def test_what_would_not_be_trained_as_accelerate_or_deepspeed_are_told_is_refused(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: str | None,
    args: dict[str, Any],
    processes: int,
    message: str,
) -> None:
    import torch

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    config = tmp_path / "accelerate.yaml"
    config.write_text(content or "")
    (tmp_path / "zero.json").write_text('{"zero_optimization": {"stage": 3}}')
    args = {name: value.format(folder=tmp_path) if isinstance(value, str) else value for name, value in args.items()}
    settings = {"processes": processes, "accelerate_config": str(config) if content else None}
    with pytest.raises(UsageError, match=message):
        recipe = a_recipe(tiny_model, {"max_steps": 1, **args}, **settings)
        train(a_run(tmp_path / "run"), recipe, Listener(), by_launcher=True)


@pytest.mark.parametrize("launcher", ["bf16", "no"])
def test_the_launcher_s_precision_is_what_is_trained_in_and_recorded(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: str
) -> None:
    import torch

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launcher)  # as `accelerate launch` sets it
    run, recipe = a_run(tmp_path), a_recipe(tiny_model, {"max_steps": 1})
    assert trainer_of(run, recipe).accelerator.mixed_precision == launcher
    train(run, recipe, Listener())
    assert (run.manifest("train") or {})["arguments"]["bf16"] == (launcher == "bf16")


@pytest.mark.parametrize(
    ("content", "args", "expected"),
    [
        (ALONE, {}, {"bf16": False, "fp16": False, "use_cpu": True}),
        (ALONE, {"bf16": True}, {"use_cpu": True}),
        (ALONE.replace("'no'", "bf16").replace("true", "false"), {}, {"bf16": True, "fp16": False}),
        (ALONE.replace("'no'", "fp16"), {"use_cpu": False}, {"bf16": False, "fp16": True}),
        (None, {}, {}),
    ],
    ids=str,
)
def test_train_args_come_before_the_launcher_s_file(
    tmp_path: Path, content: str | None, args: dict[str, Any], expected: dict[str, bool]
) -> None:
    config = tmp_path / "accelerate.yaml"
    config.write_text(content or "")
    assert launcher_arguments(TrainConfig(args=args, accelerate_config=str(config) if content else None)) == expected


@pytest.mark.parametrize(
    ("config", "apart"),
    [
        ({"zero_stage": 3, "zero3_save_16bit_model": False}, True),
        ({"zero_stage": 3}, True),
        ({"zero_stage": 3, "zero3_save_16bit_model": True}, False),
        ({"zero_stage": 2, "zero3_save_16bit_model": False}, False),
        ({"deepspeed_config_file": {"zero_optimization": {"stage": 3}}}, True),
        (
            {"deepspeed_config_file": {"zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True}}},
            False,
        ),
        ({"deepspeed_config_file": {"zero_optimization": {"stage": 2}}}, False),
        ({"deepspeed_config_file": {}}, False),
    ],
    ids=str,
)
def test_a_deepspeed_config_that_would_leave_the_weights_in_parts_is_known(
    tmp_path: Path, config: dict[str, Any], apart: bool
) -> None:
    if "deepspeed_config_file" in config:
        (tmp_path / "zero.json").write_text(json.dumps(config["deepspeed_config_file"]))
        config = {"deepspeed_config_file": str(tmp_path / "zero.json")}
    assert keeps_weights_apart(config) is apart


def test_of_a_failed_process_its_own_last_words_are_kept() -> None:
    failed = [
        "Traceback (most recent call last):\n",
        "ZeroDivisionError: division by zero\n",
        "E1126 17:28:26.331000 15403 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: 1)\n",
        *["of the launcher's own\n"] * 40,
    ]
    said: deque[str] = deque(maxlen=20)
    lines = iter(failed)
    keep(lines, said)
    assert list(said) == failed[:2]
    assert list(lines) == []


@pytest.mark.parametrize("content", [None, "{", "[1]"])
def test_a_file_of_deepspeed_s_that_cannot_be_read_is_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "zero.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UsageError, match=r"deepspeed_config_file = '.*zero\.json': cannot be read"):
        keeps_weights_apart({"deepspeed_config_file": str(file)})
