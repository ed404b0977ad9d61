"""The commands beside the stages: export, serve, verify, status, show, init, doctor, shrink, review."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from seqdistill import api, show
from seqdistill.cli.flags import (
    BUDGET,
    CONFIG,
    JSON,
    MARKDOWN,
    QUIET,
    RUN,
    argument,
    command,
    option,
    passed_flags,
    recipe_of_run,
    tool,
)
from seqdistill.console import Console
from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.recipe.tables import Recipe
from seqdistill.runs import Run


@command(
    "export",
    (),
    "Export the student for deployment, or its training data.",
    [
        option(
            "to",
            str,
            None,
            "safetensors | merged | vllm | adapter | gguf:KIND, where KIND is q8_0, q5_1, q5_0, q4_1, q4_0 or f16",
            "FORM",
        ),
        option("data", str, None, "export the training data instead, for trl | axolotl | llama-factory", "SHAPE"),
        option("draft", bool, False, "measure the student as its teacher's draft model (speculative decoding)"),
        option("out", Path, None, "where to write [RUN/export/FORM]", "FOLDER"),
        option("push", str, None, "upload the result to this private hub repository; the key is HF_TOKEN", "OWNER/NAME"),
        option("limit", int, None, "with --draft: the first N test prompts [20]", "N", min=1),
    ],
    examples="seqdistill export runs/mine --to gguf:q4_0\n"
    "seqdistill export runs/mine --to safetensors --push my-team/my-student\n"
    "seqdistill export runs/mine --data axolotl",
    is_remembered=lambda _: False,
)
def _export(
    run: Run,
    recipe: Recipe,
    console: Console,
    to: str | None,
    data: str | None,
    draft: bool,
    out: Path | None,
    push: str | None,
    limit: int | None,
) -> dict[str, Any]:
    if sum((to is not None, data is not None, draft)) != 1:
        raise UsageError("export takes one of --to, --data and --draft", "for example --to gguf:q8_0")
    if limit is not None and not draft:
        raise UsageError("--limit belongs to --draft, which measures on N test prompts", "leave it out")
    if push is not None and to is None:
        raise UsageError("--push uploads what --to has written", "for example --to safetensors --push my-team/notices-student")
    if push is not None:
        api.check_push(push)
    if data is not None:
        from seqdistill.export.data import data_folder

        counts = api.export_data(run.path, data, recipe, out=out, progress=console)
        rows = {name: f"{count:,} rows" for name, count in counts.items()}
        console.facts(f"export: {data}", {**rows, "folder": data_folder(run, data, out)})
        return dict(counts)
    if draft:
        found = api.draft(run.path, recipe, limit=limit or 20, progress=console)
        show.show_draft(console, found)
        return asdict(found)
    exported = api.export(run.path, str(to), recipe, out=out, progress=console)
    show.show_export(console, exported)
    pushed = {"pushed": api.push(exported.path, push, progress=console)} if push is not None else {}
    console.facts("", pushed)
    return {**asdict(exported), **pushed}


@tool(
    "verify",
    "run",
    "Recompute hashes, scores and verdict; runs no model.\n\n"
    "Also those of a sweep's or curve's students. Exits 1 and names each file that does not match.",
    [RUN, JSON, QUIET],
    examples="seqdistill verify runs/mine",
)
def _verify(console: Console, run: Path) -> dict[str, Any]:
    found = api.verify(run, progress=console)
    console.facts("verify: whole" if found.whole else "verify: not whole", {"checked": f"{found.files} files"})
    if found.problems:
        raise SeqdistillError(
            "\n".join(found.problems), "run the stage of the first file again, or restore the file", asdict(found)
        )
    return asdict(found)


@tool(
    "status",
    "run",
    "Show the state of each stage and the next command.\n\n"
    "A stage is done, stale (because of which key), running, incomplete or failed.",
    [RUN, CONFIG, JSON],
    examples="seqdistill status runs/mine",
)
def _status(console: Console, run: Path, config: Path | None) -> dict[str, Any]:
    with recipe_of_run(run, config, console) as recipe:
        found = api.status(run, recipe, progress=console)
    show.show_status(console, found, str(run))
    return {"run": str(run), **asdict(found)}


@tool(
    "show",
    "run",
    "Show the results so far: table, verdict, what to do next.",
    [
        RUN,
        option("report", Path, None, "write the HTML report to FILE, in the form of this version", "FILE"),
        option("markdown", Path, None, MARKDOWN, "FILE"),
        JSON,
    ],
    examples="seqdistill show runs/mine --markdown result.md",
)
def _show(console: Console, run: Path, report: Path | None, markdown: Path | None) -> dict[str, Any]:
    with recipe_of_run(run, None, console) as recipe:
        found, result = api.status(run, recipe, progress=console), api.results(run)
    show.show_status(console, found, str(run))
    if result is None:
        if report or markdown:
            raise UsageError(f"{run}: not evaluated yet", f"run `{found.next or f'seqdistill eval {Run(run).shell}'}` first")
        return {"run": str(run), **asdict(found), "scores": None, "advice": None}
    show.show_scores(console, "", result)
    show.show_advice(console, result)
    api.write_results(run, report=report, markdown=markdown)
    return {"run": str(run), **asdict(found), "scores": result.scores, "advice": asdict(result.advice)}


@tool(
    "init",
    "folder",
    "Create a recipe, template, prompts and test set to start from.\n\nA README beside them says what to change.",
    [
        argument("folder", Path, "DIR", "folder to create"),
        option("kind", str, None, "classify | extract | summarize | maths | rewrite [summarize]", "KIND"),
        option(
            "from_", list[Path], None, "recorded completions to learn from, in any form that import reads; repeatable", "LOG"
        ),
        option(
            "column",
            list[str],
            None,
            "with --from: a column of another name, as prompt=Question or completion=Answer; repeatable",
            "KEY=COLUMN",
        ),
        JSON,
    ],
    examples="seqdistill init mytask --kind extract\nseqdistill init sunset --from requests-and-responses.jsonl",
)
def _init(
    console: Console, folder: Path, kind: str | None, from_: list[Path] | None, column: list[str] | None
) -> dict[str, Any]:
    result = api.init(folder, kind, from_ or (), column or (), progress=console)
    show.show_init(console, result)
    return asdict(result)


@tool(
    "doctor",
    "run",
    "Check Python, GPU, packages, disk, models, endpoints and keys.\n\n"
    "Says how to fix what fails, and exits 1. Sends no prompt; of an endpoint it requests the list of models only.",
    [argument("run", Path, "RUN", "run directory, to check its models and endpoints too", None), CONFIG, JSON],
    examples="seqdistill doctor\nseqdistill doctor -c mytask/recipe.toml",
)
def _doctor(console: Console, run: Path | None, config: Path | None) -> dict[str, Any]:
    if run is not None and not run.is_dir():
        raise UsageError(f"{run}: no such run", "name a run directory; a recipe is passed with -c")
    place = run or Path()
    with recipe_of_run(place, config, console) as recipe:
        checks = api.doctor(place, recipe, progress=console)
    show.show_checks(console, checks)
    result = {"checks": [asdict(one) for one in checks]}
    if any(one.state == "fail" for one in checks):
        console.json_result(result)
        raise typer.Exit(1)
    return result


@command(
    "serve",
    ("task.template", "teacher", "student"),
    "Serve the student, the teacher as fallback, with OpenAI's API.\n\nThe teacher answers where the student is less sure than "
    "the threshold of eval --target, within a budget.",
    [
        option("port", int, 8080, "port; 0 is a free one [8080]", "N", min=0, max=65535),
        option("host", str, "127.0.0.1", "address to listen on [127.0.0.1]", "ADDRESS"),
        option("api_key_env", str, None, "environment variable with the key that clients must send", "NAME"),
        option("no_key", bool, False, "allow a --host other than this machine without a key"),
        option("budget", float, None, "hard cap in USD on this server's teacher, over restarts", "X", min=0),
        option("share", float, 1.0, "share of the requests that the student may answer [1]", "X", min=0, max=1),
        option("shadow", float, 0.0, "share of the student's answers that the teacher checks later [0]", "X", min=0, max=1),
        option("decide_on", int, 16, "tokens of a stream on which the student's confidence is taken; 0: all [16]", "N", min=0),
        option("threshold", float, None, "lowest confidence of the student, instead of eval's; no promise", "X", min=0, max=1),
        option(
            "without_teacher",
            str,
            "error",
            "who answers when the teacher cannot or its budget is spent: error | student [error]",
            "HOW",
            choices=("error", "student"),
        ),
        option("record", bool, False, "no student: the teacher answers all, and the log can be imported"),
        option("cors_origin", list[str], None, "let pages of this origin use the server in a browser; repeatable", "ORIGIN"),
        option("concurrency", int, 1024, "most requests in flight; more get a 429 [1024]", "N", min=1),
    ],
    examples="seqdistill serve runs/mine --port 8080\nseqdistill serve runs/mine --share 0.1 --shadow 0.02 --budget 5",
    is_remembered=lambda options: bool(options["record"]),
)
def _serve(run: Run, recipe: Recipe, console: Console, **flags: Any) -> dict[str, Any]:
    from seqdistill.serve.server import ServeOptions

    if flags["budget"] is None:
        flags["budget"] = passed_flags((BUDGET,), {}, ()).get("generate", {}).get("budget")
    result = api.serve(run.path, recipe, options=ServeOptions(**flags), progress=console)
    console.facts("serve: stopped", asdict(result))
    return asdict(result)


@tool(
    "shrink",
    "out",
    "Cut a smaller model from a model's own layers.",
    [
        argument("model", str, "MODEL", "model to cut: hub id, folder, .gguf file or package:NAME"),
        argument("out", Path, "OUT", "folder to create for the smaller model"),
        option("layers", str, "8", "how many layers, or which: 8, 0,1,2,20 or all [8]", "N|LIST"),
        option("choice", str, "influence", "how N are chosen: influence | even [influence]", "HOW"),
        option("width", float, 1.0, "share of the feed-forward neurons to keep [1]", "X", min=0.01, max=1.0),
        option("vocabulary", str, "all", "all | task: those of --prompts and --texts [all]", "WHICH"),
        option("prompts", Path, None, "the task's prompts (.jsonl), on which influence is measured", "FILE"),
        option("texts", Path, None, "further texts for --vocabulary task, as RUN/filter/train.jsonl", "FILE"),
        JSON,
        QUIET,
    ],
    examples="seqdistill shrink Qwen/Qwen3-0.6B small --layers 8 --prompts prompts.jsonl",
)
def _shrink(console: Console, model: str, out: Path, layers: str, **how: Any) -> dict[str, Any]:
    return api.shrink(model, out, layers=None if layers == "all" else layers, **how, progress=console)


@tool(
    "review",
    "run",
    "Accept, edit or reject rows by hand, on a page in your browser.\n\nThe next filter applies the decisions.",
    [
        RUN,
        option("port", int, 0, "port of 127.0.0.1 [a free one]", "N", min=0, max=65535),
        option("export", Path, None, "write the rows as CSV, to review them in a spreadsheet", "FILE"),
        option("import_", Path, None, "take the decisions from a CSV that --export wrote", "FILE"),
        option("reviewer", str, None, "who decides [the login name]", "NAME"),
        JSON,
    ],
    examples="seqdistill review runs/mine\nseqdistill review runs/mine --export rows.csv",
)
def _review(console: Console, run: Path, **options: Any) -> dict[str, Any]:
    result = api.review(run, **options, progress=console)
    console.facts("review: done", result)
    return result
