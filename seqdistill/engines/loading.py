"""Loads what a local model is made of: its config, tokenizer and weights, through transformers' Auto classes.

The only file that calls `from_pretrained`, so the one place where such a load fails: every failure is a UsageError that names
the model and the next action. A GGUF file is converted once and the result kept. What a name means is decided in `models`.
Does not run models.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from seqdistill.engines.generation_config import active_settings
from seqdistill.engines.models import locate
from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.files import apply_umask, folder_beside
from seqdistill.recipe.tables import JudgeConfig, ModelConfig, StudentConfig, TeacherConfig
from seqdistill.records import json_if_whole

HUB_SECONDS = 5.0  # to connect to the hub, or to wait for its reply; HF_HUB_ETAG_TIMEOUT sets it
NAMED_KEYS = 3  # of the tensors that a checkpoint lacks
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
UNPACKED = {"fp8": "FineGrainedFP8Config", "mxfp4": "Mxfp4Config"}  # quantisations that transformers can undo as it loads
CHECK_FILES = "check the model's files, or use another one"


def load(auto: str, model: ModelConfig, what: str = "", **settings: Any) -> Any:
    """What `transformers.AUTO.from_pretrained` makes of a model; `auto` is "AutoTokenizer", "AutoModelForCausalLM" ...

    `what` is the model's name in errors, by default its role and name. Code that comes with a model runs only with
    trust_remote_code. Weights are read from safetensors, and all of them must be there. Raises UsageError for whatever
    cannot be loaded, SeqdistillError when memory runs out.
    """
    what = what or named(model)
    source = files_of(model, what)
    settings |= {"trust_remote_code": model.trust_remote_code} | ({"revision": model.revision} if model.revision else {})
    weights = "For" in auto
    if weights:
        _check_generation_config(Path(source), what)
        settings = {"use_safetensors": True, "output_loading_info": True} | settings
    try:
        loaded = _from_pretrained(auto, source, **settings)
    except Exception as error:  # libraries and a model's own code raise what they like; all of it is about this model
        raise load_failure(error, model, what, CHECK_FILES) from error
    if not weights:
        return loaded
    loaded, info = loaded
    if missing := sorted(info["missing_keys"]):
        some = ", ".join(missing[:NAMED_KEYS]) + (" ..." if len(missing) > NAMED_KEYS else "")
        raise UsageError(
            f"{what} cannot be loaded: its files lack {len(missing)} of the weights that its config.json names: {some}",
            "copy or download the model again",
        )
    return loaded


def skeleton(model: ModelConfig, **settings: Any) -> Any:
    """A causal LM's modules without its weights, on torch's meta device. Raises UsageError as `load` does."""
    import torch
    import transformers

    config, settings = load("AutoConfig", model), {"trust_remote_code": model.trust_remote_code, **settings}
    try:
        with torch.device("meta"):
            return transformers.AutoModelForCausalLM.from_config(config, **settings)
    except Exception as error:  # a config that no model can be made of, or a model's own code
        raise load_failure(error, model, named(model), CHECK_FILES) from error


def plain_weights(model: ModelConfig, what: str = "") -> dict[str, Any]:
    """Settings of `load` with which a causal LM has plain weights, to be trained or cut, however its files hold them.

    Raises UsageError for weights that are stored quantised in a way that is not undone here.
    """
    import transformers

    what = what or named(model)
    config = load("AutoConfig", model, what)
    stored = getattr(config, "quantization_config", None) or getattr(config, "compression_config", None)
    if not stored:
        return {}
    stored = stored if isinstance(stored, dict) else stored.to_dict()
    method = str(getattr(stored.get("quant_method"), "value", stored.get("quant_method") or "bitsandbytes"))
    if method not in UNPACKED:
        raise UsageError(
            f"{what}: its weights are stored quantised ({method}), and cannot be trained or cut so",
            "name the model that it was quantised from; [train.lora] quantize loads that one in 4 or 8 bits",
        )
    return {"quantization_config": getattr(transformers, UNPACKED[method])(dequantize=True)}


def check_weights(model: ModelConfig) -> None:
    """Raises UsageError for a folder that lacks weights in safetensors, or has damaged ones. Reads their headers alone.

    Of a model on the hub and of a .gguf file nothing is known before it is loaded.
    """
    from safetensors import SafetensorError, safe_open

    what = named(model)
    folder = locate(model.model or "", what)
    if folder is None or not folder.is_dir() or (folder / "adapter_config.json").exists():
        return
    names, index = ["model.safetensors"], folder / "model.safetensors.index.json"
    try:
        if not (folder / names[0]).exists() and index.exists():
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        for name in names:
            if not (folder / name).exists():
                raise OSError(f"{folder}: no file named {name}")
            with safe_open(folder / name, framework="pt"):
                pass
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise load_failure(error, model, what, CHECK_FILES) from error


def generation_config(model: ModelConfig, what: str = "") -> Any | None:
    """transformers' generation config of a model, for its stop tokens; None for a model without one. Raises UsageError."""
    what = what or named(model)
    source = files_of(model, what)
    _check_generation_config(Path(source), what)
    try:
        return _from_pretrained("GenerationConfig", source, **({"revision": model.revision} if model.revision else {}))
    except Exception as error:
        if "does not appear to have a file named" in str(error):
            return None
        raise load_failure(error, model, what, CHECK_FILES) from error


