"""Which rows of logs and traces are calls that failed: what they hold is an error's text or a part of an answer."""

from collections.abc import Mapping
from typing import Any

from seqdistill.engines.replies import as_dict
from seqdistill.stages.generate.recorded.evaluations import is_inspect_sample
from seqdistill.stages.generate.recorded.traces import attributes_of, is_span, span_kind
from seqdistill.tasks.messages import structured

FAILED = "failed call"  # the only key of a row whose call failed: why
FAILED_CODES = ("ERROR", "STATUS_CODE_ERROR", "2", "2.0")  # of a span
FAILED_STATUSES = ("error", "errored", "failed", "failure", "timeout", "timed_out")
WHY = ("error_message", "error_str", "error", "message", "response", "completion", "output", "answer")


def failure_of(row: Mapping[str, Any]) -> str | None:
    """Why the call in a row failed, where the row says that it did; None for any other row."""
    status, level = row.get("status"), str(row.get("level")).upper()
    code = str(as_dict(status).get("code", as_dict(status).get("status_code", row.get("status_code")))).upper()
    said = as_dict(status).get("message") or row.get("status_message") or row.get("statusMessage")
    metadata = as_dict(structured(row.get("metadata")))
    if row.get("traceId", row.get("trace_id")) and level == "ERROR":  # Langfuse
        return str(said or "error")
    if span_kind(row) is not None or is_span(row):
        is_failed = code in FAILED_CODES or attributes_of(row).get("status") == "error"  # the latter: Datadog
        return str(said or "error") if is_failed else None
    if "run_type" in row and row.get("error"):  # LangSmith
        return str(row["error"])
    if "op_name" in row and row.get("exception"):  # Weave
        return str(row["exception"])
    if is_inspect_sample(row) and (error := row.get("error")):
        return str(as_dict(error).get("message") or error)
    if "call_type" in row and "failure" in (status, metadata.get("status")):  # LiteLLM
        return str(row.get("error_str") or metadata.get("error_information") or row.get("response") or "failure")
    return _marked_failure(row)


def _marked_failure(row: Mapping[str, Any]) -> str | None:
    """Why a call failed that a row's status or a flag of its own marks as failed."""
    is_marked = str(row.get("status")).lower() in FAILED_STATUSES or _says(row, "success", "false", "0")
    if not is_marked and not any(_says(row, key, "true") for key in ("error", "is_error")):
        return None
    if said := as_dict(row.get("error")).get("message"):
        return str(said)
    return next((text for key in WHY if isinstance(text := row.get(key), str) and not _is_flag(text)), "the row says so")


def _says(row: Mapping[str, Any], key: str, *words: str) -> bool:
    """Whether a flag has one of these values, in a table as text too."""
    return key in row and str(row[key]).strip().lower() in words


def _is_flag(text: str) -> bool:
    return text.strip().lower() in ("", "true", "false")
