"""Sequence-level distillation of language models: generate, filter, train, evaluate.

The functions of `api`, one for each command; the command line (`seqdistill --help`) calls the same ones. `api.export`,
`api.review`, `api.serve`, `api.doctor` and `api.init` are there alone: packages and modules here have these names.
"""

from seqdistill.api import (
    compare,
    curve,
    draft,
    drift,
    estimate,
    evaluate,
    explain,
    export_data,
    filter,  # noqa: A004 - the command's name
    generate,
    import_recorded,
    pick,
    preflight,
    push,
    results,
    run,
    shrink,
    status,
    sweep,
    targets,
    train,
    verify,
    write_results,
)
from seqdistill.version import __version__

__all__ = [
    "__version__",
    "compare",
    "curve",
    "draft",
    "drift",
    "estimate",
    "evaluate",
    "explain",
    "export_data",
    "filter",
    "generate",
    "import_recorded",
    "pick",
    "preflight",
    "push",
    "results",
    "run",
    "shrink",
    "status",
    "sweep",
    "targets",
    "train",
    "verify",
    "write_results",
]