def longest_input(config: Any) -> int:
    """The most tokens that a loaded model takes, by its config; practically endless where it names no limit."""
    return getattr(config.get_text_config(decoder=True), "max_position_embeddings", None) or 1 << 30


def default_device(options: Mapping[str, Any]) -> Any:
    """Where a local model runs: the device that its options name, else the GPU, else the CPU."""
    import torch

    return options.get("device") or ("cuda" if torch.cuda.is_available() else "cpu")


def with_adapters(model: Any, folder: Path) -> Any:
    """A loaded model with the adapters in a folder, as peft's model."""
    import peft

    return peft.PeftModel.from_pretrained(model, folder)


def _from_pretrained(auto: str, source: str, **settings: Any) -> Any:
    import transformers

    quiet_transformers()
    return getattr(transformers, auto).from_pretrained(source, **settings)


def load_failure(error: Exception, model: ModelConfig, what: str, otherwise: str) -> SeqdistillError:
    """What to raise for an exception of a library that loaded a model: SeqdistillError when memory ran out, else UsageError.

    `otherwise` is the next action where the exception is not a known one.
    """
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return SeqdistillError(f"{what}: not enough memory to load it: {_line(error)}", "use a smaller model or dtype")
    return UsageError(f"{what} cannot be loaded: {_reason(error)}", _next_action(error, model, otherwise))


def _check_generation_config(folder: Path, what: str) -> None:
    """Raises UsageError for a file that transformers would pass over, and with it the model's stop tokens."""
    file = folder / "generation_config.json"
    if file.is_file() and json_if_whole(file) is None:
        raise UsageError(f"{what} cannot be loaded: {file.name} is not a JSON object", "copy or download the model again")


def files_of(model: ModelConfig, what: str = "") -> str:
    """What `from_pretrained` reads a model from: a folder, or a hub id that the hub has just confirmed.

    Without the hub, a hub id's folder in the cache of this machine. Loads nothing heavy, and takes at most about
    HUB_SECONDS. Raises UsageError for a model that is in neither.
    """
    what = what or named(model)
    if not model.model:
        role = _role(model)
        raise UsageError(
            f"no {role or 'model'} is named", f"pass --{role}, or set model in [{role}]" if role else "name a model"
        )
    if locate(model.model, what) is not None:
        return local_model(model.model, what)
    return _from_hub(model.model, model.revision, what, _meant(model))


def local_model(name: str, what: str = "") -> str:
    """What `from_pretrained` takes for a model name: a folder, or the hub id as it is. A .gguf is converted once.

    `what` names the model in errors. Raises UsageError for a path that is not there and a .gguf that cannot be read.
    """
    path = locate(name, what)
    if path is None:
        return name
    return str(path if path.is_dir() else _converted(path, what or f"model {name!r}"))


