"""`export`: the data in other trainers' shapes, the student's folder, its Modelfile, and the student as draft model."""

import hashlib
import json
import re
import shlex
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trl
from chat_server import ChatServer
from chat_tokenizers import chat_tokenizer
from conftest import CHATML, make_tiny_model
from finished_runs import finished_run
from full_disk import room_for
from gguf import GGUFReader, GGUFWriter
from test_api import tables, toml
from train_runs import Listener

from seqdistill import api
from seqdistill.cards import write_dataset_card
from seqdistill.cli import main
from seqdistill.errors import UsageError
from seqdistill.export import forms, gguf
from seqdistill.export.data import SHAPES
from seqdistill.export.draft import vllm_command
from seqdistill.export.modelfile import write_modelfile
from seqdistill.files import atomic_path
from seqdistill.recipe.tables import ModelConfig
from seqdistill.records import Message, Sample, read_jsonl, write_json, write_jsonl
from seqdistill.tasks.templates import PROMPT_TEMPLATE


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A run that has filtered and trained."""
    run = finished_run(tmp_path_factory.mktemp("export") / "run", tiny_model)
    for split, count in (("train", 6), ("validation", 1)):
        write_jsonl(run.file("filter", f"{split}.jsonl"), [row(number) for number in range(count)])
    write_dataset_card(run)
    write_json(run.file("train", "model") / PROMPT_TEMPLATE, {"user": "{{ prompt }}"})
    return run.path


def row(number: int) -> Sample:
    """A kept row; model output is hostile text."""
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Number {number}?\u2028</s>"}]
    completion = [{"role": "assistant", "content": f'It is "{number}".\n'}]
    return Sample(f"{number}:t:0", f"{number}", 0, "t", prompt, completion, None, "stop", 9, 5, None, None)


def test_export_changes_nothing_that_the_run_remembers(run: Path, tmp_path: Path) -> None:
    made = shutil.copytree(run, tmp_path / "run")
    assert main(["export", str(made), "--data", "trl", "--set", "task.test=other.jsonl", "-q"]) == 0
    assert not (made / "run.json").exists()


def test_rows_for_trl_are_the_runs_own(run: Path, tmp_path: Path) -> None:
    counts = api.export_data(run, "trl", out=tmp_path)
    rows = [one for _, one in read_jsonl(tmp_path / "train.jsonl")]
    kept = [one for _, one in read_jsonl(run / "filter" / "train.jsonl")]
    assert counts["train.jsonl"] == len(rows) == len(kept) == 6
    assert rows == [{"prompt": one["prompt"], "completion": one["completion"]} for one in kept]


def test_axolotl_trains_on_the_last_answer_alone(run: Path, tmp_path: Path) -> None:
    import yaml

    api.export_data(run, "axolotl", out=tmp_path)
    for _, one in read_jsonl(tmp_path / "train.jsonl"):
        assert [message["train"] for message in one["messages"]] == [False, False, True]
        assert one["messages"][-1]["role"] == "assistant"
    config = yaml.safe_load((tmp_path / "axolotl.yaml").read_text())
    (dataset,), (test,) = config["datasets"], config["test_datasets"]
    assert test["path"] == "validation.jsonl"
    assert (tmp_path / dataset["path"]).exists() and dataset["message_field_training"] == "train"


def test_llama_factory_finds_its_files_by_dataset_info(run: Path, tmp_path: Path) -> None:
    api.export_data(run, "llama-factory", out=tmp_path)
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    rows = json.loads((tmp_path / info["train"]["file_name"]).read_text())
    tags = info["train"]["tags"]
    for row in rows:
        roles = [message[tags["role_tag"]] for message in row[info["train"]["columns"]["messages"]]]
        assert (
            set(roles) <= {tags["system_tag"], tags["user_tag"], tags["assistant_tag"]} and roles[-1] == tags["assistant_tag"]
        )


def test_rows_in_which_roles_do_not_alternate_are_named_for_llama_factory(tmp_path: Path, tiny_model: Path) -> None:
    run, listener = finished_run(tmp_path / "run", tiny_model), Listener()
    user, assistant, system = ({"role": role, "content": "x"} for role in ("user", "assistant", "system"))
    prompts = [[user], [system, user], [user, assistant, user], [user, user], [system], [user, system, user]]
    write_jsonl(run.file("filter", "train.jsonl"), [replace(row(n), prompt=one) for n, one in enumerate(prompts)])
    write_jsonl(run.file("filter", "validation.jsonl"), [row(9)])
    counts = api.export_data(run.path, "llama-factory", out=tmp_path / "out", progress=listener)
    assert counts == {"train.json": 6, "validation.json": 1}
    assert listener.notes == ["export: llama-factory will skip 3 rows, in which user and assistant do not alternate"]


@pytest.mark.parametrize("shape", ["trl", "axolotl", "llama-factory"])
@pytest.mark.parametrize(
    ("trained", "planned", "is_there"),
    [
        ({"reasoning": True}, {}, True),
        ({"rationale": "inline"}, {}, True),
        ({"reasoning": False}, {"reasoning": True}, False),
        (None, {"reasoning": True}, True),
        (None, {}, False),
    ],
)
def test_the_reasoning_is_there_where_the_run_trains_on_it_and_named_where_not(
    shape: str, trained: dict[str, object] | None, planned: dict[str, object], is_there: bool, run: Path, tmp_path: Path
) -> None:
    made, listener = tmp_path / "run", Listener()
    shutil.copytree(run, made)
    manifest = made / "train" / "manifest.json"
    if trained is None:
        manifest.unlink()
    else:
        write_json(manifest, {**json.loads(manifest.read_text()), "config": {"train": trained}})
    thoughts = ["6 * 7", None, " \n"]
    write_jsonl(made / "filter" / "train.jsonl", [replace(row(n), reasoning=one) for n, one in enumerate(thoughts)])
    counts = api.export_data(made, shape, {"train": planned}, progress=listener)
    text = (made / "export" / f"data-{shape}" / next(iter(counts))).read_text()
    rows = json.loads(text) if shape == "llama-factory" else [json.loads(line) for line in text.splitlines()]
    said = [(one.get("completion") or one["messages"])[-1]["content"] for one in rows]
    assert said[0] == ("<think>\n6 * 7\n</think>\n\n" if is_there else "") + 'It is "0".\n'
    assert said[1:] == ['It is "1".\n', 'It is "2".\n']
    assert any("the reasoning of 1 rows is left out" in note for note in listener.notes) != is_there


def test_axolotl_hears_what_ends_a_turn_where_the_tokenizer_has_another_end(run: Path, tmp_path: Path) -> None:
    import yaml

    other = tmp_path / "run"
    shutil.copytree(run, other)
    for made, says in ((other, None), (other, ["<|im_start|>"])):
        api.export_data(made, "axolotl")
        config = made / "export" / "data-axolotl" / "axolotl.yaml"
        assert yaml.safe_load(config.read_text()).get("eot_tokens") == says
        config = made / "train" / "model" / "generation_config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "eos_token_id": [1, 2]}))


def test_trl_trains_on_the_exported_rows_and_on_the_answers_alone(
    run: Path, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import load_dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    api.export_data(run, "trl", out=tmp_path)
    rows = load_dataset("json", data_files=str(tmp_path / "train.jsonl"), split="train", cache_dir=str(tmp_path / "cache"))
    args = SFTConfig(str(tmp_path / "out"), max_steps=1, per_device_train_batch_size=6, use_cpu=True, report_to="none")
    trainer = SFTTrainer(str(tiny_model), args, train_dataset=rows, processing_class=AutoTokenizer.from_pretrained(tiny_model))
    (batch,) = trainer.get_train_dataloader()
    trained = [trainer.processing_class.decode([one for one in labels if one >= 0]) for labels in batch["labels"].tolist()]
    assert all(f'It is "{number}".\n<|im_end|>' in "".join(trained) for number in range(6))
    assert not any("Number" in text for text in trained)
    assert trainer.train().global_step == 1


def test_datasets_reads_a_run_as_it_is(run: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    found = load_dataset(str(run), cache_dir=str(tmp_path))
    assert {split: part.num_rows for split, part in found.items()} == {"train": 6, "validation": 1}
    kept = [one for _, one in read_jsonl(run / "filter" / "train.jsonl")]
    assert list(found["train"]) == kept
    features = found["train"].features
    assert list(features) == list(kept[0]) and found["validation"].features == features
    assert features["reference"].dtype == "string", "though all of them are empty here: a later block may hold some"


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


@pytest.mark.parametrize("shape", SHAPES)
def test_data_that_is_exported_again_takes_the_place_of_its_own_files_alone(shape: str, run: Path, tmp_path: Path) -> None:
    made, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(run, made)
    api.export_data(made, shape, out=out)
    train = made / "filter" / "train.jsonl"
    for rows in (5, 4):  # filter has kept others
        write_jsonl(train, [row for _, row in read_jsonl(train)][:rows])
        assert min(api.export_data(made, shape, out=out).values()) <= rows
    changed = next(path for path in sorted(out.iterdir()) if path.name.startswith("train."))
    changed.write_text("mine")
    write_jsonl(train, [row for _, row in read_jsonl(train)][:3])
    with pytest.raises(UsageError, match="is there already"):
        api.export_data(made, shape, out=out)
    assert changed.read_text() == "mine"


MIXED: list[tuple[dict[str, object], list[str], str | None]] = [  # [train], the answers that are learnt, a note
    ({"teacher_weights": {"other": 0}}, ["zero", "two"], None),
    ({"teacher_weights": {"other": 2}}, ["zero", "one", "two"], "1 rows count more or less"),
    ({"reference_weight": 1.0}, ["zero", "one", "two", "gold"], None),
    ({"reference_weight": 0.5, "references": "replace"}, ["one", "two", "gold"], "1 rows count more or less"),
    ({"rationale": "multitask"}, ["zero", "one", "two", "6 * 7"], None),
    ({"edited_weight": 3.0}, ["zero", "one", "two"], "1 rows count more or less"),
]


@pytest.mark.parametrize("is_trained", [True, False])
@pytest.mark.parametrize(("train", "learnt", "says"), MIXED)
def test_the_data_are_the_rows_that_the_student_learns(
    train: dict[str, object], learnt: list[str], says: str | None, is_trained: bool, run: Path, tmp_path: Path
) -> None:
    made, listener = shutil.copytree(run, tmp_path / "run"), Listener()
    manifest = made / "train" / "manifest.json"
    write_json(manifest, {**json.loads(manifest.read_text()), "config": {"train": train}})
    if not is_trained:
        manifest.unlink()
    about = [
        {"reference": "gold"},
        {"teacher": "other", "finish_reason": "stop"},
        {"reasoning": "6 * 7", "finish_reason": "human"},
    ]
    samples = [
        replace(row(n), completion=[{"role": "assistant", "content": text}], **more)  # type: ignore[arg-type]
        for n, (text, more) in enumerate(zip(("zero", "one", "two"), about, strict=True))
    ]
    write_jsonl(made / "filter" / "train.jsonl", samples)
    api.export_data(made, "trl", {} if is_trained else {"train": train}, progress=listener)
    rows = [one for _, one in read_jsonl(made / "export" / "data-trl" / "train.jsonl")]
    assert [one["completion"][-1]["content"] for one in rows] == learnt
    assert [says in note for note in listener.notes if "count more" in note] == ([True] if says else [])


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


@pytest.mark.parametrize(
    ("longest", "positions", "context"),
    [(100, 131072, 4096), (9000, 131072, 9000), (9000, 8192, 8192), (100, 512, 512), (9000, None, 9000), (100, None, 4096)],
)
def test_a_modelfile_has_room_for_the_test_prompts_and_no_more_than_the_model(
    tmp_path: Path, longest: int, positions: int | None, context: int
) -> None:
    write_json(
        tmp_path / "config.json", {"model_type": "llama", **({"max_position_embeddings": positions} if positions else {})}
    )
    if positions is None:
        write_json(tmp_path / "config.json", {"model_type": "mamba"})
    assert forms._context(tmp_path, longest) == context


TENSORS: dict[str, tuple[tuple[int, ...], str, str]] = {  # shape, as the converter writes it, and in gguf:q4_0
    "token_embd.weight": ((64, 64), "F16", "Q8_0"),
    "blk.0.attn_q.weight": ((64, 64), "F16", "Q4_0"),
    "blk.0.ffn_up_exps.weight": ((4, 96, 64), "F16", "Q4_0"),  # most of a mixture of experts
    "blk.0.ffn_gate_inp.weight": ((8, 64), "F32", "F32"),  # its router
    "blk.0.attn_k.weight": ((64, 48), "F16", "F16"),  # no whole blocks
    "blk.0.attn_norm.weight": ((64,), "F32", "F32"),
}


def test_matrices_and_experts_are_quantised_and_nothing_else(tmp_path: Path) -> None:
    source, file = tmp_path / "f16.gguf", tmp_path / "q4_0.gguf"
    writer = GGUFWriter(source, "qwen3moe")
    for name, (shape, kind, _) in TENSORS.items():
        writer.add_tensor(name, np.random.default_rng(0).normal(size=shape).astype({"F16": "float16", "F32": "float32"}[kind]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    gguf._quantise(source, file, "q4_0")
    found = {
        tensor.name: (tuple(map(int, reversed(tensor.shape))), tensor.tensor_type.name) for tensor in GGUFReader(file).tensors
    }
    assert found == {name: (shape, kind) for name, (shape, _, kind) in TENSORS.items()}


@pytest.mark.parametrize(
    ("system", "line"),
    [
        ('Say "it" briefly.', 'SYSTEM """Say "it" briefly."""'),
        ("Be brief.\nBe kind.", 'SYSTEM """Be brief.\nBe kind."""'),
        ('End with "end"', 'SYSTEM """End with "end""""'),
        ('Quote with """.\nAlways.', 'SYSTEM """Quote with """.\nAlways."""'),
        ('Quote with """\nAlways.', None),
        (None, None),
    ],
)
def test_a_modelfile_names_file_stops_and_system(tmp_path: Path, system: str | None, line: str | None) -> None:
    write_modelfile(
        tmp_path / "Modelfile", tmp_path / "student.gguf", ["<|im_end|>", "<｜end▁of▁sentence｜>", '"'], system, 64, 900
    )
    assert (tmp_path / "Modelfile").read_text().splitlines() == [
        "FROM ./student.gguf",
        *(line.splitlines() if line else []),
        'PARAMETER stop "<|im_end|>"',
        'PARAMETER stop "<｜end▁of▁sentence｜>"',
        'PARAMETER stop """""""',
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
        "PARAMETER num_predict 64",
        "PARAMETER num_ctx 900",
    ]


