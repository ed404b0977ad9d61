"""`export --to`: the student in the form in which it is deployed; a quantised one with the verdict beside the student itself.

A .gguf answers the run's own test prompts through llama.cpp; the statistics are eval's. Writes into a folder of its own.
"""

import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from seqdistill.cards import ADAPTER, GGUF, write_model_card
from seqdistill.engines import Completion, Pace, Request
from seqdistill.engines.loading import files_of, generation_config, load
from seqdistill.errors import UsageError
from seqdistill.export import gguf
from seqdistill.export.modelfile import Rendered, write_modelfile
from seqdistill.export.written import note_written, written_outside
from seqdistill.files import atomic_folder, is_temporary
from seqdistill.journal.asking import Asker, answers, failures, missing_requests, run_async
from seqdistill.journal.budget import Source, spending
from seqdistill.journal.prices import FREE
from seqdistill.journal.storage import Journal
from seqdistill.progress import Progress
from seqdistill.recipe.reading import nearest
from seqdistill.recipe.tables import ModelConfig, Recipe
from seqdistill.records import (
    Message,
    Prompt,
    content_files,
    file_sha256,
    json_if_whole,
    read_json,
    request_seed,
    write_json,
    write_jsonl,
)
from seqdistill.runs import Run
from seqdistill.stages.evaluate.compare import compare_form, prompts_of
from seqdistill.stages.evaluate.contestants import is_evaluated
from seqdistill.stages.train.vocabulary import NOTE
from seqdistill.tasks.templates import PROMPT_TEMPLATE

FOLDERS = ("safetensors", "merged", "vllm")  # forms that are the trained folder as it is: adapters are merged when it is saved
GGUF_FORMS = tuple(f"gguf:{kind}" for kind in gguf.KINDS)
FORMS = (*FOLDERS, "adapter", *GGUF_FORMS)
OF_THE_MODEL = ("config.json", "README.md", NOTE)  # what adapters leave to their base
LEAST_CONTEXT = 4096  # tokens
AT_ONCE = 4  # requests in flight at llama.cpp


@dataclass(frozen=True)
class Exported:
    """What was written. `proof` is what the form's answers to the test prompts show, beside those of the student itself."""

    form: str
    path: Path
    bytes: int
    student_bytes: int
    serve: str  # the command that serves it
    tokens_per_second: float | None = None  # of one request of AT_ONCE, by llama.cpp on this machine
    proof: Mapping[str, Any] | None = None


def check_quantised(forms: Sequence[str]) -> None:
    """Raises UsageError for a form that is not quantised, or not known."""
    for form in forms:
        if form not in GGUF_FORMS:
            raise UsageError(f"--form {form!r}{nearest(form, GGUF_FORMS)}", f"one of: {', '.join(GGUF_FORMS)}")


def proofs(run: Run) -> Iterator[dict[str, Any]]:
    """What the exported forms of today's student have shown, each with `form`, `bytes` and `scores` by prompt id."""
    model = run.file("train", "model")
    for folder in sorted((run.path / "export").glob("gguf-*")):
        source, proof = json_if_whole(folder / "source.json"), json_if_whole(folder / "proof.json")
        if source and proof and source["model"] == file_sha256(model):
            yield {"form": source["form"], **proof}


def export(run: Run, recipe: Recipe, form: str, out: Path | None, progress: Progress) -> Exported:
    """Writes the student in one form. Raises UsageError for an unknown form, an untrained run, or a folder that is in use."""
    if form not in FORMS:
        raise UsageError(f"--to {form!r}{nearest(form, FORMS)}", f"one of: {', '.join(FORMS)}")
    model = run.need("train", "model")
    if form == "adapter":
        _check_adapters(run)
    folder = out or run.path / "export" / form.replace(":", "-")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: a file, and export writes a folder", "name another one with --out")
    with run.locked("export") if out is None else nullcontext():
        if form in GGUF_FORMS:
            if out is not None:
                _check_own(folder, form)
            return _quantised(run, recipe, form, folder, model, _bytes(model), progress)
        with TemporaryDirectory() as made:
            content, serve = _folder(run, recipe, form, folder, model, Path(made))
            if out is None or _may_be_replaced(run, folder, content):
                _put(content, folder)
            if out is not None:
                note_written(run, {str((folder / name).absolute()): file_sha256(path) for name, path in content.items()})
    return Exported(form, folder, _bytes(folder), _bytes(model), serve)


