"""The body of a request: waited for, of a limited size, decompressed. Does not know what is in it."""

import asyncio
import zlib
from typing import TYPE_CHECKING

from seqdistill.serve.http_errors import HttpError

if TYPE_CHECKING:
    from aiohttp import web

MOST_BODY = 4 << 20  # bytes
BODY_SECONDS = 30.0  # within which it must be there
COMPRESSED = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}  # ways that are read, and zlib's name for them


async def body_of(request: "web.Request") -> bytes:
    """The body. Raises HttpError for one that does not come, is too large or cannot be read."""
    from aiohttp import web

    if (request.content_length or 0) > MOST_BODY:
        raise _too_large()  # before it is sent
    if request.content.is_eof():  # it came with its head, as nearly all do: nothing is waited for
        return _decompressed(request, await request.read())
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return _decompressed(request, await request.read())
    except TimeoutError:
        raise HttpError(408, "request_timeout", f"the body was not there within {BODY_SECONDS:g} s") from None
    except web.HTTPRequestEntityTooLarge:
        raise _too_large() from None
    except web.RequestPayloadError as error:
        raise HttpError(400, "invalid_request", f"the body cannot be read: {error}") from None


def _decompressed(request: "web.Request", body: bytes) -> bytes:
    """The body as it was before the client compressed it. Raises HttpError for an unknown way and a damaged body."""
    way = request.headers.get("Content-Encoding", "identity").strip().lower()
    if way == "identity":
        return body
    if way not in COMPRESSED:
        message = f"Content-Encoding {way[:50]} is not supported: send the body as it is, or in {' or '.join(COMPRESSED)}"
        raise HttpError(415, "unsupported_encoding", message)
    is_bare = way == "deflate" and body and body[0] & 0x0F != zlib.DEFLATED  # without the head that the standard wants
    reader = zlib.decompressobj(-zlib.MAX_WBITS if is_bare else COMPRESSED[way])
    try:
        content = reader.decompress(body, MOST_BODY + 1)
    except zlib.error as error:
        raise HttpError(400, "invalid_request", f"the body is not {way}: {error}") from None
    if len(content) > MOST_BODY:
        raise _too_large()
    if not reader.eof:
        raise HttpError(400, "invalid_request", f"the body is not whole: its {way} ends early")
    return content


def _too_large() -> HttpError:
    return HttpError(413, "request_too_large", f"the body is larger than {MOST_BODY} bytes")
