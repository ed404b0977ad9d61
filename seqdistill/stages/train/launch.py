"""Starts one training in several processes on this machine, and forwards what the first one reports.

By torch's own launcher, or by accelerate's with a file of `accelerate config`, for FSDP and DeepSpeed. What a process does
is in worker.py. Across machines use `accelerate launch -m seqdistill train RUN`, or torchrun: the stage sees that it was
launched.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seqdistill.errors import Busy, SeqdistillError, Stopped, UsageError
from seqdistill.progress import Progress
from seqdistill.recipe.tables import Recipe, TrainConfig
from seqdistill.runs import Run
from seqdistill.stages.train.checkpoints import STOPPING

MARK = "seqdistill "  # begins a line of the first process that is meant for us
REPORTED = (UsageError, Busy, Stopped)  # kinds of error that a process names; any other is a SeqdistillError
PRECISIONS = ("bf16", "fp16")  # accelerate's words for mixed precision, and TRL's arguments
LAST_LINES = 20  # of what the processes wrote, shown when they fail without a reason of ours
LAUNCHER = "torch/distributed/elastic/"  # in the first line that torch's launcher writes about a process that failed


def launch(run: Run, recipe: Recipe, progress: Progress) -> None:
    """Trains in the processes that [train] says. Raises what the first one raised; on a signal they save and end."""
    threads = max(1, (os.cpu_count() or 1) // recipe.train.processes)
    with tempfile.TemporaryDirectory() as folder:
        order = Path(folder) / "order.json"
        order.write_text(
            json.dumps({"run": str(run.path.absolute()), "recipe": asdict(recipe), "argv": sys.argv}), encoding="utf-8"
        )
        said: deque[str] = deque(maxlen=LAST_LINES)
        with subprocess.Popen(
            [sys.executable, "-m", *_launcher(recipe.train), "-m", "seqdistill.stages.train.worker", str(order)],
            env={"OMP_NUM_THREADS": str(threads), **os.environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a Ctrl-C at the terminal comes to us alone, and is passed on once
        ) as process:
            reader = threading.Thread(target=keep, args=(process.stderr, said), daemon=True)
            reader.start()
            error = _followed(process, progress)
            reader.join()
    progress.end()
    if error is not None:
        raise error
    if process.returncode:
        raise SeqdistillError(
            f"a training process ended with code {process.returncode}:\n{''.join(said)}", "run again: it resumes"
        )


def _launcher(config: TrainConfig) -> list[str]:
    """The module that starts the processes, and its arguments."""
    if config.accelerate_config is None:
        return ["torch.distributed.run", "--standalone", "--nproc_per_node", str(config.processes)]
    count = ["--num_processes", str(config.processes)] if config.processes > 1 else []
    free = [] if _read(config.accelerate_config).main_process_port else ["--main_process_port", "0"]  # two may train at a time
    return ["accelerate.commands.launch", "--config_file", config.accelerate_config, *free, *count]


def keep(lines: Iterable[str], said: deque[str]) -> None:
    """Reads what the processes write, and keeps it up to where the launcher reports that one failed."""
    for line in lines:
        if LAUNCHER in line:
            break
        said.append(line)
    for _ in lines:  # a full pipe would stop them
        pass


def _read(path: str) -> Any:
    from accelerate.commands.config.config_args import load_config_from_file

    return load_config_from_file(path)


def wants_launch(config: TrainConfig) -> bool:
    """Whether the training is to be started by a launcher."""
    return config.processes > 1 or config.accelerate_config is not None


def processes_of(config: TrainConfig) -> int:
    """How many processes on this machine the launcher starts; 1 where there is none."""
    if config.accelerate_config is None or config.processes > 1:
        return config.processes
    return int(getattr(_read(config.accelerate_config), "num_processes", None) or 1)


def launcher_arguments(config: TrainConfig) -> dict[str, bool]:
    """What a checked [train] accelerate_config, or another launcher, says of TRL's arguments: precision, and the CPU.

    [train.args] come before it. A launcher without a file says "no" also where nobody did.
    """
    precision, on_cpu = os.environ.get("ACCELERATE_MIXED_PRECISION"), False
    if config.accelerate_config is not None:
        found = _read(config.accelerate_config)
        precision, on_cpu = found.mixed_precision, bool(found.use_cpu)
    elif precision not in PRECISIONS:
        precision = None
    said = {} if precision is None or config.args.keys() & {*PRECISIONS} else {name: precision == name for name in PRECISIONS}
    return {**said, "use_cpu": True} if on_cpu and "use_cpu" not in config.args else said


def check_accelerate(config: TrainConfig) -> None:
    """Raises UsageError for a [train] accelerate_config that accelerate cannot read or that does not do here what it says.

    And for DeepSpeed's settings, in it or in [train.args], with which the weights would not be saved whole.
    """
    own = config.args.get("deepspeed")
    if isinstance(own, dict) or (isinstance(own, str) and Path(own).is_file()):
        _check_whole(f"[train.args] deepspeed = {own!r}", {"deepspeed_config_file": own})
    if config.accelerate_config is None:
        return
    import torch
    from yaml import YAMLError

    place, hint = (
        f"[train] accelerate_config = {config.accelerate_config!r}",
        "write it with `accelerate config --config_file FILE`",
    )
    if not Path(config.accelerate_config).is_file():
        raise UsageError(f"{place}: no such file", hint)
    try:
        found = _read(config.accelerate_config)
    except (ValueError, TypeError, AttributeError, OSError, YAMLError) as error:
        raise UsageError(f"{place}: accelerate cannot read it: {' '.join(str(error).split())}", hint) from error
    count = getattr(found, "num_processes", None)
    if count is not None and type(count) is not int:
        raise UsageError(f"{place}: num_processes = {count!r}: expected a whole number", hint)
    if (machines := getattr(found, "num_machines", 1)) not in (None, 1):
        raise UsageError(
            f"{place}: num_machines = {machines!r}: a run is trained on one machine, and would wait for the others for ever",
            "set num_machines: 1",
        )
    kind = str(getattr(found.distributed_type, "value", found.distributed_type))
    if kind == "NO" and (processes := max(config.processes, count or 1)) > 1:
        raise UsageError(
            f"{place}: distributed_type = NO starts one process, and {processes} are configured",
            "set num_processes: 1 and [train] processes = 1, or on several GPUs distributed_type: MULTI_GPU; [train] processes "
            "alone needs no file",
        )
    _check_precision(place, found.mixed_precision, config.args)
    on_gpus = torch.accelerator.is_available() and not found.use_cpu
    if kind != "NO" and not on_gpus:
        raise UsageError(
            f"{place}: distributed_type = {kind} needs GPUs, and {'it says use_cpu' if found.use_cpu else 'there are none'}",
            f"set [train] processes = {count or 2} to train in several processes on the CPU",
        )
    if kind == "DEEPSPEED":
        _check_whole(place, found.deepspeed_config)


def _check_precision(place: str, precision: str | None, arguments: Mapping[str, Any]) -> None:
    """Raises UsageError for a file's mixed_precision that TRL has no argument for, or that [train.args] contradict."""
    if precision not in (None, "no", *PRECISIONS):
        raise UsageError(f"{place}: mixed_precision = {precision!r}: not possible here", "set it to bf16, fp16 or 'no'")
    wanted = next((name for name in PRECISIONS if arguments.get(name)), "no")
    if precision in PRECISIONS and wanted != precision and any(name in arguments for name in PRECISIONS):
        raise UsageError(
            f"{place}: mixed_precision = {precision}, and [train.args] say {wanted if wanted != 'no' else 'that it is not'}",
            "say it in one place only",
        )


