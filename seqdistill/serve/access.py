"""Who may use the server: clients with its key; without one those on this machine, and no page of another site.

Which pages a browser lets read an answer is `cors`.
"""

import functools
import hmac
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from seqdistill.serve.http_errors import HttpError

if TYPE_CHECKING:
    from aiohttp import web

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
OF_CONTAINERS = re.compile(r"(?:host|gateway)\.[a-z]+\.internal")  # under which Docker, Podman and others reach this machine


def check_local(request: "web.Request", origins: Sequence[str]) -> None:
    """Raises HttpError for what a page of another site sends, by its origin or under a name that it points to this machine.

    `origins` are those of the pages that may.
    """
    host, origin = request.headers.get("Host"), request.headers.get("Origin")  # every browser sends a host
    if host is not None and not _is_local(f"//{host}") and not OF_CONTAINERS.fullmatch(_host(f"//{host}") or ""):
        message = f"without a key only requests to 127.0.0.1 or localhost are answered, not to {host[:100]}"
        raise HttpError(403, "forbidden_origin", f"{message}: set a key with --api-key-env")
    if origin is not None and origin not in origins and not _is_local(origin):
        raise HttpError(
            403, "forbidden_origin", "a page of another site may not use this server: --cors-origin names those that may"
        )


def check_key(request: "web.Request", key: str) -> None:
    """Raises HttpError for a request without the key."""
    scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
    right = hmac.compare_digest(sent.strip().encode(errors="surrogateescape"), key.encode())
    if scheme.lower() != "bearer" or not right:
        raise HttpError(401, "invalid_api_key", "the Authorization header holds no valid key: Bearer KEY")


def _is_local(url: str) -> bool:
    """Whether a URL is this machine's; names under .localhost are nobody else's, https://www.rfc-editor.org/rfc/rfc6761"""
    host = _host(url) or ""
    return host in LOCAL_HOSTS or host.endswith(".localhost")


@functools.lru_cache(maxsize=256)
def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
