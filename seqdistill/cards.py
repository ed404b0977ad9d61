"""The cards: RUN/README.md for the data set, model/README.md for the student, written from the manifests.

What a manifest does not say is not on the card, but for what was paid since, which the journals say. No model's text is quoted.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqdistill.files import write_text
from seqdistill.funnel import funnel, rows_of
from seqdistill.journal.budget import spent_since
from seqdistill.records import HUB_ID, read_json, visible
from seqdistill.rights import license_in, rights_in
from seqdistill.runs import Run
from seqdistill.tasks.templates import PLAIN, PROMPT_TEMPLATE

HUB_LICENSES = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m afl-3.0
artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0
cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0
etalab-2.0 eupl-1.1 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl
openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license llama2 llama3 llama3.1 llama3.2
llama3.3 gemma
"""  # https://huggingface.co/docs/hub/repositories-licenses


def _texts(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "dtype": "string"} for name in names]


FEATURES: list[dict[str, Any]] = [  # of train and validation; `datasets` guesses wrong where a column begins empty
    *_texts("id", "prompt_id"),
    {"name": "sample", "dtype": "int64"},
    *_texts("teacher"),
    {"name": "prompt", "list": _texts("role", "content")},
    {"name": "completion", "list": _texts("role", "content")},
    *_texts("reasoning", "finish_reason"),
    {"name": "prompt_tokens", "dtype": "int64"},
    {"name": "completion_tokens", "dtype": "int64"},
    *_texts("reference", "slice"),
    {"name": "tool_calls", "list": _texts("name", "arguments")},
    *_texts("group"),
]


def write_dataset_card(run: Run) -> Path:
    """Writes RUN/README.md from what generate and filter left, and returns its path. Raises UsageError before generate ran."""
    from huggingface_hub import DatasetCardData

    run.need("generate", "samples.jsonl")
    generate, filtered = run.manifest("generate") or {}, run.manifest("filter")
    files = [{"split": split, "path": f"filter/{split}.jsonl"} for split in ("train", "validation") if filtered]
    data = DatasetCardData(
        **_license_fields(license_in(run), _term_links(run)),
        tags=["synthetic", "distillation", "seqdistill"],
        task_categories=["text-generation"],
        configs=[{"config_name": "default", "data_files": files}] if files else None,
        dataset_info={"features": FEATURES} if files else None,
        pretty_name=run.path.absolute().name,
    )
    teacher = generate.get("teacher", {})
    imported = generate.get("imported")  # made elsewhere, with settings that nobody recorded
    settings = {} if imported else generate.get("config", {}).get("generate", {})
    made = "recorded elsewhere" if imported else "made"
    body = [
        f"# {_text(run.path.absolute().name)}",
        f"Completions of {_code(teacher.get('name', 'a teacher'))}, {made} and filtered with seqdistill "
        f"{generate.get('seqdistill', '')} to train a smaller model on.",
        "## Teacher",
        *_table(
            ("", ""),
            [
                ("model", _code(teacher.get("name", "not stated"))),
                ("revision or identity", _code(teacher.get("identity", "not stated"))),
                ("engine", _text(teacher.get("engine", "not stated"))),
                *_terms(run, "license or terms", "not stated: check them before you publish or sell what you train"),
                *(
                    (name, str(settings[name]))
                    for name in ("samples", "temperature", "top_p", "max_tokens")
                    if name in settings
                ),
                ("seed", str(settings.get("seed", "not stated"))),
            ],
        ),
        "## What was kept",
        *_funnel(run),
        "## What it cost",
        *_cost(generate, spent_since(run, "generate") if generate else {}),
        "## Format",
        "JSON lines. `prompt` and `completion` are lists of messages (`role`, `content`), TRL's conversational "
        "prompt-completion type; further keys: `id`, `prompt_id`, `sample`, `teacher`, `reasoning`, `finish_reason`, "
        "`prompt_tokens`, `completion_tokens`, `reference`, `slice`, `tool_calls`, `group`. Rejected rows are in "
        "`filter/rejected.jsonl`, each with its `rule` and `reason`.",
        "## Limits",
        f"The text was written by a model. {_review_sentence(filtered)} It may be wrong or biased as its teacher is.",
    ]
    return _write(run.path / "README.md", data.to_yaml(), body)


@dataclass(frozen=True)
class Form:
    """One of the forms in which a student is delivered, as its card shows it."""

    relation: str  # to its base model, in the hub's words
    library: str
    use: str  # Python or shell code; {messages} and {file} are filled in