def _folder(run: Run, recipe: Recipe, form: str, folder: Path, model: Path, made: Path) -> tuple[Mapping[str, Path], str]:
    """The files of a folder's form, by name, and the command that serves it; what is not there yet is written to `made`."""
    files = _files(model)
    place = shlex.quote(str(folder))
    if form != "adapter":
        return files, f"vllm serve {place}"
    adapter = run.file("train", "adapter")
    files = {name: path for name, path in files.items() if name not in OF_THE_MODEL and ".safetensors" not in path.suffixes}
    files |= _files(adapter)
    config = read_json(files["adapter_config.json"])
    named = _base_of_adapters(run)
    write_json(made / "adapter_config.json", {**config, "base_model_name_or_path": named})
    write_model_card(run, _scores(run, recipe), form=ADAPTER, folder=made)
    files |= _files(made)
    chat = f" --chat-template {place}/chat_template.jinja" if "chat_template.jinja" in files else ""
    name = shlex.quote(run.path.absolute().name)
    serve = f"vllm serve {shlex.quote(named)} --enable-lora --max-lora-rank {config['r']} --lora-modules {name}={place}"
    return files, f"{serve} --generation-config {place}{chat}"


def _check_adapters(run: Run) -> None:
    if not run.file("train", "adapter").is_dir():
        raise UsageError(
            f"{run.path}: has no adapters: all weights were trained",
            "train with [train.lora] r = 16, or export --to safetensors",
        )


def _may_be_replaced(run: Run, folder: Path, files: Mapping[str, Path]) -> bool:
    """Whether a folder of the user's own choice is to be written: not where it holds just these files already.

    Raises UsageError for one with anything in it but an earlier export of this run as it was left.
    """
    held = {name: file_sha256(path) for name, path in _files(folder).items()}
    if held and held == {name: file_sha256(path) for name, path in files.items()}:
        return False
    left = written_outside(run)
    if other := next((name for name, sha256 in held.items() if left.get(str((folder / name).absolute())) != sha256), None):
        raise UsageError(
            f"{folder}: not empty, and no earlier export of this run as it was left: it holds {other}",
            "name another folder with --out, or remove this one",
        )
    return True


def _put(files: Mapping[str, Path], folder: Path) -> None:
    """Writes the files as a folder, in place of an earlier one."""
    with atomic_folder(folder) as temporary:
        for name, path in files.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, temporary / name)


def _files(folder: Path) -> dict[str, Path]:
    """The files of a folder and of those in it, further chat templates say, by their path in it."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def _check_own(folder: Path, form: str) -> None:
    """Raises UsageError for a folder of the user's own choice with anything in it but an earlier export in this form."""
    held = {path.name for path in folder.iterdir() if not is_temporary(path.name)} if folder.is_dir() else set()
    others = held - {_file(form), *gguf.BESIDE, *gguf.OF_THE_RUN}
    if others or (held and not _is_source(folder / "source.json", form)):
        raise UsageError(
            f"{folder}: not empty, and no earlier export to {form}: it holds {min(others or held)}",
            "name another folder with --out, or remove this one",
        )


def _is_source(note: Path, form: str) -> bool:
    """Whether a file is the note that an export in a form leaves of what it was made from."""
    source = json_if_whole(note)
    return source is not None and source.keys() == {"model", "form", "tools"} and source["form"] == form


def _file(form: str) -> str:
    return f"student-{form.partition(':')[2]}.gguf"


