"""Whole fits: published optima, recovery of a known truth, invariances."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from scaling import fitting
from scaling.laws.law import TableError
from scaling.laws.mixture import CMR_RATIO, D_CPT
from simulated import TRUTH, d_cpt_loss

# Domain loss after 20B tokens at shares 1, 3/4, 1/2, 1/3, and at the held-out 1/4.
FINANCE = [
    ((1.4628, 1.4844, 1.5122, 1.5387), 1.5561),
    ((1.3723, 1.3910, 1.4155, 1.4385), 1.4538),
    ((1.3242, 1.3416, 1.3643, 1.3854), 1.3994),
    ((1.2585, 1.2750, 1.2965, 1.3170), 1.3305),
]


@pytest.mark.parametrize(("losses", "held_out"), FINANCE)
def test_ratio_law_predicts_the_held_out_published_ratio(losses, held_out):
    table = pd.DataFrame({"R": [1, 3 / 4, 1 / 2, 1 / 3, 1 / 4], "loss": [*losses, held_out]})
    fit = fitting.fit(
        CMR_RATIO,
        table,
        group=None,
        objective=fitting.least_squares(),
        bootstrap=0,
        holdout=lambda table: table["R"] == 1 / 4,
    )
    assert fit.held_out.points == 1
    assert fit.held_out.relative < 1e-4
    assert fit.parameters["s"] == pytest.approx(
        {1.5561: 0.178, 1.4538: 0.179, 1.3994: 0.198, 1.3305: 0.163}[held_out], abs=1e-3
    )


def test_d_cpt_predictions_are_recovered(d_cpt_fit):
    grid = {"N": np.array([1e6, 2e6, 1e7]), "D": np.array([1e8, 5e6, 3e7]), "r": np.array([0.2, 0.6, 0.95])}
    truth = d_cpt_loss(grid["N"], grid["D"], grid["r"])
    low, high = d_cpt_fit.interval(grid, level=0.99)
    assert (low < truth).all()
    assert (truth < high).all()
    np.testing.assert_allclose(d_cpt_fit.predict(grid), truth, rtol=3e-3)
    assert d_cpt_fit.parameters["beta"] == pytest.approx(0.4, abs=0.02)
    assert d_cpt_fit.agreement > 0.9
    assert d_cpt_fit.errors.relative < 0.005


def test_exact_data_give_back_the_parameters(d_cpt_data):
    exact = d_cpt_data.assign(loss=d_cpt_loss(d_cpt_data["N"], d_cpt_data["D"], d_cpt_data["r"]))
    fit = fitting.fit(D_CPT, exact, bootstrap=0, objective=fitting.huber())
    assert fit.parameters == pytest.approx(TRUTH, rel=1e-5)
    assert fit.agreement > 0.5


def test_the_largest_size_can_be_held_out(d_cpt_data):
    fit = fitting.fit(D_CPT, d_cpt_data, bootstrap=0, holdout=fitting.largest("N"))
    assert fit.held_out.points == len(d_cpt_data) // 3
    assert fit.errors.points == len(d_cpt_data) - fit.held_out.points
    assert fit.ranges["N"] == (1e6, 3e6)
    assert "few_distinct" in [refusal.kind for refusal in fit.refusals if refusal.parameters == ("A", "alpha")]


def test_a_shuffled_table_resamples_the_same_runs(d_cpt_data, d_cpt_fit):
    shuffled = fitting.fit(D_CPT, d_cpt_data.sample(frac=1, random_state=0), bootstrap=200)
    at = {"N": 3e6, "D": 1e8, "r": 0.5}
    np.testing.assert_allclose(shuffled.interval(at), d_cpt_fit.interval(at), rtol=1e-5)


def test_resampling_points_is_too_narrow_where_a_run_shares_its_noise(d_cpt_data, d_cpt_fit):
    naive = fitting.fit(D_CPT, d_cpt_data, group=None, bootstrap=200)
    at = {"N": 3e6, "D": 1e8, "r": 0.5}
    by_run, by_point = (np.diff(fit.interval(at), axis=0).item() for fit in (d_cpt_fit, naive))
    assert by_run > 1.5 * by_point
    assert d_cpt_fit.standard_errors["alpha"] > 1.3 * naive.standard_errors["alpha"]


def test_the_same_seed_gives_the_same_fit_and_double_precision_stays_inside():
    table = pd.DataFrame({"R": np.linspace(0.1, 1, 12)})
    table["loss"] = 2 - 0.4 * table["R"] ** 0.2 + 0.01 * np.sin(np.arange(12.0))
    first, second = (fitting.fit(CMR_RATIO, table, group=None, bootstrap=20, seed=5) for _ in range(2))
    assert first.parameters == second.parameters
    np.testing.assert_array_equal(first.draws_BxP, second.draws_BxP)
    assert first.draws_BxP.dtype == np.float64
    assert jnp.zeros(()).dtype == jnp.float32


def test_tables_that_cannot_be_fitted(d_cpt_data):
    with pytest.raises(TableError, match=r"column 'run' .group. is missing.*pass group=None"):
        fitting.fit(D_CPT, d_cpt_data, group="run")
    with pytest.raises(TableError, match="column 'bpb' is missing: it is the target"):
        fitting.fit(D_CPT, d_cpt_data, target="bpb")
    with pytest.raises(TableError, match="row 0: -1 has no logarithm; use an objective with scale='raw'"):
        fitting.fit(D_CPT, d_cpt_data.assign(loss=-1.0))
    with pytest.raises(TableError, match=r"holdout: int64 of shape \(3,\) must be one boolean a row"):
        fitting.fit(D_CPT, d_cpt_data, holdout=np.array([1, 2, 3]))
    with pytest.raises(TableError, match=r"column 'run_id' .group., row 0: missing value"):
        fitting.fit(D_CPT, d_cpt_data.assign(run_id=d_cpt_data["run_id"].where(d_cpt_data.index > 0)))
    with pytest.raises(ValueError, match="a group has rows in two strata"):
        fitting.fit(D_CPT, d_cpt_data, stratum="D")
    with pytest.raises(ValueError, match="bootstrap: -1 must be >= 0"):
        fitting.fit(D_CPT, d_cpt_data, bootstrap=-1)
