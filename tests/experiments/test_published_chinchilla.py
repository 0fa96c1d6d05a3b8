"""The published study of size and data: every figure, its verdict, and the distance of the original constants."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.published import chinchilla
from experiments.reference import AbsentDataError, reference_data
from scaling.fitting.isoflop import isoflop_frontier


@pytest.fixture(scope="module")
def data() -> Path:
    try:
        return reference_data()
    except AbsentDataError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def rows(data):
    return {(row.source, row.quantity): row for row in chinchilla.rows(data)}


def of(rows, part):
    found = [row for (_, quantity), row in rows.items() if part in quantity]
    assert found, part
    return found


def test_the_published_objective_is_reached(rows):
    reached = of(rows, "objective of the parametric fit")[0]
    assert reached.ours <= 0.0010182741
    assert reached.verdict == "reproduced"
    assert [row.verdict for row in of(rows, "objective at")] == ["reproduced", "not reproduced"] + 2 * ["reproduced"]


def test_the_replication_comes_back_and_the_original_does_not(rows):
    for name in ("E", "A", "B", "alpha", "beta"):
        assert rows["Besiroglu et al. 2024", name].verdict == "reproduced"
    refused = {name for name in ("E", "A", "B", "alpha", "beta") if
               rows["Hoffmann et al. 2022", name].verdict == "not reproduced"}  # fmt: skip
    assert refused == {"E", "B", "beta"}
    assert of(rows, "Wald distance")[0].ours > 150
    for row in of(rows, "width of the 95% interval"):
        assert row.verdict == "reproduced", row.quantity


def test_five_points_move_the_fit(rows):
    assert of(rows, "B on all 245")[0].ours == pytest.approx(6, abs=0.3)
    assert of(rows, "beta on all 245")[0].ours == pytest.approx(0.09, abs=0.006)


def test_optimum_and_exponents(rows):
    for row in of(rows, "the replication's constants"):
        if "optimal" in row.quantity:
            assert row.verdict == "reproduced", row.quantity
    assert of(rows, "parametric fit")[1].ours == pytest.approx(0.514, abs=0.002)
    assert of(rows, "approach 2")[0].verdict == "reproduced"
    assert of(rows, "approach 3")[0].verdict == "not reproduced"
    assert of(rows, "tokens per parameter")[0].verdict == "reproduced"


def test_wald_distance_of_an_estimate_is_zero_and_grows_by_its_own_scale(data):
    fit = chinchilla._refits(data).fit
    assert chinchilla.wald(fit, fit.parameters) == pytest.approx(0, abs=1e-20)
    one = replace(fit, draws_BxP=fit.draws_BxP.copy())
    beta = fit.parameters["beta"]
    spread = float(np.std(fit.draws_BxP[:, 4], ddof=1))
    moved = chinchilla.wald(one, fit.parameters | {"beta": beta + spread})
    assert moved >= 1  # holding the others where they are costs more than the marginal unit


def test_parabolas_on_the_readings_do_not_hang_on_their_tolerance(data):
    table = chinchilla.used(data)
    found = [isoflop_frontier(table, budgets=chinchilla.BUDGETS, within=w, bootstrap=200) for w in (0.08, 0.12)]
    assert [len(frontier.budgets) for frontier in found] == [9, 9]
    assert found[0].exponent.value == pytest.approx(found[1].exponent.value, abs=0.02)


def test_figures_are_drawn(data):
    drawn = chinchilla.figures(data)
    assert list(drawn) == ["contours", "isoflop"]
    left, right = drawn["isoflop"].axes
    assert len(left.lines) == 3 * len(chinchilla.BUDGETS)
    assert right.get_title().startswith("a = 0.50")
