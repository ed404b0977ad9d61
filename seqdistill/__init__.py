"""Sequence-level distillation of language models: generate, filter, train, evaluate.

One function for each command (see `api`); the command line (`seqdistill --help`) calls the same ones.
"""

from seqdistill.api import (
    curve,
    estimate,
    evaluate,
    explain,
    filter,  # noqa: A004 - the command's name
    generate,
    import_recorded,
    pick,
    preflight,
    results,
    status,
    sweep,
    targets,
    train,
)
from seqdistill.version import __version__

__all__ = [
    "__version__",
    "curve",
    "estimate",
    "evaluate",
    "explain",
    "filter",
    "generate",
    "import_recorded",
    "pick",
    "preflight",
    "results",
    "status",
    "sweep",
    "targets",
    "train",
]
