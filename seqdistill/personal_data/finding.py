"""One place in a text where there is personal data."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """One place in a text. `value` is the normalised value, equal for two spellings of it; it is kept out of `repr`."""

    kind: str  # one of `KINDS`
    start: int
    end: int
    value: str = field(repr=False)