def _quantised(run: Run, recipe: Recipe, form: str, folder: Path, model: Path, size: int, progress: Progress) -> Exported:
    file = folder / _file(form)
    note = folder / "source.json"
    source = {"model": file_sha256(model), "form": form, "tools": list(gguf.TOOLS)}
    if not file.exists() or json_if_whole(note) != source:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(note, {**source, "model": None})  # from here on the folder is this export's, if it is killed, too
        (folder / "proof.json").unlink(missing_ok=True)
        progress.note(f"converting {model} to {file}")
        whole = _uncut(model)
        gguf.convert(model, file, form.partition(":")[2], None if whole == model else whole, progress)
        write_json(note, source)
    scores = _scores(run, recipe)
    prompts, most = (prompts_of(run), int(scores["max_tokens"])) if scores else ({}, 256)
    stops, longest = _stops_and_longest(model, prompts)
    context = _context(model, longest + most)
    template = write_modelfile(folder / "Modelfile", file, stops, _system(model), most, context, _rendered(model))
    if template is None:
        progress.note("Modelfile: the chat template cannot be written for Ollama: llama-server reads it from the .gguf")
    elif template.for_one_answer:
        progress.note("Modelfile: its template is right for single prompts; later turns of a conversation differ from training")
    shutil.copyfile(model / PROMPT_TEMPLATE, folder / PROMPT_TEMPLATE)
    name = shlex.quote(run.path.absolute().name)
    serve = f"llama-server -m {shlex.quote(str(file))}; or: ollama create {name} -f {shlex.quote(str(folder / 'Modelfile'))}"
    exported = Exported(form, file, file.stat().st_size, size, serve)
    card: dict[str, Any] = {"form": GGUF, "folder": folder, "file": file.name}
    if scores is None:
        without = "eval is of an earlier student" if run.manifest("eval") else "without eval there are no test prompts"
        (folder / "proof.json").unlink(missing_ok=True)
        progress.note(
            f"export: {without}, so the export is not evaluated: run `seqdistill eval {run.shell}`, then export again"
        )
        write_model_card(run, None, **card)
        return exported
    found = _answers(run, file, prompts, scores, longest + most + AT_ONCE, progress)
    write_jsonl(folder / "answers.jsonl", (_row(name, one) for name, one in found.items()))
    proof = compare_form(run, found, form, recipe)
    seconds = sum(one.seconds for one in found.values())
    speed = sum(one.completion_tokens for one in found.values()) / seconds if seconds else None
    write_json(folder / "proof.json", {"bytes": exported.bytes, "student_bytes": size, **proof})
    write_model_card(run, scores, **card, more=[f"{form}: {exported.bytes:,} bytes", *proof["verdict"]])
    return Exported(form, file, exported.bytes, size, serve, speed, proof)


def _base(run: Run) -> str:
    """The student before training: a folder, or a hub's name."""
    base = str((run.manifest("train") or {})["student"]["base"])  # a path is relative to the run
    return os.path.normpath((run.path / base).absolute()) if (run.path / base).exists() else base


def _base_of_adapters(run: Run) -> str:
    """The base that adapters name: its hub id, which others can load, where [student] base_model says it of a whole model."""
    train = run.manifest("train") or {}
    stated = train.get("config", {}).get("student", {})
    is_whole = "cut_from" not in train["student"] and not str(stated.get("model")).startswith("run:")
    return str(stated["base_model"]) if is_whole and stated.get("base_model") else _base(run)


def _uncut(model: Path) -> Path:
    """The folder with the whole vocabulary that a model's was cut from, in its run or in an earlier one; else the model's."""
    while (model / NOTE).exists():
        cut = model / "shrink.json"  # a trained one has none
        facts = read_json(cut) if cut.exists() else {"source": _base(Run(model.parents[1]))}
        model = Path(files_of(ModelConfig(model=facts["source"]), "the model whose vocabulary was cut"))
    return model


def _scores(run: Run, recipe: Recipe) -> dict[str, Any] | None:
    """What eval found of the student as it is now; None where it has not answered with it."""
    if not is_evaluated(run, recipe):
        return None
    return read_json(run.file("eval", "scores.json"))


