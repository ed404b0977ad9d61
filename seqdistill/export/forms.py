"""`export --to`: the student in the form in which it is deployed; a quantised one with the verdict beside the student itself.

A .gguf answers the run's own test prompts through llama.cpp; the statistics are eval's. Writes into a folder of its own.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqdistill.engines import Completion, Pace, Request
from seqdistill.engines.loading import generation_config, load
from seqdistill.errors import UsageError
from seqdistill.export import gguf
from seqdistill.journal.asking import Asker, answers, lacking, run_async
from seqdistill.journal.budget import FREE, Source, spending
from seqdistill.journal.storage import Journal
from seqdistill.progress import Progress
from seqdistill.recipe.reading import nearest
from seqdistill.recipe.tables import ModelConfig, Recipe
from seqdistill.records import Prompt, content_files, file_sha256, request_seed, write_json, write_jsonl
from seqdistill.runs import Run
from seqdistill.stages.evaluate.compare import compare_form, prompts_of
from seqdistill.stages.train.student import find_student, weights_of
from seqdistill.stages.train.vocabulary import NOTE
from seqdistill.tasks.templates import PROMPT_TEMPLATE

FOLDERS = ("safetensors", "merged", "vllm")  # forms that are the trained folder as it is: adapters are merged when it is saved
FORMS = (*FOLDERS, *(f"gguf:{kind}" for kind in gguf.KINDS))
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
        known = [one for one in FORMS if one not in FOLDERS]
        if form not in known:
            raise UsageError(f"--form {form!r}{nearest(form, known)}", f"one of: {', '.join(known)}")


def proofs(run: Run) -> Iterator[dict[str, Any]]:
    """What the exported forms of today's student have shown, each with `form`, `bytes` and `scores` by prompt id."""
    model = run.file("train", "model")
    for folder in sorted((run.path / "export").glob("gguf-*")):
        source, proof = _read(folder / "source.json"), _read(folder / "proof.json")
        if source and proof and source["model"] == file_sha256(model):
            yield {"form": source["form"], **proof}


def export(run: Run, recipe: Recipe, form: str, out: Path | None, progress: Progress) -> Exported:
    """Writes the student in one form. Raises UsageError for an unknown form, an untrained run, or a folder that is in use."""
    if form not in FORMS:
        raise UsageError(f"--to {form!r}{nearest(form, FORMS)}", f"one of: {', '.join(FORMS)}")
    model = run.need("train", "model")
    folder = out or run.path / "export" / form.replace(":", "-")
    size = _bytes(model)
    if form in FOLDERS:
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(f"{folder}: not empty", "name another folder with --out, or remove this one")
        shutil.copytree(model, folder, dirs_exist_ok=True)
        return Exported(form, folder, _bytes(folder), size, f"vllm serve {folder}")
    with run.locked("export"):
        return _quantised(run, recipe, form, folder, model, size, progress)


def _quantised(run: Run, recipe: Recipe, form: str, folder: Path, model: Path, size: int, progress: Progress) -> Exported:
    file = folder / f"student-{form.partition(':')[2]}.gguf"
    note = folder / "source.json"
    source = {"model": file_sha256(model), "form": form, "tools": list(gguf.TOOLS)}
    if not file.exists() or _read(note) != source:
        folder.mkdir(parents=True, exist_ok=True)
        progress.note(f"converting {model} to {file}")
        whole = Path(str(weights_of(find_student(recipe)).model)) if (model / NOTE).exists() else None
        gguf.convert(model, file, form.partition(":")[2], whole, progress)
        write_json(note, source)
    prompts = prompts_of(run) if run.manifest("eval") else {}
    scores = json.loads(run.file("eval", "scores.json").read_text(encoding="utf-8")) if prompts else {}
    most = int(scores.get("max_tokens", 256))
    stops, longest = _stops_and_longest(model, prompts)
    gguf.write_modelfile(folder / "Modelfile", file, stops, _system(model), most)
    shutil.copyfile(model / PROMPT_TEMPLATE, folder / PROMPT_TEMPLATE)
    serve = f"llama-server -m {file}; or: ollama create {run.path.absolute().name} -f {folder / 'Modelfile'}"
    exported = Exported(form, file, file.stat().st_size, size, serve)
    if not prompts:
        progress.note(f"export: without eval there are no test prompts to prove it on: run `seqdistill eval {run.path}` first")
        return exported
    found = _answers(run, file, prompts, scores, longest + most + AT_ONCE, progress)
    write_jsonl(folder / "answers.jsonl", (_row(name, one) for name, one in found.items()))
    proof = compare_form(run, found, form, recipe)
    seconds = sum(one.seconds for one in found.values())
    speed = sum(one.completion_tokens for one in found.values()) / seconds if seconds else None
    write_json(folder / "proof.json", {"bytes": exported.bytes, "student_bytes": size, **proof})
    return Exported(form, file, exported.bytes, size, serve, speed, proof)


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
        if missing := len(lacking(journal, identity, requests)):
            with gguf.serving(file, context, AT_ONCE, progress) as url:
                config = ModelConfig(model=file.name, engine="openai", base_url=[url], api_key_env="SEQDISTILL_NO_KEY")
                source = Source(file.name, identity, config, FREE)
                with spending(run, journal, [source], None, progress, note_spent=False) as budget:
                    progress.start(f"prompting {file.name}", missing, "answers")
                    try:
                        failed = run_async(_ask(Asker(journal, budget, Pace(concurrency=AT_ONCE)), source, requests, progress))
                    finally:
                        progress.end()
        return {request.id: completion for request, completion in answers(journal, identity, requests, failed)}


async def _ask(asker: Asker, source: Source, requests: Sequence[Request], progress: Progress) -> dict[str, Completion]:
    """The failures, by request id."""
    failed = {}
    async with asker, aclosing(asker.ask(source, requests)) as completions:
        async for completion in completions:
            progress.advance()
            if completion.error is not None:
                failed[completion.id] = completion
    return failed


def _stops_and_longest(model: Path, prompts: Mapping[str, Prompt]) -> tuple[list[str], int]:
    """The texts of the student's stop tokens, and the tokens of its longest test prompt."""
    config = ModelConfig(model=str(model))
    tokenizer, settings = load("AutoTokenizer", config), generation_config(config)
    ids = [tokenizer.eos_token_id, *_listed(getattr(settings, "eos_token_id", None))]
    stops = [tokenizer.decode([one]) for one in dict.fromkeys(ids) if one is not None]
    how = {"add_generation_prompt": True, "tokenize": False}
    texts = [tokenizer.apply_chat_template(prompt.messages, **how) for prompt in prompts.values()]
    return stops, max((len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts), default=1024)


def _listed(value: Any) -> list[int]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _system(model: Path) -> str | None:
    """The system message that the student was trained with, where it is the same in every prompt."""
    texts = json.loads((model / PROMPT_TEMPLATE).read_text(encoding="utf-8"))
    system = texts.get("system")
    return str(system) if system and "{{" not in system and "{%" not in system else None


def _row(name: str, completion: Completion) -> dict[str, Any]:
    return {"id": name, "completion": completion.content, "finish_reason": completion.finish_reason, "error": completion.error}


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _bytes(folder: Path) -> int:
    return sum(part.stat().st_size for part in content_files(folder))
