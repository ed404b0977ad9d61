"""How the preflight of a training is printed: first the rows with their loss mask, then the facts."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from seqdistill.console import Console, seconds, size, to_stdout
from seqdistill.records import visible

if TYPE_CHECKING:
    from seqdistill.stages.train.ready import Preflight

MIXED = ("references", "rationales", "edited")  # of the rows that train mixes in or weighs otherwise
ENDLESS = 1 << 30  # tokens: from here on a row's limit is what tokenizers say of models that have none


def show_preflight(console: Console, found: "Preflight") -> None:
    _print_masked(console, found.first_rows)
    prompt, completion = found.prompt_tokens, found.completion_tokens
    memory = f"about {size(found.memory_bytes)}"
    if found.available_bytes is not None:
        memory += f" ({size(found.available_bytes)} free)"
    trained = "" if found.trained_parameters == found.parameters else f", {found.trained_parameters:,} of them trained"
    console.facts(
        "preflight: ready to train",
        {
            "rows": f"{found.rows:,} ({found.validation_rows:,} validation)",
            "left out": "; ".join(f"{count:,}: {reason}" for reason, count in found.unfit.items()) or None,
            "clipped": f"none; a row may have {found.limit:,} tokens"
            if found.limit < ENDLESS
            else "none; rows may have any length",
            "prompt tokens": f"p50 {prompt.p50:,}, p95 {prompt.p95:,}, longest {prompt.most:,}",
            "answer tokens": f"p50 {completion.p50:,}, p95 {completion.p95:,}, longest {completion.most:,}",
            "each row": "an exact prompt, then the answer: both are in its tokens",
            "end of turn": f"{found.end_of_turn} (trained in every row)",
            "reasoning": f"trained before the answer in {found.reasoning_rows:,} rows" if found.reasoning_rows else None,
            "padding": found.pad or "none of its own",
            "token ids": f"up to {found.largest_id:,}; the model has embeddings for {found.embeddings:,}",
            "chat template": _template_fact(found.same_template),
            "generation config": "can be saved with the student",
            "method": found.method["name"],
            "targets": f"of {targets['rows']:,} rows" if (targets := found.method.get("targets")) else None,
            "mixed in": ", ".join(f"{count:,} {name}" for name in MIXED if (count := found.method.get(name))) or None,
            "pairs": f"{pairs['train']:,} to train on" if (pairs := found.method.get("pairs")) else None,
            "parameters": f"{found.parameters:,}{trained}",
            "packed rows": f"in {found.packed_sequences:,} sequences, do not attend to one another (measured)"
            if found.packing_isolated
            else None,
            "steps": f"{found.steps:,}",
            "memory": memory,
            "time": "not measured with this method" if found.seconds is None else f"about {seconds(found.seconds)}",
        },
    )
    for note in found.notes:
        console.note(f"train: {note}")


def _template_fact(same: bool | None) -> str:
    if same is None:
        return "not compared: the teacher's is not on this machine"
    return "renders the first prompt as the teacher's does" if same else "renders the first prompt differently: see below"


def _print_masked(console: Console, rows: Sequence[Mapping[str, str]]) -> None:
    """Rows with what is trained in green and, where there is no colour, between >>> and <<<."""
    if console.as_json:
        return
    from rich.console import Console as RichConsole
    from rich.text import Text

    terminal = RichConsole()
    marks = ("", "") if terminal.color_system and not terminal.no_color else (">>>", "<<<")
    with to_stdout():
        terminal.print(Text.assemble("the loss is on ", (f"{marks[0]}this text{marks[1]}", "bold green"), " only"))
        for row in rows:
            print(visible(row["id"]))
            trained = f"{marks[0]}{visible(row['trained'])}{marks[1]}"
            terminal.print(Text.assemble((visible(row["given"]), "dim"), (trained, "bold green")), soft_wrap=True)
