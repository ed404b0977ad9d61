"""The transformers engine on a GPU: in float32 its answers and log-probabilities are those of the CPU."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch

from seqdistill.engines import Completion, Request, open_engine
from seqdistill.engines.logprobs import logprobs_in
from seqdistill.recipe.tables import ModelConfig

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU"),
    pytest.mark.filterwarnings("default"),  # what other packages' CUDA parts warn of is not ours to fix
]


def answered(model: str, requests: list[Request], **options: Any) -> dict[str, Completion]:
    async def collect() -> dict[str, Completion]:
        return {one.id: one async for one in open_engine(ModelConfig(model=model, options=options)).stream(requests)}

    return asyncio.run(collect())


def requests(count: int, **settings: Any) -> list[Request]:
    texts = [f"Say {'very ' * (n % 5)}number {n}." for n in range(count)]
    return [Request(str(n), [{"role": "user", "content": text}], 24, **settings) for n, text in enumerate(texts)]


@pytest.mark.parametrize("settings", [{}, {"logprobs": 5}, {"temperature": 1.0, "seed": 7}, {"beams": 3}], ids=str)
def test_answers_are_those_of_the_cpu(tiny_model: Path, settings: dict[str, Any]) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    wanted = answered(str(tiny_model), requests(40, **settings), device="cpu", dtype="float32")
    found = answered(str(tiny_model), requests(40, **settings), device="cuda", dtype="float32")
    same = sum(found[name].content == one.content for name, one in wanted.items())
    assert same >= 38  # a tie may fall the other way
    if "logprobs" in settings:
        for name, one in wanted.items():
            ours, theirs = logprobs_in(found[name].raw), logprobs_in(one.raw)
            assert ours is not None and theirs is not None
            if found[name].content == one.content:
                assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-3)


def test_an_answer_does_not_depend_on_its_batch(tiny_model: Path) -> None:
    alone = answered(str(tiny_model), requests(24), device="cuda", dtype="float32", batch_size=1)
    together = answered(str(tiny_model), requests(24), device="cuda", dtype="float32", batch_size=24)
    assert sum(alone[name].content == one.content for name, one in together.items()) >= 22
