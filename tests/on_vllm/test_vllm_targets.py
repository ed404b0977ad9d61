"""`seqdistill targets` with a teacher in vLLM: its numbers are those of the same teacher in transformers."""

from pathlib import Path

import pytest
from server import OPTIONS, TEACHER

from seqdistill.engines.logprob_file import read_logprob_rows
from seqdistill.errors import UsageError
from seqdistill.progress import Silent
from seqdistill.recipe.tables import Recipe, TeacherConfig, TrainConfig
from seqdistill.records import Sample, write_jsonl
from seqdistill.runs import Run, StageRecord
from seqdistill.stages.train.scored_targets import score_targets

TEXTS = {
    "What is the capital of France?": "The capital of France is Paris.",
    "Name a colour.": "Blue, or on a grey day a very dark green.",
}


def a_run(folder: Path) -> Run:
    """A run whose filter stage is done."""
    run = Run(folder)
    for number, (file, (prompt, answer)) in enumerate(zip(("train", "validation"), TEXTS.items(), strict=True)):
        row = {**dict.fromkeys(Sample.__dataclass_fields__), "id": f"p{number}:t:0", "prompt_id": f"p{number}", "sample": 0}
        row |= {"teacher": "t", "finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": 1}
        row |= {"prompt": [{"role": "user", "content": prompt}], "completion": [{"role": "assistant", "content": answer}]}
        write_jsonl(run.file("filter", f"{file}.jsonl"), [row])
    StageRecord(run, "filter", {}, {}).finish({"train.jsonl": 1, "validation.jsonl": 1}, config={})
    return run


def teacher(engine: str) -> Recipe:
    options = OPTIONS if engine == "vllm" else {"dtype": "float32"}
    return Recipe(teacher=TeacherConfig(model=TEACHER, engine=engine, options=options))


def test_the_scores_of_a_text_are_those_of_transformers(tmp_path: Path) -> None:
    found = {}
    for engine in ("transformers", "vllm"):
        result = score_targets(a_run(tmp_path / engine), teacher(engine), 20, None, Silent())
        assert (result.rows, result.left_out) == (2, 0)
        found[engine] = dict(read_logprob_rows(result.path))
    for name, theirs in found["transformers"].items():
        ours = found["vllm"][name]
        assert ours.token_ids == theirs.token_ids and ours.log_normalizers is None
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-3)
        assert ours.top_token_ids is not None and theirs.top_token_ids is not None
        for place, (values, wanted) in enumerate(zip(ours.top_logprobs, theirs.top_logprobs, strict=True)):
            assert len(values) == 20 and values == pytest.approx(wanted, abs=1e-3)
            assert ours.top_token_ids[place][0] == theirs.top_token_ids[place][0]


def test_at_another_temperature_they_are_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    soft = TrainConfig(method="soft", temperature=2.0)
    with pytest.raises(UsageError, match="vLLM gives none: its targets are exact at 1"):
        score_targets(a_run(tmp_path), Recipe(teacher=teacher("vllm").teacher, train=soft), 20, None, Silent())
