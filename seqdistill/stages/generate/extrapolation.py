"""What a run will use, extrapolated from the answers that are known: teacher by teacher, repeated requests too.

Pure functions over the plan and the answers. Reads no journal.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from statistics import fmean

from seqdistill.engines import PROMPT_COUNTS, Completion
from seqdistill.journal.prices import known_usd, typical
from seqdistill.recipe.tables import GenerateConfig
from seqdistill.records import Message
from seqdistill.stages.generate.plan import Planned, Repeat, repeats

BYTES_A_TOKEN = 4  # of English text; used only while no answer has reported the real count


@dataclass(frozen=True)
class Estimate:
    """The whole run before it starts; money and time of the whole and, separately, of what is still to be requested."""

    prompts: int
    requests: int
    missing: int  # requests that no journal answers yet
    first_prompt: list[Message]  # as the teacher will see it
    answers: int  # real answers that the figures rest on; 0: every answer is taken to be as long as max_tokens allows
    prompt_tokens: int
    completion_tokens: int
    usd: float | None  # None where neither a price nor a bill is known of some teacher
    missing_usd: float | None
    missing_seconds: float | None  # None without real answers, and for batches


@dataclass(frozen=True)
class Chain:
    """The requests for one sample: the first is step 0, then one step for each of `repeats`, which few samples take."""

    planned: Planned
    answers: Mapping[int, Completion]  # by step
    next: int | None  # the step whose request has no answer yet; None: nothing is left to be requested


def chain_of(planned: Planned, answer: Callable[[Planned], Completion | None], rounds: Sequence[Repeat]) -> Chain:
    """A sample's requests as far as `answer` answers them."""
    current, last = planned, answer(planned)
    if last is None:
        return Chain(planned, {}, 0)
    answers = {0: last}
    for step, repeat in enumerate(rounds, 1):
        if repeat.applies(last):
            current = repeat.again(current)
            if (last := answer(current)) is None:
                return Chain(planned, answers, step)
            answers[step] = last
    return Chain(planned, answers, None)


def by_teacher(plan: Sequence[Planned]) -> dict[str, list[Planned]]:
    """The requests of each teacher, by its name."""
    found: dict[str, list[Planned]] = {}
    for one in plan:
        found.setdefault(one.teacher.name, []).append(one)
    return found


def extrapolate(
    plan: Sequence[Planned],
    missing: Sequence[Planned],
    known: Sequence[Chain],
    config: GenerateConfig,
    at_once: Collection[str] = (),
) -> Estimate:
    """Each teacher's requests by the mean of its own answers; where it has none, as long as max_tokens allows.

    `known` are some of those that are answered, evenly spread: what they lack, the others lack, too. `at_once`, by id, are
    requested in no batch, though the others are.
    """
    of_all = _prompt_ratio(known)
    usual = {
        name: _usual([chain for chain in known if chain.planned.teacher.name == name], of[0], of_all, config)
        for name, of in by_teacher(plan).items()
    }
    answered = len(plan) - len(missing)
    to_come = [(one, 0, 1.0) for one in missing]
    to_come += [(chain.planned, chain.next, answered / len(known)) for chain in known if chain.next is not None]
    whole = [(one, 0, 1.0) for one in plan]
    in_batches = dict.fromkeys(at_once, False)
    in_batches |= {chain.planned.request.id: chain.answers[0].batched for chain in known if chain.answers}

    def usd(some: Sequence[tuple[Planned, int, float]]) -> float | None:
        total = 0.0
        for one, step, times in some:
            batched = in_batches.get(one.request.id, config.batch) if step == 0 else config.batch
            cost = usual[one.teacher.name].usd(one, step, batched=batched)
            if cost is None:
                return None
            total += cost * times
        return total

    whole_usd = None if all(one.teacher.is_free for one in plan) else usd(whole)
    return Estimate(
        prompts=len({one.prompt.id for one in plan}),
        requests=len(plan),
        missing=round(sum(times for _, _, times in to_come)),
        first_prompt=plan[0].request.messages,
        answers=len(known),
        prompt_tokens=round(sum(usual[one.teacher.name].prompt_tokens(one) for one in plan)),
        completion_tokens=round(sum(usual[one.teacher.name].completion_tokens() for one in plan)),
        usd=whole_usd,
        missing_usd=None if whole_usd is None else usd(to_come),
        missing_seconds=_seconds(to_come, usual, config) if known and not config.batch else None,
    )


