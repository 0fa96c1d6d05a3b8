"""The sandwich against closed forms."""

import numpy as np
import pytest

from scaling.fitting.uncertainty import sandwich, slopes

RNG = np.random.default_rng(0)


def test_least_squares_sandwich_of_a_mean_is_the_variance_of_the_mean():
    residual = RNG.normal(size=50)
    residual -= residual.mean()
    covariance = sandwich(np.ones((1, 50)), residual, np.ones(50), np.arange(50), np.inf)
    assert covariance[0, 0] == pytest.approx(residual.var(ddof=1) / 50)


def test_points_of_one_group_count_once():
    residual = RNG.normal(size=20)
    residual -= residual.mean()
    single = sandwich(np.ones((1, 20)), residual, np.ones(20), np.arange(20), np.inf)
    tripled = sandwich(np.ones((1, 60)), np.repeat(residual, 3), np.ones(60), np.repeat(np.arange(20), 3), np.inf)
    np.testing.assert_allclose(tripled, single, rtol=1e-12)


def test_narrow_huber_gives_the_variance_of_a_median():
    residual = RNG.normal(size=20_000)
    covariance = sandwich(np.ones((1, 20_000)), residual, np.ones(20_000), np.arange(20_000), 1e-4)
    assert covariance[0, 0] == pytest.approx(np.pi / 2 / 20_000, rel=0.1)


def test_wide_huber_has_slope_one_inside():
    np.testing.assert_array_equal(slopes(np.array([0.1, -0.2, 3.0, 0.0]), 1.0), [1, 1, 0, 1])


def test_one_group_has_no_covariance():
    assert np.isnan(sandwich(np.ones((2, 5)), np.ones(5), np.ones(5), np.zeros(5, int), 1.0)).all()
