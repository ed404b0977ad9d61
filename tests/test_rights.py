"""What a teacher's terms allow: read from the recipe or the model's files, on the cards, and a refusal where they forbid."""

from pathlib import Path

import numpy as np
import pytest
from chat_server import ChatServer
from generate_runs import Notes
from gguf import GGUFWriter
from served_runs import UNSURE, asked, send, served

from seqdistill import api
from seqdistill.errors import UsageError
from seqdistill.recipe.tables import TeacherConfig
from seqdistill.records import write_jsonl
from seqdistill.rights import rights_of, unknown_rights
from seqdistill.runs import Run

CARDS = {
    "apache-2.0": "---\nlicense: apache-2.0\n---\n# A model\n",
    "vendor-terms": "---\nlicense: other\nlicense_name: vendor-terms\n---\n",
    None: "# no front matter\n",
}
DAMAGED = ["---\nlicense: [\n---\n", "---\nlicense: {a: 1}\n---\n", "---\n- a\n- b\n---\n", "---\nlicense: ''\n---\n"]


def model_folder(folder: Path, card: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text(card)
    return folder


@pytest.mark.parametrize(("name", "card"), [*CARDS.items(), *((None, card) for card in DAMAGED)])
def test_a_local_models_license_is_read_from_its_card(tmp_path: Path, name: str | None, card: str) -> None:
    rights = rights_of(TeacherConfig(model=str(model_folder(tmp_path / "model", card))))
    assert (rights.license, rights.stated_by) == (name, "model" if name else None)


def test_the_recipes_word_comes_before_the_models(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", CARDS["apache-2.0"])
    rights = rights_of(TeacherConfig(model=str(folder), license="by contract"))
    assert (rights.license, rights.stated_by) == ("by contract", "recipe")


def test_a_gguf_files_license_is_read_from_its_metadata(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_license("mit")
    writer.add_tensor("token_embd.weight", np.zeros((2, 2), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert rights_of(TeacherConfig(model=str(path))).license == "mit"


def test_an_endpoints_model_name_is_never_looked_up_on_this_machine(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", CARDS["apache-2.0"])
    assert unknown_rights([TeacherConfig(model=str(folder), engine="openai")])
    assert unknown_rights([TeacherConfig(model="gpt", engine="openai", training_allowed=True)]) is None


def tables(tmp_path: Path, url: str, prompts: int = 4, **teacher: object) -> dict[str, object]:
    write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": f"notice {number}"} for number in range(prompts)])
    endpoint = {"model": "vendor-model", "engine": "openai", "base_url": [url], **teacher}
    return {"task": {"prompts": str(tmp_path / "prompts.jsonl")}, "teacher": endpoint}


def test_terms_that_forbid_training_are_refused_before_a_request_unless_overridden_by_name(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    terms = {"training_allowed": False, "terms_url": "https://vendor.example/terms"}
    with ChatServer(model="vendor-model") as server:
        for override in ({}, {"despite_terms": "another-model"}):
            with pytest.raises(UsageError, match=r"https://vendor\.example/terms.* forbid training") as refused:
                api.generate(run, tables(tmp_path, server.url, **terms, **override))
            assert "--teacher-despite-terms vendor-model" in str(refused.value.hint)
        assert not server.requests
        api.generate(run, tables(tmp_path, server.url, **terms, despite_terms="vendor-model"))
    api.filter(run)
    card = (run / "README.md").read_text()
    assert "https://vendor.example/terms" in card and "forbidden by the terms; overridden by name" in card
    with pytest.raises(UsageError, match="forbid training"):  # train alone, with answers made elsewhere
        api.train(tmp_path / "other", tables(tmp_path, server.url, **terms))


def test_what_collects_answers_to_train_on_refuses_terms_that_forbid_it(tmp_path: Path) -> None:
    """`serve --record` and `import`, which ends where the data are made; a fallback that answers users may be served."""
    log = tmp_path / "log.jsonl"
    with served(tmp_path, options={"record": True}) as server:
        assert send(server, asked()).status_code == 200
        log.write_bytes(server.run.file("serve", "log.jsonl").read_bytes())
        server.run.file("serve", "log.jsonl").unlink()
    forbids = {"training_allowed": False, "despite_terms": "another-model"}
    with (
        pytest.raises(UsageError, match="forbid training"),
        served(tmp_path, run=server.run, options={"record": True}, **forbids),
    ):
        raise AssertionError("it serves")
    with served(tmp_path, run=server.run, **forbids) as fallback:
        assert send(fallback, asked(UNSURE)).headers["x-seqdistill-model"] == "teacher"
    (run := tmp_path / "next").mkdir()
    for teachers in (
        {"teacher": {"model": "teacher", **forbids}},
        {"teachers": [{"model": "teacher", **forbids}]},
    ):
        with pytest.raises(UsageError, match="forbid training"):
            api.import_recorded(run, [log], teachers)
    assert not [*run.glob("generate/*.jsonl")]
    allowed = {"teacher": {"model": "teacher", "training_allowed": False, "despite_terms": "teacher"}}
    assert api.import_recorded(run, [log], allowed).samples == 1


def test_unknown_terms_are_noted_once(tmp_path: Path) -> None:
    said = []
    with ChatServer(model="vendor-model") as server:
        for prompts in (4, 5):
            notes = Notes()
            api.generate(tmp_path / "run", tables(tmp_path, server.url, prompts), progress=notes)
            said.append([note for note in notes.notes if "terms of vendor-model are not known" in note])
    assert [len(found) for found in said] == [1, 0]
    assert Run(tmp_path / "run").manifest("generate")["teacher"]["license"] is None  # type: ignore[index]
