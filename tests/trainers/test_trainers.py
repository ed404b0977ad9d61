"""axolotl and LLaMA-Factory read what `export --data` writes for them, and learn what train learns: `make test-trainers`."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from finished_runs import finished_run

from seqdistill import api
from seqdistill.records import Message, Sample, write_jsonl

PYTHON = Path(__file__).parents[2] / ".venv-trainers" / "bin" / "python"
ROWS: dict[str, tuple[list[Message], str]] = {
    "one turn": ([{"role": "user", "content": "Say 1."}], "One."),
    "behind a system message": ([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say 2."}], "Two."),
    "after earlier turns": (
        [
            {"role": "user", "content": "Say 3."},
            {"role": "assistant", "content": "Not this."},
            {"role": "user", "content": "Say 4."},
        ],
        "Four,\n\nand \u2028 all of it: <b>4</b> {{ four }}",
    ),
}


@pytest.mark.parametrize("trainer", ["axolotl", "llama-factory"])
def test_its_own_loader_learns_the_last_answer_and_its_end_alone(trainer: str, tmp_path: Path, tiny_model: Path) -> None:
    run = finished_run(tmp_path / "run", tiny_model)
    rows = [
        Sample(f"{n}:t:0", str(n), 0, "t", prompt, [{"role": "assistant", "content": answer}], None, "stop", 9, 5, None, None)
        for n, (prompt, answer) in enumerate(ROWS.values())
    ]
    write_jsonl(run.file("filter", "train.jsonl"), rows)
    write_jsonl(run.file("filter", "validation.jsonl"), rows[:1])
    api.export_data(run.path, trainer, out=tmp_path / "data")

    command = [
        str(PYTHON),
        str(Path(__file__).with_name("reading.py")),
        trainer,
        str(run.file("train", "model")),
        str(tmp_path / "data"),
    ]
    settings = {**os.environ, "DISABLE_VERSION_CHECK": "1", "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=settings, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == len(rows)
    for (text, learnt), (prompt, answer) in zip(found, ROWS.values(), strict=True):
        assert learnt.removesuffix("\n") == f"{answer}<|im_end|>"
        assert all(message["content"] in text for message in prompt)
