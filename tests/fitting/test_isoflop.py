"""Best sizes from isoFLOP grids and from training curves whose law is known."""

import math

import numpy as np
import pandas as pd
import pytest

from scaling.fitting.isoflop import curve_frontier, isoflop_frontier
from scaling.laws.law import TableError
from scaling.laws.size import EPOCH_PUBLISHED as TRUTH

EXPONENT = TRUTH["beta"] / (TRUTH["alpha"] + TRUTH["beta"])
BUDGETS = np.geomspace(6e18, 3e21, 6)


def loss(n, d, p=TRUTH):
    return p["E"] + p["A"] / n ** p["alpha"] + p["B"] / d ** p["beta"]


def best(compute, p=TRUTH):
    g = (p["alpha"] * p["A"] / (p["beta"] * p["B"])) ** (1 / (p["alpha"] + p["beta"]))
    return g * (compute / 6) ** (p["beta"] / (p["alpha"] + p["beta"]))


def grid(noise=0.0, seed=0, budgets=BUDGETS, spread=8.0, sizes=7, off=0.0, shift=0.0):
    """`sizes` runs a budget, within a factor `spread` of the best size; `off`: relative error of the compute."""
    rng = np.random.default_rng(seed)
    rows = []
    for budget in budgets:
        n = best(budget) * np.geomspace(1 / spread, spread, sizes) * math.exp(rng.normal(scale=shift))
        c = budget * np.exp(rng.uniform(-off, off, size=sizes))
        rows.append(pd.DataFrame({"C": c, "N": n, "loss": loss(n, c / 6 / n)}))
    table = pd.concat(rows, ignore_index=True)
    return table.assign(loss=table["loss"] * np.exp(rng.normal(scale=noise, size=len(table))))


def test_vertices_equal_a_polynomial_fit_a_budget():
    table = grid(noise=0.003, seed=1)
    frontier = isoflop_frontier(table, bootstrap=50)
    for budget, (_, rows) in zip(frontier.budgets.to_dict("records"), table.groupby("C"), strict=True):
        c2, c1, c0 = np.polyfit(np.log(rows["N"]), np.log(rows["loss"]), 2)
        assert (budget["c0"], budget["c1"], budget["c2"]) == pytest.approx((c0, c1, c2), rel=1e-6)
        assert budget["N"] == pytest.approx(math.exp(-c1 / (2 * c2)), rel=1e-6)
        assert budget["D"] == pytest.approx(budget["C"] / 6 / budget["N"])
        assert budget["loss"] == pytest.approx(math.exp(c0 - c1**2 / (4 * c2)), rel=1e-6)
        assert budget["N_low"] < budget["N"] < budget["N_high"]
    slope, intercept = np.polyfit(np.log(frontier.budgets["C"]), np.log(frontier.budgets["N"]), 1)
    assert frontier.exponent.value == pytest.approx(slope, rel=1e-9)
    assert frontier.size(1e22).value == pytest.approx(math.exp(intercept + slope * math.log(1e22)), rel=1e-9)


def test_exact_losses_give_the_exponent_and_nearly_the_size():
    frontier = isoflop_frontier(grid(), bootstrap=50)
    assert frontier.exponent.value == pytest.approx(EXPONENT, abs=2e-4)
    assert frontier.size(1e23).value == pytest.approx(best(1e23), rel=0.03)  # a parabola is not the law
    narrow = isoflop_frontier(grid(spread=1.5), bootstrap=50)
    assert narrow.size(1e23).value == pytest.approx(best(1e23), rel=0.002)
    lowest = loss(best(BUDGETS), BUDGETS / 6 / best(BUDGETS))
    np.testing.assert_allclose(narrow.budgets["loss"], lowest, rtol=1e-5)


