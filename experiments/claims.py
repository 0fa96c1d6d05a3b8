"""Claims of papers against our runs: what was measured, on how many, with what interval, and the verdict."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

Verdict = Literal["reproduced", "not reproduced", "inconclusive"]


@dataclasses.dataclass(frozen=True)
class Claim:
    """`measured` is our figure in words; the interval is of `value`, nan where there is none."""

    statement: str
    source: str
    measured: str
    value: float
    low: float
    high: float
    n: int
    verdict: Verdict


def verdict(low: float, high: float, above: float) -> Verdict:
    """`reproduced` if the whole interval lies above a bound, `not reproduced` if below, else `inconclusive`."""
    if math.isnan(low) or math.isnan(high):
        return "inconclusive"
    if low > above:
        return "reproduced"
    return "not reproduced" if high < above else "inconclusive"
