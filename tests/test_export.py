"""`export`: the folder of the student or its adapters, which files are replaced and which are not, and the draft model."""

import hashlib
import json
import re
import shlex
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
from chat_server import ChatServer
from conftest import make_tiny_model
from export_runs import run_to_export
from finished_runs import finished_run
from full_disk import room_for
from test_api import tables, toml

from seqdistill import api
from seqdistill.cli import main
from seqdistill.errors import UsageError
from seqdistill.export import gguf
from seqdistill.export.draft import vllm_command
from seqdistill.files import atomic_path
from seqdistill.recipe.tables import ModelConfig
from seqdistill.records import write_json


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    return run_to_export(tmp_path_factory.mktemp("export") / "run", tiny_model)


def test_export_changes_nothing_that_the_run_remembers(run: Path, tmp_path: Path) -> None:
    made = shutil.copytree(run, tmp_path / "run")
    assert main(["export", str(made), "--data", "trl", "--set", "task.test=other.jsonl", "-q"]) == 0
    assert not (made / "run.json").exists()


@pytest.mark.parametrize("form", ["safetensors", "merged", "vllm"])
def test_the_folder_is_the_trained_model(form: str, run: Path, tmp_path: Path) -> None:
    def content(folder: Path) -> dict[Path, bytes]:
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    made = tmp_path / "run"
    shutil.copytree(run, made)
    more = made / "train" / "model" / "additional_chat_templates"
    more.mkdir()
    (more / "tool_use.jinja").write_text("{{ messages }}")
    done = api.export(made, form, out=tmp_path / "out")
    assert content(done.path) == content(made / "train" / "model") and done.serve.startswith("vllm serve")
    assert api.export(made, form, out=tmp_path / "out") == done, "the same again is done already"


@pytest.mark.parametrize("changed", [None, "config.json", "notes.txt"])
def test_a_second_export_takes_the_place_of_the_first_but_not_of_what_is_the_users(
    changed: str | None, run: Path, tmp_path: Path
) -> None:
    made = tmp_path / "my run"
    shutil.copytree(run, made)
    first, other = api.export(made, "safetensors"), api.export(made, "merged", out=tmp_path / "mine")
    assert api.export(made, "merged", out=tmp_path / "mine") == other, "the same again is done already"
    config = made / "train" / "model" / "generation_config.json"
    write_json(config, {**json.loads(config.read_text()), "trained": "again"})
    if changed is not None:
        (tmp_path / "mine" / changed).write_text("mine")
    with pytest.raises(UsageError, match=f"it holds {changed}") if changed else nullcontext():
        api.export(made, "merged", out=tmp_path / "mine")
    assert (json.loads((tmp_path / "mine" / config.name).read_text()).get("trained") == "again") == (changed is None)
    assert api.export(made, "safetensors").path == first.path
    assert (first.path / config.name).read_bytes() == config.read_bytes()
    assert first.serve == f"vllm serve '{first.path}'", "a path with a space"


BASES: list[tuple[dict[str, str], dict[str, str], str | None]] = [  # [student], what train noted of it, a base of its own
    ({"model": "models/qwen"}, {}, None),
    ({"model": "models/qwen", "base_model": "Qwen/Qwen3-0.6B"}, {}, "Qwen/Qwen3-0.6B"),
    ({"model": "shrink:2", "base_model": "Qwen/Qwen3-0.6B"}, {"cut_from": "../qwen"}, None),
    ({"model": "run:runs/first", "base_model": "Qwen/Qwen3-0.6B"}, {}, None),
]


