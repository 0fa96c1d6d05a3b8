"""What to run next: predicted widths against refits and a plain implementation; half of a grid's compute."""

import itertools

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from scaling import fitting
from scaling.fitting.design import design
from scaling.fitting.evaluate import at_each
from scaling.fitting.knowledge import assumed, known_from
from scaling.fitting.objectives import huber, least_squares
from scaling.fitting.replicates import replicates
from scaling.laws.law import Input, Law, Parameter, TableError
from scaling.laws.size import CHINCHILLA

TRUTH = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}
TARGET = {"N": 2e10, "D": 4e11}
NOISE = 0.005


def table_of(sizes, tokens, rng=None):
    n, d = (x.ravel() for x in np.meshgrid(sizes, tokens, indexing="ij"))
    table = pd.DataFrame({"N": n, "D": d, "cost": 6 * n * d})
    loss = TRUTH["E"] + TRUTH["A"] * n ** -TRUTH["alpha"] + TRUTH["B"] * d ** -TRUTH["beta"]
    return table if rng is None else table.assign(loss=loss * np.exp(rng.normal(scale=NOISE, size=n.size)))


SIZES, TOKENS = np.geomspace(5e7, 2e9, 8), np.geomspace(1e9, 4e10, 8)
CANDIDATES = table_of(SIZES, TOKENS)
UNIFORM = table_of(SIZES[[0, 2, 5, 7]], TOKENS[[0, 2, 5, 7]])
PILOT = np.geomspace(2e7, 3e8, 7), np.geomspace(4e8, 6e9, 7)


@pytest.fixture(scope="module")
def pilots():
    tables = [table_of(*PILOT, np.random.default_rng(seed)) for seed in range(4)]
    return [fitting.fit(CHINCHILLA, table, group=None, bootstrap=20) for table in tables]


@pytest.fixture(scope="module")
def pilot(pilots):
    return pilots[0]


@pytest.fixture(scope="module")
def prepared(pilot):
    return design(pilot, CANDIDATES, target=TARGET, repeats=4)


def found_width(runs):
    """The width of the target's 95% interval over 384 refits of pilot and runs, simulated from the truth."""
    rows = pd.concat([table_of(*PILOT), runs])
    inputs = {name: rows[name].to_numpy() for name in ("N", "D")}
    drawn_BxP = replicates(CHINCHILLA, huber(), TRUTH, inputs, noise=NOISE, count=384, seed=1)
    target_B = at_each(CHINCHILLA, drawn_BxP, {name: np.array([value]) for name, value in TARGET.items()})[:, 0]
    low, high = np.quantile(target_B, [0.025, 0.975])
    return high - low


def test_half_the_compute_of_a_uniform_grid_reaches_its_interval_as_predicted(pilots):
    """The noise estimate of a single pilot of 49 runs is off by 11%; so predictions are averaged over four pilots."""
    budget = 0.5 * UNIFORM["cost"].sum()
    studies = [design(pilot, CANDIDATES, target=TARGET, repeats=4) for pilot in pilots]
    plans = [study.rank(budget) for study in studies]
    assert all(plan.cost <= budget * (1 + 1e-9) for plan in plans)
    at_half, at_grid = [found_width(plan.table) for plan in plans], found_width(UNIFORM)
    assert max(at_half) < at_grid
    places = [
        int(((CANDIDATES[["N", "D"]] / row - 1).abs().sum(axis=1)).argmin())
        for _, row in UNIFORM[["N", "D"]].iterrows()
    ]
    count = np.bincount(places, minlength=len(CANDIDATES))
    assert np.mean([plan.width for plan in plans]) == pytest.approx(np.mean(at_half), rel=0.2)
    assert np.mean([study.width_of(count) for study in studies]) == pytest.approx(at_grid, rel=0.2)
    assert all(plan.refusals == () for plan in plans)


def plain_errors(fit, vectors, runs, target):
    """The standard error of the target, by finite differences of the formula in plain numpy, geometric mean."""

    def loss(p, n, d):
        return p[0] + p[1] * n ** -p[3] + p[2] * d ** -p[4]

    known = known_from(fit)
    errors = []
    for p in vectors:
        steps = [
            (p * np.where(np.arange(5) == i, 1 + 1e-6, 1), p * np.where(np.arange(5) == i, 1 - 1e-6, 1))
            for i in range(5)
        ]
        rows = pd.concat([table_of(*PILOT), runs])
        jacobian = np.array(
            [(np.log(loss(a, rows["N"], rows["D"])) - np.log(loss(b, rows["N"], rows["D"]))) / 2e-6 for a, b in steps]
        )
        gradient = np.array([(loss(a, *target.values()) - loss(b, *target.values())) / 2e-6 for a, b in steps])
        covariance = np.linalg.inv(jacobian @ jacobian.T) * (known.noise.point + known.noise.run)
        errors.append(0.5 * np.log(gradient @ covariance @ gradient))
    return np.exp(np.mean(errors))


