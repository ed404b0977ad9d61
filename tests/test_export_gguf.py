"""What goes with a .gguf file: the Modelfile, its template by Ollama's rules, and which weights are quantised."""

import re
from pathlib import Path

import numpy as np
import pytest
import trl
from chat_tokenizers import chat_tokenizer
from conftest import CHATML
from gguf import GGUFReader, GGUFWriter

from seqdistill.export import forms, gguf
from seqdistill.export.modelfile import write_modelfile
from seqdistill.records import Message, write_json


@pytest.mark.parametrize(
    ("longest", "positions", "context"),
    [(100, 131072, 4096), (9000, 131072, 9000), (9000, 8192, 8192), (100, 512, 512), (9000, None, 9000), (100, None, 4096)],
)
def test_a_modelfile_has_room_for_the_test_prompts_and_no_more_than_the_model(
    tmp_path: Path, longest: int, positions: int | None, context: int
) -> None:
    write_json(
        tmp_path / "config.json", {"model_type": "llama", **({"max_position_embeddings": positions} if positions else {})}
    )
    if positions is None:
        write_json(tmp_path / "config.json", {"model_type": "mamba"})
    assert forms._context(tmp_path, longest) == context


TENSORS: dict[str, tuple[tuple[int, ...], str, str]] = {  # shape, as the converter writes it, and in gguf:q4_0
    "token_embd.weight": ((64, 64), "F16", "Q8_0"),
    "blk.0.attn_q.weight": ((64, 64), "F16", "Q4_0"),
    "blk.0.ffn_up_exps.weight": ((4, 96, 64), "F16", "Q4_0"),  # most of a mixture of experts
    "blk.0.ffn_gate_inp.weight": ((8, 64), "F32", "F32"),  # its router
    "blk.0.attn_k.weight": ((64, 48), "F16", "F16"),  # no whole blocks
    "blk.0.attn_norm.weight": ((64,), "F32", "F32"),
}


def test_matrices_and_experts_are_quantised_and_nothing_else(tmp_path: Path) -> None:
    source, file = tmp_path / "f16.gguf", tmp_path / "q4_0.gguf"
    writer = GGUFWriter(source, "qwen3moe")
    for name, (shape, kind, _) in TENSORS.items():
        writer.add_tensor(name, np.random.default_rng(0).normal(size=shape).astype({"F16": "float16", "F32": "float32"}[kind]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    gguf._quantise(source, file, "q4_0")
    found = {
        tensor.name: (tuple(map(int, reversed(tensor.shape))), tensor.tensor_type.name) for tensor in GGUFReader(file).tensors
    }
    assert found == {name: (shape, kind) for name, (shape, _, kind) in TENSORS.items()}


@pytest.mark.parametrize(
    ("system", "line"),
    [
        ('Say "it" briefly.', 'SYSTEM """Say "it" briefly."""'),
        ("Be brief.\nBe kind.", 'SYSTEM """Be brief.\nBe kind."""'),
        ('End with "end"', 'SYSTEM """End with "end""""'),
        ('Quote with """.\nAlways.', 'SYSTEM """Quote with """.\nAlways."""'),
        ('Quote with """\nAlways.', None),
        (None, None),
    ],
)
def test_a_modelfile_names_file_stops_and_system(tmp_path: Path, system: str | None, line: str | None) -> None:
    write_modelfile(
        tmp_path / "Modelfile", tmp_path / "student.gguf", ["<|im_end|>", "<｜end▁of▁sentence｜>", '"'], system, 64, 900
    )
    assert (tmp_path / "Modelfile").read_text().splitlines() == [
        "FROM ./student.gguf",
        *(line.splitlines() if line else []),
        'PARAMETER stop "<|im_end|>"',
        'PARAMETER stop "<｜end▁of▁sentence｜>"',
        'PARAMETER stop """""""',
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
        "PARAMETER num_predict 64",
        "PARAMETER num_ctx 900",
    ]


DEFAULT = (  # a system message of its own where the conversation has none, as SmolLM2's and Qwen2.5's templates write it
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}" + CHATML
)

GEMMA = (  # the system message in the first prompt
    "{% set first = messages[0]['content'] + '\n\n' if messages[0]['role'] == 'system' else '' %}"
    "{% for m in (messages[1:] if first else messages) %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else 'user' }}\n"
    "{{ first if loop.first else '' }}{{ m['content'] }}<end_of_turn>\n{% endfor %}{{ '<start_of_turn>model\n' }}"
)

PLAIN_TURNS = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


def as_ollama_reads(modelfile: str, messages: list[Message]) -> str:
    """The prompt by the rules of Ollama's template.go for a template without .Messages, which is executed turn by turn."""
    template = modelfile.split('TEMPLATE """')[1].split('"""')[0]
    default = modelfile.split('SYSTEM """')[1].split('"""')[0] if "SYSTEM" in modelfile else ""

    def executed(template: str, **values: str) -> str:
        kept = re.sub(r"\{\{ if \.System \}\}(.*?)\{\{ end \}\}", r"\1" if values["System"] else "", template, flags=re.S)
        return re.sub(r"\{\{ \.(\w+) \}\}", lambda found: values[found[1]], kept)

    if messages[0]["role"] != "system" and default:
        messages = [{"role": "system", "content": default}, *messages]
    said, values = "", dict.fromkeys(("System", "Prompt", "Response"), "")
    for message in messages:
        name = {"system": "System", "user": "Prompt", "assistant": "Response"}[message["role"]]
        if values["Response"]:
            said, values = said + executed(template, **values), dict.fromkeys(values, "")
        values[name] = message["content"]
    return said + executed(template.split("{{ .Response }}")[0], **values)


@pytest.mark.parametrize(
    ("source", "turns"), [*((one, 4) for one in (CHATML, DEFAULT, GEMMA, "phi3", "qwen2_5", "llama3")), (PLAIN_TURNS, 2)]
)
def test_ollama_sends_the_student_what_its_own_template_writes(tmp_path: Path, source: str, turns: int) -> None:
    file = Path(trl.__file__).parent / "chat_templates" / f"{source}.jinja"
    tokenizer = chat_tokenizer(file.read_text() if len(source) < 9 else source)

    def rendered(messages: list[Message]) -> str:
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return str(text).removeprefix("<bos>")

    template = write_modelfile(tmp_path / "Modelfile", tmp_path / "student.gguf", [], None, 64, 900, rendered)
    assert template is not None and template.for_one_answer == (turns == 2)
    contents = [("system", "Be kind."), ("user", "Say it."), ("assistant", "It."), ("user", "Again.")]
    said: list[Message] = [{"role": role, "content": content} for role, content in contents]
    for messages in (said[1:2], said[:2], said[1:], said)[:turns]:
        assert as_ollama_reads((tmp_path / "Modelfile").read_text(), messages) == rendered(messages)


LAST = "{{ messages[-1]['content'] }}"


@pytest.mark.parametrize("source", [f"{LAST}{LAST}", f"[{LAST}{{{{ '{{{{' }}}}", "{{ messages[-1]['content'] | upper }}"])
def test_a_template_that_is_no_turn_is_left_out(tmp_path: Path, source: str) -> None:
    tokenizer = chat_tokenizer(source)

    def rendered(messages: list[Message]) -> str:
        return str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))

    assert write_modelfile(tmp_path / "Modelfile", tmp_path / "student.gguf", [], None, 64, 900, rendered) is None
    assert "TEMPLATE" not in (tmp_path / "Modelfile").read_text()
