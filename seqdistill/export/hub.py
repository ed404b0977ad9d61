"""`export --push`: uploads what was exported to a hub repository. The key comes from the environment alone."""

import os
import re
from pathlib import Path

from seqdistill.errors import SeqdistillError, UsageError

LEFT_OUT = ["journal.jsonl", "answers.jsonl", "source.json", ".*"]  # the run's own


def push(path: Path, repository: str) -> str:
    """Uploads a folder, or a file's folder, and returns the repository's URL; creates it, private, where it is missing.

    Raises UsageError for a bad name or a missing key, SeqdistillError for what the hub refuses.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UsageError(f"--push {repository!r}: not OWNER/NAME", "for example --push my-team/notices-student")
    key = os.environ.get("HF_TOKEN")
    if not key:
        raise UsageError("--push needs a key, and HF_TOKEN is not set", "export HF_TOKEN=... with write access")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    folder = path if path.is_dir() else path.parent
    hub = HfApi(token=key)
    try:
        url = hub.create_repo(repository, private=True, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder, ignore_patterns=LEFT_OUT)
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).replace(key, "...").strip().splitlines()[0]
        raise SeqdistillError(
            f"{repository}: the hub refuses the upload: {reason}", "check the name and the key, then run again"
        ) from error
    return str(url)
