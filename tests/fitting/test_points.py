"""Weights, known standard errors, conditions, and the points that travel with a fit."""

import numpy as np
import pandas as pd
import pytest

from scaling import fitting
from scaling.fitting import Fit
from scaling.laws.law import TableError
from scaling.laws.mixture import CMR_RATIO


def table(noise=0.004, seed=0, sizes=(0.5, 2.0)):
    rng = np.random.default_rng(seed)
    share = np.linspace(0.05, 1.0, 24)
    se = noise * np.resize(sizes, 24)
    return pd.DataFrame({"R": share, "loss": 1.9 - 0.4 * share**0.3 + se * rng.normal(size=24), "se": se})


def test_a_weight_column_counts_rows():
    rows = table().assign(times=np.resize([1, 3, 4, 2], 24))
    weighted = fitting.fit(CMR_RATIO, rows, group=None, weights="times", bootstrap=0)
    repeated = fitting.fit(CMR_RATIO, rows.loc[rows.index.repeat(rows["times"])], group=None, bootstrap=0)
    assert weighted.value == pytest.approx(repeated.value, rel=1e-9)
    at = {"R": np.array([0.01, 0.5])}
    np.testing.assert_allclose(weighted.predict(at), repeated.predict(at), rtol=1e-7)


def test_known_errors_are_inverse_square_weights_under_least_squares():
    rows = table()
    rows["inverse"] = rows["se"] ** -2
    by_error = fitting.fit(CMR_RATIO, rows, group=None, error="se", objective=fitting.least_squares(), bootstrap=0)
    by_weight = fitting.fit(
        CMR_RATIO, rows, group=None, weights="inverse", objective=fitting.least_squares(), bootstrap=0
    )
    assert by_error.value == pytest.approx(by_weight.value, rel=1e-9)
    assert by_error.value == pytest.approx((24 - 3) / 2, rel=0.6)  # half a chi-square of 21
    np.testing.assert_allclose(by_error.predict({"R": 0.01}), by_weight.predict({"R": 0.01}), rtol=1e-7)


def test_known_errors_on_the_log_scale_are_relative():
    rows = table()
    logs = rows.assign(loss=np.log(rows["loss"]), se=rows["se"] / rows["loss"])
    assert fitting.fit(CMR_RATIO, rows, group=None, error="se", bootstrap=0).objective == fitting.huber(1.345)
    problem = fitting.fit(CMR_RATIO, rows, group=None, error="se", bootstrap=0)
    residual = np.log(problem.predict(rows)) - logs["loss"]
    size = np.abs(residual / logs["se"])
    assert problem.value == pytest.approx(np.where(size <= 1.345, size**2 / 2, 1.345 * (size - 1.345 / 2)).sum())


def test_a_condition_holds_out_by_column_or_by_input():
    rows = table().rename(columns={"R": "share"})
    options = {"columns": {"R": "share"}, "group": None, "bootstrap": 0}
    by_input = fitting.fit(CMR_RATIO, rows, holdout="R > 0.9", **options)
    by_mask = fitting.fit(CMR_RATIO, rows, holdout=rows["share"] > 0.9, **options)
    assert by_input.held_out == by_mask.held_out
    assert by_input.points.held.inputs["R"].min() > 0.9
    with pytest.raises(TableError, match=r"holdout: 'N > 3' is no condition on the table .*columns share, loss, se"):
        fitting.fit(CMR_RATIO, rows, holdout="N > 3", **options)
    with pytest.raises(TableError, match="all 24 rows are held out"):
        fitting.fit(CMR_RATIO, rows, holdout="share > 0", **options)


def test_points_travel_with_the_fit():
    rows = table().assign(run=np.repeat(np.arange(12), 2), size=np.repeat(["s", "l"], 12))
    fit = fitting.fit(CMR_RATIO, rows, group="run", stratum="size", error="se", holdout="R > 0.9", bootstrap=20)
    again = Fit.from_json(fit.to_json()).points
    for one, other in zip(vars(fit.points).values(), vars(again).values(), strict=True):
        np.testing.assert_equal(one, other)
    assert fit.groups == again.fitted.groups == 11
    refit = fitting.fit_points(CMR_RATIO, fit.objective, again, bootstrap=20)
    assert refit.parameters == fit.parameters
    np.testing.assert_array_equal(refit.draws_BxP, fit.draws_BxP)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"w": [1.0, -2.0] * 12}, {"weights": "w"}, "column 'w', row 1: -2 must be > 0: it is the weights="),
        ({"w": [1.0, 0.0] * 12}, {"weights": "w"}, "row 1: 0 must be > 0: .*drop a row that shall not count"),
        ({"se": [0.0, 1.0] * 12}, {"error": "se"}, "column 'se', row 0: 0 must be > 0: it is the standard errors"),
        ({}, {"weights": "w"}, "column 'w' is missing: it is the weights= of the rows"),
    ],
)
def test_bad_weights_and_errors_are_named(change, options, message):
    with pytest.raises(TableError, match=message):
        fitting.fit(CMR_RATIO, table().assign(**change), group=None, **options)


def test_each_target_and_each_group_gets_its_own_fit():
    rows = pd.concat([table(seed=s).assign(size=s, other=table(seed=s + 9)["loss"]) for s in (1, 2)])
    options = {"group": None, "bootstrap": 0}
    by_both = fitting.fit_each(CMR_RATIO, rows, targets=["loss", "other"], by="size", **options)
    assert list(by_both) == ["loss, 1", "loss, 2", "other, 1", "other, 2"]
    alone = fitting.fit(CMR_RATIO, rows[rows["size"] == 2], target="other", **options)
    assert by_both["other, 2"].parameters == alone.parameters
    assert list(fitting.fit_each(CMR_RATIO, rows, by="size", **options)) == ["1", "2"]
    with pytest.raises(TableError, match="2: column 'loss', row"):
        fitting.fit_each(CMR_RATIO, rows.assign(loss=rows["loss"].where(rows["size"] == 1)), by="size", **options)
    with pytest.raises(TableError, match=r"column 'sise' \(by\) is missing"):
        fitting.fit_each(CMR_RATIO, rows, by="sise", **options)
