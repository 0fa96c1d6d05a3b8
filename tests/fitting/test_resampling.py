"""Resampling by group: what each draw keeps together, and how much weights vary."""

import numpy as np
import pytest
from scipy import stats

from scaling.fitting.resampling import MOST, group_counts, group_weights, weight_variance

GROUP = np.repeat(np.arange(8), 3)
INPUTS = {"x": np.tile([1.0, 2.0, 3.0], 8), "n": np.repeat([1.0, 2.0], 12)}


def test_draws_have_as_many_groups_as_there_are_in_each_stratum():
    stratum = np.repeat([0, 1], 12)
    counts = group_counts(GROUP, stratum, INPUTS, needed=3, draws=500, seed=0)
    assert counts.shape == (500, 8)
    assert (counts[:, :4].sum(axis=1) == 4).all()
    assert (counts[:, 4:].sum(axis=1) == 4).all()
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.15)
    np.testing.assert_allclose(counts.var(axis=0), 3 / 4, atol=0.15)  # multinomial: 4 * 1/4 * 3/4


def test_draws_that_lose_an_inputs_variation_are_drawn_again():
    counts = group_counts(GROUP, np.zeros(24, int), INPUTS, needed=6, draws=2000, seed=0)
    assert (counts[:, :4].sum(axis=1) > 0).all()
    assert (counts[:, 4:].sum(axis=1) > 0).all()
    assert (counts.sum(axis=1) == 8).all()


def test_seeds_reproduce():
    first, second, other = (group_counts(GROUP, np.zeros(24, int), INPUTS, 3, 50, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_hopeless_designs_and_mixed_strata_are_refused():
    two = {"x": np.array([1.0, 2.0, 3.0])}
    with pytest.raises(ValueError, match="nearly every resample of the 3 groups leaves fewer than 4 distinct points"):
        group_counts(np.arange(3), np.zeros(3, int), two, needed=4, draws=10, seed=0)
    with pytest.raises(ValueError, match="stratum must be constant within a group"):
        group_counts(np.array([0, 0, 1]), np.array([0, 1, 1]), two, needed=2, draws=10, seed=0)


@pytest.mark.parametrize("variance", [1.0, 1.6])
def test_weights_have_mean_one_and_the_variance_asked_for(variance):
    weights = group_weights(np.arange(40), np.zeros(40, int), variance, draws=20_000, seed=0)
    assert (weights > 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 40, rtol=1e-12)
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.04)
    # Gamma weights of variance v' = v n/(n - v), divided by their mean: variance v' (n - 1)/(n + v').
    raised = variance * 40 / (40 - variance)
    assert weights.var(axis=0).mean() == pytest.approx(raised * 39 / (40 + raised), rel=0.02)
    # The total score of groups with scores s varies by v * sum (s - mean)^2 * n/(n - 1) of a stratum's n: nearly v.
    score = np.linspace(-1, 1, 40)
    assert (weights @ score).var() / np.sum(score**2) == pytest.approx(variance, rel=0.03)


def test_weights_sum_within_strata_and_a_stratum_of_one_keeps_its_weight():
    stratum = np.repeat([0, 1, 2], [9, 12, 3])
    weights = group_weights(GROUP, stratum, 1.1, draws=300, seed=0)
    assert weights.shape == (300, 8)
    np.testing.assert_allclose(weights[:, :3].sum(axis=1), 3, rtol=1e-12)
    np.testing.assert_allclose(weights[:, 3:7].sum(axis=1), 4, rtol=1e-12)
    np.testing.assert_allclose(weights[:, 7], 1, rtol=1e-12)
    assert weights[:, :7].std(axis=0).min() > 0.5
    with pytest.raises(ValueError, match="stratum must be constant within a group"):
        group_weights(np.array([0, 0, 1]), np.array([0, 1, 1]), 1.1, draws=3, seed=0)


def test_weights_of_one_seed_pair_across_variances():
    first, same, other = (
        group_weights(np.arange(30), np.zeros(30, int), variance, draws=50, seed=seed)
        for variance, seed in ((1.0, 0), (1.7, 0), (1.0, 1))
    )
    for row, paired in zip(first, same, strict=True):
        assert stats.spearmanr(row, paired).statistic == pytest.approx(1)
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.1


def test_the_variance_of_weights():
    residual, weight = np.full(20, 0.5), np.ones(20)
    squares = float(stats.t.ppf(0.975, 15) / stats.norm.ppf(0.975)) ** 2 * 20 / 15
    assert weight_variance(20, 5.0, residual, weight, np.inf) == pytest.approx(squares)
    assert weight_variance(20, 5.0, residual, weight, 0.1) == 1.0  # every point beyond delta: nothing to allow for
    residual[:8] = 0.05
    inside = 8 * 0.05**2
    share = inside / (inside + 12 * 0.1**2)
    assert weight_variance(20, 5.0, residual, weight, 0.1) == pytest.approx(1 + share * (squares - 1))
    weight[8:] = 0.0
    assert weight_variance(20, 5.0, residual, weight, 0.1) == pytest.approx(squares)
    assert weight_variance(20, 5.0, np.zeros(20), weight, 0.1) == pytest.approx(squares)
    assert weight_variance(6, 5.5, residual, weight, np.inf) == MOST
    assert weight_variance(6, 3.9, residual, weight, np.inf) == MOST
    assert weight_variance(10_000, 5.0, residual, weight, np.inf) == pytest.approx(1, abs=1e-3)
