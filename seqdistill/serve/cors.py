"""Which pages of other sites may use the server in a browser: those of the origins that `--cors-origin` names.

https://fetch.spec.whatwg.org/#http-cors-protocol. Decides nothing about keys.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from seqdistill.errors import UsageError

if TYPE_CHECKING:
    from aiohttp import web

PREFLIGHT_SECONDS = 600  # for which a browser may remember what it may send
EXPOSED = ("model", "confidence", "usd", "reason", "ignored")  # headers of an answer that a page may read
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s*]+")
_HEADER_NAMES = re.compile(r"[\w!#$%&'*+.^`|~, -]{0,1000}", re.ASCII)


def check_origins(origins: Sequence[str]) -> None:
    """Raises UsageError for what no browser sends as an origin."""
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise UsageError(
                f"--cors-origin {origin!r}: not an origin", "name each as a browser sends it: https://app.example.org"
            )


def preflight(request: "web.Request", origins: Sequence[str]) -> "web.Response | None":
    """The answer to a browser that asks whether a page may send a request; None for any other request and origin."""
    from aiohttp import web

    wanted = request.headers.get("Access-Control-Request-Headers", "")
    if request.method != "OPTIONS" or request.headers.get("Origin") not in origins:
        return None
    headers = {"Access-Control-Allow-Methods": "GET, POST", "Access-Control-Max-Age": str(PREFLIGHT_SECONDS)}
    if wanted and _HEADER_NAMES.fullmatch(wanted):
        headers["Access-Control-Allow-Headers"] = wanted
    if request.headers.get("Access-Control-Request-Private-Network") == "true":
        headers["Access-Control-Allow-Private-Network"] = "true"
    return web.Response(status=204, headers=headers)


def allow(request: "web.Request", response: "web.StreamResponse", origins: Sequence[str]) -> None:
    """Adds to a response, an error too, what lets a page of these origins read it."""
    if not origins:
        return
    response.headers["Vary"] = "Origin"
    if (origin := request.headers.get("Origin")) in origins:
        response.headers["Access-Control-Allow-Origin"] = str(origin)
        response.headers["Access-Control-Expose-Headers"] = ", ".join(f"x-seqdistill-{name}" for name in EXPOSED)
