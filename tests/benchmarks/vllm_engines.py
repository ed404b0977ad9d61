"""Tokens a second through `vllm serve` and through the vllm engine, beside vLLM's own offline `LLM.chat`, same prompts.

    .venv-vllm/bin/python tests/benchmarks/vllm_engines.py [--prompts 60] [--rounds 3] [--turns 2]

Needs the environment of `make test-vllm`. Each contender answers the demo's notices round by round, each round other ones,
after a round that warms it up; loading is not counted. The bare client sends a whole round to `vllm serve` at once and does
nothing else: what it loses is the server's. The contenders take turns, so that other load on the machine hits all of them.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS / "on_vllm"))

from server import OPTIONS, TEACHER, serving  # noqa: E402

from seqdistill.engines import Engine, Request, open_engine  # noqa: E402
from seqdistill.engines.loading import local_model  # noqa: E402
from seqdistill.progress import Silent  # noqa: E402
from seqdistill.recipe.tables import ModelConfig  # noqa: E402
from seqdistill.tasks.prompt_files import load_prompts  # noqa: E402
from seqdistill.tasks.templates import load_template  # noqa: E402

NOTICES = TESTS.parent / "prompts" / "notices"
MAX_TOKENS = 64

Answer = Callable[[list[Request]], int]  # -> tokens written


def timed(answer: Answer, prompts: int, rounds: int) -> list[float]:
    """Tokens a second of each round after the first."""
    template = load_template(str(NOTICES / "task.toml"))
    loaded = load_prompts(str(NOTICES / "prompts.jsonl"), template, prompts * (rounds + 1), Silent())
    requests = [Request(prompt.id, prompt.teacher_messages, MAX_TOKENS) for prompt in loaded]
    speeds = []
    for start in range(0, len(requests), prompts):
        began = time.perf_counter()
        tokens = answer(requests[start : start + prompts])
        speeds.append(tokens / (time.perf_counter() - began))
    return speeds[1:]


def through(engine: Engine) -> Answer:
    """Asks one of our engines."""

    async def tokens(requests: list[Request]) -> int:
        return sum([completion.completion_tokens async for completion in engine.stream(requests)])

    return lambda requests: asyncio.run(tokens(requests))


def offline() -> Answer:
    """Asks vLLM as its own examples do, as it comes."""
    from vllm import LLM, SamplingParams

    llm = LLM(model=local_model(TEACHER), use_tqdm_on_load=False, **OPTIONS)
    greedy = SamplingParams(temperature=0, max_tokens=MAX_TOKENS)

    def answer(requests: list[Request]) -> int:
        outputs = llm.chat([request.messages for request in requests], greedy, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    return answer


def bare(url: str) -> Answer:
    """Asks the server with openai's client alone, everything at once."""
    from openai import AsyncOpenAI, DefaultAioHttpClient

    async def tokens(requests: list[Request]) -> int:
        async with AsyncOpenAI(base_url=url, api_key="none", http_client=DefaultAioHttpClient()) as client:
            replies = await asyncio.gather(
                *(
                    client.chat.completions.create(
                        model="teacher", messages=cast(Any, request.messages), max_tokens=MAX_TOKENS, temperature=0
                    )
                    for request in requests
                )
            )
        return sum(reply.usage.completion_tokens for reply in replies if reply.usage)

    return lambda requests: asyncio.run(tokens(requests))


def contend(process: str, prompts: int, rounds: int) -> dict[str, list[float]]:
    """The speeds of the contenders that share one process or server."""
    if process == "offline":
        return {"LLM.chat": timed(offline(), prompts, rounds)}
    if process == "engine":
        return {"engine": timed(through(open_engine(ModelConfig(TEACHER, "vllm", options=OPTIONS))), prompts, rounds)}
    speeds = {}
    os.environ["VLLM_SERVER_DEV_MODE"] = "1"  # serves /reset_prefix_cache: both contenders send the same prompts
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "log.txt") as url:
        engine = open_engine(ModelConfig("teacher", "openai", [url]))
        for name, answer in (("serve, bare", bare(url)), ("serve", through(engine))):
            speeds[name] = timed(answer, prompts, rounds)
            reset = urllib.request.Request(f"{url.removesuffix('/v1')}/reset_prefix_cache", method="POST")
            assert json.load(urllib.request.urlopen(reset)) == {"success": True}
    return speeds


PROCESSES = ("offline", "engine", "serve")
NAMES = {
    "LLM.chat": "vLLM's own LLM.chat",
    "engine": "seqdistill's vllm engine",
    "serve, bare": "vllm serve, a bare client that sends all at once",
    "serve": "vllm serve through seqdistill's openai engine",
}


def main() -> None:
    """Prints one row a contender."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--process", choices=PROCESSES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.process:
        print(json.dumps(contend(options.process, options.prompts, options.rounds)))
        return
    found: dict[str, list[float]] = {name: [] for name in NAMES}
    for _ in range(options.turns):
        for process in PROCESSES:
            command = [sys.executable, __file__, "--process", process]
            command += ["--prompts", str(options.prompts), "--rounds", str(options.rounds)]
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
            if ran.returncode:
                raise RuntimeError(ran.stderr[-3000:])
            said = next(line for line in ran.stdout.splitlines() if line.startswith('{"'))  # vLLM prints there too
            for name, speeds in json.loads(said).items():
                found[name] += speeds
    best = statistics.median(found["LLM.chat"])
    print(f"{options.prompts} notices a round, {options.rounds} rounds, {options.turns} turns, {os.cpu_count()} cores, medians")
    print("| | tokens/s | of vLLM's own | rounds |\n|---|---|---|---|")
    for name, speeds in found.items():
        speed = statistics.median(speeds)
        print(f"| {NAMES[name]} | {speed:.0f} | {speed / best:.0%} | {', '.join(f'{one:.0f}' for one in speeds)} |")


if __name__ == "__main__":
    main()
