"""Folds against separate fits, measures by hand, and what is skipped or refused."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scaling import fitting
from scaling.fitting.validation import hold_out_each, measured, rolling, widened
from scaling.laws.law import TableError
from scaling.laws.mixture import CMR_RATIO
from scaling.laws.size import CHINCHILLA
from simulated import points_of

SIZES, TOKENS = (1e7, 3e7, 1e8, 3e8, 1e9), (1e9, 3e9, 1e10, 3e10)


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    n, d = (axis.ravel() for axis in np.meshgrid(SIZES, TOKENS))
    loss = (1.8 + 480 / n**0.35 + 2100 / d**0.37) * np.exp(rng.normal(scale=0.003, size=n.size))
    return pd.DataFrame({"params": n, "D": d, "loss": loss})


READING = {"columns": {"N": "params"}, "group": None}


def test_every_cut_is_the_separate_fit_to_its_rows(table):
    result = rolling(CHINCHILLA, table, by="N", bootstrap=200, **READING)
    assert result["cut"].tolist() == list(SIZES[:-1])
    assert result["rows_fitted"].tolist() == [4, 8, 12, 16]
    assert result["rows_held"].tolist() == [16, 12, 8, 4]
    for at, cut in ((2, "N > 1e8"), (3, "N > 3e8")):
        alone = fitting.fit(CHINCHILLA, table, bootstrap=0, holdout=cut, **READING)
        assert result["rmse"][at] == pytest.approx(alone.held_out.rmse, rel=1e-4)
        assert result["relative"][at] == pytest.approx(alone.held_out.relative, rel=1e-4)
    assert (result["rmse_low"] <= result["rmse"])[1:].all()
    assert (result["rmse_high"] >= result["rmse"])[1:].all()


def test_a_cut_with_too_few_rows_is_skipped_with_its_reason(table):
    result = rolling(CHINCHILLA, table, by="N", ahead=1, bootstrap=0, **READING)
    assert result["rows_held"].tolist() == [4, 4, 4, 4]
    assert "4 rows for the 5 parameters" in result["skipped"][0]
    assert np.isnan(result["rmse"][0])
    assert (result["skipped"][1:] == "").all()
    assert result["rmse"][1:].notna().all()
    with pytest.raises(TableError, match=r"no fold can be fitted; the first: table: 4 rows for the 5 parameters"):
        rolling(CHINCHILLA, table, by="N", cuts=[1e7], **READING)


def test_each_value_is_held_out_in_turn_for_every_law():
    """The published 4B finance losses; the ratio law of four predicts the fifth, whichever is left out."""
    table = pd.DataFrame({"R": [1, 3 / 4, 1 / 2, 1 / 3, 1 / 4], "loss": [1.3242, 1.3416, 1.3643, 1.3854, 1.3994]})
    squares = fitting.least_squares()
    result = hold_out_each([CMR_RATIO, CMR_RATIO], table, by="R", objective=squares, bootstrap=100, group=None)
    assert result["held"].tolist() == sorted(table["R"]) * 2
    assert (result["groups_held"] == 1).all()
    assert result["rmse_low"].isna().all()
    for value, rmse in zip(result["held"][:2], result["rmse"][:2], strict=True):
        alone = fitting.fit(
            CMR_RATIO, table, objective=squares, bootstrap=0, group=None, holdout=(table["R"] == value).to_numpy()
        )
        assert rmse == pytest.approx(alone.held_out.rmse, rel=1e-3)
    assert result["relative"][0] < 1e-4


def test_measures_by_hand():
    held = points_of({"x": [1.0, 2, 3]}, np.array([2.0, 4.0, 5.0]), groups=[0, 0, 1])
    found = measured(np.array([2.2, 3.0, 5.0]), held, 500, 0, 0.95)
    assert found["rmse"] == pytest.approx(np.sqrt((0.04 + 1) / 3))
    assert found["relative"] == pytest.approx((0.1 + 0.25) / 3)
    assert found["bias"] == pytest.approx((0.2 - 1) / 3)
    assert found["rmse_log"] == pytest.approx(np.sqrt((np.log(1.1) ** 2 + np.log(0.75) ** 2) / 3))
    draws_4 = np.sqrt([1.04 / 2, 1.04 / 3, 1.04 / 3, 0])  # of two groups: Student's interval, cut at 0
    high = draws_4.mean() + np.sqrt(2) * stats.t.ppf(0.975, 1) * draws_4.std()
    assert (found["rmse_low"], found["rmse_high"]) == pytest.approx((0, high), rel=0.1)
    negative = measured(np.array([-1.0, 3.0, 5.0]), held, 10, 0, 0.95)
    assert np.isnan(negative["rmse_log"])
    assert negative["rmse"] == pytest.approx(np.sqrt((9 + 1) / 3))


@pytest.mark.parametrize("groups", [2, 3, 5, 6, 20])
def test_the_widened_interval_covers_a_mean_where_plain_percentiles_do_not(groups):
    rng = np.random.default_rng(groups)
    covered = {"plain": 0, "widened": 0}
    for _ in range(600):
        draws_B = rng.choice(rng.normal(size=groups), (1000, groups)).mean(axis=1)
        low, high = widened(draws_B[:, None], groups, 0.95)
        covered["widened"] += int(low[0] <= 0 <= high[0])
        low, high = np.quantile(draws_B, [0.025, 0.975])
        covered["plain"] += int(low <= 0 <= high)
    assert stats.binom.sf(covered["plain"], 600, 0.95) > 0.99
    assert covered["widened"] >= 600 * 0.92


def test_errors_of_few_held_out_groups_are_covered():
    """Percentiles of three groups' draws held 70% of true biases, and no more."""
    rng, held = np.random.default_rng(0), np.zeros(3)
    for _ in range(200):
        error_H = 0.1 * (rng.normal(size=(3, 3)) + rng.normal(size=(3, 1))).ravel()
        points = points_of({"x": np.arange(9.0)}, np.full(9, 10.0), groups=np.repeat(range(3), 3))
        found = measured(10 + error_H, points, 400, 0, 0.95)
        truths = {"rmse": 0.1 * np.sqrt(2), "relative": 0.01 * np.sqrt(2) * np.sqrt(2 / np.pi), "bias": 0}
        held += [found[f"{name}_low"] <= truth <= found[f"{name}_high"] for name, truth in truths.items()]
    assert (held >= 200 * np.array([0.84, 0.88, 0.9])).all(), held


def test_what_cannot_be_validated_is_refused(table):
    for ahead in (0, -1):
        with pytest.raises(ValueError, match=rf"ahead: {ahead} must be >= 1: how many of the next values to predict"):
            rolling(CHINCHILLA, table, by="N", ahead=ahead, **READING)
    with pytest.raises(TableError, match=r"column 'C' .by=. is missing; the table has params, D, loss"):
        hold_out_each(CHINCHILLA, table, by="C", **READING)
    with pytest.raises(TableError, match=r"one value \(10000000\.0\), at least two needed"):
        hold_out_each(CHINCHILLA, table[table["params"] == 1e7], by="N", **READING)
    with pytest.raises(TableError, match=r"cuts: no row lies beyond 2e\+09; the largest value of 'N' is 1e\+09"):
        rolling(CHINCHILLA, table, by="N", cuts=[2e9], **READING)
    with pytest.raises(TableError, match=r"column .run_id. .group. is missing"):
        rolling(CHINCHILLA, table, by="N", columns={"N": "params"})
