"""The range test's rule on curves whose edge is known."""

import numpy as np
import pytest

from scaling.fitting.range_test import growing_rates, range_test, smoothed


def descent(curvatures: np.ndarray, rate_T: np.ndarray, noise: float = 0.0) -> np.ndarray:
    """Σ h x²/2 before each step of gradient descent from x = 1, with noise of this size in every gradient."""
    rng, x, losses = np.random.default_rng(0), np.ones_like(curvatures), []
    for rate in rate_T:
        losses.append(float((curvatures * x**2).sum() / 2))
        x = x - rate * (curvatures * x + rng.normal(scale=noise, size=x.shape))
    return np.array(losses)


@pytest.mark.parametrize("curvature", [0.1, 3.0, 250.0])
@pytest.mark.parametrize("growth", ["exponential", "linear"])
def test_gradient_descent_on_a_quadratic_bears_two_over_its_curvature(curvature: float, growth: str) -> None:
    """To a step of the test: the loss of each step is (1 - eta h)^2 times the one before."""
    rate_T = growing_rates(1.5 / curvature, 3 / curvature, 60, growth)
    found = range_test(rate_T, descent(np.array([curvature]), rate_T), smoothing=0.0)
    assert found.refusal is None
    assert abs(found.highest - 2 / curvature) <= np.diff(rate_T).max()


@pytest.mark.parametrize("smoothing", [0.0, 0.9])
def test_the_largest_curvature_sets_the_edge_of_stochastic_descent(smoothing: float) -> None:
    """From far below the edge, with an irreducible loss: beyond it the noise must grow before the loss shows it."""
    curvatures, rate_T = np.array([0.5, 1.0, 4.0]), growing_rates(0.05, 0.56, 6000, "exponential")
    found = range_test(rate_T, 1 + descent(curvatures, rate_T, noise=0.01), smoothing=smoothing)
    assert 2 / 4 <= found.highest <= 1.08 * 2 / 4


def test_smoothing_by_hand_is_free_of_its_start() -> None:
    assert smoothed(np.array([4.0, 2.0, 1.0]), 0.5).tolist() == pytest.approx([4.0, 8 / 3, 12 / 7])
    np.testing.assert_allclose(smoothed(np.full(50, 3.0), 0.9), 3.0)
    assert smoothed(np.array([1.0, np.nan, 1.0]), 0.9).tolist() == [1.0, np.inf, np.inf]


def test_without_smoothing_all_after_a_divergence_is_infinite() -> None:
    np.testing.assert_array_equal(smoothed(np.array([2.0, 1.0, np.nan, 3.0]), 0.0), [2.0, 1.0, np.inf, np.inf])
    assert range_test([1.0, 2.0, 3.0], [2.0, 1.0, np.inf], smoothing=0.0).highest == 2.0


def test_the_rule_takes_the_largest_rate_within_one_per_cent() -> None:
    found = range_test([1.0, 2.0, 3.0, 4.0, 5.0], [3.0, 2.0, 2.05, 2.02, 2.021], smoothing=0.0)
    assert found.highest == 4.0
    assert range_test([1.0, 2.0, 3.0], [3.0, 2.0, np.inf]).highest == 2.0


@pytest.mark.parametrize(("loss", "highest", "reason"), [
    ([3.0, 2.0, 1.0], 3.0, "does not rise again up to the last rate, 3; go higher"),
    ([3.0, 2.0, 2.01], 3.0, "does not rise again up to the last rate"),
    ([3.0, 4.0, 5.0], 1.0, "never falls below that at the first rate, 1; start lower"),
])
def test_a_range_without_an_edge_is_refused(loss: list[float], highest: float, reason: str) -> None:
    found = range_test([1.0, 2.0, 3.0], loss, smoothing=0.0)
    assert found.highest == highest
    assert found.refusal is not None
    assert found.refusal.kind == "no_interior_minimum"
    assert reason in found.refusal.reason


@pytest.mark.parametrize(("rate", "loss", "smoothing", "message"), [
    ([1.0, 1.0], [1.0, 1.0], 0.9, "expected as many losses as rates, 2 or more, and rates that rise"),
    ([1.0, 2.0], [1.0], 0.9, "expected as many losses as rates"),
    ([1.0, 2.0], [np.nan, 1.0], 0.9, "expected positive losses, the first finite"),
    ([1.0, 2.0], [1.0, 0.0], 0.9, "expected positive losses"),
    ([1.0, 2.0], [1.0, 1.0], 1.0, r"smoothing 1.0: expected .* a smoothing in \[0, 1\)"),
])
def test_what_is_no_test_is_refused(rate: list, loss: list, smoothing: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        range_test(rate, loss, smoothing=smoothing)


def test_rates_grow_as_named() -> None:
    np.testing.assert_allclose(growing_rates(0.01, 1.0, 3, "exponential"), [0.01, 0.1, 1.0])
    np.testing.assert_allclose(growing_rates(0.01, 1.0, 3, "linear"), [0.01, 0.505, 1.0])
    with pytest.raises(ValueError, match=r"rates 1 to 0\.1 in 5 steps: expected 0 < lowest < highest"):
        growing_rates(1.0, 0.1, 5, "linear")
    with pytest.raises(ValueError, match="growth: 'cubic' must be exponential or linear"):
        growing_rates(0.1, 1.0, 5, "cubic")
