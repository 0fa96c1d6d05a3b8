"""Conda by its published numbers, a second version in numpy, and where it is Adam, orthogonal, or equivariant."""

import itertools

import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matrix_traces import SHAPES, random_run, same_up_to_signs, trace

from scaling.optimizers.conda import conda

ADAM = {"b1": 0.9, "b2": 0.99, "eps": 1e-8}
ROTATED, PLAIN = conda(0.1, **ADAM, scale=1.0, every=2, weight_decay=0.1), optax.adam(0.1, **ADAM)  # compiled once


def test_two_published_steps() -> None:
    """methods.md A7, whose rows are outputs: transposed for Flax."""
    gradients = [np.array([[1, 0.5], [0.5, -0.5]]), np.diag([1, 0.5])]
    found = trace(conda(0.1, **ADAM, scale=1.0, every=2000, weight_decay=0.0), np.eye(2), gradients).values
    np.testing.assert_allclose(found[0].T, [[0.933269, -0.124688], [-0.124688, 1.066731]], atol=1e-6)
    np.testing.assert_allclose(found[1].T, [[0.830646, -0.128825], [-0.214289, 1.047775]], atol=1e-6)


def published(p: np.ndarray, gradients: list[np.ndarray], rate: float, scale: float, every: int,
              decay: float) -> list[np.ndarray]:
    """The sheet's rule side by side for both orientations, inputs x outputs; squares take the inputs' side."""
    b1, b2, eps = ADAM["b1"], ADAM["b2"], ADAM["eps"]
    m = v = np.zeros_like(p)
    found = []
    for index, g in enumerate(gradients):
        m = b1 * m + (1 - b1) * g
        if index % every == 0:
            left, _, right = np.linalg.svd(m, full_matrices=False)
        wide = p.shape[0] <= p.shape[1]
        m_in, g_in = (left.T @ m, left.T @ g) if wide else (m @ right.T, g @ right.T)
        v = b2 * v + (1 - b2) * g_in**2
        inner = m_in / (np.sqrt(v) + eps)
        step = left @ inner if wide else inner @ right
        p = p - rate * scale * np.sqrt(1 - b2 ** (index + 1)) / (1 - b1 ** (index + 1)) * step
        p = p * (1 - rate * decay)
        found.append(p)
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_a_second_version_in_numpy_over_three_bases(shape: tuple[int, int]) -> None:
    start, gradients = random_run(shape, 8)
    expected = published(start, gradients, rate=0.05, scale=0.25, every=3, decay=0.1)
    run = trace(conda(0.05, **ADAM, scale=0.25, every=3, weight_decay=0.1), start, gradients)
    np.testing.assert_allclose(run.values, expected, rtol=1e-9, atol=1e-11)
    bases = [state.basis_SxS for state in run.states]
    assert [bool(np.any(old != new)) for old, new in itertools.pairwise(bases)] == [
        False, False, True, False, False, True, False]


def test_the_basis_is_that_of_the_momentum_and_orthogonal() -> None:
    start, gradients = random_run((5, 3), 4)
    for state in trace(conda(0.1, **ADAM, scale=1.0, every=1, weight_decay=0.0), start, gradients).states:
        same_up_to_signs(state.basis_SxS, np.linalg.svd(state.m_MxN.T)[0])
    start, gradients = random_run((24, 16), 6)
    optimizer = conda(0.1, **ADAM, scale=1.0, every=2, weight_decay=0.0)
    for state in trace(optimizer, start, gradients, "float32").states:
        basis = state.basis_SxS.astype(np.float64)
        assert np.linalg.norm(basis.T @ basis - np.eye(16)) < 1e-5


@pytest.mark.parametrize("shape", [(3, 5), (5, 3)])
def test_the_first_step_is_a_rotated_sign(shape: tuple[int, int]) -> None:
    """Its norm is ηs√(mn), 3.87298 for 3 x 5 at ηs = 1."""
    start, gradients = random_run(shape, 1)
    moved = trace(conda(2.0, **ADAM, scale=0.5, every=9, weight_decay=0.0), start, gradients).values[0] - start
    assert np.linalg.norm(moved) == pytest.approx(3.87298, abs=1e-5)
    assert np.sqrt(np.mean(moved**2)) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_diagonal_gradients_give_adam(shape: tuple[int, int]) -> None:
    start, gradients = random_run(shape, 6)
    gradients = [gradient * np.eye(*shape) for gradient in gradients]
    adam = {"b1": 0.9, "b2": 0.99, "eps": 1e-9}
    expected = trace(optax.adam(0.05, **adam), start, gradients).values
    found = trace(conda(0.1, **adam, scale=0.5, every=9, weight_decay=0.0), start, gradients).values
    np.testing.assert_allclose(found, expected, atol=1e-7)


@given(st.integers(0, 2**32 - 1), st.sampled_from([(3, 5), (5, 3)]))
@settings(max_examples=10, deadline=None)
def test_rotating_the_short_side_rotates_every_update(seed: int, shape: tuple[int, int]) -> None:
    """Of Conda and not of Adam."""
    start, gradients = random_run(shape, 4, seed)
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]

    def rotated(matrix: np.ndarray) -> np.ndarray:
        return rotation @ matrix if shape[0] < shape[1] else matrix @ rotation

    def error(optimizer: optax.GradientTransformation) -> float:
        plain = trace(optimizer, start, gradients).values
        turned = trace(optimizer, rotated(start), [rotated(gradient) for gradient in gradients]).values
        return max(float(np.abs(rotated(a) - b).max()) for a, b in zip(plain, turned, strict=True))

    assert error(ROTATED) < 1e-7
    assert error(PLAIN) > 1e-3
