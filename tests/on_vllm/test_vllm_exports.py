"""The commands that `export` prints for vLLM, run: adapters on their base, and the student as its teacher's draft model."""

import re
import shlex
import urllib.request
from pathlib import Path
from typing import Any

from engine_contract import ask
from finished_runs import finished_run
from server import TEACHER, running

from seqdistill import api
from seqdistill.engines import Engine, Request, open_engine
from seqdistill.engines.loading import local_model
from seqdistill.export.draft import vllm_command
from seqdistill.recipe.tables import LoraConfig, ModelConfig
from seqdistill.stages.train.lora import loaded_student, merged, save_adapters
from seqdistill.stages.train.shrink import shrink_from_files

QUESTIONS = ("What is the capital of France?", "Name three colours.", "Give one tip about cats.")


def answers(engine: Engine) -> list[str]:
    """Greedy ones to the questions."""
    asked = [Request(f"p{n}:t:0", [{"role": "user", "content": text}], max_tokens=24) for n, text in enumerate(QUESTIONS)]
    found = ask(engine, asked)
    return [found[one.id].content for one in asked]


def served_as(name: str, url: str) -> Engine:
    return open_engine(ModelConfig(model=name, engine="openai", base_url=[url]))


def read_merged(folder: Path) -> Engine:
    return open_engine(ModelConfig(model=str(folder), engine="transformers", options={"dtype": "float32"}))


def with_random_adapters(model: Any) -> Any:
    """A model whose adapters change its answers, as trained ones do."""
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        for name, part in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(part, std=0.05)
    return model


def test_the_command_of_an_exported_adapter_serves_the_answers_of_the_merged_student(served: str, tmp_path: Path) -> None:
    base = ModelConfig(model=local_model(TEACHER))
    run = finished_run(tmp_path / "run", Path(local_model(TEACHER)))
    student = with_random_adapters(loaded_student(base, LoraConfig(r=8), {}))
    save_adapters(student, run.file("train", "adapter"))
    merged(student, base).save_pretrained(run.file("train", "model"))
    exported = api.export(run.path, "adapter")
    with running(tmp_path / "log.txt", shlex.split(exported.serve)) as url:
        of_adapter = answers(served_as("run", url))
    assert of_adapter == answers(read_merged(run.file("train", "model")))
    assert of_adapter != answers(served_as("teacher", served)), "which is the base"


def test_the_command_of_a_draft_model_serves_the_text_of_the_teacher_alone(served: str, tmp_path: Path) -> None:
    shrink_from_files(TEACHER, tmp_path / "student", "0,1,2,20,23,28,29", "influence", None)
    command = shlex.split(vllm_command(ModelConfig(model=TEACHER), tmp_path / "student"))
    with running(tmp_path / "log.txt", command) as url:
        assert answers(served_as(command[2], url)) == answers(served_as("teacher", served))
        with urllib.request.urlopen(url.replace("/v1", "/metrics"), timeout=30) as reply:
            proposed = re.findall(r"(?m)^vllm:spec_decode_num_draft_tokens_total\S* (\S+)$", reply.read().decode())
    assert sum(map(float, proposed)) > 0, "the student has proposed tokens"
