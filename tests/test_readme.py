"""The README's commands, executed in an empty directory as a reader would: on a task of one's own, with a tiny model."""

import json
import re
import shlex
from pathlib import Path

import pytest
from chat_server import ChatServer
from conftest import make_tiny_model

from seqdistill.cli import main

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
NOT_RUN = ("make", "pip", "cp", "vllm", "export")  # set-up, another program, the shell's own
ENDS = {"eval": (0, 1)}  # with --fail-under a tiny student fails


def shell_lines() -> list[str]:
    """Every line of the README's shell blocks, continued lines joined and comments left out."""
    blocks = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [" ".join(shlex.split(line, comments=True)) for line in lines if line.strip()]


COMMANDS = [line for line in shell_lines() if not line.startswith(NOT_RUN)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands run: `mytask` with its four files, edited, and a log of recorded answers."""
    folder = tmp_path_factory.mktemp("reader")
    model = make_tiny_model(folder / "tiny")  # also a student by this name
    task = folder / "mytask"
    task.mkdir()
    prompts = [
        {"prompt": f"The hall of {name} opens at {hour}.", "slice": "normal", "reference": f"{name} opens at {hour}."}
        for hour, name in enumerate(NAMES)
    ]
    (task / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
    (task / "test.jsonl").write_text(json.dumps({"prompt": "Who swims here?", "reference": "Nobody does."}) + "\n")
    (task / "task.toml").write_text('[teacher]\nuser = "Say it briefly: {{ prompt }}"\n[student]\nuser = "{{ prompt }}"\n')
    (task / "recipe.toml").write_text(
        '[task]\ntemplate = "task.toml"\nprompts = "prompts.jsonl"\ntest = "test.jsonl"\n'
        f'[teacher]\nmodel = "{model}"\nprice = {{ prompt = 1.0, completion = 2.0 }}\n'
        '[student]\nmodel = "shrink:2"\n[generate]\nmax_tokens = 8\n[filter]\nvalidation = 0.1\n'
        "[filter.integrity]\nfinish_reasons = []\nmarkup = false\nmax_repetition = 1.0\nscript_share = 0.0\n"
        '[train]\nunfit = "drop"\n[train.args]\nmax_steps = 2\nper_device_train_batch_size = 2\n[eval]\nresamples = 100\n'
    )
    recorded = [{"prompt": f"What is {n}?", "completion": f"It is the number {n}, written out."} for n in range(12)]
    (folder / "requests-and-responses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in recorded))
    return folder


NAMES = ["Ash", "Birch", "Cedar", "Elm", "Fir", "Hazel", "Larch", "Maple", "Oak", "Pine", "Rowan", "Yew"]


def test_every_command_of_the_readme_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-reader")
    failed = []
    with ChatServer(model=None) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        for line in COMMANDS:
            words = run_words(line, server.url)
            if words is None:
                continue
            code = main(words)
            if code not in ENDS.get(words[0], (0,)):
                failed.append((line, code))
    assert failed == []


def run_words(line: str, url: str) -> list[str] | None:
    """A command's words, with this server and a tiny student in place of the README's; None for what waits for a person."""
    if line.startswith("seqdistill review"):
        return None
    line = line.replace("init mytask", "init begun")  # `mytask` is there, edited
    words = line.replace("http://localhost:8000/v1", url).replace("Qwen/Qwen3-0.6B", "tiny").split()[1:]
    if ">" in words:
        words = words[: words.index(">")]
    if "ID" in words:
        words[words.index("ID")] = json.loads(Path("runs/mine/filter/train.jsonl").read_text().splitlines()[0])["id"]
    return words


def test_the_readme_s_python_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    code = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)[0]
    exec(compile(code.replace("runs/mine", "runs/library"), "README.md", "exec"), {})
    assert (folder / "runs/library/eval/report.html").exists()


def test_every_command_is_run_or_named_as_left_out() -> None:
    assert {line.split()[1] for line in COMMANDS if line.startswith("seqdistill")} >= {
        "run",
        "generate",
        "filter",
        "train",
        "eval",
    }
    assert all(line.startswith("seqdistill ") for line in COMMANDS), COMMANDS
