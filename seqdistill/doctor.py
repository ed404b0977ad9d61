"""Whether this machine and these endpoints can do the work: each check with what was found and how to fix it.

Sends nothing that is paid for: of an endpoint it only requests the list of models.
"""

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from seqdistill.engines import Pace
from seqdistill.engines.models import locate
from seqdistill.engines.openai_api import OpenAIEngine
from seqdistill.engines.options import Address
from seqdistill.engines.replies import as_dict
from seqdistill.errors import MissingExtra, SeqdistillError
from seqdistill.journal.asking import run_async
from seqdistill.recipe.tables import ModelConfig, Recipe
from seqdistill.records import from_json

NEEDED = ("torch", "transformers", "trl", "datasets", "accelerate", "peft")
LOW_DISK, NO_DISK = 10 << 30, 1 << 30  # bytes
LOW_MEMORY = 4 << 30  # bytes
ENDPOINT_SECONDS = 10.0
MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))  # cgroup v2, v1
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "consolidated.safetensors", "adapter_model.safetensors")
BF16_FLAGS = ("amx_bf16", "avx512_bf16")


@dataclass(frozen=True)
class Check:
    """One finding. `state` is "ok", "note" (works, but know this) or "fail"."""

    name: str
    state: str
    found: str
    fix: str = ""


def examine(recipe: Recipe, folder: Path) -> list[Check]:
    """All checks: of this machine, and of each model that the recipe names. `folder` is where runs are to be."""
    checks = [_python(), *_disks(folder), _memory(), *_packages(), *_accelerator(), _processor(), _vllm(recipe)]
    for role, model in _models(recipe):
        checks += _endpoints(role, model) if model.engine == "openai" else [_files(role, model)]
    return checks


def _models(recipe: Recipe) -> Iterator[tuple[str, ModelConfig]]:
    teachers: list[tuple[str, ModelConfig]] = [("teacher", one) for one in recipe.teachers] or [("teacher", recipe.teacher)]
    for role, model in (*teachers, ("student", recipe.student), ("judge", recipe.judge)):
        if model.model and not model.model.startswith("shrink:"):
            yield role, model


def _python() -> Check:
    """Only named: an older one than pyproject.toml wants cannot install this package."""
    version = ".".join(map(str, sys.version_info[:3]))
    return (
        Check("python", "ok", version) if sys.version_info >= (3, 11) else Check("python", "fail", version, "use 3.11 or newer")
    )


def _disks(folder: Path) -> Iterator[Check]:
    """The disk of the runs, and that of the hub's downloads where it is another one."""
    from huggingface_hub import constants

    folder, cache = _existing(folder), _existing(Path(constants.HF_HUB_CACHE))
    yield _disk("disk", folder, "a run holds the student twice, and its checkpoints")
    if folder.stat().st_dev != cache.stat().st_dev:
        yield _disk("hub cache", cache, "models of the hub are downloaded there: set HF_HOME to a folder on a larger disk")


def _existing(folder: Path) -> Path:
    return next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())


def _disk(name: str, folder: Path, fix: str) -> Check:
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.1f} GB free at {folder}"
    return Check(name, "ok", found) if free >= LOW_DISK else Check(name, "fail" if free < NO_DISK else "note", found, fix)


def _memory() -> Check:
    """What this process may use of the machine: a container has less than all."""
    machine, limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), _memory_limit()
    size = min(machine, limit or machine)
    of_machine = f" of the machine's {machine / 1e9:.1f}" if size < machine else ""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = f"{size / 1e9:.1f} GB{of_machine}, {processors} processors"
    return (
        Check("memory", "note", found, "enough for small students only") if size < LOW_MEMORY else Check("memory", "ok", found)
    )


def _memory_limit() -> int | None:
    """The bytes that the process's control group may use; None without a limit."""
    for file in MEMORY_LIMITS:
        if file.exists() and (text := file.read_text(encoding="utf-8").strip()).isdigit():
            return int(text)
    return None


def _packages() -> Iterator[Check]:
    """The packages of training, really imported: an installation can be broken although every version fits."""
    found, first = [], ""
    for name in NEEDED:
        try:
            importlib.import_module(name)
            found.append(f"{name} {metadata.version(name)}")
        except ModuleNotFoundError as error:
            missing = error.name or name
            yield Check(name, "fail", f"cannot be imported: {missing} is not installed", f"pip install {missing}")
        except Exception as error:  # noqa: BLE001 - a package that is broken raises what it likes
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            fix = f"pip install --force-reinstall --no-deps {name}; torchvision must fit torch, or be uninstalled"
            yield Check(name, "fail", f"cannot be imported: {reason}", f"repair {first} first" if first else fix)
            first = first or name
    if found:
        yield Check("packages", "ok", ", ".join(found))


def _accelerator() -> Iterator[Check]:
    """The GPU as torch sees it, and as the driver does."""
    try:
        import torch
    except Exception:  # noqa: BLE001 - it is among the packages that cannot be imported
        return
    driver = _driver()
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
        free, total = torch.cuda.mem_get_info()
        yield Check("gpu", "ok", f"{names}; {free / 1e9:.1f} of {total / 1e9:.1f} GB free; driver {driver or 'not known'}")
    elif driver and torch.version.cuda is None:
        fix = "pip install torch from the CUDA index that https://pytorch.org/get-started names for your driver"
        yield Check("gpu", "fail", f"driver {driver}, but torch {torch.__version__} is a CPU build", fix)
    elif driver:
        fix = "update the driver, install a torch build for an older CUDA, or check CUDA_VISIBLE_DEVICES"
        yield Check("gpu", "fail", f"driver {driver}, and torch for CUDA {torch.version.cuda} finds no GPU", fix)
    elif torch.backends.mps.is_available():
        yield Check("gpu", "ok", "Apple's, by torch's mps backend")
    else:
        yield Check(
            "gpu", "note", "none: everything runs on the CPU", "fine for students up to a few hundred million parameters"
        )


