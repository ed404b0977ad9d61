"""Requests a second and CPU seconds per 1,000 requests against an nginx that answers at once, beside the peers.

    python tests/benchmarks/generate.py [--requests 3000] [--curator PYTHON] [--distilabel PYTHON]

Each contender runs in a process of its own, twice, with few and with many requests; the difference is what is reported, so
that start-up is not counted. A peer is measured when the Python of an environment that has it is passed. Needs nginx.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

URL = "http://127.0.0.1:8977/v1"
FEW = 100
REPLY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "teacher",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * 60}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 80, "completion_tokens": 60, "total_tokens": 140},
}
TEXT = "The library on Mill Lane will be shut on Monday because the roof is mended. " * 4

BARE = """
import asyncio, sys, openai
count, at_once, aio = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "aiohttp"
async def main():
    transport = openai.DefaultAioHttpClient() if aio else None
    client = openai.AsyncOpenAI(api_key="x", base_url=URL, max_retries=0, http_client=transport)
    places = asyncio.Semaphore(at_once)
    async def one(n):
        async with places:
            await client.chat.completions.create(
                model="teacher", messages=[{"role": "user", "content": f"{n} {TEXT}"}], max_tokens=100, temperature=0, seed=n)
    await asyncio.gather(*(one(n) for n in range(count)))
    await client.close()
asyncio.run(main())
"""

ENGINE = """
import asyncio, sys
from seqdistill.recipe.tables import ModelConfig
from seqdistill.engines import Pace, Request, open_engine
count, at_once = int(sys.argv[1]), int(sys.argv[2])
async def main():
    engine = open_engine(ModelConfig(model="teacher", engine="openai", base_url=[URL]), Pace(concurrency=at_once))
    options = [Request(str(n), [{"role": "user", "content": f"{n} {TEXT}"}], 100, seed=n) for n in range(count)]
    async for done in engine.stream(options):
        assert done.error is None, done.message
asyncio.run(main())
"""

STAGE = """
import json, pathlib, sys, tempfile
from seqdistill.recipe.tables import GenerateConfig, Recipe, TaskConfig, TeacherConfig
from seqdistill.stages.generate.stage import generate
from seqdistill.progress import Silent
from seqdistill.runs import Run
count, at_once = int(sys.argv[1]), int(sys.argv[2])
with tempfile.TemporaryDirectory() as folder:
    prompts = pathlib.Path(folder) / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"{n} {TEXT}"}) + "\\n" for n in range(count)))
    recipe = Recipe(
        task=TaskConfig(prompts=str(prompts)),
        teacher=TeacherConfig(model="teacher", engine="openai", base_url=[URL]),
        generate=GenerateConfig(max_tokens=100, concurrency=at_once),
    )
    assert generate(Run(pathlib.Path(folder) / "run"), recipe, Silent()).new == count
"""

CURATOR = """
import importlib.util, os, pathlib, sys, tempfile
os.environ.update(OPENAI_API_KEY="x", TELEMETRY_ENABLED="0", CURATOR_DISABLE_RICH_DISPLAY="1", HF_HUB_OFFLINE="1")
os.environ["CURATOR_CACHE_DIR"] = tempfile.mkdtemp()
litellm = pathlib.Path(importlib.util.find_spec("litellm").origin).parent  # brings the tokenizer that curator would download
os.environ["TIKTOKEN_CACHE_DIR"] = str(litellm / "litellm_core_utils" / "tokenizers")
from bespokelabs import curator
count, at_once = int(sys.argv[1]), int(sys.argv[2])
llm = curator.LLM(model_name="teacher", backend="openai", generation_params={"max_tokens": 100, "temperature": 0},
    backend_params={"base_url": URL, "max_concurrent_requests": at_once,
        "max_requests_per_minute": 10**7, "max_tokens_per_minute": 10**10})
done = llm([f"{n} {TEXT}" for n in range(count)])
assert len(getattr(done, "dataset", done)) == count
"""

DISTILABEL = """
import sys
from distilabel.models import OpenAILLM
count, at_once = int(sys.argv[1]), int(sys.argv[2])
llm = OpenAILLM(model="teacher", base_url=URL, api_key="x", generation_kwargs={"max_new_tokens": 100, "temperature": 0.0})
llm.load()
for first in range(0, count, at_once):
    batch = [[{"role": "user", "content": f"{n} {TEXT}"}] for n in range(first, min(first + at_once, count))]
    assert len(llm.generate_outputs(inputs=batch, max_new_tokens=100, temperature=0.0)) == len(batch)
"""


@contextlib.contextmanager
def nginx() -> Iterator[None]:
    """An nginx with one worker that gives the same reply to everything."""
    with tempfile.TemporaryDirectory() as folder:
        paths = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (Path(folder) / "nginx.conf").write_text(
            f"worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error;\n"
            "events { worker_connections 4096; }\n"
            f"http {{ access_log off; keepalive_requests 1000000000; {paths}\n"
            f"server {{ listen {URL.split('/')[2]} backlog=4096; location / {{ default_type application/json; "
            f"return 200 '{json.dumps(REPLY)}'; }} }} }}\n"
        )
        server = subprocess.Popen(["nginx", "-e", f"{folder}/error", "-c", f"{folder}/nginx.conf"])
        time.sleep(0.5)
        try:
            yield
        finally:
            server.terminate()
            server.wait()


def measured(python: str, code: str, *arguments: str) -> tuple[float, float]:
    """Wall and CPU seconds of one process, its children included."""
    began, before = time.perf_counter(), os.times()
    ran = subprocess.run(
        [python, "-c", f"URL, TEXT = {URL!r}, {TEXT!r}\n{code}", *arguments], capture_output=True, text=True, check=False
    )
    after = os.times()
    if ran.returncode:
        raise RuntimeError(ran.stderr[-2000:])
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - began, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--curator", help="Python of an environment with bespokelabs-curator")
    parser.add_argument("--distilabel", help="Python of an environment with distilabel[openai]")
    options = parser.parse_args()
    contenders = {
        "seqdistill generate (journal, samples, manifest)": (sys.executable, STAGE, []),
        "seqdistill's openai engine alone": (sys.executable, ENGINE, []),
        "bare loop, openai client on aiohttp": (sys.executable, BARE, ["aiohttp"]),
        "bare loop, openai client as it comes": (sys.executable, BARE, ["httpx"]),
        **({"curator": (options.curator, CURATOR, [])} if options.curator else {}),
        **({"distilabel (its LLM class, batches)": (options.distilabel, DISTILABEL, [])} if options.distilabel else {}),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    with nginx():
        for _ in range(options.rounds):  # interleaved, so that other load on the machine hits all of them
            for name, (python, code, more) in contenders.items():
                few = measured(python, code, str(FEW), str(options.concurrency), *more)
                many = measured(python, code, str(FEW + options.requests), str(options.concurrency), *more)
                found[name].append((many[0] - few[0], many[1] - few[1]))
    print(
        f"{options.requests} requests, {options.concurrency} at once, median of {options.rounds} rounds, {os.cpu_count()} cores"
    )
    print("| | requests/s | CPU s per 1,000 |\n|---|---|---|")
    for name, rounds in found.items():
        wall, cpu = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"| {name} | {options.requests / wall:.0f} | {cpu / options.requests * 1000:.2f} |")


if __name__ == "__main__":
    main()
