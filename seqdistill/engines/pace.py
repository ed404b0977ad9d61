"""How fast requests are sent to one endpoint: how many at once, how many a minute, and when to pause.

Congestion control as TCP does it (slow start, then additive increase and multiplicative decrease: Chiu and Jain 1989,
doi 10.1016/0169-7552(89)90019-6), with HTTP 429 and 503 as the signal. Does not send anything.
"""

import email.utils
import random
import re
from collections.abc import Mapping
from datetime import UTC

from seqdistill.engines import Pace

CUT = 0.6
LONG_WAIT = 0.25  # of the timeout: an endpoint that takes so long has a queue, and more requests at once would only wait in it
LONGEST_BACKOFF_SECONDS = 60.0


class Throttle:
    """The pace of one endpoint. Times are `time.monotonic()` seconds."""

    def __init__(self, pace: Pace) -> None:
        """Starts with few requests at once; `pace` bounds how many there may ever be, and how much a minute."""
        self._most, self._long_wait = pace.concurrency, pace.timeout * LONG_WAIT
        self._limit = float(min(pace.first_limit, pace.concurrency))
        self._limit_once_answered = 0.0
        if pace.capped:  # the first answer shows what an answer really costs
            self._limit, self._limit_once_answered = 1.0, self._limit
        self._growing_fast = True
        self.in_flight = 0  # requests
        self._last_cut = 0.0
        self._paused_until = 0.0
        self._requests = _Bucket(pace.requests_per_minute)
        self._tokens = _Bucket(pace.tokens_per_minute)

    @property
    def load(self) -> float:
        """The share of today's limit that is in use."""
        return self.in_flight / self._limit

    def wait(self, tokens: int, now: float) -> float:
        """Seconds until a request of `tokens` tokens may be sent; 0 for now, infinity for when another one finishes."""
        if self.in_flight >= int(self._limit):
            return float("inf")
        return max(self._paused_until - now, self._requests.wait(1, now), self._tokens.wait(tokens, now), 0.0)

    def sent(self, tokens: int, now: float) -> None:
        """A request of at most `tokens` tokens was sent."""
        self.in_flight += 1
        self._requests.take(1, now)
        self._tokens.take(tokens, now)

    def finished(self, unused_tokens: int) -> None:
        """A request has ended; `unused_tokens` of the tokens it was sent with were not used."""
        self.in_flight -= 1
        self._tokens.give_back(unused_tokens)

    def answered(self, seconds: float) -> None:
        """A request was answered in `seconds`: raises the limit a little, unless answers take longer and longer."""
        self._limit, self._limit_once_answered = max(self._limit, self._limit_once_answered), 0.0
        if seconds > self._long_wait:
            return
        step = 1.0 if self._growing_fast else 1.0 / self._limit
        self._limit = min(self._most, self._limit + step)

    def refused(self, sent_at: float, pause: float, now: float) -> None:
        """The endpoint refused for load (429, 503). Requests that were in flight together count as one refusal."""
        if sent_at > self._last_cut:
            self._limit = max(1.0, self._limit * CUT)
            self._last_cut = now
        self._growing_fast = False
        self.pause(pause, now)

    def pause(self, seconds: float, now: float) -> None:
        """Sends nothing for `seconds`."""
        self._paused_until = max(self._paused_until, now + seconds)

    def lost(self, seconds: float, now: float) -> None:
        """The endpoint cannot be reached: try it again with one request, later."""
        self._limit, self._growing_fast = 1.0, True
        self.pause(seconds, now)


class _Bucket:
    """A minute's allowance, refilled steadily; without a limit it is never empty. It starts with a tenth."""

    def __init__(self, a_minute: int | None) -> None:
        self._rate = (a_minute or 0) / 60.0
        self._most = max(1.0, (a_minute or 0) / 10.0)
        self._left = self._most
        self._at = float("-inf")

    def wait(self, amount: float, now: float) -> float:
        if not self._rate:
            return 0.0
        self._left = min(self._most, self._left + (now - self._at) * self._rate)
        self._at = now
        return max(0.0, (min(amount, self._most) - self._left) / self._rate)  # more than a full bucket: goes into debt

    def take(self, amount: float, now: float) -> None:
        self.wait(amount, now)
        self._left -= amount

    def give_back(self, amount: float) -> None:
        self._left = min(self._most, self._left + amount)


def backoff(tries: int) -> float:
    """Seconds to wait after `tries` failed tries: exponential, half of it random."""
    longest = min(LONGEST_BACKOFF_SECONDS, 0.5 * 2.0 ** min(tries - 1, 10))
    return longest * (0.5 + 0.5 * random.random())  # noqa: S311


def retry_after(headers: Mapping[str, str], wall_clock: float) -> float | None:
    """The seconds in `Retry-After` (seconds or a date) or `retry-after-ms`; None without such a header.

    RFC 9110, section 10.2.3. Some write a unit, and some the time in seconds since 1970. A time is the endpoint's: it is
    compared with the reply's own `Date`, or without one with `wall_clock`, which may go wrong.
    """
    now = _timestamp(headers.get("date", ""))
    now = wall_clock if now is None else now
    for header, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(header, "").strip()
        try:
            seconds = float(value.removesuffix("s")) * scale
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return max(0.0, seconds - now) if seconds > 1e9 else seconds
    at = _timestamp(headers.get("retry-after", ""))
    return None if at is None else max(0.0, at - now)


def _timestamp(date: str) -> float | None:
    """The seconds since 1970 of a date in a header; None for anything else."""
    try:
        parsed = email.utils.parsedate_to_datetime(date)
        return parsed.replace(tzinfo=parsed.tzinfo or UTC).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


_PART = r"(\d+(?:\.\d+)?)\s*(ms|milliseconds?|[dhms]|days?|hours?|min(?:ute)?s?|sec(?:ond)?s?)?(?![a-z])"
_PARTS = re.compile(_PART, re.IGNORECASE)
_SPOKEN = re.compile(  # "Please try again in 9m38.016s", "retry after 20 seconds", "retryDelay": "37s"
    rf"(?:(?:try again|retry|available|resets?) (?:in|after)|please wait|retryDelay\W{{1,4}})\s*(?P<time>(?:{_PART}\s*)+)",
    re.IGNORECASE,
)
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "": 1.0}
SHORTEST_SPOKEN_SECONDS = 1.0  # less is the server's arithmetic, not advice


def spoken_pause(text: str) -> float | None:
    """The seconds to wait that an error names in words or in its details; None where it names none."""
    for match in _SPOKEN.finditer(text):
        parts = [(float(number), unit.lower()) for number, unit in _PARTS.findall(match["time"])]
        seconds = sum(number * (0.001 if unit.startswith(("ms", "mil")) else _SECONDS[unit[:1]]) for number, unit in parts)
        if seconds >= SHORTEST_SPOKEN_SECONDS:
            return seconds
    return None
