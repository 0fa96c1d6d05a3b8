"""GradNormLoRP: weight normalization's gradients by hand and by autodiff, both forms by a second version in numpy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matrix_traces import SHAPES, random_run, same_up_to_signs, trace

from scaling.optimizers.gradnormlorp import gradnormlorp, weight_norm_gradients

ADAM = {"b1": 0.9, "b2": 0.999, "eps": 1e-6}
FORMS = pytest.mark.parametrize("released", [False, True])


def gradients_of(gradient: Any, v: Any, gamma: Any) -> tuple[np.ndarray, np.ndarray]:
    with jax.enable_x64(True):
        arguments = (jnp.asarray(value, "float64") for value in (gradient, v, gamma))
        return tuple(np.asarray(value) for value in weight_norm_gradients(*arguments))


def test_the_published_gradient() -> None:
    """methods.md A12: one output unit, V = [3, 4], g = [1, 0]."""
    by_v, by_gamma = gradients_of([[1.0], [0.0]], [[3.0], [4.0]], [[5.0]])
    np.testing.assert_allclose(by_v, [[0.64], [-0.48]], rtol=1e-14)
    np.testing.assert_allclose(by_gamma, [[0.6]], rtol=1e-14)


@pytest.mark.parametrize(("released", "expected"), [(False, [0.64, -0.48]), (True, [1.0, 0.0])])
def test_which_gradient_the_optimizer_takes_for_v(released: bool, expected: list[float]) -> None:
    """Its momentum without averaging, taken out of the basis."""
    optimizer = gradnormlorp(0.1, 0.0, 0.0, 1e-6, rank=1, every=9, scale=1.0, weight_decay=0.0, released=released)
    adam = trace(optimizer, np.array([[3.0], [4.0]]), [np.array([[1.0], [0.0]])]).states[0].adam
    np.testing.assert_allclose((adam.basis_SxR @ adam.m_RxO).T[:, 0], expected, rtol=1e-12)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_the_gradient_is_that_of_autodiff_and_has_no_radial_part(seed: int) -> None:
    generator = np.random.default_rng(seed)
    gradient, v, gamma = generator.normal(size=(5, 3)), generator.normal(size=(5, 3)), generator.normal(size=(1, 3))
    by_v, by_gamma = gradients_of(gradient, v, gamma)

    def loss(v: Any, gamma: Any) -> Any:
        return jnp.sum(gradient * gamma * v / jnp.linalg.norm(v, axis=0, keepdims=True))

    with jax.enable_x64(True):
        expected = jax.grad(loss, (0, 1))(jnp.asarray(v), jnp.asarray(gamma))
    np.testing.assert_allclose(by_v, expected[0], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(by_gamma, expected[1], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(np.sum(by_v * v, axis=0), 0, atol=1e-11)


def adam_step(moments: list[Any], g: np.ndarray, t: int) -> np.ndarray:
    b1, b2 = ADAM["b1"], ADAM["b2"]
    moments[:] = b1 * moments[0] + (1 - b1) * g, b2 * moments[1] + (1 - b2) * g**2
    return np.sqrt(1 - b2**t) / (1 - b1**t) * moments[0] / (np.sqrt(moments[1]) + ADAM["eps"])


def published(w: np.ndarray, gradients: list[np.ndarray], bases: list[np.ndarray], released: bool, rate: float,
              scale: float, every: int, decay: float) -> list[np.ndarray]:
    """Per output unit, that is per column; P is taken with the signs it was given, since m outlives it."""
    rows, columns = w.shape
    v, gamma = w.copy(), np.linalg.norm(w, axis=0)
    of_v: list[Any] = [0.0, 0.0]
    of_gamma: list[Any] = [0.0, 0.0]
    found = []
    for index, (g, basis) in enumerate(zip(gradients, bases, strict=True)):
        if released:
            gamma = np.linalg.norm(v, axis=0)
        by_v, by_gamma = np.empty_like(g), np.empty(columns)
        for unit in range(columns):
            length = np.linalg.norm(v[:, unit])
            by_gamma[unit] = g[:, unit] @ v[:, unit] / length
            whole = gamma[unit] / length * g[:, unit]
            radial = gamma[unit] * by_gamma[unit] / length**2 * v[:, unit]
            by_v[:, unit] = whole if released else whole - radial
        if index % every == 0:
            u, _, x = np.linalg.svd(by_v, full_matrices=False)
            same_up_to_signs(basis, (u if rows <= columns else x.T)[:, :basis.shape[1]])
        if rows <= columns:
            step = basis @ adam_step(of_v, basis.T @ by_v, index + 1)
        else:
            step = adam_step(of_v, by_v @ basis, index + 1) @ basis.T
        v = (v - rate * scale * step) * (1 - rate * decay)
        gamma = (gamma - rate * adam_step(of_gamma, by_gamma, index + 1)) * (1 - rate * decay)
        found.append(gamma * v / np.linalg.norm(v, axis=0))
    return found


@FORMS
@pytest.mark.parametrize("shape", SHAPES)
def test_a_second_version_in_numpy_over_three_bases(shape: tuple[int, int], released: bool) -> None:
    start, gradients = random_run(shape, 8)
    run = trace(gradnormlorp(0.05, **ADAM, rank=2, every=3, scale=0.25, weight_decay=0.1, released=released), start,
                gradients)
    bases = [state.adam.basis_SxR for state in run.states]
    expected = published(start, gradients, bases, released, rate=0.05, scale=0.25, every=3, decay=0.1)
    np.testing.assert_allclose(run.values, expected, rtol=1e-9, atol=1e-11)


def test_the_parameter_is_gamma_times_the_unit_of_v() -> None:
    """W = γV/‖V‖ at every step; decay of γ is decay of W."""
    start, gradients = random_run((5, 3), 4)
    run = trace(gradnormlorp(0.1, **ADAM, rank=3, every=2, scale=1.0, weight_decay=0.0, released=False), start,
                gradients)
    for values, state in zip(run.values, run.states, strict=True):
        units = state.v_MxN / np.linalg.norm(state.v_MxN, axis=0)
        np.testing.assert_allclose(values, state.gamma_1xN * units, rtol=1e-12)
    still = gradnormlorp(0.1, **ADAM, rank=3, every=2, scale=1.0, weight_decay=0.5, released=False)
    decayed = trace(still, start, [np.zeros((5, 3))] * 3).values
    np.testing.assert_allclose(decayed, [start * 0.95**t for t in (1, 2, 3)], rtol=1e-12)


def test_the_released_step_of_gamma_lasts_until_the_next() -> None:
    """With no gradient after the first, W returns to V, whose length γ is set to."""
    start, gradients = random_run((5, 3), 1)
    optimizer = gradnormlorp(0.1, 0.0, 0.0, 1e-6, rank=3, every=1, scale=1.0, weight_decay=0.0, released=True)
    run = trace(optimizer, start, [gradients[0], np.zeros((5, 3))])
    assert np.abs(run.values[0] - run.states[0].v_MxN).max() > 0.01
    np.testing.assert_allclose(run.values[1], run.states[0].v_MxN, rtol=1e-12)


@FORMS
def test_an_output_unit_that_starts_at_zero_learns(released: bool) -> None:
    """W = γV/‖V‖ has no gradient at V = 0, and only one by γ at γ = 0."""
    start = np.ones((4, 2)) * [0.0, 1.0]
    gradients = [np.array([[1.0, 1.0], [2.0, 0.5], [3.0, 1.0], [-1.0, 2.0]])] * 6
    optimizer = gradnormlorp(0.1, **ADAM, rank=2, every=2, scale=1.0, weight_decay=0.0, released=released)
    final = trace(optimizer, start, gradients).values[-1]
    assert np.linalg.norm(final[:, 0]) > 0.1
    assert float(np.sum(gradients[0][:, 0] * final[:, 0])) < 0  # down the slope
