"""The pace of one endpoint by a simulated clock: nothing here depends on how fast the machine is."""

import heapq
import random
from dataclasses import dataclass, field

import pytest

from seqdistill.engines import Pace
from seqdistill.engines.pace import CUT, Throttle, backoff, retry_after, spoken_pause

TOKENS = 100  # of each request
REFUSAL_SECONDS = 0.02

FIRST_LIMIT = Pace().first_limit


@dataclass
class Endpoint:
    """Works on `capacity` requests at a time, about a second on each, and refuses the others. Asked as the engine asks."""

    capacity: int
    pace: Pace = field(default_factory=lambda: Pace(concurrency=1000))
    sent: list[float] = field(default_factory=list)  # when; refused ones included
    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    most_in_flight: int = 0
    work: float = 0.0  # seconds that it was busy, summed over what it worked on at a time

    def ask(self, requests: int) -> "Endpoint":
        throttle, draw, now = Throttle(self.pace), random.Random(7), 1000.0
        ready = [0] * requests  # how often each was refused
        events: list[tuple[float, int, str, float, int]] = []  # when, a number for ties, what, when sent, how often refused
        busy = in_flight = 0

        def plan(seconds: float, what: str, refusals: int = 0) -> None:
            heapq.heappush(events, (now + seconds, len(self.sent) + len(events), what, now, refusals))

        while ready or events:
            while ready and not (wait := throttle.wait(TOKENS, now)):
                throttle.sent(TOKENS, now)
                self.sent.append(now)
                in_flight += 1
                self.most_in_flight = max(self.most_in_flight, in_flight)
                free = busy < self.capacity
                busy += free
                plan(draw.uniform(0.5, 1.5) if free else REFUSAL_SECONDS, "answer" if free else "refuse", ready.pop())
            if ready and wait < float("inf"):
                plan(wait + 1e-6, "wake")
            before = now
            now, _, what, sent_at, refusals = heapq.heappop(events)
            self.work += busy * (now - before)
            match what:
                case "answer":
                    self.answered.append(now)
                    busy -= 1
                    throttle.answered(now - sent_at)
                case "refuse":
                    self.refused.append(now)
                    throttle.refused(sent_at, 0.0, now)
                    plan(backoff(refusals + 1), "again", refusals + 1)
                case "again":
                    ready.append(refusals)
            if what in ("answer", "refuse"):
                in_flight -= 1
                throttle.finished(0)
        return self


@pytest.fixture(autouse=True)
def _same_jitter_each_time() -> None:
    random.seed(7)


@pytest.mark.parametrize("capacity", [1, 2, 5, 10, 30, 100, 300])
def test_what_an_endpoint_can_take_is_found_kept_busy_and_not_hammered(capacity: int) -> None:
    one = Endpoint(capacity).ask(60 * capacity)
    seconds = one.sent[-1] - one.sent[0]
    assert len(one.answered) == 60 * capacity
    assert one.work / seconds > 0.7 * capacity, "kept busy"
    assert one.most_in_flight <= max(FIRST_LIMIT, 2 * capacity), "found from below"
    settled = [at for at in one.refused if at > one.sent[0] + 10]
    assert len(settled) <= 1.1 * seconds, "what more it could take is tried about once a round trip, which is a second"
    if capacity >= 5:
        assert len(one.refused) < 0.1 * len(one.answered)


def test_an_endpoint_that_takes_everything_soon_gets_the_most_requests() -> None:
    one = Endpoint(1000, Pace(concurrency=64)).ask(64 * 20)
    assert one.most_in_flight == 64
    assert one.answered[-1] - one.sent[0] < 30, "20 round trips, and a few to get there"


def test_requests_a_minute_are_kept_to_and_used() -> None:
    one = Endpoint(1000, Pace(requests_per_minute=600)).ask(1000)
    burst = 60  # a tenth of a minute's
    for number, at in enumerate(one.sent, 1):
        assert number <= burst + 10 * (at - one.sent[0]) + 1e-6
    assert one.sent[-1] - one.sent[0] == pytest.approx((1000 - burst) / 10, rel=0.01)


def test_tokens_a_minute_are_kept_to_and_used() -> None:
    one = Endpoint(1000, Pace(tokens_per_minute=60_000)).ask(600)
    for number, at in enumerate(one.sent, 1):
        assert number * TOKENS <= 6000 + 1000 * (at - one.sent[0]) + 1e-6
    assert one.sent[-1] - one.sent[0] == pytest.approx((600 * TOKENS - 6000) / 1000, rel=0.01)


