"""The vllm engine where vLLM is not installed; with it, see tests/on_vllm."""

import sys

import pytest

from seqdistill.engines import open_engine
from seqdistill.errors import MissingExtra
from seqdistill.recipe.tables import ModelConfig


def test_without_vllm_the_error_names_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtra) as raised:
        open_engine(ModelConfig(model="any", engine="vllm"))
    assert raised.value.hint is not None and raised.value.hint.startswith("pip install 'vllm>=")