def _check_whole(place: str, config: Mapping[str, Any]) -> None:
    if keeps_weights_apart(config):
        raise UsageError(
            f"{place}: ZeRO stage 3 would leave the trained weights in parts that cannot be loaded",
            "set zero3_save_16bit_model: true; in DeepSpeed's own settings stage3_gather_16bit_weights_on_model_save",
        )


def keeps_weights_apart(config: Mapping[str, Any]) -> bool:
    """Whether DeepSpeed is configured to shard the weights, and not to gather them when the model is saved.

    Its own settings are a file, or what is in one. Raises UsageError for a file that cannot be read.
    """
    if (file := config.get("deepspeed_config_file")) is not None:
        try:
            settings = file if isinstance(file, dict) else json.loads(Path(file).read_text(encoding="utf-8"))
            zero = dict(settings).get("zero_optimization") or {}
        except (OSError, TypeError, ValueError) as error:
            raise UsageError(
                f"deepspeed_config_file = {file!r}: cannot be read: {error}", "name a JSON file with DeepSpeed's settings"
            ) from error
        return bool(zero.get("stage") == 3 and not zero.get("stage3_gather_16bit_weights_on_model_save"))
    return config.get("zero_stage") == 3 and not config.get("zero3_save_16bit_model")


def _followed(process: "subprocess.Popen[str]", progress: Progress) -> BaseException | None:
    """Passes on the first process's progress until all have ended; returns the first error that one reported."""
    error: BaseException | None = None

    def pass_on(number: int, _frame: Any) -> None:
        process.send_signal(number)

    main = threading.current_thread() is threading.main_thread()
    numbers = [n for n in STOPPING if main and signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        for line in process.stdout or ():
            if not line.startswith(MARK):
                continue
            what, values = json.loads(line.removeprefix(MARK))
            if what == "interrupted":
                error = KeyboardInterrupt()
            elif what == "error":
                name = values.pop("kind")
                error = error or next((kind for kind in REPORTED if kind.__name__ == name), SeqdistillError)(**values)
            else:
                getattr(progress, what)(**values)
        process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return error