DEFAULT = (  # a system message of its own where the conversation has none, as SmolLM2's and Qwen2.5's templates write it
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}" + CHATML
)
GEMMA = (  # the system message in the first prompt
    "{% set first = messages[0]['content'] + '\n\n' if messages[0]['role'] == 'system' else '' %}"
    "{% for m in (messages[1:] if first else messages) %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else 'user' }}\n"
    "{{ first if loop.first else '' }}{{ m['content'] }}<end_of_turn>\n{% endfor %}{{ '<start_of_turn>model\n' }}"
)
PLAIN_TURNS = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


def as_ollama_reads(modelfile: str, messages: list[Message]) -> str:
    """The prompt by the rules of Ollama's template.go for a template without .Messages, which is executed turn by turn."""
    template = modelfile.split('TEMPLATE """')[1].split('"""')[0]
    default = modelfile.split('SYSTEM """')[1].split('"""')[0] if "SYSTEM" in modelfile else ""

    def executed(template: str, **values: str) -> str:
        kept = re.sub(r"\{\{ if \.System \}\}(.*?)\{\{ end \}\}", r"\1" if values["System"] else "", template, flags=re.S)
        return re.sub(r"\{\{ \.(\w+) \}\}", lambda found: values[found[1]], kept)

    if messages[0]["role"] != "system" and default:
        messages = [{"role": "system", "content": default}, *messages]
    said, values = "", dict.fromkeys(("System", "Prompt", "Response"), "")
    for message in messages:
        name = {"system": "System", "user": "Prompt", "assistant": "Response"}[message["role"]]
        if values["Response"]:
            said, values = said + executed(template, **values), dict.fromkeys(values, "")
        values[name] = message["content"]
    return said + executed(template.split("{{ .Response }}")[0], **values)


