"""One published figure against ours, and how the verdict is read off the numbers."""

import math
from dataclasses import dataclass

from experiments.claims import Verdict


@dataclass(frozen=True)
class Row:
    """`published` and `verdict` are None for a figure that no paper gives, the interval's ends where there is none.

    `n`: points (or runs) behind our figure. `objective`: what was minimised, or how it was computed. `seconds`: of the
    fit or computation, compilation included.
    """

    source: str
    quantity: str
    published: float | None
    ours: float
    low: float | None
    high: float | None
    n: int
    objective: str
    verdict: Verdict | None
    seconds: float
    note: str = ""


def close(published: float, ours: float, tolerance: float) -> Verdict:
    """`reproduced` within an absolute tolerance."""
    return "reproduced" if abs(ours - published) <= tolerance else "not reproduced"


def at_most(published: float, ours: float, slack: float = 1e-6) -> Verdict:
    """`reproduced` where our objective (or error) is no larger than the published one, but for a relative slack."""
    return "reproduced" if ours <= published * (1 + slack) else "not reproduced"


def covered(published: float, low: float, high: float, widest: float = math.inf) -> Verdict:
    """`reproduced` inside our interval, `not reproduced` outside, `inconclusive` where it is wider than `widest`."""
    if math.isnan(low) or math.isnan(high) or high - low > widest:
        return "inconclusive"
    return "reproduced" if low <= published <= high else "not reproduced"
