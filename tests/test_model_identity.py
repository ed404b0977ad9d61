"""What a model's identity holds: all that can change its answers, and nothing that cannot."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seqdistill.engines.models import identity, teacher_name
from seqdistill.recipe.reading import merge, with_paths
from seqdistill.recipe.tables import ModelConfig, StudentConfig, TeacherConfig

VLLM = ModelConfig(model="o/name", engine="vllm")


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        (ModelConfig(model="o/name"), "o/name"),
        (ModelConfig(model="o/name", revision="v2"), "o/name@v2"),
        (ModelConfig(model="o/name", options={"batch_size": 3, "device": "cpu"}), "o/name"),
        (replace(VLLM, options={"dtype": "float16", "quantization": "fp8"}), "o/name+float16+fp8"),
        (replace(VLLM, revision="v2", options={"dtype": "float16", "max_model_len": 99}), "o/name@v2+float16"),
    ],
)
def test_identities_of_old_journals_stay_as_they_were(config: ModelConfig, wanted: str) -> None:
    assert identity(config) == wanted


@pytest.mark.parametrize(
    "options",
    [
        {"hf_overrides": {"rope_theta": 5e5}},
        {"tokenizer": "o/other"},
        {"tokenizer_revision": "v2"},
        {"tokenizer_mode": "slow"},
        {"revision": "v2"},
        {"code_revision": "v2"},
        {"enable_lora": True, "lora_modules": ["a=b"]},
        {"load_format": "dummy"},
        {"chat_template": "x"},
        {"generation_config": "vllm"},
        {"override_generation_config": {"top_k": 3}},
        {"model_impl": "transformers"},
    ],
)
def test_an_option_that_changes_answers_is_in_the_identity(options: dict[str, Any]) -> None:
    assert identity(replace(VLLM, options=options)) not in (identity(VLLM), identity(replace(VLLM, options={"seed": 1})))


@pytest.mark.parametrize(
    "option",
    ["tensor_parallel_size", "gpu_memory_utilization", "max_num_seqs", "enforce_eager", "max_model_len", "swap_space"],
)
def test_an_option_of_speed_is_not(option: str) -> None:
    assert identity(replace(VLLM, options={option: 2})) == identity(VLLM)


def test_template_options_are_in_the_identity_of_every_engine() -> None:
    for engine in ("transformers", "vllm", "openai"):
        plain = ModelConfig(model="o/name", engine=engine)
        thinking, silent = (replace(plain, chat_template_kwargs={"enable_thinking": on}) for on in (True, False))
        assert len({identity(plain), identity(thinking), identity(silent)}) == 3


def test_a_student_s_chat_template_is_in_its_identity_by_its_text(tmp_path: Path) -> None:
    own, plain = tmp_path / "own.jinja", identity(StudentConfig(model="OWNER/NAME"))
    own.write_text("{{ messages }}", encoding="utf-8")
    with_own = StudentConfig(model="OWNER/NAME", chat_template=str(own))
    first = identity(with_own)
    own.write_text("{{ messages[0] }}", encoding="utf-8")
    assert len({plain, first, identity(with_own), identity(replace(with_own, chat_template="qwen3"))}) == 4
    assert identity(replace(with_own, engine="openai")) == plain, "an endpoint has the template that it was started with"


def test_a_file_that_an_option_names_counts_by_its_content(tmp_path: Path) -> None:
    file = tmp_path / "template.jinja"
    found = []
    for text in ("a", "b", "a"):
        file.write_text(text)
        found.append(identity(replace(VLLM, options={"chat_template": str(file)})))
    assert found[0] == found[2] != found[1]


def test_an_endpoints_model_name_is_no_path(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "qwen").symlink_to(tiny_model)
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "qwen").symlink_to(tiny_model)
    monkeypatch.chdir(tmp_path)
    for name in ("qwen", "o/qwen"):
        served = {"teacher": {"model": name, "engine": "openai"}}
        assert with_paths(served, tmp_path) == served
        assert with_paths({"teachers": [served["teacher"]]}, tmp_path) == {"teachers": [served["teacher"]]}
        assert with_paths({"teacher": {"model": name}}, tmp_path) == {"teacher": {"model": str(tmp_path / name)}}
        named, elsewhere = {"teacher": {"model": name}}, {"teacher": {"engine": "openai"}}
        assert with_paths(named, tmp_path, merge(named, elsewhere)) == named, "another layer names the engine"
        student = {"student": {"model": name, "engine": "openai"}}
        assert with_paths(student, tmp_path)["student"]["model"] == str(tmp_path / name), "a student is files"
        config = TeacherConfig(model=name, engine="openai")
        assert teacher_name(config) == identity(config) == name
    assert teacher_name(TeacherConfig(model="/srv/models/qwen", engine="openai")) == "qwen"
    assert teacher_name(TeacherConfig(model=str(tiny_model))) == tiny_model.name
