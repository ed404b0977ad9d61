"""What is paid for again: requests that were answered before, under other settings. Sends nothing."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable

from seqdistill.engines import Request
from seqdistill.journal.budget import FREE, Source, typical
from seqdistill.journal.storage import Journal, completion_of, request_key


def cost_of_repeats(
    journal: Journal, wanted: Iterable[tuple[Source, Request]], place: Callable[[str], Hashable] = lambda name: name
) -> str | None:
    """What it costs to request again what this run paid for under other settings, in words; None where nothing is.

    `place` is what a request's id and an earlier one's have in common. Extrapolated from the answers that they have.
    """
    if not len(journal):
        return None
    today: set[str] = set()
    missing: list[tuple[Hashable, Source]] = []
    for source, request in wanted:
        if source.price in (None, FREE) or (key := request_key(request, source.identity)) in today:
            continue
        today.add(key)
        if key not in journal:
            missing.append((place(request.id), source))
    places = {where for where, _ in missing}
    known = [
        (where, completion_of(row, ""))
        for row in (journal.rows() if missing else ())
        if row.get("paid", True) and row["key"] not in today and (where := place(row["id"])) in places
    ]
    answered = Counter(where for where, _ in known)
    again = []
    for where, source in missing:
        if answered[where]:
            answered[where] -= 1
            again.append(source)
    if not again:
        return None
    each = typical([completion for _, completion in known])
    usd = sum(source.price.usd(each) for source in again if source.price)
    return f"{len(again)} requests were answered before under other settings, and are paid for again: about {usd:.4f} USD"
