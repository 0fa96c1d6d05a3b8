"""Mixtures from sizes: published numbers, hand-worked ones, and the identities that scalarization rests on."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling import fields
from scaling.data import mixing
from scaling.data.temperature import (
    annealed,
    cooldown,
    epochs,
    replay,
    scalar_weights,
    second_moment,
    stratified,
    temperature_shares,
)

SIZES = {"prose": 1000, "code": 100, "headers": 10}
NAMES = tuple(SIZES)
weight_lists = st.lists(st.integers(1, 1000), min_size=3, max_size=3)


def mixture(weights: list[int]) -> dict[str, float]:
    return {name: weight / sum(weights) for name, weight in zip(NAMES, weights, strict=True)}


@pytest.mark.parametrize(
    ("tau", "shares"),
    [
        (1, (0.900901, 0.090090, 0.009009)),
        (2, (0.706101, 0.223289, 0.070610)),
        (5, (0.492838, 0.310960, 0.196202)),
        (100, (0.341037, 0.333274, 0.325688)),
    ],
)
def test_published_shares(tau: float, shares: tuple[float, ...]) -> None:
    np.testing.assert_allclose(list(temperature_shares(SIZES, tau).values()), shares, rtol=0, atol=5.1e-7)


def test_published_weights_and_second_moment_of_scalarization() -> None:
    shares, sampled = temperature_shares(SIZES, 5), temperature_shares(SIZES, 1)
    weights = scalar_weights(shares, sampled)
    assert list(weights) == list(NAMES)
    np.testing.assert_allclose(list(weights.values()), [0.547050, 3.451653, 21.778458], rtol=0, atol=5.1e-7)
    assert second_moment(shares, sampled) == pytest.approx(5.616, abs=5.1e-4)
    assert second_moment(shares, shares) == pytest.approx(1, rel=1e-15)


def test_limits_of_the_temperature() -> None:
    assert temperature_shares(SIZES, math.inf) == pytest.approx(stratified(NAMES), rel=1e-15)
    assert temperature_shares(SIZES, 1) == pytest.approx({"prose": 100 / 111, "code": 10 / 111, "headers": 1 / 111})
    assert temperature_shares(SIZES, 1e-3) == {"prose": 1.0, "code": 0.0, "headers": 0.0}


@given(weights=weight_lists, tau=st.floats(0.5, 50), factor=st.floats(1e-3, 1e12))
def test_only_ratios_of_sizes_matter_and_twice_flattened_is_flattened_by_the_product(
    weights: list[int], tau: float, factor: float
) -> None:
    sizes = dict(zip(NAMES, weights, strict=True))
    shares = temperature_shares(sizes, tau)
    assert math.fsum(shares.values()) == pytest.approx(1, rel=1e-14)
    assert temperature_shares({name: factor * size for name, size in sizes.items()}, tau) == pytest.approx(shares)
    assert temperature_shares(shares, 3) == pytest.approx(temperature_shares(sizes, 3 * tau), rel=1e-9)


def test_cooldown_is_a_mixture_that_a_configuration_takes() -> None:
    phases = cooldown(SIZES, high=5, low=1, switch=0.75)
    assert phases == ((0.0, temperature_shares(SIZES, 5)), (0.75, temperature_shares(SIZES, 1)))
    converted = fields.phases(phases, "data.mixture")
    table = mixing.shares(converted, 8, NAMES)
    np.testing.assert_allclose(table[:6], np.tile([0.492838, 0.310960, 0.196202], (6, 1)), atol=5.1e-7)
    np.testing.assert_allclose(table[6:], np.tile([0.900901, 0.090090, 0.009009], (2, 1)), atol=5.1e-7)


def test_annealing_goes_down_in_equal_ratios() -> None:
    phases = annealed(SIZES, high=16, low=1, phases=5)
    assert [start for start, _ in phases] == [0, 0.2, 0.4, 0.6, 0.8]
    for (_, shares), tau in zip(phases, [16, 8, 4, 2, 1], strict=True):
        assert shares == pytest.approx(temperature_shares(SIZES, tau), rel=1e-12)
    small = mixing.shares(phases, 10, NAMES)[:, 2]
    assert (np.diff(small) <= 0).all()
    assert small[0] > 20 * small[-1]


def test_two_steps_of_annealing_are_a_cooldown_at_half() -> None:
    for (start, shares), (expected, same) in zip(annealed(SIZES, 5, 1, 2), cooldown(SIZES, 5, 1, 0.5), strict=True):
        assert start == expected
        assert shares == pytest.approx(same, rel=1e-12)


@given(aimed=weight_lists, drawn=weight_lists, gradient=st.lists(st.floats(-5, 5), min_size=3, max_size=3))
def test_scalarization_has_the_expected_gradient_and_a_second_moment_of_at_least_one(
    aimed: list[int], drawn: list[int], gradient: list[float]
) -> None:
    shares, sampled = mixture(aimed), mixture(drawn)
    weights = scalar_weights(shares, sampled)
    expected = math.fsum(shares[name] * value for name, value in zip(NAMES, gradient, strict=True))
    weighed = math.fsum(sampled[name] * weights[name] * value for name, value in zip(NAMES, gradient, strict=True))
    assert weighed == pytest.approx(expected, rel=1e-12, abs=1e-12)
    moment = second_moment(shares, sampled)
    assert moment >= 1 - 1e-12
    spread = math.fsum(sampled[name] * (weights[name] - 1) ** 2 for name in NAMES)
    assert moment - 1 == pytest.approx(spread, rel=1e-9, abs=1e-12)  # the mean weight is 1


def test_full_batch_descent_goes_the_same_way_by_sampling_and_by_weights() -> None:
    """Least squares: domains averaged by their shares, against all examples pooled and weighed by w_k / p_k."""
    rng, wanted = np.random.default_rng(0), temperature_shares(SIZES, 5)
    inputs = {name: rng.normal(size=(size, 4)) for name, size in SIZES.items()}
    targets = {name: x @ rng.normal(size=4) for name, x in inputs.items()}
    pooled_Nx4, pooled_N = np.concatenate([*inputs.values()]), np.concatenate([*targets.values()])
    weights = scalar_weights(wanted, temperature_shares(SIZES, 1))
    weight_N = np.repeat([weights[name] for name in NAMES], list(SIZES.values()))
    sampled_4 = weighed_4 = plain_4 = np.zeros(4)
    for _ in range(100):
        sampled_4 = sampled_4 - 0.1 * sum(
            wanted[name] * inputs[name].T @ (inputs[name] @ sampled_4 - targets[name]) / SIZES[name] for name in NAMES)
        weighed_4 = weighed_4 - 0.1 * pooled_Nx4.T @ (weight_N * (pooled_Nx4 @ weighed_4 - pooled_N)) / len(pooled_N)
        plain_4 = plain_4 - 0.1 * pooled_Nx4.T @ (pooled_Nx4 @ plain_4 - pooled_N) / len(pooled_N)
    np.testing.assert_allclose(weighed_4, sampled_4, rtol=1e-12)
    assert np.abs(plain_4 - sampled_4).max() > 0.1


def test_domains_that_a_mixture_leaves_out_have_weight_zero() -> None:
    sampled = {"prose": 0.5, "code": 0.5, "headers": 0.0}
    assert scalar_weights({"code": 1.0}, sampled) == {"prose": 0.0, "code": 2.0, "headers": 0.0}
    assert second_moment({"code": 1.0}, sampled) == 2.0


def test_epochs_by_hand() -> None:
    windows = {"prose": 40, "code": 10}
    assert epochs({"prose": 0.5, "code": 0.5}, windows, 20, 2) == {"prose": 0.5, "code": 2.0}
    assert epochs({"prose": 1.0}, windows, 20, 4) == {"prose": 2.0, "code": 0.0}
    phases = ((0.0, {"prose": 0.5, "code": 0.5}), (0.75, {"prose": 1.0}))
    assert epochs(phases, windows, 20, 4) == {"prose": 1.25, "code": 3.0}


@settings(deadline=None)
@given(weights=weight_lists, steps=st.integers(1, 60), batch=st.integers(1, 9))
def test_epochs_are_those_of_the_windows_that_are_given(weights: list[int], steps: int, batch: int) -> None:
    windows = {"prose": 7, "code": 50, "headers": 400}
    passed = epochs(mixture(weights), windows, steps, batch)
    drawn, counts = mixing.allocate(mixing.shares(mixture(weights), steps, NAMES), batch)
    for name, given_windows in zip(NAMES, drawn[-1] + counts[-1], strict=True):
        assert abs(passed[name] * windows[name] - given_windows) < 1 + 1e-6


def test_replay_keeps_the_proportions_of_old_data() -> None:
    old = {"prose": 0.75, "code": 0.25}
    assert replay(old, "headers", 0.75) == {"prose": 0.1875, "code": 0.0625, "headers": 0.75}
    assert replay(old, "headers", 1) == {"prose": 0.0, "code": 0.0, "headers": 1.0}  # fine-tuning
    assert replay(old, "headers", 0) == {**old, "headers": 0.0}
    table = mixing.shares(replay(old, "headers", 0.95), 1, NAMES)
    np.testing.assert_allclose(table, [[0.0375, 0.0125, 0.95]], rtol=1e-15)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: temperature_shares({}, 1), r"sizes = {}: expected at least one domain; name the domains"),
        (lambda: temperature_shares({"code": 0}, 1), r"sizes\.code = 0: expected positive and finite"),
        (lambda: temperature_shares({"code": math.inf}, 1), r"sizes\.code = inf: expected positive"),
        (lambda: temperature_shares(SIZES, 0), r"tau = 0: expected positive; use 1"),
        (lambda: temperature_shares(SIZES, math.nan), r"tau = nan: expected positive"),
        (lambda: stratified([]), r"names = \[\]: expected at least one domain"),
        (lambda: stratified(["code", "code"]), r"names = .*: expected each domain once"),
        (lambda: cooldown(SIZES, 1, 5, 0.5), r"high = 1: expected at least low = 5; exchange them"),
        (lambda: cooldown(SIZES, 5, 1, 1.0), r"switch = 1\.0: expected a fraction of the run between 0 and 1"),
        (lambda: cooldown(SIZES, 5, 1, 0), r"switch = 0: expected a fraction"),
        (lambda: annealed(SIZES, 5, 1, 1), r"phases = 1: expected 2 or more; use temperature_shares"),
        (lambda: annealed(SIZES, 1, 5, 3), r"high = 1: expected at least low = 5"),
        (lambda: annealed(SIZES, math.inf, 1, 3), r"high = inf: expected finite"),
        (lambda: scalar_weights({"kode": 1.0}, {"code": 1.0}), r"unknown domain 'kode'; did you mean 'code'\?"),
        (lambda: scalar_weights({"code": 0.9}, {"code": 1.0}), r"shares sum to 0\.9, expected 1"),
        (lambda: second_moment({"code": 1.0}, {"code": 0.0, "prose": 1.0}),
         r"sampled\.code = 0\.0: expected positive, since its share is 1\.0; sample the domain"),
        (lambda: epochs({"code": 1.0}, {"code": 0}, 5, 5), r"windows\.code = 0: expected 1 or more"),
        (lambda: epochs({"kode": 1.0}, {"code": 3}, 5, 5), r"unknown domain 'kode'; did you mean 'code'\?"),
        (lambda: replay({"code": 1.0}, "code", 0.5), r"domain_new = 'code': expected a domain that is not in"),
        (lambda: replay({"code": 1.0}, "prose", 1.5), r"share_new = 1\.5: expected a share from 0 to 1"),
        (lambda: replay({"code": 0.5}, "prose", 0.5), r"shares sum to 0\.5, expected 1"),
    ],
)
def test_bad_input_is_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
