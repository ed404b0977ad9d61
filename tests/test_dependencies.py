"""What the package imports is what it declares, and what a missing extra needs is said as pip takes it."""

import ast
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

import seqdistill
from seqdistill.errors import MissingExtra

PACKAGE = Path(seqdistill.__file__).parent
ELSEWHERE = {"xllamacpp"}  # of llama.cpp's server, a process with packages of its own


def imported() -> set[str]:
    """The top-level names of what the package's own files import, its own name and the standard library aside."""
    names: set[str] = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"seqdistill"} - ELSEWHERE


def declared(*, extras: bool = True) -> set[str]:
    """The names of the distributions that pyproject.toml asks for, normalised."""
    requirements = metadata.requires("seqdistill") or []
    return {normal(re.split(r"[\[<>=; ]", one)[0]) for one in requirements if extras or "extra ==" not in one}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_import_is_a_declared_dependency() -> None:
    owners = metadata.packages_distributions()
    undeclared = {name for name in imported() if not {normal(owner) for owner in owners.get(name, [name])} & declared()}
    assert undeclared == set()


@pytest.mark.parametrize("extra", ["vllm", "math", "ray"])
def test_the_command_for_a_missing_extra_names_what_pip_installs(extra: str) -> None:
    hint = MissingExtra(extra, extra, "it").hint
    assert re.fullmatch(r"pip install '[a-z-]+(\[[a-z]+\])?[<>=]=[\d.]+'", hint), hint