def processor_files(model: ModelConfig) -> list[Path]:
    """The files of what turns images, sound or video into a model's inputs; empty for a model of text alone.

    Of a model on the hub they are downloaded; what the hub does not give now is left out.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    source = files_of(model)
    if Path(source).is_dir():
        return [path for name in PROCESSOR_FILES if (path := Path(source) / name).exists()]
    found = []
    for name in PROCESSOR_FILES:
        with contextlib.suppress(EntryNotFoundError, HfHubHTTPError, OSError):  # no such file there, or no network
            found.append(Path(hf_hub_download(source, name, revision=model.revision)))
    return found


def quiet_transformers() -> None:
    """Silences transformers' own bars and hints: progress is the caller's to show."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def folder_here(model: ModelConfig) -> Path | None:
    """The folder on this machine that holds a model's files; None for a hub id that was not downloaded."""
    if locate(model.model or "") is not None:
        return Path(local_model(model.model or ""))
    return _cached(model.model or "", model.revision)


def neutralised_settings(model: ModelConfig) -> list[str]:
    """What `engines.generation_config` neutralises of a model's generation_config.json; empty for an endpoint's."""
    folder = None if model.engine == "openai" or not model.model else folder_here(model)
    return active_settings(json_if_whole(folder / "generation_config.json") or {}) if folder else []


def cache_folder() -> Path:
    """Where converted models are kept: $SEQDISTILL_CACHE, else ~/.cache/seqdistill."""
    return Path(os.environ.get("SEQDISTILL_CACHE") or Path.home() / ".cache" / "seqdistill")


def _converted(gguf: Path, what: str) -> Path:
    """The safetensors folder of a .gguf file, in bf16; made on first use and named by the file's content."""
    with gguf.open("rb") as file:
        target = cache_folder() / f"{gguf.stem}-{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"
    if target.is_dir():
        return target
    model, tokenizer = _read_gguf(gguf, what)
    with folder_beside(target) as half:
        model.save_pretrained(half)
        tokenizer.save_pretrained(half)
        apply_umask(half)
        if not target.is_dir():
            half.replace(target)
    return target


def _read_gguf(gguf: Path, what: str) -> tuple[Any, Any]:
    """(model in bf16, tokenizer) of a .gguf file. Raises UsageError for a file that transformers cannot read."""
    import torch
    from transformers import GgufConfig

    source, dense = str(gguf.parent), GgufConfig(gguf_file=gguf.name, dequantize=True)
    try:
        model = _from_pretrained(
            "AutoModelForCausalLM", source, gguf_file=gguf.name, quantization_config=dense, dtype=torch.bfloat16
        )
        return model, _from_pretrained("AutoTokenizer", source, gguf_file=gguf.name)
    except Exception as error:  # a broken file makes its reader raise anything
        hint = "check the .gguf file, or pass a Hugging Face folder"
        raise load_failure(error, ModelConfig(model=str(gguf)), what, hint) from error


