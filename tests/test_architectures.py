"""Whatever the architecture, the transformers engine's greedy answers are those of plain generation, one prompt at a time."""

import random
import string
from pathlib import Path
from typing import Any

import pytest
from architectures import ARCHITECTURES, make_architecture
from engine_contract import ask

from seqdistill.engines import Request, open_engine
from seqdistill.engines.logprobs import logprobs_in
from seqdistill.recipe.tables import ModelConfig

NEW = 12
LENGTHS = (1, 7, 7, 19, 28, 12, 12, 40)  # of the prompts in tokens, behind what all share
CONTENT_ALONE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"  # no ending that all prompts share
SLOW = {  # what is left out for its architecture, because it would change answers
    "deepseek_v4": "padding", "minimax": "padding", "recurrent_gemma": "padding", "rwkv": "several", "hrm_text": "several",
    "mamba": "leaving", "mamba2": "leaving", "falcon_mamba": "leaving",
}  # fmt: skip


def plain(model: Any, prompt: list[int], stops: list[int]) -> list[int]:
    """What `generate` writes to one prompt on its own, up to a stop token."""
    import torch

    ids = torch.tensor([prompt])
    with torch.inference_mode():
        output = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW, eos_token_id=stops
        )
    return list(output[0, len(prompt) :].tolist())


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_batched_answers_are_those_of_plain_generation(kind: str, tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = CONTENT_ALONE
    stops = [tokenizer.eos_token_id, *range(80, 110)]  # of 259 tokens, so that answers end after about 8
    folder = make_architecture(kind, tokenizer, tmp_path / kind, stops)
    letters = random.Random(3)
    texts = ["".join(letters.choices(string.ascii_letters, k=length)) for length in LENGTHS]
    requests = [
        Request(
            f"p{number}",
            [{"role": "system", "content": "Answer in very few words: "}, {"role": "user", "content": text}],
            NEW,
            logprobs=0,
        )
        for number, text in enumerate(texts)
    ]
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    wanted = {}
    for request in requests:
        encoded = tokenizer.apply_chat_template(request.messages, add_generation_prompt=True, return_dict=True)
        wanted[request.id] = plain(model, encoded["input_ids"], stops)
    assert len({tuple(answer) for answer in wanted.values()}) > 4, wanted

    engine = open_engine(ModelConfig(model=str(folder), options={"batch_size": 5}))
    for chosen in (requests, requests[1:3] + requests[5:7]):  # mixed lengths in two batches, then two lengths
        answers = ask(engine, chosen)
        for request in chosen:
            noted = logprobs_in(answers[request.id].raw)
            assert noted is not None and noted.token_ids == wanted[request.id]
    able = engine.batching  # type: ignore[attr-defined]
    slow = SLOW.get(kind)
    assert able.several == (slow != "several")
    assert able.padding == (slow not in ("several", "padding"))
    assert able.leaving == (slow is None), "rows leave wherever the cache can drop rows"
