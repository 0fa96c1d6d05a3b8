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
