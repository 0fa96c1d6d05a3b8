"""Equivalence, contrasts by seed, and how losses are read from a store."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.continual import Contrast, by_seed, claim, equivalent, losses, plain, seeds_interval
from experiments.statistics import Interval
from scaling.fields import ConfigError
from scaling.store import Store


@pytest.mark.parametrize(("low", "high", "expected"), [
    (-0.04, 0.03, "reproduced"), (0.02, 0.04, "reproduced"), (0.06, 0.2, "not reproduced"),
    (-0.2, -0.06, "not reproduced"), (-0.02, 0.06, "inconclusive"), (-0.2, 0.2, "inconclusive"),
    (-0.06, 0.0, "inconclusive"), (math.nan, math.nan, "inconclusive"), (-0.05, 0.05, "inconclusive"),
])
def test_equality_needs_the_whole_interval_within_the_margin(low: float, high: float, expected: str) -> None:
    assert equivalent(Interval(0.0, low, high), 0.05) == expected


def table() -> pd.DataFrame:
    rows = [(kind, share, seed, step, loss + 0.1 * seed + later)
            for kind, share, loss in (("a", 0.25, 2.0), ("b", 0.5, 1.5)) for seed in (0, 1, 2)
            for step, later in ((5, 0.0), (9, 1.0))]
    found = pd.DataFrame(rows, columns=["kind", "share", "seed", "step", "loss"])
    return found.assign(domain="prose", last=found.step == 9)


def test_pairs_are_of_one_seed_and_what_lacks_a_partner_is_left_out() -> None:
    both = Contrast("a less b", {"kind": "a"}, {"kind": "b", "share": 0.5}, "prose", 5)
    assert both.pairs(table()).to_dict() == pytest.approx({0: 0.5, 1: 0.5, 2: 0.5})
    short = table().query("not (kind == 'b' and seed == 1)")
    assert both.pairs(short).index.tolist() == [0, 2]
    assert by_seed(table(), {"kind": "a"}, "prose").tolist() == pytest.approx([3.0, 3.1, 3.2])


def test_labels_that_two_runs_of_a_seed_share_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"labels = \{'domain': 'prose'\}: expected one run a seed; name more labels"):
        by_seed(table(), {"domain": "prose"}, "prose")


def test_a_claim_without_two_pairs_is_inconclusive() -> None:
    assert claim("s", "p", "w", pd.Series([1.0]), 0.95).verdict == "inconclusive"
    nothing = claim("s", "p", "w", pd.Series([], dtype=float), 0.95)
    assert nothing.verdict == "inconclusive"
    assert nothing.n == 0
    found = claim("s", "p", "w", pd.Series([1.0, 1.1, 0.9]), 0.95)
    half = 4.302652729911275 * 0.1 / math.sqrt(3)  # Student's 97.5% point with 2 degrees of freedom
    assert (found.low, found.high) == pytest.approx((1 - half, 1 + half))
    assert found.verdict == "reproduced"
    assert claim("s", "p", "w", pd.Series([1.0, 1.1, 0.9]), 0.95, margin=0.5).verdict == "not reproduced"


def test_an_interval_over_no_seed_is_none() -> None:
    assert all(math.isnan(end) for end in seeds_interval(pd.Series([], dtype=float), 0.95))


def test_plain_values_are_json() -> None:
    found = plain({"a": pd.DataFrame({"x": [np.float64(1.5), math.nan]}), "b": (np.int64(2), math.inf, None)})
    assert found == {"a": [{"x": 1.5}, {"x": None}], "b": [2, None, None]}
    assert plain(Interval(1.0, math.nan, 2.0)) == [1.0, None, 2.0]


def test_a_store_without_finished_branches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected finished branches to analyse; run the sweep to its end"):
        losses(Store(tmp_path), "prose")
