"""Correlations over mixtures: the textbook's, their intervals over seeds and mixtures, gains of one proxy on one."""

import math

import numpy as np
import pytest
from scipy import stats

from experiments.correlation import correlation_interval, correlations, draws, estimate, gain_interval
from scaling.fields import ConfigError


def simulated(
    own: float, seed: int, seeds: int = 5, shared: float = 0.0, spread: float = 0.0, mixtures: int = 40,
) -> tuple[np.ndarray, np.ndarray]:
    """A proxy with noise on a truth that all seeds share: of a mixture's `own` in each seed, of a mixture `shared` by
    all seeds, both scaled by a factor of each seed whose logarithm has the standard deviation `spread`.
    """
    rng = np.random.default_rng(seed)
    truth_SxM = np.tile(rng.normal(size=mixtures), (seeds, 1))
    noise_SxM = own * rng.normal(size=truth_SxM.shape) + shared * rng.normal(size=mixtures)
    return truth_SxM + np.exp(spread * rng.normal(size=(seeds, 1))) * noise_SxM, truth_SxM


def test_both_correlations_are_scipys() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 6, size=(2, 3, 30)).astype(float)  # with many ties
    for ranks, known in ((False, stats.pearsonr), (True, stats.spearmanr)):
        wanted = [known(*pair).statistic for pair in zip(first, second, strict=True)]
        np.testing.assert_allclose(correlations(first, second, ranks), wanted, rtol=1e-12)
    assert math.isnan(correlations(np.ones(4), np.arange(4.0), ranks=False))


def test_by_hand() -> None:
    """Ranks 1 3 2 against 1 2 3: 1 - 6 * 2 / (3 * 8) = 0.5; the other seed agrees; the second stratum is reversed."""
    proxy, truth = np.array([[1.0, 9.0, 8.0], [1.0, 2.0, 3.0]]), np.array([[0.0, 1.0, 5.0], [0.0, 1.0, 5.0]])
    assert estimate([(proxy, truth)], ranks=True) == pytest.approx(0.75)
    assert estimate([(proxy, truth), (-truth, truth)], ranks=True) == pytest.approx((0.75 - 1) / 2)


@pytest.mark.parametrize("noise", [{"own": 0.7}, {"own": 0.1, "shared": 0.7}, {"own": 0.5, "spread": 0.8}], ids=str)
def test_intervals_hold_the_truth_about_as_often_as_they_say(noise: dict[str, float]) -> None:
    """100 simulated sweeps at 0.9, with noise of every kind; a binomial of 100 and 0.9 lies from 82 to 97 all but three
    times in a hundred.
    """
    truth = np.mean([estimate([simulated(seed=10**6 + seed, mixtures=4000, **noise)], False) for seed in range(100)])
    found = [correlation_interval([simulated(seed=seed, **noise)], False, 400, 0.9) for seed in range(100)]
    assert 82 <= sum(each.low <= truth <= each.high for each in found) <= 97
    assert np.mean([each.value for each in found]) == pytest.approx(truth, abs=0.03)


def test_more_seeds_narrow_the_interval() -> None:
    few, many = (correlation_interval([simulated(0.7, 1, seeds, spread=0.5)], True, 400, 0.95) for seeds in (3, 20))
    assert many.high - many.low < few.high - few.low
    assert few.low < few.value < few.high


def test_the_gain_of_a_better_proxy_is_known_more_closely_than_either() -> None:
    """The mixtures drawn are the same for both, so that what depends on them cancels."""
    good, truth = simulated(0.3, 2)
    worse = good + 0.5 * np.random.default_rng(9).normal(size=good.shape)
    gain = gain_interval([(good, truth)], [(worse, truth)], 400, 0.95)
    assert 0 < gain.low < gain.value < gain.high
    same = gain_interval([(good, truth)], [(good + 3, truth)], 400, 0.95)
    assert same == (0.0, 0.0, 0.0)


def test_draws_without_a_correlation_are_refused() -> None:
    proxy, truth = np.array([[1.0, 2.0], [3.0, 1.0]]), np.array([[1.0, 2.0], [1.0, 2.0]])
    assert np.isnan(draws([(proxy, truth)], True, 200, ["mixtures"])).any()
    with pytest.raises(ConfigError, match=r"draws without a correlation = \d+: expected at most one in a hundred; "):
        correlation_interval([(proxy, truth)], True, 200, 0.95)