@dataclass(frozen=True)
class _Usual:
    """What one teacher's requests use, by step: how many of its samples take it, and what its answer costs."""

    shares: Sequence[float]
    answers: Sequence[Completion]
    ratio: float  # prompt tokens a byte
    shared: Sequence[float]  # requests a sample: several come in one, which has the prompt and its fee once
    seconds: float  # a request

    def _steps(self, first: int) -> list[tuple[int, float]]:
        """The steps from the first one on, which is taken for certain, and how likely each is."""
        return [(first, 1.0), *((step, self.shares[step]) for step in range(first + 1, len(self.shares)))]

    def requests(self, first: int = 0) -> float:
        return sum(share for _, share in self._steps(first))

    def prompt_tokens(self, one: Planned, first: int = 0) -> float:
        return sum(share * _bytes(one) * self.ratio * self.shared[step] for step, share in self._steps(first))

    def completion_tokens(self, first: int = 0) -> float:
        return sum(share * self.answers[step].completion_tokens for step, share in self._steps(first))

    def usd(self, one: Planned, first: int, *, batched: bool) -> float | None:
        """None where neither a price nor a bill is known."""
        if one.teacher.is_free:
            return 0.0
        total = 0.0
        for step, share in self._steps(first):
            whole = replace(self._request(one, self.answers[step], 1 / self.shared[step]), batched=batched)
            cost = known_usd(one.teacher.price, [whole])
            if cost is None and share:
                return None
            total += share * (cost or 0.0) * self.shared[step]
        return total

    def _request(self, one: Planned, answer: Completion, samples: float) -> Completion:
        """All that one request brings: its prompt, as much of it from the cache as is usual, and the answer `samples` times."""
        prompt = round(_bytes(one) * self.ratio)
        of_prompt = {name: round(getattr(answer, name) * prompt / (answer.prompt_tokens or 1)) for name in PROMPT_COUNTS}
        counts = of_prompt | {
            "prompt_tokens": prompt,
            "completion_tokens": round(answer.completion_tokens * samples),
            "hidden_tokens": round(answer.hidden_tokens * samples),
        }
        return replace(answer, **counts, billed_usd=None if answer.billed_usd is None else answer.billed_usd * samples)


def _usual(known: Sequence[Chain], example: Planned, of_all: float | None, config: GenerateConfig) -> _Usual:
    """What the known answers of one teacher say; without any, each answer is cut off at the limit."""
    rounds = repeats(config)
    chains = known or [chain_of(example, _longest, rounds)]
    shares, answers = list[float](), list[Completion]()
    for step in range(len(rounds) + 1):
        decided = [chain for chain in chains if chain.next is None or chain.next >= step]
        shares.append(fmean(step in chain.answers or chain.next == step for chain in decided) if decided else 1.0)
        found = [chain.answers[step] for chain in chains if step in chain.answers]
        unseen = answers[0] if step and _at(example, rounds[:step]).request.max_tokens == config.max_tokens else None
        answers.append(typical(found) if found else unseen or _longest(_at(example, rounds[:step])))
    ratio = _prompt_ratio(known) or of_all or 1 / BYTES_A_TOKEN
    shared = ceil(config.samples / config.samples_per_request) / config.samples
    seconds = [completion.seconds for chain in known for completion in chain.answers.values()]
    return _Usual(shares, answers, ratio, [shared, *[1.0] * len(rounds)], fmean(seconds) if seconds else 0.0)


def _at(planned: Planned, rounds: Sequence[Repeat]) -> Planned:
    for repeat in rounds:
        planned = repeat.again(planned)
    return planned


def _longest(planned: Planned) -> Completion:
    """An answer that was cut off at its limit."""
    return Completion("", content="...", finish_reason="length", completion_tokens=planned.request.max_tokens)


def _prompt_ratio(known: Sequence[Chain]) -> float | None:
    """Prompt tokens a byte. Samples that come in one request share them: an answer without prompt tokens is such a sharer."""
    reported = [
        (chain.planned, completion.prompt_tokens)
        for chain in known
        if (completion := chain.answers.get(0)) and completion.prompt_tokens
    ]
    return sum(tokens for _, tokens in reported) / sum(_bytes(one) for one, _ in reported) if reported else None


def _seconds(to_come: Sequence[tuple[Planned, int, float]], usual: Mapping[str, _Usual], config: GenerateConfig) -> float:
    """How long what is missing will take, one teacher after the other: at the configured concurrency and limits a minute."""
    requests, tokens = dict.fromkeys(usual, 0.0), 0.0
    at_once = {one.teacher.name: config.concurrency for one, _, _ in to_come if one.teacher.config.engine == "openai"}
    for one, step, times in to_come:
        of = usual[one.teacher.name]
        requests[one.teacher.name] += times * of.requests(step)
        tokens += times * (of.prompt_tokens(one, step) + of.completion_tokens(step))
    known = [of.seconds for of in usual.values() if of.seconds]
    each = {name: of.seconds or (max(known) if known else 0.0) for name, of in usual.items()}
    return max(
        sum(count * each[name] / min(at_once.get(name, 1), max(1.0, count)) for name, count in requests.items()),
        60 * sum(requests.values()) / config.requests_per_minute if config.requests_per_minute else 0.0,
        60 * tokens / config.tokens_per_minute if config.tokens_per_minute else 0.0,
    )


def _bytes(planned: Planned) -> int:
    return sum(len(message["content"].encode(errors="replace")) for message in planned.request.messages)