def test_the_predicted_standard_error_is_that_of_a_second_implementation(pilot, prepared):
    vectors = np.concatenate([[list(pilot.parameters.values())], pilot.draws_BxP])[: len(prepared.gradient_BxP)]
    few = CANDIDATES.iloc[[7, 20, 56]]
    count = np.bincount([7, 20, 56], minlength=len(CANDIDATES))
    wanted = plain_errors(pilot, vectors, few, TARGET)
    assert prepared.width_of(count) == pytest.approx(2 * 1.959964 * wanted, rel=1e-4)
    single = prepared.alone().loc[20, "standard_error"]
    assert single == pytest.approx(plain_errors(pilot, vectors, CANDIDATES.iloc[[20]], TARGET), rel=1e-4)


def test_no_pair_of_candidates_beats_the_plan_by_more_than_a_tenth(pilot):
    """Against all pairs within the budget, which need no search."""
    few = CANDIDATES.iloc[::4]
    prepared = design(pilot, few, target=TARGET)
    cost = few["cost"].to_numpy()
    budget = 2 * np.median(cost)
    pairs = [np.bincount(pair, minlength=len(few)) for pair in itertools.combinations(range(len(few)), 2)]
    best = min(prepared.width_of(pair) for pair in pairs if pair @ cost <= budget)
    assert prepared.rank(budget).width < 1.1 * best


def test_a_plan_says_what_each_run_brings(prepared):
    plan = prepared.rank(1e20)
    table = plan.table
    np.testing.assert_allclose(table["spent"], table["cost"].cumsum())
    assert (np.diff(table["standard_error"]) < 0).all()
    assert table["standard_error"].iloc[-1] == pytest.approx(plan.after)
    np.testing.assert_allclose(table["per_cost"] * table["cost"], -np.diff([plan.before, *table["standard_error"]]))
    assert (table.groupby("candidate").size() <= 4).all()
    np.testing.assert_array_equal(table["N"], CANDIDATES.loc[table["candidate"], "N"])
    assert plan.width == pytest.approx(2 * 1.959964 * plan.after, rel=1e-6)
    assert f"{plan.width:.3g} after {len(table)} runs" in str(plan)


def test_more_budget_never_hurts_and_a_width_has_its_budget(prepared):
    frontier = prepared.frontier(np.geomspace(1e18, 1e21, 5))
    assert (np.diff(frontier["width"]) < 0).all()
    assert (frontier["cost"] <= frontier["budget"] * (1 + 1e-9)).all()
    aim = float(frontier["width"].iloc[2])
    plan = prepared.cheapest(aim)
    assert plan.width <= aim
    assert plan.cost <= frontier["cost"].iloc[2] * 1.05
    assert len(prepared.cheapest(10.0).table) == 0
    out_of_reach = prepared.cheapest(1e-6)
    assert out_of_reach.refusals[0].kind == "infeasible"
    assert "all candidates together leave a width of" in out_of_reach.refusals[0].reason


def test_any_function_of_the_parameters_is_a_target(pilot):
    prepared = design(pilot, CANDIDATES, target=lambda p: p["beta"] / (p["alpha"] + p["beta"]))
    value = pilot.parameters
    assert prepared.value == pytest.approx(value["beta"] / (value["alpha"] + value["beta"]))
    plan = prepared.rank(1e20)
    assert plan.after < plan.before
    with pytest.raises(ValueError, match="a scalar whose derivative by the parameters is finite, and not 0 throughout"):
        design(pilot, CANDIDATES, target=lambda p: jnp.ones(()))


