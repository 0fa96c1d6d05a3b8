"""Layca by its published turn, against a plain version, by its invariances; rotation by known angles."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from descents import trajectory
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.optimizers.layca import layca, rotation

RATE = 0.1


def of_gradient(rate: float = RATE) -> optax.GradientTransformation:
    return layca(optax.identity(), rate)


def tree(values: Any) -> dict[str, np.ndarray]:
    return {"kernel": np.array(values, float)}


def test_the_published_turn_and_back() -> None:
    found, _ = trajectory(of_gradient(), tree([3, 4]), [tree([1, 0]), tree([0, 1])])
    np.testing.assert_allclose(found[0]["kernel"], [2.587097, 4.278660], atol=1e-6)
    np.testing.assert_allclose(found[1]["kernel"], [3, 4], rtol=1e-14)
    with jax.enable_x64(True):
        turned = float(rotation({"layer": found[0]}, {"layer": tree([3, 4])})["layer/kernel"])
    assert np.arccos(1 - turned) == pytest.approx(np.arctan(RATE), rel=1e-9)
    assert np.arctan(RATE) == pytest.approx(0.0996687, abs=1e-7)


def test_what_is_not_a_kernel_and_a_kernel_of_zeros_stay() -> None:
    start = {"layer": {"kernel": np.ones((2, 3)), "bias": np.ones(3)}, "norm": {"scale": np.ones(3)},
             "embedding": np.ones((4, 2)), "zero": {"kernel": np.zeros((2, 3))}}
    random = np.random.default_rng(0)
    gradient = jax.tree.map(lambda x: random.normal(size=x.shape), start)
    found = trajectory(of_gradient(), start, [gradient])[0][0]
    assert (found["layer"].pop("kernel") != start["layer"].pop("kernel")).all()
    jax.tree.map(np.testing.assert_array_equal, found, start)


def plain(p: np.ndarray, s: np.ndarray) -> np.ndarray:
    """The turn in numpy."""
    norm = np.linalg.norm(p)
    s = s - (s * p).sum() / norm**2 * p
    p = p - RATE * s * norm / np.linalg.norm(s)
    return p * norm / np.linalg.norm(p)


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_equals_a_plain_version(name: str) -> None:
    random = np.random.default_rng(0)
    p, *gradients = random.normal(size=(9, 3, 5))
    inner = optax.trace(0.9) if name == "momentum" else optax.scale_by_adam(0.9, 0.99, 1e-8)
    found = trajectory(layca(inner, RATE), tree(p), [tree(g) for g in gradients])[0]
    m = v = np.zeros_like(p)
    for t, (g, params) in enumerate(zip(gradients, found, strict=True), start=1):
        if name == "momentum":
            m = s = 0.9 * m + g
        else:
            m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
            s = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
        p = plain(p, s)
        np.testing.assert_allclose(params["kernel"], p, rtol=1e-12)


@jax.jit
def turned(p_IxO: jax.Array, g_IxO: jax.Array, rate: jax.Array) -> jax.Array:
    params, method = {"kernel": p_IxO}, of_gradient(rate)
    return p_IxO + method.update({"kernel": g_IxO}, method.init(params), params)[0]["kernel"]


@pytest.mark.parametrize("size", [2, 100_000])
def test_a_step_along_the_weights_moves_nothing_in_float32(size: int) -> None:
    """What rounding leaves of it is no direction, however large the step."""
    p = jax.random.normal(jax.random.key(1), (size,))
    for scale in (-1e3, 1e-9, 0.7, 1e6):
        np.testing.assert_array_equal(turned(p, scale * p, RATE), p)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rate=st.floats(1e-4, 10), size=st.floats(1e-5, 1e5), scale=st.floats(1e-8, 1e8))
def test_every_step_keeps_the_norm_turns_by_arctan_of_the_rate_and_ignores_the_length_of_the_step(
        seed: int, rate: float, size: float, scale: float) -> None:
    p_IxO, g_IxO = np.random.default_rng(seed).normal(size=(2, 3, 4))
    p_IxO *= size
    with jax.enable_x64(True):
        found_IxO = turned(p_IxO, g_IxO, rate)
        again_IxO = turned(p_IxO, scale * g_IxO, rate)
        angle = 2 * np.arcsin(np.sqrt(float(rotation({"kernel": found_IxO}, {"kernel": p_IxO})["kernel"]) / 2))
    assert np.linalg.norm(found_IxO) == pytest.approx(np.linalg.norm(p_IxO), rel=1e-13)
    assert angle == pytest.approx(np.arctan(rate), rel=1e-7)
    np.testing.assert_allclose(again_IxO, found_IxO, atol=1e-10 * size)


def test_rotation_by_known_angles_named_by_path() -> None:
    initial = {"a": {"kernel": jnp.array([[2.0, 0.0]]), "bias": jnp.ones(2)}, "b": {"kernel": jnp.array([1.0, 1.0])},
               "c": {"kernel": jnp.array([0.0, 3.0])}, "d": {"kernel": jnp.zeros(2)}}
    params = {"a": {"kernel": jnp.array([[0.0, 5.0]]), "bias": jnp.zeros(2)}, "b": {"kernel": jnp.array([-2.0, -2.0])},
              "c": {"kernel": jnp.array([3e-4, 3.0])}, "d": {"kernel": jnp.ones(2)}}
    found = jax.jit(rotation)(params, initial)
    assert sorted(found) == ["a/kernel", "b/kernel", "c/kernel", "d/kernel"]
    assert float(found["a/kernel"]) == pytest.approx(1)
    assert float(found["b/kernel"]) == pytest.approx(2)
    assert float(found["c/kernel"]) == pytest.approx(5e-9, rel=1e-3)  # 1 - cos in float32 is 0
    assert np.isnan(found["d/kernel"])