def test_rows_slightly_off_their_budget_are_brought_to_it():
    frontier = isoflop_frontier(grid(off=0.02, seed=2), bootstrap=50)
    assert frontier.exponent.value == pytest.approx(EXPONENT, abs=2e-3)
    assert len(frontier.budgets) == len(BUDGETS)
    np.testing.assert_allclose(frontier.budgets["C"], BUDGETS, rtol=0.02)


def test_the_interval_of_the_exponent_covers_as_often_as_it_says():
    """100 simulated studies of 6 budgets; binomial 95% range of 95 in 100 is 90 to 99."""
    covered, wide = [], []
    for seed in range(100):
        frontier = isoflop_frontier(grid(noise=0.005, seed=seed, shift=0.3), bootstrap=400, seed=seed)
        covered.append(frontier.exponent.low <= EXPONENT <= frontier.exponent.high)
        wide.append(frontier.exponent.high - frontier.exponent.low)
    assert 0.90 <= np.mean(covered) <= 1
    assert np.median(wide) < 0.08


def test_noise_shared_by_a_run_widens_the_interval():
    """Points of one curve read at every budget: a size's error moves all vertices together."""
    sizes = np.geomspace(8e7, 2e10, 12)
    rng = np.random.default_rng(0)
    table = pd.DataFrame([(c, n, run) for c in BUDGETS for run, n in enumerate(sizes)], columns=["C", "N", "run_id"])
    shared = rng.normal(scale=0.005, size=len(sizes))[table["run_id"]]
    own = rng.normal(scale=0.0005, size=len(table))
    table = table.assign(loss=loss(table["N"], table["C"] / 6 / table["N"]) * np.exp(shared + own))
    table = table[np.abs(np.log(table["N"] / best(table["C"]))) < math.log(10)]
    alone, together = (isoflop_frontier(table, group=group, bootstrap=400) for group in (None, "run_id"))
    assert together.exponent.value == alone.exponent.value
    assert together.exponent.low < EXPONENT < together.exponent.high
    assert together.size(1e23).high / together.size(1e23).low > 1.1 * alone.size(1e23).high / alone.size(1e23).low


def test_units_do_not_matter():
    table = grid(noise=0.003)
    frontier = isoflop_frontier(table, bootstrap=100)
    other = isoflop_frontier(table.assign(N=table["N"] / 1e9, C=table["C"] / 1e18), bootstrap=100)
    assert other.exponent.value == pytest.approx(frontier.exponent.value, rel=1e-9)
    assert other.exponent.low == pytest.approx(frontier.exponent.low, rel=1e-6)
    assert other.size(1e4).value * 1e9 == pytest.approx(frontier.size(1e22).value, rel=1e-6)


def test_budgets_without_an_interior_minimum_are_left_out():
    table = grid()
    low, high = (table[table["C"] == c] for c in (BUDGETS[0], BUDGETS[5]))
    table = table.drop(low.index[:5]).drop(high.index[3:])  # one with two sizes, one on a falling flank
    frontier = isoflop_frontier(table, bootstrap=50)
    why = frontier.budgets["refused"].tolist()
    assert why[0] == "few_distinct: 2 sizes, 3 needed for a parabola"
    assert why[5].startswith("no_interior_minimum: its vertex")
    assert why[1:5] == [""] * 4
    assert np.isnan(frontier.budgets["N"].iloc[[0, 5]]).all()
    assert frontier.exponent.value == pytest.approx(EXPONENT, abs=1e-3)
    assert "over 4 of 6 budgets" in str(frontier)
    hill = isoflop_frontier(table.assign(loss=5 - table["loss"]), bootstrap=50)
    assert "the parabola opens downwards" in hill.budgets["refused"].iloc[2]


