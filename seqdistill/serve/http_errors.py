"""Errors as an HTTP client gets them, in OpenAI's form. Does not know why they happen."""

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import web

JSON_HEADERS = {"Content-Type": "application/json"}


class HttpError(Exception):
    """An answer outside 200, in OpenAI's form."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
        is_final: bool = False,
    ) -> None:
        """`retry_after` in seconds; `is_final`: the same request would only be answered, and perhaps paid, in vain again."""
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.retry_after, self.is_final = retry_after, is_final

    def body(self) -> bytes:
        """The error as JSON."""
        kind = "invalid_request_error" if self.status < 500 and self.status != 429 else "server_error"
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(self.status, kind)
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return json.dumps({"error": error}).encode()

    def response(self) -> "web.Response":
        """The error as an HTTP response."""
        from aiohttp import web

        headers = dict(JSON_HEADERS)
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.is_final:
            headers["x-should-retry"] = "false"  # for the openai clients, which by themselves send twice more what ended in 5xx
        return web.Response(status=self.status, body=self.body(), headers=headers)
