"""SWATS by its toy, by the switch of a constant gradient, against a plain version, and γ by its bounds."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from descents import scalars, trajectory
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.optimizers.swats import swats

RATE = 0.1


def method(tolerance: float, eps: float = 1e-8, decay: float = 0.0, mask: Any = None) -> Any:
    return swats(RATE, 0.9, 0.999, eps, tolerance, decay, mask)


def averages(steps: int) -> list[float]:
    """Λ before correction after each step of the toy, from 0."""
    toy = scalars(0.5, -0.25, 0.5)
    return [float(trajectory(method(1e-9), *scalars(1.0), toy[:t])[1].average) for t in range(steps + 1)]


def test_the_rates_of_the_toy_and_no_switch() -> None:
    found = np.array(averages(3))
    np.testing.assert_allclose((found[1:] - 0.999 * found[:-1]) / 0.001, [0.2, -0.106535, 0.115896], atol=1e-6)
    np.testing.assert_allclose(found[1:] / (1 - 0.999 ** np.arange(1, 4)), [0.2, 0.046656, 0.069759], atol=1e-6)
    state = trajectory(method(1e-9), *scalars(1.0), scalars(0.5, -0.25, 0.5))[1]
    assert not state.switched
    assert (state.switch_step, state.sgd_rate) == (0, 0)


def test_a_constant_gradient_switches_at_the_second_step() -> None:
    """γ = Λ = η / |g|; then p -= Λ (1-β₁) b with b = .5, .95, 1.355 from zero."""
    found, state = trajectory(method(1e-9, eps=0.0), *scalars(1.0), scalars(*[0.5] * 5))
    assert state.switched
    assert state.switch_step == 2
    assert state.sgd_rate == pytest.approx(0.2, rel=1e-12)
    expected = [0.9, 0.8, *(0.8 - 0.2 * 0.1 * np.cumsum([0.5, 0.95, 1.355]))]
    np.testing.assert_allclose([params["kernel"] for params in found], expected, rtol=1e-12)


def test_with_an_epsilon_the_gap_is_above_the_published_tolerance() -> None:
    two = scalars(*[0.5] * 2)
    states = [trajectory(method(tolerance), *scalars(1.0), two)[1] for tolerance in (1e-9, 1.8e-8, 1.9e-8)]
    assert [bool(state.switched) for state in states] == [False, False, True]
    before = float(trajectory(method(1e-9), *scalars(1.0), two[:1])[1].average)
    average = float(states[0].average)
    gap = average / (1 - 0.999**2) - (average - 0.999 * before) / 0.001
    assert abs(gap) == pytest.approx(1.9e-8, abs=0.05e-8)


def test_never_switching_is_adamw() -> None:
    """ε = 0, whose place differs from optax's; half of the tensors decay."""
    random = np.random.default_rng(0)
    start, *gradients = ({"kernel": random.normal(size=(3, 5)), "bias": random.normal(size=5)} for _ in range(9))

    def mask(params: Any) -> Any:
        return {"kernel": True, "bias": False}

    found = trajectory(method(0.0, 0.0, 0.3, mask), start, gradients)[0]
    expected = trajectory(optax.adamw(RATE, 0.9, 0.999, 0.0, weight_decay=0.3, mask=mask), start, gradients)[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), found, expected)


def plain(params: dict, gradients: list[dict], rates: list[float], tolerance: float, decay: float) -> tuple[dict, int]:
    """The paper's loop over one vector of all parameters, in numpy; the decay and the schedule of the rate are ours."""
    shapes = {name: p.shape for name, p in params.items()}
    p, eps, b1, b2 = np.concatenate([x.ravel() for x in params.values()]), 1e-8, 0.9, 0.999
    m = v = b = np.zeros_like(p)
    average, switch, sgd = 0.0, 0, 0.0
    for k, (rate, gradient) in enumerate(zip(rates, gradients, strict=True), start=1):
        g = np.concatenate([x.ravel() for x in gradient.values()])
        decayed = rate * decay * p
        if switch:
            b = b1 * b + g
            p = p - (1 - b1) * sgd * rate / rates[switch - 1] * b - decayed
            continue
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        s = -rate * np.sqrt(1 - b2**k) / (1 - b1**k) * m / (np.sqrt(v) + eps)
        p = p + s - decayed
        if s @ g != 0:
            gamma = s @ s / -(s @ g)
            average = b2 * average + (1 - b2) * gamma
            estimate = average / (1 - b2**k)
            if k > 1 and estimate > 0 and abs(estimate - gamma) < tolerance:
                switch, sgd = k, estimate
    sizes = np.cumsum([np.prod(shape) for shape in shapes.values()])[:-1]
    return {name: x.reshape(shapes[name]) for name, x in zip(shapes, np.split(p, sizes), strict=True)}, switch


