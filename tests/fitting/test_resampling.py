"""Resampling by group: what each draw keeps together, and how much weights vary."""

import numpy as np
import pytest
from scipy import stats

from scaling.fitting.resampling import MOST, group_weights, weight_variance

GROUP = np.repeat(np.arange(8), 3)


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


def test_weights_sum_within_strata_and_a_small_stratum_is_drawn_with_the_next():
    stratum = np.repeat([0, 1, 2], [9, 12, 3])  # of 3, 4 and 1 groups
    weights = group_weights(GROUP, stratum, 1.1, draws=300, seed=0)
    assert weights.shape == (300, 8)
    np.testing.assert_allclose(weights[:, 3:7].sum(axis=1), 4, rtol=1e-12)
    np.testing.assert_allclose(weights[:, [0, 1, 2, 7]].sum(axis=1), 4, rtol=1e-12)
    assert weights.std(axis=0).min() > 0.5
    np.testing.assert_allclose(group_weights(np.arange(2), np.arange(2), 1.1, 300, seed=0).sum(axis=1), 2, rtol=1e-12)
    with pytest.raises(ValueError, match="stratum must be constant within a group"):
        group_weights(np.array([0, 0, 1]), np.array([0, 1, 1]), 1.1, draws=3, seed=0)


@pytest.mark.parametrize("each", [3, 5, 30])
def test_the_total_score_of_strata_varies_as_their_groups_do(each):
    """By the sum over strata of n/(n - 1) times the squares about a stratum's mean, as in survey sampling, over the
    G/(G - 1) by which the same squares about zero vary without strata."""
    strata = 4
    weights = group_weights(np.arange(strata * each), np.repeat(np.arange(strata), each), 1.0, draws=40_000, seed=0)
    score = np.random.default_rng(1).normal(size=(strata, each)) + 3 * np.arange(strata)[:, None]
    squares = np.sum((score - score.mean(axis=1, keepdims=True)) ** 2) * each / (each - 1)
    wanted = squares * (strata * each - 1) / (strata * each)
    assert (weights @ score.ravel()).var() == pytest.approx(wanted, rel=0.04)


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
