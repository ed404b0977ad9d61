"""`export --data`: the rows that the student learns, in the shapes of other trainers."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from export_runs import row, run_to_export
from finished_runs import finished_run
from train_runs import Listener

from seqdistill import api
from seqdistill.errors import UsageError
from seqdistill.export.data import SHAPES
from seqdistill.records import read_jsonl, write_json, write_jsonl


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    return run_to_export(tmp_path_factory.mktemp("export") / "run", tiny_model)


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
    for line in rows:
        roles = [message[tags["role_tag"]] for message in line[info["train"]["columns"]["messages"]]]
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