MODEL = Form(
    "finetune",
    "transformers",
    """```python
from transformers import pipeline

student = pipeline("text-generation", model="THIS_FOLDER")
messages = {messages}
print(student(messages)[0]["generated_text"][-1]["content"])
```""",
)
ADAPTER = Form(
    "adapter",
    "peft",
    """```python
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

student, tokenizer = AutoPeftModelForCausalLM.from_pretrained("THIS_FOLDER"), AutoTokenizer.from_pretrained("THIS_FOLDER")
messages = {messages}
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(student.generate(**inputs, max_new_tokens=256)[0, inputs["input_ids"].shape[1] :]))
```""",
)
GGUF = Form(
    "finetune",  # of the base: what it is quantised from is the student, which may be on no hub
    "gguf",
    """```sh
llama-server -m {file}
```

Messages for its /v1/chat/completions; `Modelfile` is for `ollama create`:

```python
messages = {messages}
```""",
)


def write_model_card(
    run: Run,
    scores: dict[str, Any] | None = None,
    *,
    form: Form = MODEL,
    folder: Path | None = None,
    file: str = "",
    more: Sequence[str] = (),
) -> Path:
    """Writes train/model/README.md, or that of another form's folder, and returns its path.

    With `scores`, the content of scores.json, also the results; `more` are further lines of results.
    """
    from huggingface_hub import ModelCardData

    model = run.need("train", "model")
    train = run.manifest("train") or {}
    student = train.get("student", {})
    base = str(student.get("cut_from", student.get("base", "")))
    hub_base = train.get("config", {}).get("student", {}).get("base_model")
    if HUB_ID.fullmatch(base) and not (run.path / base).exists():
        hub_base = base
    name = run.path.absolute().name
    data = ModelCardData(
        **_license_fields(student.get("license")),
        base_model=hub_base,
        base_model_relation=form.relation if hub_base else None,
        library_name=form.library,
        pipeline_tag="text-generation",
        tags=["distillation", "seqdistill"],
        model_name=name,
    )
    teacher = (run.manifest("generate") or {}).get("teacher", {}).get("name")
    body = [
        f"# {_text(name)}",
        f"A student that learnt from completions of {_code(teacher or 'a teacher')}: sequence-level distillation "
        "([Kim and Rush, 2016](https://aclanthology.org/D16-1139/)) with seqdistill.",
        "## How it was made",
        *_table(("", ""), _making(run, train, teacher)),
        "## Results",
        *(_results(scores) if scores else ["Not evaluated yet."]),
        *(["\n".join(f"- {_text(line)}" for line in more)] if more else []),
        "## Use",
        f"It was trained on prompts of this form (`{PROMPT_TEMPLATE}` beside the weights, Jinja2): send it the same.",
        form.use.replace("{messages}", _messages(model)).replace("{file}", file),
        "## Limits",
        "It was trained for one task and was measured only on prompts of that task. It repeats its teacher's mistakes, and "
        "makes some of its own.",
    ]
    return _write((folder or model) / "README.md", data.to_yaml(), body)


def _making(run: Run, train: dict[str, Any], teacher: str | None) -> Iterable[tuple[str, str]]:
    """How a student was made, by what train's manifest says."""
    student, config, rows = train.get("student", {}), train.get("config", {}).get("train", {}), rows_of(run, "filter")
    yield "teacher", _code(teacher or "not stated")
    yield from _terms(run, "teacher's license or terms", "not stated: check them before you publish or sell this model")
    yield "student before training", _code(student.get("base") or "not stated")
    for key, value in student.items():
        if key != "base" and isinstance(value, (str, int, list)):
            yield key, _text(str(value))
    for key, unit in (
        ("vocabulary", "tokens; texts unlike the task's take more tokens each"),
        ("width", "neurons a layer"),
    ):
        if key in student:
            yield key, f"{student[key]['kept']:,} of {student[key]['of']:,} {unit}"
    yield "training rows", f"{rows.get('train.jsonl', 0):,} (validation {rows.get('validation.jsonl', 0):,})"
    for key, value in train.get("counts", {}).items():
        if value is not None:
            yield key.replace("_", " "), f"{value:,}"
    yield "method", _text(str(config.get("method", "not stated")))
    for key, value in sorted(config.get("args", {}).items()):
        yield f"`{key}`", _text(str(value))
    yield "seqdistill", str(train.get("seqdistill", ""))


def _messages(folder: Path) -> str:
    """The messages that the student expects, as Python code."""
    template = folder / PROMPT_TEMPLATE
    texts = read_json(template) if template.exists() else PLAIN.student
    rows = [{"role": role, "content": texts[role]} for role in ("system", "user") if texts.get(role)]
    return "[\n" + "".join(f"    {json.dumps(row, ensure_ascii=False)},\n" for row in rows) + "]"