@pytest.mark.parametrize(("tolerance", "switches"), [(1e-9, False), (0.02, True)])
def test_equals_a_plain_version_with_a_schedule_and_one_rate_for_all_tensors(tolerance: float, switches: bool) -> None:
    random = np.random.default_rng(1)
    start, *gradients = ({"bias": random.normal(size=5) + 1, "kernel": random.normal(size=(3, 5)) + 1}
                         for _ in range(15))
    rates = list(RATE * np.linspace(1, 0.2, 14))
    expected, switch = plain(start, gradients, rates, tolerance, 0.3)
    assert (0 < switch < 12) == switches

    @jax.jit
    def update(rate: Any, gradient: Any, state: Any, params: Any) -> Any:
        updates, state = swats(rate, 0.9, 0.999, 1e-8, tolerance, 0.3).update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    with jax.enable_x64(True):
        params, state = jax.tree.map(jnp.asarray, start), method(tolerance).init(jax.tree.map(jnp.asarray, start))
        for rate, gradient in zip(rates, gradients, strict=True):
            params, state = update(rate, gradient, state, params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11), params, expected)
        assert int(state.switch_step) == switch


def test_a_step_across_the_gradient_is_no_observation() -> None:
    """Nor one at rate zero, where warm-up starts: γ is undefined, Λ stays and nothing settles, whatever the tolerance.
    """
    first, second = (trajectory(method(1e3), *scalars(1.0), scalars(0.5, 0.0)[:steps])[1] for steps in (1, 2))
    assert second.average == first.average == pytest.approx(0.001 * 0.2, rel=1e-5)
    assert second.switch_step == 0
    found, state = trajectory(swats(0.0, 0.9, 0.999, 1e-8, 1e3, 0.0), *scalars(1.0), scalars(0.5, 0.5, 0.5))
    assert [float(params["kernel"]) for params in found] == [1.0] * 3
    assert (state.average, state.switch_step) == (0, 0)


def test_a_negative_rate_is_no_reason_to_switch() -> None:
    """A step against the gradient has γ < 0; here any gap is within the tolerance, and Λ > 0 decides."""
    gradients = scalars(0.5, -0.1, 0.5, 0.5, 0.5, 0.5)
    second, last = (trajectory(method(1e3), *scalars(1.0), gradients[:steps])[1] for steps in (2, 6))
    assert second.average < 0
    assert second.switch_step == 0
    assert last.sgd_rate > 0
    assert last.switch_step == plain(scalars(1.0)[0], gradients, [RATE] * 6, 1e3, 0.0)[1] > 2


@jax.jit
def rates_of(g_TxN: jax.Array) -> tuple[jax.Array, jax.Array]:
    """γ of each step and Adam's rate of every coordinate, with β₁ = 0."""
    chosen, params = swats(RATE, 0.0, 0.5, 1e-8, 0.0, 0.0), jnp.zeros(g_TxN.shape[1])

    def one(state: Any, g_N: jax.Array) -> Any:
        updates_N, new = chosen.update(g_N, state, params)
        return new, ((new.average - 0.5 * state.average) / 0.5, -updates_N / g_N)

    return jax.lax.scan(one, chosen.init(params), g_TxN)[1]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.floats(0, 3))
def test_without_momentum_the_rate_lies_between_those_of_the_coordinates(seed: int, spread: float) -> None:
    random = np.random.default_rng(seed)
    g_TxN = random.normal(size=(4, 5)) * np.exp(spread * random.normal(size=(4, 5)))
    with jax.enable_x64(True):
        gamma_T, rates_TxN = (np.asarray(found) for found in rates_of(g_TxN))
    weights_TxN = rates_TxN * g_TxN**2
    np.testing.assert_allclose(gamma_T, (weights_TxN * rates_TxN).sum(1) / weights_TxN.sum(1), rtol=1e-10)
    assert (gamma_T >= rates_TxN.min(1) * (1 - 1e-10)).all()
    assert (gamma_T <= rates_TxN.max(1) * (1 + 1e-10)).all()