def test_runs_of_many_points_share_their_noise():
    """A mean: with noise s shared by a run and e a point's own, a run of m points is worth s^2 + e^2/m."""
    mean = Law(
        "mean", "c", "none", (Input("t", "step", distinct=1),), "nats/token",
        (Parameter("c", "real", (-1.0, 1.0), linear=True),), lambda p, x: p["c"] + 0 * x["t"], scale="raw",
    )  # fmt: skip
    steps = pd.DataFrame({"t": np.tile([1.0, 2.0, 3.0, 4.0], 2), "run": np.repeat(["a", "b"], 4), "cost": 4.0})
    known = assumed(mean, {"c": 0.0}, noise=0.2, run_noise=0.1, around=steps, spread=1e3)
    prepared = design(known, steps, target=lambda p: p["c"], run="run")
    variance = 0.1**2 + 0.2**2 / 4
    assert prepared.alone()["standard_error"].to_numpy() == pytest.approx(np.full(2, np.sqrt(variance)), rel=1e-4)
    plan = prepared.rank(8.0)
    assert plan.after == pytest.approx(np.sqrt(variance / 2), rel=1e-4)
    assert list(plan.table["candidate"]) == ["a", "b"]
    with pytest.raises(TableError, match="column 'cost', row 1: differs within run 'a'"):
        design(known, steps.assign(cost=np.arange(1.0, 9.0)), target=lambda p: p["c"], run="run")


def test_the_noise_of_a_fit_is_split_between_runs_and_points():
    mean = Law(
        "line", "c*t", "none", (Input("t", "step"),), "nats/token",
        (Parameter("c", "positive", (0.1, 10.0), linear=True),), lambda p, x: p["c"] * x["t"], scale="raw",
    )  # fmt: skip
    rng = np.random.default_rng(0)
    t, run = np.tile([1.0, 1.5, 2.0, 2.5], 100), np.repeat(np.arange(100), 4)
    loss = 2 * t + rng.normal(scale=0.3, size=100)[run] + rng.normal(scale=0.1, size=400)
    table = pd.DataFrame({"t": t, "run_id": run, "loss": loss})
    signs = 2 / np.pi * np.arcsin(0.9)  # correlation of the signs of two normals that correlate by 0.9
    for objective, loss_of_efficiency, share in ((least_squares(), 1.0, 0.9), (huber(0.01, "raw"), np.pi / 2, signs)):
        noise = known_from(fitting.fit(mean, table, objective=objective, bootstrap=20)).noise
        assert noise.run + noise.point == pytest.approx(0.1 * loss_of_efficiency, rel=0.2)
        assert noise.run / (noise.run + noise.point) == pytest.approx(share, abs=0.06)


def test_a_first_design_needs_no_run():
    published = assumed(CHINCHILLA, TRUTH, noise=0.005, around=CANDIDATES)
    plan = design(published, CANDIDATES, target=TARGET).rank(1e20)
    assert plan.after < 0.5 * plan.before
    assert plan.table["N"].nunique() >= 3
    assert plan.table["D"].nunique() >= 3
    assert plan.refusals == ()
    with pytest.raises(ValueError, match=r"parameters: \['E'\] must be exactly"):
        assumed(CHINCHILLA, {"E": 1.0}, noise=0.005, around=CANDIDATES)


def test_too_few_values_of_an_input_are_refused():
    two = CANDIDATES[CANDIDATES["N"].isin(SIZES[[0, 7]])]
    plan = design(assumed(CHINCHILLA, TRUTH, noise=0.005, around=two), two, target=TARGET).rank(1e20)
    assert [refusal.kind for refusal in plan.refusals] == ["few_distinct"]
    assert "2 values of N would carry the target, 3 needed to see that the law holds" in plan.refusals[0].reason
    assert "add candidates at other values" in str(plan)


def test_candidates_and_questions_that_cannot_be_read(pilot, prepared):
    with pytest.raises(TableError, match="column 'D' is missing"):
        design(pilot, CANDIDATES[["N", "cost"]], target=TARGET)
    with pytest.raises(TableError, match="column 'cost', row 0: -1 must be > 0: a run's cost"):
        design(pilot, CANDIDATES.assign(cost=-1.0), target=TARGET)
    with pytest.raises(ValueError, match=r"target: inputs \['N'\] must be exactly \['D', 'N'\]"):
        design(pilot, CANDIDATES, target={"N": 1e9})
    with pytest.raises(ValueError, match="budget: 0 must be > 0"):
        prepared.rank(0)
    broke = prepared.rank(1.0)
    assert broke.refusals[0].kind == "infeasible"
    assert broke.after == broke.before
    with pytest.raises(ValueError, match="5 runs for the 5 parameters of law 'chinchilla' leave no residual"):
        known_from(
            fitting.fit(
                CHINCHILLA, table_of(*PILOT, np.random.default_rng(0)).iloc[[0, 9, 20, 30, 47]], group=None, bootstrap=0
            )
        )
