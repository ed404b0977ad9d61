"""What is paid for again: requests that were answered before, under other settings. Sends nothing."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import replace
from statistics import fmean
from typing import Any

from seqdistill.engines import Request
from seqdistill.journal.budget import Source
from seqdistill.journal.prices import FREE, known_usd
from seqdistill.journal.storage import Journal, completion_of, request_key


def cost_of_repeats(
    journal: Journal,
    wanted: Iterable[tuple[Source, Request]],
    place: Callable[[str], Hashable] = lambda name: name,
    *,
    batched: bool = False,
) -> str | None:
    """What it costs to request again what this run paid for under other settings, in words; None where nothing is.

    `place` is what a request's id and an earlier one's have in common; `batched`, whether they go out in batches. Extrapolated
    from the answers that they have, each model's from its own.
    """
    if not len(journal):
        return None
    today: set[str] = set()
    sources: dict[str, Source] = {}  # by identity
    missing: list[tuple[Hashable, Source]] = []
    for source, request in wanted:
        sources[source.identity] = source
        if (key := request_key(request, source.identity)) not in today and source.price != FREE and not source.is_free:
            today.add(key)
            if key not in journal:
                missing.append((place(request.id), source))
    places, names = {where for where, _ in missing}, {source.name for source in sources.values()}
    prices = {source.identity: source.price for _, source in missing}
    answered = Counter[tuple[Hashable, str]]()  # by place and by who answered
    costs: dict[tuple[str, str], list[float]] = {}  # USD an answer, by who answered and by whose price
    for row in journal.rows() if missing else ():
        if row.get("paid", True) and row["key"] not in today and (where := place(row["id"])) in places:
            owner, completion = _owner(row, sources, names), replace(completion_of(row, ""), batched=batched)
            answered[where, owner] += 1
            for identity, price in prices.items():
                if (usd := known_usd(price, [completion])) is not None:
                    costs.setdefault((owner, identity), []).append(usd)
    total, again = 0.0, 0
    for where, source in missing:
        before = next((owner for owner in (source.identity, source.name, "") if answered[where, owner]), None)
        if before is not None and (known := costs.get((before, source.identity))):
            answered[where, before] -= 1
            total, again = total + fmean(known), again + 1
    if not again:
        return None
    return f"{again} requests were answered before under other settings, and are paid for again: about {total:.4f} USD"


def _owner(row: Mapping[str, Any], sources: Mapping[str, Source], names: Iterable[str]) -> str:
    """Who wrote an earlier answer: the identity of a model of today, or the name of one that has other options now; or ""."""
    if row["model"] in sources:
        return str(row["model"])
    return next((name for name in names if f":{name}:" in row["id"]), "")
