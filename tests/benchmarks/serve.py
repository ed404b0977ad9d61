"""What `seqdistill serve` costs beside a bare relay and beside a direct call to the student: CPU, first token, memory.

    python tests/benchmarks/serve.py [REQUESTS] [STREAMS]

The student is tests/chat_server.py, the relay relay.py, each in a process of its own. The three ways alternate batch by batch,
with one request at a time and with several at once. Prints one JSON object: milliseconds of CPU a request in relay and server
(the medians of batches) and their ratio, the median time of each way (a stream's is that of its first text), and the memory of
STREAMS at once.
"""

import asyncio
import contextlib
import json
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterable
from itertools import product
from pathlib import Path
from typing import Any

import aiohttp

HERE = Path(__file__).resolve().parent.parent
BATCH = 100  # requests between two readings of the CPU time; their median is reported
WARM_UP = 2  # batches that are not counted
AT_ONCE = (1, 16)  # requests under way at once


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def cpu_seconds(pid: int) -> float:
    """Of all its threads, to the nanosecond."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def memory_mb(pid: int, name: str) -> float:
    match = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1]) / 1024


def body(n: int, *, stream: bool) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"Tell number {n} in words."}]
    return {"model": "teacher", "messages": messages, "max_tokens": 64, "stream": stream}


async def whole(session: aiohttp.ClientSession, url: str, n: int, extra: dict[str, Any]) -> float:
    began = time.perf_counter()
    async with session.post(url, json=body(n, stream=False) | extra) as reply:
        await reply.read()
        assert reply.status == 200
    return time.perf_counter() - began


async def first_token(session: aiohttp.ClientSession, url: str, n: int, extra: dict[str, Any]) -> float:
    """Seconds until the first text of a stream; reads all of it."""
    began, first = time.perf_counter(), 0.0
    async with session.post(url, json=body(n, stream=True) | extra) as reply:
        assert reply.status == 200
        async for line in reply.content:
            if not first and b'"content"' in line and b'"content": ""' not in line and b'"content":""' not in line:
                first = time.perf_counter() - began
    return first


async def several_at_once(calls: Iterable[Coroutine[Any, Any, float]], at_once: int) -> list[float]:
    """What the calls return, `at_once` of them under way at a time."""
    left, found = iter(calls), list[float]()

    async def worker() -> None:
        for call in left:
            found.append(await call)

    await asyncio.gather(*(worker() for _ in range(at_once)))
    return found


async def measured(urls: dict[str, str], pids: dict[str, int], requests: int, streams: int) -> dict[str, Any]:
    result: dict[str, Any] = {"requests": requests}
    extra = {"direct": {"logprobs": True, "top_logprobs": 0}}  # what the server requests of the student
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), read_bufsize=1 << 14) as session:
        for (name, call), at_once in product((("whole", whole), ("stream", first_token)), AT_ONCE):
            times: dict[str, list[float]] = {way: [] for way in urls}
            cpu: dict[str, list[float]] = {way: [] for way in pids}
            for batch, way in product(range(-WARM_UP, requests // BATCH), urls):
                before = cpu_seconds(pids[way]) if way in pids else 0.0
                sent = (call(session, urls[way], batch * BATCH + n, extra.get(way, {})) for n in range(BATCH))
                seconds = await several_at_once(sent, at_once)
                if batch >= 0:
                    times[way] += seconds
                    if way in pids:
                        cpu[way].append((cpu_seconds(pids[way]) - before) / BATCH)
            medians = {way: statistics.median(found) * 1e3 for way, found in times.items()}
            spent = {way: statistics.median(found) * 1e3 for way, found in cpu.items()}
            result[f"{name}, {at_once} at once"] = {
                "cpu_ms_a_request": {way: round(value, 3) for way, value in spent.items()},
                "cpu_of_relay": round(spent["served"] / spent["relay"], 3),
                "median_ms": {way: round(value, 3) for way, value in medians.items()},
                "added_median_ms": {way: round(medians[way] - medians["direct"], 3) for way in pids},
            }
        idle = memory_mb(pids["served"], "VmRSS")
        began = time.perf_counter()
        await asyncio.gather(*(first_token(session, urls["served"], n, {}) for n in range(streams)))
        result["at_once"] = {
            "streams": streams,
            "seconds": round(time.perf_counter() - began, 2),
            "memory_before_mb": round(idle, 1),
            "memory_peak_mb": round(memory_mb(pids["served"], "VmHWM"), 1),
        }
    return result


def started(ends: contextlib.ExitStack, command: list[str], ready: str, **output: Any) -> subprocess.Popen[str]:
    """A process, once it has printed a line with this text; it is terminated at the end."""
    process = subprocess.Popen([sys.executable, *command], text=True, **output)
    ends.callback(process.wait)
    ends.callback(process.terminate)
    printed = process.stdout or process.stderr
    assert printed is not None and any(ready in line for line in printed), command
    return process


def main(requests: int, streams: int) -> None:
    ports = {way: free_port() for way in ("direct", "relay", "served")}
    student = f"http://127.0.0.1:{ports['direct']}/v1"
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as ends:
        serve = ["-m", "seqdistill", "serve", f"{folder}/run", "--port", str(ports["served"]), "--threshold", "0.5"]
        serve += ["--decide-on", "1", "--without-teacher", "student", "--concurrency", str(streams + 8)]
        serve += ["--student-base-url", student]
        relay = [str(HERE / "benchmarks" / "relay.py"), str(ports["relay"]), student]
        started(ends, [str(HERE / "chat_server.py"), str(ports["direct"])], "http://", stdout=subprocess.PIPE)
        pids = {
            "relay": started(ends, relay, "listening", stdout=subprocess.PIPE).pid,
            "served": started(ends, serve, "http://", stderr=subprocess.PIPE).pid,
        }
        urls = {way: f"http://127.0.0.1:{port}/v1/chat/completions" for way, port in ports.items()}
        print(json.dumps(asyncio.run(measured(urls, pids, requests, streams)), indent=2))


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:3]]
    main(*given, *(500, 1000)[len(given) :])