def test_fewer_than_three_budgets_and_far_budgets_are_refused():
    frontier = isoflop_frontier(grid(budgets=BUDGETS[:2]), bootstrap=50)
    assert frontier.exponent.refusal.kind == "few_budgets"
    assert "2 budgets have a best size inside their sizes, at least 3 needed" in frontier.exponent.refusal.reason
    assert math.isnan(frontier.exponent.value)
    assert frontier.size(1e20).refusal.kind == "few_budgets"
    known = isoflop_frontier(grid(), bootstrap=50)
    assert known.size(2e23).refusal is None
    assert known.size(4e23).refusal.kind == "extrapolated"
    assert "more than 100 times beyond the budgets 6e+18 to 3e+21" in known.size(4e23).refusal.reason
    assert known.size(4e23, reach=1000).refusal is None
    with pytest.raises(ValueError, match="compute, reach: 0, 100"):
        known.size(0)


def test_budgets_are_named_where_rows_run_into_one_another():
    n = np.tile(np.geomspace(1e8, 1e9, 5), 30)
    c = np.repeat(np.geomspace(1e19, 1e20, 30), 5)
    table = pd.DataFrame({"N": n, "C": c, "loss": loss(n, c / 6 / n)})
    with pytest.raises(TableError, match=r"column 'C': rows from 1e\+19 to 1e\+20 run into one another.*budgets="):
        isoflop_frontier(table, within=0.1)
    named = isoflop_frontier(table, budgets=[1e19, 3e19, 1e20], within=0.1, bootstrap=50)
    assert named.unused == 30 * 5 - sum(named.budgets["rows"])
    assert named.unused > 0
    assert list(named.budgets["C"]) == pytest.approx([1e19, 3e19, 1e20])
    with pytest.raises(ValueError, match=r"must be positive and more than within = 0\.1 apart"):
        isoflop_frontier(table, budgets=[1e19, 1.1e19], within=0.1)
    with pytest.raises(TableError, match="column 'loss', row 0: -1 must be > 0"):
        isoflop_frontier(table.assign(loss=-1.0))
    for frontier in (isoflop_frontier, curve_frontier):
        with pytest.raises(ValueError, match="flops: -6 must be > 0: FLOPs a parameter and token, about 6"):
            frontier(grid(), flops=-6)
    with pytest.raises(TableError, match="no budget has 3 sizes or more"):
        isoflop_frontier(grid(sizes=2))


def curves(sizes, seed=0, noise=0.001):
    """Each size trained from 2 to 200 tokens a parameter; a run's noise is shared by its points."""
    rng = np.random.default_rng(seed)
    rows = []
    for run, n in enumerate(sizes):
        d = n * np.geomspace(2, 200, 24)
        own = np.exp(rng.normal(scale=noise) + rng.normal(scale=noise / 4, size=d.size))
        rows.append(pd.DataFrame({"run_id": run, "N": n, "C": 6 * n * d, "loss": loss(n, d) * own}))
    return pd.concat(rows, ignore_index=True)


def test_the_envelope_of_training_curves_gives_the_exponent():
    frontier = curve_frontier(curves(np.geomspace(3e7, 1e10, 24)), bootstrap=200)
    assert frontier.exponent.low < EXPONENT < frontier.exponent.high
    assert frontier.exponent.value == pytest.approx(EXPONENT, abs=0.03)
    edge = frontier.budgets["refused"].str.startswith("no_interior_minimum: the smallest or largest size trained")
    assert edge.iloc[0]
    assert edge.iloc[-1]
    used = frontier.budgets[~edge]
    np.testing.assert_allclose(np.log(used["N"]), np.log(best(used["C"])), atol=0.6)
    assert len(used) > 30


def test_few_curves_cannot_tell():
    frontier = curve_frontier(curves(np.geomspace(1e8, 1e9, 4)), bootstrap=50)
    assert frontier.exponent.refusal.kind == "few_budgets"
    assert "fewer than 3 sizes are best anywhere" in frontier.exponent.refusal.reason
    table = curves(np.geomspace(1e8, 1e9, 4)).assign(run_id=0)
    with pytest.raises(TableError, match="column 'run_id': run 0 has rows of several sizes; a run has one"):
        curve_frontier(table)