@pytest.mark.parametrize(
    ("source", "turns"), [*((one, 4) for one in (CHATML, DEFAULT, GEMMA, "phi3", "qwen2_5", "llama3")), (PLAIN_TURNS, 2)]
)
def test_ollama_sends_the_student_what_its_own_template_writes(tmp_path: Path, source: str, turns: int) -> None:
    file = Path(trl.__file__).parent / "chat_templates" / f"{source}.jinja"
    tokenizer = chat_tokenizer(file.read_text() if len(source) < 9 else source)

    def rendered(messages: list[Message]) -> str:
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return str(text).removeprefix("<bos>")

    template = write_modelfile(tmp_path / "Modelfile", tmp_path / "student.gguf", [], None, 64, 900, rendered)
    assert template is not None and template.for_one_answer == (turns == 2)
    contents = [("system", "Be kind."), ("user", "Say it."), ("assistant", "It."), ("user", "Again.")]
    said: list[Message] = [{"role": role, "content": content} for role, content in contents]
    for messages in (said[1:2], said[:2], said[1:], said)[:turns]:
        assert as_ollama_reads((tmp_path / "Modelfile").read_text(), messages) == rendered(messages)


LAST = "{{ messages[-1]['content'] }}"


@pytest.mark.parametrize("source", [f"{LAST}{LAST}", f"[{LAST}{{{{ '{{{{' }}}}", "{{ messages[-1]['content'] | upper }}"])
def test_a_template_that_is_no_turn_is_left_out(tmp_path: Path, source: str) -> None:
    tokenizer = chat_tokenizer(source)

    def rendered(messages: list[Message]) -> str:
        return str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))

    assert write_modelfile(tmp_path / "Modelfile", tmp_path / "student.gguf", [], None, 64, 900, rendered) is None
    assert "TEMPLATE" not in (tmp_path / "Modelfile").read_text()


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
