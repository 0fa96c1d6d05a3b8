"""Intervals of means against numbers worked out by hand, and what they refuse."""

import math

import numpy as np
import pytest
from scipy import stats

from experiments.statistics import grouped_mean_interval, mean_interval, paired_interval, t_interval
from scaling.fields import ConfigError


def test_a_t_interval_by_hand() -> None:
    found = t_interval([1.0, 2.0, 3.0], 0.95)
    half = 4.302652729749462 / math.sqrt(3)  # t of 2 degrees of freedom; s = 1
    np.testing.assert_allclose(found, (2.0, 2.0 - half, 2.0 + half), rtol=1e-12)


def test_a_paired_interval_sees_only_the_differences() -> None:
    base = np.array([5.0, -3.0, 40.0, 8.0])
    gain = np.array([0.1, 0.3, 0.2, 0.2])
    np.testing.assert_allclose(paired_interval(base + gain, base, 0.9), t_interval(gain, 0.9), atol=1e-12)


def test_one_value_has_no_interval() -> None:
    found = t_interval([4.0], 0.95)
    assert found.value == 4.0
    assert math.isnan(found.low)
    assert math.isnan(grouped_mean_interval([4.0, 5.0], ["a", "a"], 0.95).high)


def test_a_bootstrap_of_a_mean_agrees_with_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    found = mean_interval(values, 0.95)
    half = 1.96 * values.std() / 20
    np.testing.assert_allclose(found, (values.mean(), values.mean() - half, values.mean() + half), atol=0.02)


def test_values_that_share_a_group_count_once() -> None:
    group_values = np.random.default_rng(2).normal(size=30)
    copied = grouped_mean_interval(np.repeat(group_values, 50), np.repeat(np.arange(30), 50), 0.95)
    alone = mean_interval(group_values, 0.95)
    assert copied.value == pytest.approx(alone.value)
    assert copied.high - copied.low > alone.high - alone.low  # widened for 30 groups
    assert copied.high - copied.low == pytest.approx(2 * stats.t.ppf(0.975, 29) * stats.sem(group_values), rel=0.08)


def test_grouped_means_weigh_every_value_alike() -> None:
    assert grouped_mean_interval([1.0, 1.0, 1.0, 5.0], list("aaab"), 0.95).value == 2.0


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [[1.0], [2.0]]])
def test_values_without_a_mean_are_refused(values: list) -> None:
    with pytest.raises(ConfigError, match="expected one or more finite values; leave out what has no value"):
        t_interval(values, 0.95)


def test_values_without_partner_or_group_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"pairs = \(2, 1\): expected as many first as second"):
        paired_interval([1.0, 2.0], [1.0], 0.95)
    with pytest.raises(ConfigError, match="group = 1: expected one a value, 2"):
        grouped_mean_interval([1.0, 2.0], ["a"], 0.95)
