"""The user's own metric: a Python function from a file of theirs, as a `Metric`."""

import importlib.util
import inspect
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seqdistill.errors import UsageError
from seqdistill.metrics.metric import Item, Metric

HINT = (
    "FILE.py:FUNCTION with def FUNCTION(answer, wanted, prompt), of which it takes those it names; 0 is the worst, 1 the best"
)
TAKEN = ("answer", "wanted", "prompt")


def split_name(name: str) -> tuple[Path, str]:
    """The file and the function that "file.py:function" names. Raises UsageError."""
    file, _, function = name.rpartition(":")
    if not file.endswith(".py") or not function.isidentifier():
        raise UsageError(f"[eval] metric = {name!r}: not of the form FILE.py:FUNCTION", HINT)
    return Path(file), function


def own_metric(name: str) -> Metric:
    """The metric of a user's function; with a parameter `wanted` it compares with the teacher's answer and the reference.

    It returns a share (1 is the best), a truth value, or None where it does not apply. Raises UsageError for a missing file or
    function and for a parameter that it cannot be passed.
    """
    path, function_name = split_name(name)
    if not path.is_file():
        raise UsageError(f"[eval] metric = {name!r}: no such file", HINT)
    spec = importlib.util.spec_from_file_location(f"seqdistill_metric_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass looks its module up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"[eval] metric: {path} cannot be loaded: {type(error).__name__}: {error}", "fix the file") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UsageError(f"[eval] metric = {name!r}: {path} has no function {function_name!r}", HINT)
    parameters = inspect.signature(function).parameters
    if "answer" not in parameters or set(parameters) - set(TAKEN):
        raise UsageError(f"[eval] metric = {name!r}: its parameters are {', '.join(parameters) or 'none'}", HINT)
    return Metric(
        "own",
        function_name,
        function_name,
        lambda item: _score(function, list(parameters), item, name),
        f"mean of {path.name}:{function_name}, in percent",
        against="wanted" in parameters,
        share=inspect.signature(function).return_annotation in (bool, "bool"),
    )


def _score(function: Callable[..., Any], parameters: list[str], item: Item, name: str) -> float | None:
    values = {"answer": item.text, "wanted": item.wanted, "prompt": item.prompt}
    try:
        score = function(**{parameter: values[parameter] for parameter in parameters})
    except Exception as error:
        said = f"{type(error).__name__}: {error}, on the answer {item.text[:60]!r}"
        raise UsageError(
            f"[eval] metric = {name!r} failed: {said}", "fix it and run again: nothing is prompted twice"
        ) from error
    if score is None:
        return None
    if not isinstance(score, (bool, int, float)) or not math.isfinite(score) or not 0 <= score <= 1:
        raise UsageError(f"[eval] metric = {name!r} returned {score!r}, not a share from 0 to 1", HINT)
    return 100.0 * float(score)