@pytest.mark.parametrize(("student", "noted", "named"), BASES)
def test_exported_adapters_name_a_base_that_others_can_load(
    student: dict[str, str], noted: dict[str, str], named: str | None, run: Path, tmp_path: Path
) -> None:
    made = shutil.copytree(run, tmp_path / "run")
    write_json(made / "train" / "adapter" / "adapter_config.json", {"r": 4, "base_model_name_or_path": "train/base"})
    (made / "train" / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    manifest = json.loads((made / "train" / "manifest.json").read_text())
    manifest |= {"config": {**manifest["config"], "student": student}, "student": {**manifest["student"], **noted}}
    write_json(made / "train" / "manifest.json", manifest)
    done = api.export(made, "adapter")
    base = json.loads((done.path / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert base == (named or str(made / "train" / "base")) and done.serve.startswith(f"vllm serve {base} ")


def test_an_export_for_which_there_is_no_room_leaves_nothing_and_the_earlier_one_whole(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "run"
    shutil.copytree(run, made)
    folder = api.export(made, "vllm").path
    beside = sorted(path.name for path in folder.parent.iterdir())
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with room_for(50_000):
        assert main(["export", str(made), "--to", "vllm"]) == 1
    said = capsys.readouterr().err
    assert "File too large" in said and "Traceback" not in said
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert sorted(path.name for path in folder.parent.iterdir()) == beside


OF_THE_USER: list[tuple[str, str, str, str | None]] = [  # form, name and content of a file that is there, what is refused
    ("gguf:q8_0", "secrets.env", "KEY=1", "it holds secrets.env"),
    ("gguf:q8_0", "README.md", "my notes", "it holds README.md"),
    ("gguf:q8_0", "Modelfile", "FROM mine", "it holds Modelfile"),
    ("gguf:q8_0", "source.json", '{"my": 1}', "it holds source.json"),
    ("gguf:q8_0", "source.json", "not JSON", "it holds source.json"),
    ("gguf:q8_0", "source.json", '{"model": null, "form": "gguf:q4_0", "tools": []}', "it holds source.json"),
    ("gguf:q8_0", "student-q4_0.gguf", "another form's", "it holds student-q4_0.gguf"),
    ("llama-factory", "dataset_info.json", '{"alpaca_en_demo": {}}', "dataset_info.json: is there already"),
    ("llama-factory", "train.json", '["mine"]', "train.json: is there already"),
    ("llama-factory", "identity.json", "[]", None),
    ("trl", "validation.jsonl", "{}", "validation.jsonl: is there already"),
    ("axolotl", "axolotl.yaml", "base_model: mine", "axolotl.yaml: is there already"),
]


@pytest.mark.parametrize(("form", "name", "content", "says"), OF_THE_USER)
def test_export_writes_over_nothing_of_the_users(
    form: str, name: str, content: str, says: str | None, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf, "convert", lambda *_: pytest.fail("the model is converted"))
    (tmp_path / name).write_text(content)
    refused = pytest.raises(UsageError, match=re.escape(says)) if says else nullcontext()
    with refused:
        (api.export if form.startswith("gguf") else api.export_data)(run, form, out=tmp_path)
    assert (tmp_path / name).read_text() == content
    assert (len([*tmp_path.iterdir()]) == 1) == bool(says)


NEIGHBOURS = [  # of the folder or file that is written
    *(".student.backup", ".student.tmp", ".student.old_run", ".student.old", ".student.lock", ".student.12345678"),
    *(".student.safetensors", ".student.my-files.tmp", ".student.ABCDEFGH.tmp", ".student.abcdefgh.tmp.txt"),
    *("student.abcdefgh.tmp", ".students.abcdefgh.tmp", ".s.abcdefgh.tmp", ".train.jsonl.backup", ".trl.backup", ".trl.tmp"),
]


@pytest.mark.parametrize("name", ["student", "s*", "s[tu]*", "?"])
@pytest.mark.parametrize("as_folder", [True, False])
def test_export_removes_no_neighbour_of_what_it_writes(name: str, as_folder: bool, run: Path, tmp_path: Path) -> None:
    for neighbour in NEIGHBOURS:
        file = tmp_path / neighbour / "precious.txt" if as_folder else tmp_path / neighbour
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    (tmp_path / f".{name}.a1b2c3d_.tmp").mkdir()  # of an export that was killed
    for _ in range(2):
        api.export(run, "safetensors", out=tmp_path / name)
        api.export_data(run, "trl", out=tmp_path)
    made = {tmp_path / name, tmp_path / "train.jsonl", tmp_path / "validation.jsonl"}
    assert set(tmp_path.iterdir()) == made | {tmp_path / neighbour for neighbour in NEIGHBOURS}
    assert {path: path.read_bytes() for path in before} == before


def test_an_export_that_was_killed_or_is_repeated_takes_its_own_folder_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_model: Path, file: Path, *_: object) -> None:
        for name in (file.name, "source.json", "Modelfile"):
            file.with_name(f".{name}.a1b2c3d_.tmp").write_bytes(b"GG")
        raise KeyboardInterrupt

    monkeypatch.setattr(gguf, "convert", killed)
    with pytest.raises(KeyboardInterrupt):
        api.export(run, "gguf:q8_0", out=tmp_path / "mine")
    (tmp_path / "mine/source.json").unlink()  # killed earlier still

    def converted(_model: Path, file: Path, *_: object) -> None:
        with atomic_path(file) as temporary:
            temporary.write_bytes(b"GGUF")

    monkeypatch.setattr(gguf, "convert", converted)
    for _ in range(2):
        assert api.export(run, "gguf:q8_0", out=tmp_path / "mine").path.read_bytes() == b"GGUF"
        assert not [*(tmp_path / "mine").glob(".student*")]
        api.export_data(run, "trl", out=tmp_path / "data")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "export takes one of --to, --data and --draft"),
        (["--to", "vllm", "--draft"], "export takes one of"),
        (["--to", "gguf:q8"], "did you mean 'gguf:q8_0'"),
        (["--data", "axolot"], "did you mean 'axolotl'"),
        (["--to", "vllm", "--out", "full"], "full: not empty"),
        (["--to", "vllm", "--out", "full/notes.txt"], "notes.txt: a file, and export writes a folder"),
        (["--to", "gguf:q8_0", "--out", "full/notes.txt"], "notes.txt: a file, and export writes a folder"),
        (["--data", "trl", "--out", "full/notes.txt"], "notes.txt: a file, and export writes a folder"),
        (["--to", "adapter"], "has no adapters"),
        (["--to", "vllm", "--limit", "3"], "--limit belongs to --draft"),
        (["--to", "safetensors", "--push", "name"], "not OWNER/NAME"),
        (["--draft"], "no teacher is named"),
        (["--draft", "--set", "teacher.model=m", "--set", "teacher.engine=openai"], "[teacher] is an endpoint"),
        (["--draft", "--set", "teacher.model=m"], "no test set"),
    ],
)
def test_what_export_refuses(
    words: list[str], says: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    out = ["--out", "fresh"] if "--push" in words else []
    assert main(["export", str(run), *words, *out]) == 2
    assert says in " ".join(capsys.readouterr().err.split())


def test_a_draft_model_keeps_the_teachers_text_and_saves_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = make_tiny_model(tmp_path / "teacher")
    with ChatServer() as server:
        recipe = tables(server, tmp_path, teacher)
    recipe["teacher"] = {"model": str(teacher)}
    recipe["generate"]["max_tokens"] = 24
    (tmp_path / "recipe.toml").write_text(toml(recipe))
    run = finished_run(
        tmp_path / "run", teacher
    ).path  # its student is the teacher itself, untrained: it proposes what is right
    assert main(["export", str(run), "-c", str(tmp_path / "recipe.toml"), "--draft", "--json", "-q"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["same"] == found["prompts"] == 4
    assert 0 < found["assisted_passes"] < found["passes"]
    *served, config = shlex.split(found["vllm"])
    assert served == ["vllm", "serve", str(teacher), "--speculative-config"]
    assert json.loads(config)["model"] == str(run / "train" / "model")


def test_vllm_is_given_a_converted_teacher_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQDISTILL_CACHE", str(tmp_path))
    (tmp_path / "tiny.gguf").write_bytes(b"weights")
    converted = tmp_path / f"tiny-{hashlib.sha256(b'weights').hexdigest()[:16]}"
    converted.mkdir()
    teacher = ModelConfig(model=str(tmp_path / "tiny.gguf"))
    assert shlex.split(vllm_command(teacher, tmp_path / "a student"))[:3] == ["vllm", "serve", str(converted)]
    assert shlex.split(vllm_command(ModelConfig(model="a/b", revision="v2"), tmp_path))[2:5] == ["a/b", "--revision", "v2"]