def _driver() -> str | None:
    """The NVIDIA driver's version; None without one."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip().splitlines()[0] if answer.returncode == 0 and answer.stdout.strip() else None


def _processor() -> Check:
    """Whether bfloat16 is arithmetic or emulation on this CPU."""
    flags = Path("/proc/cpuinfo")
    if not flags.exists():
        return Check("cpu", "ok", "not examined on this system")
    text = flags.read_text(encoding="utf-8", errors="replace")
    if found := [flag for flag in BF16_FLAGS if flag in text]:
        return Check("cpu", "ok", f"computes in bfloat16 ({', '.join(found)})")
    fix = 'on this CPU set dtype = "float32" in [teacher.options] and [student.options]'
    return Check("cpu", "note", "no bfloat16 arithmetic: such models are several times slower", fix)


def _vllm(recipe: Recipe) -> Check:
    wanted = any(model.engine == "vllm" for _, model in _models(recipe))
    try:
        return Check("vllm", "ok", metadata.version("vllm"))
    except metadata.PackageNotFoundError:
        fix = MissingExtra("vllm", "vllm", "the vllm engine").hint
        how = "only the vllm engine needs it; `vllm serve` in an environment of its own does not"
        return Check("vllm", "fail" if wanted else "note", "not installed", fix if wanted else how)


def _files(role: str, model: ModelConfig) -> Check:
    name = f"{role} {model.model}"
    try:
        path = locate(model.model or "", name)
    except SeqdistillError as error:
        return Check(name, "fail", error.message, error.hint)
    if path:
        if path.is_dir() and (missing := _missing_weights(lambda file: path / file)):
            return Check(name, "fail", f"{path}: {missing}", "copy or download the model again")
        return Check(name, "ok", str(path))
    from huggingface_hub import try_to_load_from_cache

    def cached(file: str) -> Path | None:
        found = try_to_load_from_cache(model.model or "", file, revision=model.revision)
        return Path(found) if isinstance(found, str) else None

    found = "not downloaded yet"
    if cached("config.json"):
        if not (missing := _missing_weights(cached)):
            return Check(name, "ok", "on the hub, and downloaded")
        found = f"only partly downloaded: {missing}"
    fix = f"hf download {model.model}"
    if os.environ.get("HF_HUB_OFFLINE"):
        return Check(name, "fail", f"{found}, and HF_HUB_OFFLINE is set", f"unset it, and {fix}")
    return Check(name, "note", found, f"{fix}; or, if an endpoint serves it, --{role}-engine openai")


def _missing_weights(place: Callable[[str], Path | None]) -> str:
    """What is missing of a model's weights, by where its files are; empty where all are there."""
    for name in WEIGHTS:
        if (file := place(name)) and file.exists():
            return ""
        if (index := place(f"{name}.index.json")) and index.exists():
            try:
                parts = sorted({*as_dict(as_dict(from_json(index.read_bytes())).get("weight_map")).values()})
            except ValueError:
                return f"{index.name} is damaged"
            missing = [part for part in parts if not ((file := place(str(part))) and file.exists())]
            more = f" and {len(missing) - 1} more" if missing[1:] else ""
            return f"without {missing[0]}{more}" if missing else ""
    return "no weights"


def _endpoints(role: str, model: ModelConfig) -> list[Check]:
    try:
        engine = OpenAIEngine(model, Pace(timeout=ENDPOINT_SECONDS, connect_timeout=ENDPOINT_SECONDS))
    except SeqdistillError as error:
        return [Check(f"{role} {model.model}", "fail", error.message, error.hint)]
    name = model.model or ""
    return [run_async(_endpoint(engine, f"{role} at {one.name}", name, one)) for one in engine.addresses]


async def _endpoint(engine: OpenAIEngine, name: str, model: str, address: Address) -> Check:
    """What an endpoint says to GET /models."""
    import openai

    try:
        async with engine.client(address) as client:
            listed = [str(one.id) for one in (await client.models.list()).data]
    except openai.APIStatusError as error:
        return _refused(name, error.status_code, address)
    except (openai.APIError, ValueError, TypeError, AttributeError) as error:
        reason = engine.without_secrets(str(error.__cause__ or error)).strip() or type(error).__name__
        return Check(
            name, "fail", f"cannot be reached: {reason}", "start the server, or check the base URL (it usually ends in /v1)"
        )
    if model in listed:
        return Check(name, "ok", f"serves {model}")
    some = ", ".join(listed[:3]) + (" ..." if len(listed) > 3 else "")
    return Check(name, "note", f"does not list {model}", f"it lists {some or 'nothing'}; check the name")


def _refused(name: str, status: int, address: Address) -> Check:
    if status in (401, 403):
        fix = f"set {address.key_env} to a valid key"
        return Check(name, "fail", f"HTTP {status}: the key is refused" if address.key else f"HTTP {status}: no key", fix)
    if status in (404, 405, 501):
        return Check(
            name, "note", f"reached; HTTP {status} for its list of models", "a probe shows more: generate RUN --probe 1"
        )
    return Check(name, "fail", f"HTTP {status}", "check the server's log, or try again later")
