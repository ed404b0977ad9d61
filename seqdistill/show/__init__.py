"""How each command's result is printed for a person: one function a result. `console` owns the terminal."""

from seqdistill.show.evaluation import show_advice, show_comparison, show_drift, show_eval, show_scores
from seqdistill.show.preflight import show_preflight
from seqdistill.show.stages import (
    show_estimate,
    show_explanation,
    show_filter,
    show_generate,
    show_import,
    show_picked,
    show_targets,
    show_train,
)
from seqdistill.show.tools import (
    show_checks,
    show_curve,
    show_draft,
    show_export,
    show_forecast,
    show_init,
    show_status,
    show_sweep,
)

__all__ = [
    "show_advice",
    "show_checks",
    "show_comparison",
    "show_curve",
    "show_draft",
    "show_drift",
    "show_estimate",
    "show_eval",
    "show_explanation",
    "show_export",
    "show_filter",
    "show_forecast",
    "show_generate",
    "show_import",
    "show_init",
    "show_picked",
    "show_preflight",
    "show_scores",
    "show_status",
    "show_sweep",
    "show_targets",
    "show_train",
]