def _results(scores: dict[str, Any]) -> Iterable[str]:
    yield "\n".join(f"- {_text(line)}" for line in scores["verdict"])
    primary, measures = scores["primary"], scores["measures"]
    wanted = (primary.replace("_teacher", "_reference"), primary.replace("_reference", "_teacher"), "valid")
    metrics = [metric for metric in dict.fromkeys((primary, *wanted)) if scores["models"]["student"].get(metric)]
    rows = []
    for model, facts in scores["models"].items():
        comparable = facts.get("speed_basis") == scores["models"]["student"].get("speed_basis")  # as eval's own table has it
        speed = facts.get("tokens_per_second") if comparable else None
        cells = [*(_interval(facts[metric]) for metric in metrics), _interval(facts["stopped"])]
        rows.append([model, *cells, f"{speed:.0f}" if speed else "–", _number(facts.get("parameters"))])
    heads = [measures[metric]["heading"] + (", %" if metric == "valid" else "") for metric in metrics]
    yield from _table(["model", *heads, "stops by itself, %", "tokens/s", "parameters"], rows)
    machine = scores["machine"]
    yield (
        f"{scores['n']} held-out prompts, 95% intervals over prompts, {scores['resamples']} resamples, seed {scores['seed']}; "
        f"temperature {scores['temperature']:g}. Measured on {_text(machine['gpu'] or machine['processor'])}."
    )


def _funnel(run: Run) -> Iterable[str]:
    steps = funnel(run)
    requests = steps[0].rows if steps else 0
    shares = [(_text(step.name), f"{step.rows:,}", f"{100 * step.rows / requests:.1f}%") for step in steps]
    return _table(("step", "rows", "of requests"), shares)


def _review_sentence(filtered: dict[str, Any] | None) -> str:
    """How much of the data people looked at, in a sentence."""
    result = (filtered or {}).get("result", {})
    decisions = result.get("review", {})
    counts = [f"{count:,} {name}" for name in ("accepted", "edited", "rejected") if (count := decisions.get(name))]
    if not counts:
        return "It was not checked by people."
    return f"People checked some of its {result['read']:,} rows ({', '.join(counts)}); the others were not checked by people."


def _cost(manifest: dict[str, Any], since: Mapping[str, float]) -> Iterable[str]:
    """What generate's answers cost, and what the run has paid in all: `since`, where a judge was paid after generate."""
    counts = manifest.get("counts", {})
    if "prompt_tokens" not in counts:
        return ["Not stated."]
    facts = [(f"{name} tokens", f"{counts[f'{name}_tokens']:,}") for name in ("prompt", "completion")]
    paid = since.get("spent_usd") or manifest.get("spent_usd")
    for name, usd in (("these samples, USD", counts.get("usd")), ("all that was paid, USD", paid)):
        if usd is not None:
            facts.append((name, f"{usd:.4f}"))
    facts.append(("seconds of the last run", f"{manifest['seconds']:.0f}"))
    return _table(("", ""), facts)


def _terms(run: Run, heading: str, not_stated: str) -> Iterable[tuple[str, str]]:
    """What the manifests say of the teachers' terms."""
    yield heading, _text(license_in(run) or not_stated)
    each = rights_in(run)
    for one in each:
        name = f" ({_text(one['name'])})" if len(each) > 1 and one.get("name") else ""
        if one.get("terms_url"):
            yield f"terms{name}", _text(one["terms_url"])
        if one.get("training_allowed") is not None:
            allowed = "allowed" if one["training_allowed"] else "forbidden by the terms; overridden by name in the recipe"
            yield f"training on its answers{name}", allowed


def _term_links(run: Run) -> list[str]:
    return [one["terms_url"] for one in rights_in(run) if one.get("terms_url")]


def _license_fields(name: str | None, links: Sequence[str] = ()) -> dict[str, Any]:
    """What the hub understands as a license; else `other` with a name in its alphabet, and the link of its terms."""
    if name is None:
        return {}
    if name.lower() in HUB_LICENSES.split():
        return {"license": name.lower()}
    fields = {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-") or "other"}
    return {**fields, **({"license_link": links[0]} if len(links) == 1 else {})}


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    rules = [" --- ", *[" ---: "] * (len(heads) - 1)] if len(heads) > 2 else [" --- "] * len(heads)
    lines = [f"| {' | '.join(heads)} |", f"|{'|'.join(rules)}|", *(f"| {' | '.join(row)} |" for row in rows)]
    return ["\n".join(lines)]


def _text(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", " ".join(visible(text).split()))


def _code(text: str) -> str:
    return f"`{' '.join(visible(str(text)).split()).replace('`', chr(39)).replace('|', '/')}`"


def _interval(cell: dict[str, Any] | None) -> str:
    if cell is None or cell["value"] is None:
        return "–"
    return f"{cell['value']:.1f}" + ("" if cell["low"] is None else f" [{cell['low']:.1f}, {cell['high']:.1f}]")


def _number(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _write(path: Path, front: str, body: Iterable[str]) -> Path:
    text = f"---\n{front.strip()}\n---\n\n" + "\n\n".join(body) + "\n"
    if not path.is_file() or path.read_bytes() != text.encode():
        write_text(path, text)
    return path
