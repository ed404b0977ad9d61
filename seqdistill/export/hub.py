"""`export --push`: uploads what was exported to a hub repository. The key comes from the environment alone."""

import os
from pathlib import Path
from typing import Any

from seqdistill.errors import SeqdistillError, UsageError
from seqdistill.export.gguf import BESIDE, OF_THE_RUN
from seqdistill.progress import Progress

LEFT_OUT = [*OF_THE_RUN, ".*"]
ACTIONS = {  # status of the hub's answer: what to do
    401: "HF_TOKEN is no key of this hub, or has expired: make one with write access at {endpoint}/settings/tokens",
    402: "the account's storage is full: make room, or name another owner",
    403: "this key may not write there: use one with write access to {owner}, or name another owner",
    404: "the key does not reach this repository: check the name, and that the key may write to {owner}",
    429: "too many requests: wait some minutes, then run the same command again",
}


def check_push(repository: str) -> str:
    """The key for an upload. Raises UsageError for a bad name of a repository, and for a missing or impossible key."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UsageError(f"--push {repository!r}: {error}", "for example --push my-team/notices-student") from error
    if repository.count("/") != 1:
        raise UsageError(f"--push {repository!r}: not OWNER/NAME", "for example --push my-team/notices-student")
    key = os.environ.get("HF_TOKEN", "").strip()
    if not key:
        raise UsageError("--push needs a key, and HF_TOKEN is not set", "export HF_TOKEN=... with write access")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError("HF_TOKEN holds characters that no key has, such as spaces", "export HF_TOKEN=... again")
    if constants.HF_HUB_OFFLINE:
        raise UsageError("--push needs the hub, and HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE")
    return key


def push(path: Path, repository: str, progress: Progress) -> str:
    """Uploads a folder, or a .gguf with what export writes beside it, and returns the repository's URL.

    The repository is created, private, where it is missing. Raises UsageError as `check_push` does, SeqdistillError for what
    the hub refuses or where it cannot be reached.
    """
    key = check_push(repository)
    from huggingface_hub import HfApi, utils

    folder, only = (path, None) if path.is_dir() else (path.parent, [path.name, *BESIDE])
    hub = HfApi(token=key)
    progress.note(f"uploading {folder} to {hub.endpoint}/{repository}")
    bars: Any = utils  # its names are public, but not listed as such
    shown = not bars.are_progress_bars_disabled()
    bars.disable_progress_bars()
    try:
        url = hub.create_repo(repository, private=True, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=only, ignore_patterns=LEFT_OUT)
    except Exception as error:  # its clients raise what they like, and a traceback may hold the key  # noqa: BLE001
        cause = _cause(error)
        reason, action = _reason(cause), _action(cause, repository, hub.endpoint)
        raise SeqdistillError(
            f"{repository}: not uploaded: {reason.replace(key, '...')}", f"{action}; {folder} is complete and kept"
        ) from None
    finally:
        if shown:
            bars.enable_progress_bars()
    return str(url)


def _cause(error: BaseException) -> BaseException:
    """What an upload has failed of, where its client only says that it has."""
    while error.__cause__ is not None and _status(error) is None:
        error = error.__cause__
    return error


def _reason(error: BaseException) -> str:
    """What the hub or the network says, in a line."""
    said = " ".join(str(getattr(error, "server_message", None) or error).split())[:300] or type(error).__name__
    status = _status(error)
    return f"{status}, {said}" if status and str(status) not in said else said


def _status(error: BaseException) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _action(error: BaseException, repository: str, endpoint: str) -> str:
    status = _status(error)
    if status is None and not isinstance(error, ValueError):
        return f"see whether {endpoint} can be reached (HF_ENDPOINT, proxies), then run the same command again"
    if status is not None and status >= 500:
        return "the hub has a fault: run the same command again later"
    action = ACTIONS.get(status or 0, "change what it names, then run the same command again")
    return action.format(endpoint=endpoint, owner=repository.partition("/")[0])