def _answers(
    run: Run,
    file: Path,
    prompts: Mapping[str, Prompt],
    scores: Mapping[str, Any],
    context: int,
    progress: Progress,
) -> dict[str, Completion]:
    """What llama.cpp answers to each test prompt with this file, by prompt id; from the journal where it has answered."""
    identity = f"{file.name}@{file_sha256(file)[:16]}"
    requests = [
        Request(
            id=prompt.id,
            messages=prompt.messages,
            max_tokens=int(scores["max_tokens"]),
            temperature=float(scores["temperature"]),
            seed=request_seed(int(scores["seed"]), prompt.id, 0),
        )
        for prompt in prompts.values()
    ]
    with Journal(file.parent / "journal.jsonl") as journal:
        failed: dict[str, Completion] = {}
        if missing := len(missing_requests(journal, identity, requests)):
            with gguf.serving(file, context, AT_ONCE, progress) as url:
                config = ModelConfig(model=file.name, engine="openai", base_url=[url], api_key_env="SEQDISTILL_NO_KEY")
                source = Source(file.name, identity, config, FREE)
                with spending(run, journal, [source], None, progress, note_spent=False) as budget:
                    progress.start(f"prompting {file.name}", missing, "answers")
                    try:
                        asker = Asker(journal, budget, Pace(concurrency=AT_ONCE))
                        failed = run_async(_failures(asker, source, requests, progress))
                    finally:
                        progress.end()
        return {request.id: completion for request, completion in answers(journal, identity, requests, failed)}


async def _failures(asker: Asker, source: Source, requests: Sequence[Request], progress: Progress) -> dict[str, Completion]:
    async with asker:
        return await failures(asker, source, requests, progress.advance)


def _stops_and_longest(model: Path, prompts: Mapping[str, Prompt]) -> tuple[list[str], int]:
    """The texts of the student's stop tokens, and the tokens of its longest test prompt."""
    config = ModelConfig(model=str(model))
    tokenizer, settings = load("AutoTokenizer", config), generation_config(config)
    ids = [tokenizer.eos_token_id, *_listed(getattr(settings, "eos_token_id", None))]
    stops = [tokenizer.decode([one]) for one in dict.fromkeys(ids) if one is not None]
    how = {"add_generation_prompt": True, "tokenize": False}
    texts = [tokenizer.apply_chat_template(prompt.messages, **how) for prompt in prompts.values()]
    return stops, max((len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts), default=1024)


def _context(model: Path, tokens: int) -> int:
    """The context that a server needs for N tokens, with room for longer prompts; at most the model's own."""
    config = load("AutoConfig", ModelConfig(model=str(model))).get_text_config(decoder=True)
    needed = max(tokens, LEAST_CONTEXT)
    return min(needed, getattr(config, "max_position_embeddings", None) or needed)


def _rendered(model: Path) -> Rendered:
    """The student's chat template, without the token that begins every text where the tokenizer puts it there by itself."""
    tokenizer = load("AutoTokenizer", ModelConfig(model=str(model)))
    begins = tokenizer.bos_token if tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id] else None

    def rendered(messages: list[Message]) -> str:
        try:
            text = str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
        except Exception as error:  # noqa: BLE001 - a template raises what it likes for messages that it does not take
            raise ValueError(str(error)) from None
        return text.removeprefix(begins or "")

    return rendered


def _listed(value: Any) -> list[int]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _system(model: Path) -> str | None:
    """The system message that the student was trained with, where it is the same in every prompt."""
    texts = read_json(model / PROMPT_TEMPLATE)
    system = texts.get("system")
    return str(system) if system and "{{" not in system and "{%" not in system else None


def _row(name: str, completion: Completion) -> dict[str, Any]:
    return {"id": name, "completion": completion.content, "finish_reason": completion.finish_reason, "error": completion.error}


def _bytes(folder: Path) -> int:
    return sum(part.stat().st_size for part in content_files(folder))
