"""Verdicts follow from intervals."""

import math

import pytest

from experiments.claims import verdict


@pytest.mark.parametrize(("low", "high", "expected"), [
    (0.1, 0.2, "reproduced"), (-0.2, -0.1, "not reproduced"), (-0.1, 0.1, "inconclusive"),
    (0.0, 0.2, "inconclusive"), (math.nan, 0.2, "inconclusive"),
])
def test_verdict(low: float, high: float, expected: str) -> None:
    assert verdict(low, high, above=0.0) == expected
