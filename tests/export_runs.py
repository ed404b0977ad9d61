"""Runs to export from, and their rows."""

from pathlib import Path

from finished_runs import finished_run

from seqdistill.cards import write_dataset_card
from seqdistill.records import Sample, write_json, write_jsonl
from seqdistill.tasks.templates import PROMPT_TEMPLATE


def row(number: int) -> Sample:
    """A kept row; model output is hostile text."""
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Number {number}?\u2028</s>"}]
    completion = [{"role": "assistant", "content": f'It is "{number}".\n'}]
    return Sample(f"{number}:t:0", f"{number}", 0, "t", prompt, completion, None, "stop", 9, 5, None, None)


def run_to_export(folder: Path, tiny_model: Path) -> Path:
    """A run that has filtered and trained."""
    run = finished_run(folder, tiny_model)
    for split, count in (("train", 6), ("validation", 1)):
        write_jsonl(run.file("filter", f"{split}.jsonl"), [row(number) for number in range(count)])
    write_dataset_card(run)
    write_json(run.file("train", "model") / PROMPT_TEMPLATE, {"user": "{{ prompt }}"})
    return run.path
