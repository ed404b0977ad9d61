"""`doctor`: what is found of endpoints, keys and models, each with a fix; no prompt is sent."""

import json
import socket
from pathlib import Path

import pytest
from chat_server import ChatServer

from seqdistill import doctor
from seqdistill.cli import main
from seqdistill.recipe.tables import Recipe, StudentConfig


def recipe(folder: Path, url: str, model: str = "teacher") -> Path:
    path = folder / "recipe.toml"
    path.write_text(f'[teacher]\nmodel = "{model}"\nengine = "openai"\nbase_url = ["{url}"]\n')
    return path


def checked(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, dict[str, str]]]:
    code = main(["doctor", "--json", *words])
    return code, {one["name"]: one for one in json.loads(capsys.readouterr().out)["checks"]}


def test_this_machine_is_described(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, found = checked(capsys, str(tmp_path))
    assert code == 0 and "torch" in found["packages"]["found"]
    assert {"python", "disk", "memory", "gpu", "cpu", "vllm"} <= found.keys()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("limit", "state", "says"),
    [("2147483648\n", "note", "2.1 GB of the machine's"), ("max\n", "ok", " GB, "), ("9223372036854771712\n", "ok", " GB, ")],
)
def test_a_container_has_the_memory_that_it_is_allowed(
    limit: str, state: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.max").write_text(limit)
    monkeypatch.setattr(doctor, "MEMORY_LIMITS", (tmp_path / "gone", tmp_path / "memory.max"))
    memory = doctor._memory()
    assert memory.state == state and says in memory.found


def test_the_disk_of_the_hub_s_downloads_is_examined_where_it_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path("/dev/shm")
    if not other.exists() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no other disk here")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(other / "hub"))
    monkeypatch.setattr(doctor, "LOW_DISK", 1 << 60)
    found = {one.name: one for one in doctor._disks(tmp_path)}
    assert found["hub cache"].found.endswith(" at /dev/shm") and "HF_HOME" in found["hub cache"].fix
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert [one.name for one in doctor._disks(tmp_path)] == ["disk"]


@pytest.mark.parametrize(
    ("key", "sent", "model", "state", "says"),
    [
        (None, None, "teacher", "ok", "serves teacher"),
        (None, None, "taecher", "note", "does not list taecher"),
        ("secret-key", None, "teacher", "fail", "HTTP 401"),
        ("secret-key", "another-key", "teacher", "fail", "the key is refused"),
        ("secret-key", "secret-key", "teacher", "ok", "serves teacher"),
    ],
)
def test_an_endpoint_and_its_key(
    key: str | None,
    sent: str | None,
    model: str,
    state: str,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if sent:
        monkeypatch.setenv("OPENAI_API_KEY", sent)
    with ChatServer(key=key) as server:
        code, found = checked(capsys, "-c", str(recipe(tmp_path, server.url, model)))
        endpoint = next(one for name, one in found.items() if name.startswith("teacher at "))
        assert (code, endpoint["state"]) == (int(state == "fail"), state)
        assert says in endpoint["found"] and (state == "ok" or endpoint["fix"])
        assert server.requests == [] and "-key" not in json.dumps(found)


def test_a_list_of_models_without_names_is_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with ChatServer(model=None) as server:  # which lists a model whose id is null
        _, found = checked(capsys, "-c", str(recipe(tmp_path, server.url)))
    assert next(one for name, one in found.items() if name.startswith("teacher at "))["state"] == "note"


def test_a_server_that_is_not_there_and_a_model_that_is_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        path = recipe(tmp_path, f"http://127.0.0.1:{free.getsockname()[1]}/v1")
    path.write_text(path.read_text() + f'[student]\nmodel = "{tmp_path}/nowhere"\n')
    code, found = checked(capsys, "-c", str(path))
    failed = [one for one in found.values() if one["state"] == "fail"]
    assert code == 1 and len(failed) == 2
    assert "cannot be reached" in failed[0]["found"] and "no such file or folder" in failed[1]["found"]


@pytest.mark.parametrize(("words", "says"), [(["nowhere"], "no such run"), (["-c", "."], "a folder without recipe.toml")])
def test_what_is_not_there_is_not_checked_silently(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", *words]) == 2
    assert says in capsys.readouterr().err


INDEX = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})
DOWNLOADED: list[tuple[dict[str, str], str, str]] = [  # files of a model, the state, what is found
    ({}, "fail", "not downloaded yet"),
    ({"config.json": "{}"}, "fail", "only partly downloaded: no weights"),
    ({"config.json": "{}", "model.safetensors": "x"}, "ok", "downloaded"),
    ({"config.json": "{}", "pytorch_model.bin": "x"}, "ok", "downloaded"),
    ({"config.json": "{}", "model.safetensors.index.json": INDEX}, "fail", "without model-1.safetensors and 1 more"),
    (
        {"config.json": "{}", "model.safetensors.index.json": INDEX, "model-1.safetensors": "x"},
        "fail",
        "only partly downloaded: without model-2.safetensors",
    ),
    (
        {
            "config.json": "{}",
            "model.safetensors.index.json": INDEX,
            **dict.fromkeys(("model-1.safetensors", "model-2.safetensors"), "x"),
        },
        "ok",
        "downloaded",
    ),
    ({"config.json": "{}", "model.safetensors.index.json": "{"}, "fail", "is damaged"),
]


@pytest.mark.parametrize("local", [False, True], ids=["hub", "folder"])
@pytest.mark.parametrize(("files", "state", "says"), DOWNLOADED)
def test_a_model_without_all_its_weights_is_not_ready(
    files: dict[str, str], state: str, says: str, local: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cache, revision = tmp_path / "models--some--model", "a" * 40
    folder = cache / "snapshots" / revision
    for path, text in {cache / "refs" / "main": revision, **{folder / name: text for name, text in files.items()}}.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if local and not files:
        return
    (found,) = [
        one
        for one in doctor.examine(Recipe(student=StudentConfig(model=str(folder) if local else "some/model")), tmp_path)
        if one.name.startswith("student ")
    ]
    says = says.removeprefix("only partly downloaded: ") if local else says
    assert found.state == state and (says in found.found or (local and state == "ok")) and bool(found.fix) == (state != "ok")


def test_a_package_that_is_missing_or_raises_anything_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, line in (("broken_first", "raise NameError('torch')"), ("broken_too", "import broken_first")):
        (tmp_path / f"{name}.py").write_text(line)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(doctor, "NEEDED", ("not_there", "broken_first", "broken_too"))
    found = {one.name: (one.state, one.found, one.fix) for one in doctor.examine(Recipe(), tmp_path)}
    assert found["not_there"] == ("fail", "cannot be imported: not_there is not installed", "pip install not_there")
    assert found["broken_first"][1] == "cannot be imported: torch" and "--force-reinstall" in found["broken_first"][2]
    assert found["broken_too"][2] == "repair broken_first first"
    assert "packages" not in found
