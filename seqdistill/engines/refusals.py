"""What an endpoint's refusal means: for this try, for its request, for the endpoint. Sends nothing."""

import re
from dataclasses import dataclass, field
from typing import Any

PERHAPS_BILLED = (408, 504, 524)  # a gateway gave up waiting: the model behind it may have answered
LONGEST_PAUSE_SECONDS = 900.0
TOO_LONG = re.compile(r"context.{0,10}(length|window)|maximum (input|model) length|prompt is too long", re.IGNORECASE)


@dataclass
class Failure(Exception):
    """One try's failure. `again` says whether another try makes sense."""

    kind: str
    message: str
    again: bool = True
    refused: bool = False  # the endpoint asked for less
    away: bool = False  # the request never reached the endpoint
    lost: bool = False  # the request was sent, and perhaps billed, but its answer did not arrive: its hold stays
    pause: float | None = None  # seconds, as Retry-After asked
    reply: dict[str, Any] = field(default_factory=dict)