def test_refusals_of_requests_that_were_on_their_way_together_count_once_and_a_pause_is_kept() -> None:
    throttle = Throttle(Pace(concurrency=64))
    for _ in range(FIRST_LIMIT):
        assert throttle.wait(TOKENS, 100.0) == 0
        throttle.sent(TOKENS, 100.0)
    for at in (101.0, 101.1, 101.2):
        throttle.refused(100.0, 30.0, at)
    for _ in range(FIRST_LIMIT):
        throttle.finished(0)
    assert throttle.wait(TOKENS, 110.0) == pytest.approx(21.2)
    free = 0
    while throttle.wait(TOKENS, 140.0) == 0:
        throttle.sent(TOKENS, 140.0)
        free += 1
    assert free == int(FIRST_LIMIT * CUT)


@pytest.mark.parametrize("seconds", [1.0, 16.0, 59.0])
def test_a_cap_holds_one_request_back_until_the_first_answer_however_slow_it_is(seconds: float) -> None:
    throttles = [Throttle(Pace(capped=capped, timeout=60.0)) for capped in (True, False)]
    for throttle in throttles:
        throttle.answered(seconds)
    free = []
    for throttle in throttles:
        sent = 0
        while throttle.wait(TOKENS, 0.0) == 0:
            throttle.sent(TOKENS, 0.0)
            sent += 1
        free.append(sent)
    assert free[0] == free[1] >= FIRST_LIMIT


@pytest.mark.parametrize("capped", [False, True])
@pytest.mark.parametrize("seconds", [2.0, 12.0, 40.0])
def test_a_slow_endpoint_that_queues_gets_no_more_than_it_answers_before_the_timeout(seconds: float, capped: bool) -> None:
    pace = Pace(concurrency=1000, timeout=600.0, capped=capped)
    throttle, now, longest = Throttle(pace), 0.0, 0.0
    queue: list[float] = []  # when each was sent; one is worked on at a time
    for _ in range(500):
        while not throttle.wait(TOKENS, now):
            throttle.sent(TOKENS, now)
            queue.append(now)
        sent_at = queue.pop(0)
        now += seconds
        longest = max(longest, now - sent_at)
        throttle.answered(now - sent_at)
        throttle.finished(0)
    assert longest < pace.timeout


NOW = 1_795_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "2s"}, 2.0),
        ({"retry-after": "1795000003"}, 3.0),  # a time in seconds since 1970
        ({"retry-after": "Wed, 18 Nov 2026 11:06:45 GMT"}, 5.0),
        ({"retry-after": "Wed, 18 Nov 2026 11:06:45 -0000"}, 5.0),
        ({"retry-after": "Wed, 18 Nov 2020 11:06:45 GMT"}, 0.0),
        # by the endpoint's clock, where it says what that shows
        ({"retry-after": "Wed, 18 Nov 2026 13:06:45 GMT", "date": "Wed, 18 Nov 2026 13:06:40 GMT"}, 5.0),
        ({"retry-after": "Wed, 18 Nov 2026 09:06:45 GMT", "date": "Wed, 18 Nov 2026 09:06:40 GMT"}, 5.0),
        ({"retry-after": "1794992803", "date": "Wed, 18 Nov 2026 09:06:40 GMT"}, 3.0),
        ({"retry-after": "Wed, 18 Nov 2026 11:06:45 GMT", "date": "yesterday"}, 5.0),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        *[({"retry-after": value}, None) for value in ("-1", "soon", "", "nan", "2, 2")],
        ({}, None),
    ],
)
def test_retry_after_is_read_as_servers_write_it(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Limit 100000, Used 97050, Requested 3619. Please try again in 9m38.016s. Need more?", 578.016),  # Groq
        ("Please try again in 1.5s", 1.5),
        ("Please try again in 1500ms.", 1.5),
        ("Please try again in 9h3m38s", 32618.0),
        ("Please retry in 37.5s.", 37.5),  # Gemini
        ('[{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "37s"}]', 37.0),
        ("Rate limit is exceeded. Try again in 5 seconds.", 5.0),  # Azure
        ("Please retry after 2 minutes", 120.0),
        ("Rate limit of 15 per 60s exceeded for UserByModelByMinute. Please wait 12 seconds before retrying.", 12.0),  # GitHub
        ("try again in 1 hour 2 min", 3720.0),
        *[(text, None) for text in ("Please try again in 6ms.", "Please try again later.", "Used 3 of 5 s", "")],
    ],
)
def test_a_pause_in_words_is_read(text: str, seconds: float | None) -> None:
    assert spoken_pause(text) == seconds
