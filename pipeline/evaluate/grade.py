"""How sure is a share of right answers?"""

import math
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Share:
    """A share of items, in 0..1, with its 95% interval."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        return {key: round(value, 4) for key, value in asdict(self).items()}


def wilson(hits: int, items: int) -> Share:
    """Wilson score interval at 95%: E. B. Wilson, JASA 22 (1927) 209-212."""
    z = 1.959964
    p = hits / items
    denominator = 1 + z * z / items
    middle = (p + z * z / (2 * items)) / denominator
    half = z * math.sqrt(p * (1 - p) / items + z * z / (4 * items * items)) / denominator
    return Share(p, max(0.0, middle - half), min(1.0, middle + half))