def _cached(name: str, revision: str | None) -> Path | None:
    """The folder of a hub id in the hub's cache on this machine."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(config).parent if isinstance(config, str) else None


def named(model: ModelConfig) -> str:
    """A model as errors name it: "teacher 'Qwen/Qwen3-8B'"."""
    return f"{_role(model) or 'model'} {model.model!r}"


def _role(model: ModelConfig) -> str:
    roles = {TeacherConfig: "teacher", StudentConfig: "student", JudgeConfig: "judge"}
    return next((name for kind, name in roles.items() if isinstance(model, kind)), "")


def _meant(model: ModelConfig) -> str:
    role = _role(model)
    if not role:
        return "check the name"
    return f"was an endpoint meant? then --{role}-engine openai --{role}-base-url URL; else check the name and the network"


@lru_cache(maxsize=64)  # one hub request for each model, not one for each of its files
def _from_hub(name: str, revision: str | None, what: str, meant: str) -> str:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    cached = _cached(name, revision)
    if constants.HF_HUB_OFFLINE:
        if cached:
            return str(cached)
        raise UsageError(f"{what}: not a folder, not in the hub's cache on this machine, and HF_HUB_OFFLINE is set", meant)
    seconds = constants.HF_HUB_ETAG_TIMEOUT if "HF_HUB_ETAG_TIMEOUT" in os.environ else HUB_SECONDS
    try:
        get_hf_file_metadata(hf_hub_url(name, "config.json", revision=revision), timeout=seconds)
    except HFValidationError as error:
        raise UsageError(f"{what}: not a folder, and not the form of a hub id (OWNER/NAME)", meant) from error
    except GatedRepoError as error:
        hint = f"accept its terms at {constants.ENDPOINT}/{name}, then set HF_TOKEN"
        raise UsageError(f"{what}: the hub gives this model only to those who accepted its terms", hint) from error
    except RevisionNotFoundError as error:
        hint = f"see {constants.ENDPOINT}/{name}/commits/main"
        raise UsageError(f"{what}: the hub has no revision {revision!r} of it", hint) from error
    except EntryNotFoundError as error:
        hint = "pass a Hugging Face model with config.json, or the path of a .gguf file"
        raise UsageError(f"{what}: has no config.json on the hub", hint) from error
    except RepositoryNotFoundError as error:
        private = "; a private model needs HF_TOKEN"
        raise UsageError(f"{what}: not a folder, and the hub has no such model", meant + private) from error
    except Exception as error:  # no network, a proxy's page, a server's error: whatever it is, the hub gave no answer
        if cached:
            return str(cached)
        raise UsageError(f"{what}: not a folder, and the hub cannot be reached: {_line(error)}", meant) from error
    return name


def _line(error: BaseException) -> str:
    """The first line that an exception says, or else its name."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _reason(error: Exception) -> str:
    """An exception in one line. Some say what is wrong in their second line, some only the value that they choked on."""
    text = str(error)
    if callable(faults := getattr(error, "errors", None)):  # pydantic's, whose first line only counts them
        fault = faults()[0]
        text = "".join(f"{name}: " for name in fault["loc"][:1]) + fault["msg"].removeprefix("Value error, ")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if lines[0].endswith(":") and len(lines) > 1:
        return f"{lines[0]} {lines[1]}"
    said = lines[0].split(" Model type should be")[0].split(" Supported architectures:")[0]
    return f"{type(error).__name__}: {said}" if isinstance(error, (KeyError, AttributeError, TypeError, IndexError)) else said


_ACTIONS = (  # what an exception says, in lower case: what to do
    ("trust_remote_code", "read the code that comes with the model; to run it, set trust_remote_code = true"),
    ("does not recognize this architecture", "pip install --upgrade transformers, or use another model"),
    ("configuration class", "use a decoder-only language model (a causal LM)"),
    ("no file named", "weights are read from .safetensors files: convert others, or copy or download the model again"),
    ("does not appear to have a file named", "weights are read from .safetensors files: convert others, or use another model"),
    ("backend tokenizer", "copy tokenizer.json with the model; for a SentencePiece model: pip install sentencepiece"),
    ("deserializing header", "the file of the weights is damaged: copy or download the model again (git lfs pull)"),
    ("mismatched_sizes", "config.json does not fit the weights: copy or download the model again"),
    ("unpack_from", "the file is damaged or incomplete: copy or download the model again"),
    ("is required", "install the package, or use a model that does not need it"),
    ("requires", "install the package, or use a model that does not need it"),
)


def _next_action(error: Exception, model: ModelConfig, otherwise: str) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"install the package that it needs ({error.name}), or use another model"
    said = str(error).lower()
    role = _role(model)
    action = next((action for words, action in _ACTIONS if words in said), "")
    if not action:
        action = "install what is missing" if isinstance(error, ImportError) else otherwise
    return action.replace("set trust", f"set [{role}] trust" if role else "set trust")
