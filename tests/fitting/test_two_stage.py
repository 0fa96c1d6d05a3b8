"""Accuracy through loss on simulated runs: recovery, paired draws, multipliers, weights, bad tables."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import least_squares

from scaling.fitting.resampling import random_weights
from scaling.fitting.two_stage import accuracy_multiplier, accuracy_path, called_variance, inverse_density, two_stage
from scaling.laws.law import TableError


def loss_of(n, d):
    return 0.35 + 60 / n**0.3 + 300 / d**0.35


def accuracy_of(loss):
    return 0.25 + 0.75 / (1 + np.exp(6 * (loss - 0.75)))


@pytest.fixture(scope="module")
def runs():
    """48 runs of 6e18 to 6e21 FLOPs, as the paper's design; noise of 0.3% in loss, 0.005 in accuracy."""
    rng = np.random.default_rng(0)
    grid = [(n, d) for n in np.geomspace(5e7, 6.6e9, 8) for d in np.geomspace(1.1e9, 152e9, 8)]
    table = pd.DataFrame([(n, d) for n, d in grid if 6e18 <= 6 * n * d <= 6e21], columns=["N", "D"])
    loss = loss_of(table["N"], table["D"]) * np.exp(rng.normal(scale=0.003, size=len(table)))
    accuracy = accuracy_of(loss) + rng.normal(scale=0.005, size=len(table))
    weight = inverse_density(6 * table["N"] * table["D"])
    return table.assign(run_id=np.arange(len(table)), loss=loss, accuracy=accuracy, weight=weight)


@pytest.fixture(scope="module")
def model(runs):
    return two_stage(runs, weights="weight", holdout="N > 6e9", bootstrap=200)


def test_accuracy_at_larger_scale_lies_in_the_interval(model):
    beyond = {"N": np.array([7e9, 2e10]), "D": np.array([1.5e11, 4e11])}
    truth = accuracy_of(loss_of(beyond["N"], beyond["D"]))
    low, high = model.interval(beyond, level=0.99)
    assert (low < truth).all()
    assert (truth < high).all()
    np.testing.assert_allclose(model.predict(beyond), truth, atol=0.01)
    assert model.accuracy.held_out.points == model.loss.held_out.points == 7
    assert model.accuracy.held_out.rmse < 0.01


def test_draws_of_the_stages_share_their_runs(model):
    # Draw 3 of the sigmoid is its least-squares fit to the runs as draw 3 of the loss law weighs them, by more where it
    # calls for more, the anchor at 1.
    own, others = called_variance(model.accuracy), called_variance(model.loss)
    assert own > 1.2 * others
    weight = np.append(random_weights(model.loss.points.fitted, own, 200, seed=0)[3], 1.0)
    alike = random_weights(model.loss.points.fitted, others, 200, seed=0)[3]
    assert np.corrcoef(weight[:-1], alike)[0, 1] > 0.95
    rows = model.accuracy.points.fitted

    def residual(p):
        return np.sqrt(weight) * (p[3] + p[0] / (1 + np.exp(p[1] * (rows.inputs["L"] - p[2]))) - rows.target_M)

    drawn = model.accuracy.draws_BxP[3]
    refit = least_squares(residual, list(model.accuracy.parameters.values()), xtol=1e-14, ftol=1e-14, gtol=1e-14)
    assert np.sum(residual(drawn) ** 2) == pytest.approx(2 * refit.cost, rel=1e-6)
    np.testing.assert_allclose(drawn, refit.x, rtol=0.02, atol=0.02)


def test_a_draw_of_accuracy_is_its_sigmoid_at_its_own_loss(model):
    point = {"N": np.array([2e10]), "D": np.array([4e11])}
    chained = model.predict_draws(point)[:, 0]
    np.testing.assert_array_equal(chained, accuracy_path(model, point)[1:, 0])
    by_hand = [
        row[3] + row[0] / (1 + np.exp(row[1] * (loss - row[2])))
        for row, loss in zip(model.accuracy.draws_BxP, model.loss.predict_draws(point)[:, 0], strict=True)
    ]
    np.testing.assert_allclose(chained, by_hand, rtol=1e-12)


def test_the_point_of_zero_loss_is_in_the_fit_and_in_every_draw(model):
    assert np.sum(model.accuracy.points.inputs["L"] == 0) == 1
    at_zero = model.accuracy.predict_draws({"L": np.array([0.0])})
    assert np.abs(at_zero - 1).max() < 0.05


