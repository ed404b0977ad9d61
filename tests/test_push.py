"""`export --push`: huggingface_hub's own client uploads to a real HTTP server, and what goes wrong is said without the key."""

from pathlib import Path
from typing import Any

import pytest
from finished_runs import finished_run
from hub_server import TOKEN, HubServer

from seqdistill import api
from seqdistill.cards import write_model_card
from seqdistill.cli import main
from seqdistill.records import write_json
from seqdistill.tasks.templates import PROMPT_TEMPLATE

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>'")  # of the client's own upload to plain storage


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    run = finished_run(tmp_path_factory.mktemp("push") / "run", tiny_model)
    write_json(run.file("train", "model") / PROMPT_TEMPLATE, {"user": "{{ prompt }}"})
    write_model_card(run)
    return run.path


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its storage has a protocol of its own
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def at(hub: HubServer | str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the client take this for the hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub if isinstance(hub, str) else hub.url)


@pytest.mark.parametrize("existing", [(), ("team/notices",)], ids=["new", "existing"])
def test_the_folder_arrives_whole_in_a_private_repository(
    existing: tuple[str, ...], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with HubServer(existing=existing) as hub:
        at(hub, monkeypatch)
        assert main(["export", str(run), "--to", "safetensors", "--out", str(tmp_path / "out"), "--push", "team/notices"]) == 0
    assert f"{hub.url}/team/notices" in capsys.readouterr().out
    files = hub.repositories["team/notices"]
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert existing or hub.private["team/notices"]


def test_what_is_the_runs_own_is_not_uploaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_the_run = ("journal.jsonl", "answers.jsonl", "source.json", ".lock")
    for name in ("student-q8_0.gguf", "Modelfile", *of_the_run, "secrets.env", "student-q4_0.gguf"):
        (tmp_path / name).write_text(name)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "README.md").write_text("mine")
    with HubServer() as hub:
        at(hub, monkeypatch)
        api.push(tmp_path / "student-q8_0.gguf", "team/notices")
    assert set(hub.repositories["team/notices"]) == {"student-q8_0.gguf", "Modelfile"}


@pytest.mark.parametrize(
    ("refuses", "key", "says"),
    [
        ({}, "hf_another", "401, Invalid credentials"),
        ({"create": (403, {"error": "no rights to create"})}, TOKEN, "use one with write access to team"),
        ({"create": (429, {"error": f"slow down, {TOKEN}"})}, TOKEN, "wait some minutes"),
        ({"preupload": (404, {"error": "Repository not found"})}, TOKEN, "the key may write to team"),
        ({"batch": (402, {"error": "storage quota"})}, TOKEN, "the account's storage is full"),
        ({"commit": (400, {"error": "bad README"})}, TOKEN, "400, bad README"),
        ({"validate-yaml": (400, {"errors": [{"message": "bad license"}], "warnings": []})}, TOKEN, "bad license"),
        ("http://127.0.0.1:9", TOKEN, "see whether http://127.0.0.1:9 can be reached"),
    ],
)
def test_what_the_hub_refuses_is_said_with_what_to_do_and_without_the_key(
    refuses: Any,
    key: str,
    says: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_TOKEN", key)
    with HubServer(refuses if isinstance(refuses, dict) else None) as hub:
        at(hub if isinstance(refuses, dict) else refuses, monkeypatch)
        assert main(["export", str(run), "--to", "vllm", "--out", str(tmp_path / "out"), "--push", "team/notices"]) == 1
    said = capsys.readouterr()
    assert says in " ".join(said.err.split()) and "Traceback" not in said.err
    assert key not in said.out + said.err
    assert (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "key", "says"),
    [
        (["--to", "vllm", "--push", "notices"], TOKEN, "not OWNER/NAME"),
        (["--to", "vllm", "--push", "team/no--tices"], TOKEN, "Cannot have --"),
        (["--to", "vllm", "--push", "team/notices"], "", "HF_TOKEN is not set"),
        (["--to", "vllm", "--push", "team/notices"], "hf_two\nlines", "characters that no key has"),
        (["--data", "trl", "--push", "team/notices"], TOKEN, "--push uploads what --to has written"),
    ],
)
def test_what_cannot_be_pushed_is_refused_before_anything_is_exported(
    words: list[str],
    key: str,
    says: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_TOKEN", key)
    with HubServer() as hub:
        at(hub, monkeypatch)
        assert main(["export", str(run), *words, "--out", str(tmp_path / "out")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert says in said and (not key or key not in said)
    assert not (tmp_path / "out").exists() and not hub.paths
