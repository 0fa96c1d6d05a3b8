"""RAdam by the table of ρ_t, its toy, optax's, a plain version of the authors' code, and in float32."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from descents import scalars, trajectory

from scaling.optimizers.radam import averaging_length, radam

RATE = 0.1


def method(b2: float = 0.999, decay: float = 0.0, released: bool = False, mask: Any = None) -> Any:
    return radam(RATE, 0.9, b2, 1e-8, decay, released, mask)


def numbers(found: list[Any]) -> list[float]:
    return [float(params["kernel"]) for params in found]


def test_the_averaging_length_of_the_first_steps() -> None:
    lengths = [averaging_length(trajectory(method(), *scalars(1.0), scalars(*[0.5] * t))[1]) for t in range(1, 7)]
    np.testing.assert_allclose(lengths, [1, 1.9995, 2.9987, 3.9975, 4.9960, 5.9942], atol=5e-5)


def test_it_is_the_published_difference_at_any_step() -> None:
    for b2 in (0.9, 0.99, 0.999):
        for t in (3, 50, 400):
            state = trajectory(method(b2), *scalars(1.0), scalars(*[0.5] * t))[1]
            expected = 2 / (1 - b2) - 1 - 2 * t * b2**t / (1 - b2**t)
            assert float(averaging_length(state)) == pytest.approx(expected, rel=1e-9)


def test_two_steps_of_the_toy() -> None:
    found, _ = trajectory(method(), *scalars(1.0), scalars(0.5, -0.25))
    assert numbers(found) == pytest.approx([0.95, 0.93947368], abs=1e-8)


CONSTANT = [0.95, 0.9, 0.85, 0.8, 0.75, 0.74741789, 0.74414401, 0.74027018]


def test_a_constant_gradient_is_rectified_from_the_sixth_step() -> None:
    found, _ = trajectory(method(), *scalars(1.0), scalars(*[0.5] * 8))
    assert numbers(found) == pytest.approx(CONSTANT, abs=1e-8)


def test_the_released_start_takes_no_step_and_no_decay_until_then() -> None:
    found, _ = trajectory(method(released=True), *scalars(1.0), scalars(*[0.5] * 8))
    assert numbers(found) == pytest.approx([1.0] * 5 + [x + 0.25 for x in CONSTANT[5:]], abs=1e-8)
    found, _ = trajectory(method(decay=0.3, released=True), *scalars(1.0), scalars(*[0.5] * 6))
    assert numbers(found)[:5] == [1.0] * 5
    assert numbers(found)[5] == pytest.approx(1 - RATE * 0.3 - RATE * 0.025821, abs=1e-6)


@pytest.mark.parametrize(("b2", "factor"), [(0.999, 0.025821), (0.99, 0.081679), (0.95, 0.182378)])
def test_the_factor_of_the_sixth_step(b2: float, factor: float) -> None:
    before, after = numbers(trajectory(method(b2), *scalars(1.0), scalars(*[0.5] * 6))[0])[-2:]
    assert (before - after) / RATE == pytest.approx(factor, abs=1e-6)


def test_a_short_memory_is_never_rectified_and_a_long_run_is_adam() -> None:
    found, _ = trajectory(method(0.6), *scalars(1.0), scalars(*[0.5] * 40))
    assert numbers(found) == pytest.approx(1 - 0.05 * np.arange(1, 41), abs=1e-12)
    found, _ = trajectory(method(0.9), *scalars(1.0), scalars(*[0.5] * 400))
    assert numbers(found)[-2] - numbers(found)[-1] == pytest.approx(RATE, rel=1e-6)


@pytest.mark.parametrize("value", [0.99, 0.999, 0.9999])
def test_in_float32_the_factor_keeps_1e_4(value: float) -> None:
    """ρ_t as the published difference loses it: 0.2 % of r_6 at β₂ = .999, a third at .9999."""
    b2 = float(np.float32(value))  # what float32 holds, so that the formula alone is judged
    transformation, params = radam(1.0, 0.9, jnp.float32(b2), 0.0, 0.0, True), jnp.float32(0)
    state = transformation.init(params)
    for _ in range(6):
        update, state = transformation.update(jnp.float32(1), state, params)
    longest = 2 / (1 - b2) - 1
    rho = longest - 12 * b2**6 / (1 - b2**6)
    factor = np.sqrt((rho - 4) * (rho - 2) * longest / ((longest - 4) * (longest - 2) * rho))
    assert update.dtype == jnp.float32
    assert -float(update) == pytest.approx(factor, rel=1e-4)


def plain(p: np.ndarray, gradients: list[np.ndarray], decay: float, released: bool) -> np.ndarray:
    """The authors' loop in numpy; ε on √v̂ as the paper has it."""
    m = v = np.zeros_like(p)
    b1, b2, eps = 0.9, 0.95, 1e-8
    longest = 2 / (1 - b2) - 1
    for t, g in enumerate(gradients, start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        rho = longest - 2 * t * b2**t / (1 - b2**t)
        if rho >= 5:
            r = np.sqrt((rho - 4) / (longest - 4) * (rho - 2) / (longest - 2) * longest / rho)
            p = p - RATE * decay * p - RATE * r * m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        elif not released:
            p = p - RATE * decay * p - RATE * m / (1 - b1**t)
    return p


@pytest.mark.parametrize("released", [False, True])
def test_equals_a_plain_version_on_a_kernel_that_decays_and_a_bias_that_does_not(released: bool) -> None:
    random = np.random.default_rng(0)
    start, *gradients = ({"kernel": random.normal(size=(3, 5)), "bias": random.normal(size=5)} for _ in range(13))
    chosen = method(0.95, 0.3, released, lambda params: {"kernel": True, "bias": False})
    found = trajectory(chosen, start, gradients)[0][-1]
    for name, decay in (("kernel", 0.3), ("bias", 0.0)):
        expected = plain(start[name], [gradient[name] for gradient in gradients], decay, released)
        np.testing.assert_allclose(found[name], expected, rtol=1e-12)


def test_the_published_start_without_decay_is_that_of_optax() -> None:
    random = np.random.default_rng(0)
    start, *gradients = ({"kernel": random.normal(size=(3, 5))} for _ in range(13))
    found, expected = (trajectory(each, start, gradients)[0] for each in (method(), optax.radam(RATE)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), found, expected)