def test_multiplier_of_a_method_that_needs_half_the_compute(model):
    flops = np.geomspace(1e19, 1e22, 400)
    plain, twice = (accuracy_path(model, {"N": np.sqrt(c / 66), "D": np.sqrt(c / 6 * 11)}) for c in (flops, 2 * flops))
    found = accuracy_multiplier(flops, plain, twice)
    assert found.value == pytest.approx(2, rel=0.02)
    assert found.low <= found.value <= found.high
    assert found.refusal is None
    apart = accuracy_multiplier(flops, np.linspace([0.1], [0.2], 400).T, np.linspace([0.5], [0.6], 400).T)
    assert apart.refusal.kind == "infeasible"
    assert np.isnan(apart.value)
    with pytest.raises(ValueError, match=r"shapes \(201, 400\) and \(201, 399\) must both be"):
        accuracy_multiplier(flops, plain, twice[:, 1:])


def test_both_stages_count_the_checkpoints_of_a_run_as_one():
    rng = np.random.default_rng(0)
    parts = []
    for run, size in enumerate(np.geomspace(5e7, 6.6e9, 8)):
        tokens = np.geomspace(1e9, 2e11, 20)
        loss = loss_of(size, tokens) * np.exp(0.003 * rng.normal())
        accuracy = accuracy_of(loss) + 0.02 * rng.normal()
        parts.append(pd.DataFrame({"N": size, "D": tokens, "loss": loss, "accuracy": accuracy, "run_id": run}))
    model = two_stage(pd.concat(parts, ignore_index=True), bootstrap=200)
    assert (model.loss.groups, model.accuracy.groups) == (8, 9)  # and the point of zero loss
    drawn = model.accuracy.draws_BxP.std(axis=0)
    known = np.sqrt(np.diagonal(model.accuracy.covariance_PxP))
    assert (known > 0.4 * drawn).all(), "the covariance of rows taken one by one is a quarter of the draws'"


def test_intervals_of_accuracy_hold_the_truth_of_few_runs():
    """16 runs: draws as wide as the loss's alone held it in 82%, beyond the fitted losses (165 of 200)."""
    places = [(n, d) for n in np.geomspace(5e7, 6.6e9, 4) for d in np.geomspace(1.1e9, 152e9, 4)]
    table, held = pd.DataFrame(places, columns=["N", "D"]).assign(run_id=range(16)), 0
    anchored = 0.75 * (1 + np.exp(-4.5))
    for seed in range(60):
        rng = np.random.default_rng(1000 + seed)
        loss = loss_of(table["N"], table["D"]) * np.exp(rng.normal(scale=0.003, size=16))
        accuracy = 0.25 + anchored / (1 + np.exp(6 * (loss - 0.75))) + rng.normal(scale=0.005, size=16)
        low, high = two_stage(table.assign(loss=loss, accuracy=accuracy), bootstrap=100).accuracy.interval({"L": 0.9})
        held += bool(low <= 0.25 + anchored / (1 + np.exp(6 * 0.15)) <= high)
    assert held >= 54


def test_multiplier_by_hand():
    # Bins [0, 0.5) and [0.5, 1]: the baseline averages 1.5 and 6 FLOPs, the method 1 and 3.
    baseline, method = np.array([[0.0, 0.4, 0.6, 1.0]]), np.array([[0.0, 0.5, 0.9, 1.0]])
    found = accuracy_multiplier(np.array([1.0, 2.0, 4.0, 8.0]), baseline, method, bins=2)
    assert found.value == pytest.approx((1.5 / 1 + 6 / (14 / 3)) / 2)
    assert found.refusal.kind == "few_groups"


def test_weights_even_out_crowded_budgets():
    flops = np.concatenate([np.geomspace(1e18, 2e18, 30), np.geomspace(1e20, 1e21, 5)])
    weight = inverse_density(flops)
    assert weight.mean() == pytest.approx(1)
    assert weight[30:].min() > 2 * weight[:30].max()
    np.testing.assert_allclose(inverse_density(1e3 * flops), weight, rtol=1e-9)
    with pytest.raises(ValueError, match="must be finite, positive, not all the same"):
        inverse_density(np.ones(4))


def test_percent_is_refused(runs):
    with pytest.raises(TableError, match=r"column 'accuracy', row 0: .* is outside \[0, 1\]; give accuracy as a share"):
        two_stage(runs.assign(accuracy=100 * runs["accuracy"]))
