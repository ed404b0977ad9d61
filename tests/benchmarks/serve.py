"""What `seqdistill serve` costs beside a direct call to the student's endpoint: CPU, time to first token, memory.

    python tests/benchmarks/serve.py [REQUESTS] [STREAMS]

The student is tests/chat_server.py in a process of its own. Direct and served calls alternate. Prints one JSON object:
milliseconds of the server's CPU a request (the median of batches), medians of both ways, and the memory of STREAMS at once.
"""

import asyncio
import json
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

HERE = Path(__file__).resolve().parent.parent
BATCH = 20  # requests between two readings of the CPU time; their median is reported


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


async def measured(direct: str, served: str, pid: int, requests: int, streams: int) -> dict[str, Any]:
    result: dict[str, Any] = {"requests": requests}
    logprobs = {"logprobs": True, "top_logprobs": 0}  # what the server asks the student for
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), read_bufsize=1 << 14) as session:
        for name, call in (("whole", whole), ("stream", first_token)):
            for n in range(50):
                await call(session, direct, n, logprobs)
                await call(session, served, n, {})
            times: dict[str, list[float]] = {"direct": [], "served": []}
            cpu, before = [], cpu_seconds(pid)
            for n in range(requests):
                times["direct"].append(await call(session, direct, n, logprobs))
                times["served"].append(await call(session, served, n, {}))
                if (n + 1) % BATCH == 0:
                    cpu.append((cpu_seconds(pid) - before) / BATCH)
                    before = cpu_seconds(pid)
            medians = {way: statistics.median(found) * 1e3 for way, found in times.items()}
            result[name] = {
                "cpu_ms_a_request": round(statistics.median(cpu) * 1e3, 3),
                **{f"{way}_median_ms": round(value, 3) for way, value in medians.items()},
                "added_median_ms": round(medians["served"] - medians["direct"], 3),
            }
        idle = memory_mb(pid, "VmRSS")
        began = time.perf_counter()
        await asyncio.gather(*(first_token(session, served, n, {}) for n in range(streams)))
        result["at_once"] = {
            "streams": streams,
            "seconds": round(time.perf_counter() - began, 2),
            "memory_before_mb": round(idle, 1),
            "memory_peak_mb": round(memory_mb(pid, "VmHWM"), 1),
        }
    return result


def main(requests: int, streams: int) -> None:
    student, port = free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "seqdistill", "serve", f"{folder}/run", "--port", str(port), "--threshold", "0.5"]
        command += ["--decide-on", "1", "--without-teacher", "student", "--concurrency", str(streams + 8)]
        command += ["--student-base-url", f"http://127.0.0.1:{student}/v1"]
        behind = subprocess.Popen([sys.executable, str(HERE / "chat_server.py"), str(student)], stdout=subprocess.PIPE)
        assert behind.stdout is not None
        behind.stdout.readline()
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            assert server.stderr is not None
            line = next(line for line in server.stderr if "http://" in line)
            assert str(port) in line
            urls = [f"http://127.0.0.1:{one}/v1/chat/completions" for one in (student, port)]
            print(json.dumps(asyncio.run(measured(*urls, server.pid, requests, streams)), indent=2))
        finally:
            server.terminate()
            behind.kill()
            server.wait()


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:3]]
    main(*given, *(500, 1000)[len(given) :])
