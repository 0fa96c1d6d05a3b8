"""SOAP by its published numbers, a second version in numpy, orthogonal bases, and Adam where they are diagonal."""

import itertools

import numpy as np
import optax
import pytest
from matrix_traces import SHAPES, random_run, trace

from scaling.optimizers.soap import Rotated, soap

ADAM = {"b1": 0.95, "b2": 0.95, "eps": 1e-8}


def test_three_published_calls() -> None:
    """methods.md A10: no step, then two equal ones."""
    gradients = [np.array([[2.0, 1.0], [0.0, 1.0]])] + [np.array([[1.0, 0.0], [1.0, 1.0]])] * 2
    found = trace(soap(0.1, **ADAM, every=10, weight_decay=0.0), np.zeros((2, 2)), gradients).values
    expected = np.array([[-0.126491, 0.063246], [-0.063246, -0.126491]])
    np.testing.assert_array_equal(found[0], 0)
    np.testing.assert_allclose(found[1], expected, atol=1e-6)
    np.testing.assert_allclose(found[2], 2 * found[1], rtol=1e-7)


def test_the_first_call_moves_nothing_by_decay_either() -> None:
    start, gradients = random_run((3, 5), 2)
    found = trace(soap(0.1, **ADAM, every=10, weight_decay=0.5), start, gradients).values
    np.testing.assert_array_equal(found[0], start)
    assert np.all(found[1] != start)


class Published:
    """The sheet's rule on one matrix, with the eigenbases of the first gradient given: a null space has many."""

    def __init__(self, p: np.ndarray, g: np.ndarray, bases: tuple[np.ndarray, np.ndarray]) -> None:
        b2 = ADAM["b2"]
        self.p, self.m, self.v, self.t = p, np.zeros_like(p), np.zeros_like(p), 0
        self.covariances = [(1 - b2) * g @ g.T, (1 - b2) * g.T @ g]
        self.bases = list(bases)
        for covariance, basis in zip(self.covariances, bases, strict=True):
            values = np.diag(basis.T @ covariance @ basis)
            np.testing.assert_allclose(basis @ np.diag(values) @ basis.T, covariance, atol=1e-12)
            assert np.all(np.diff(values) < 1e-12)  # falling

    def call(self, g: np.ndarray, rate: float, every: int, decay: float) -> np.ndarray:
        b1, b2, (left, right) = ADAM["b1"], ADAM["b2"], self.bases
        self.t += 1
        inside = left.T @ g @ right
        self.m = b1 * self.m + (1 - b1) * inside
        self.v = b2 * self.v + (1 - b2) * inside**2
        step = left @ (self.m / (np.sqrt(self.v) + ADAM["eps"])) @ right.T
        self.p = self.p - rate * np.sqrt(1 - b2**self.t) / (1 - b1**self.t) * step
        self.p = self.p * (1 - rate * decay)
        self.covariances = [b2 * old + (1 - b2) * new
                            for old, new in zip(self.covariances, (g @ g.T, g.T @ g), strict=True)]
        if self.t % every == 0:
            self.refresh()
        return self.p

    def refresh(self) -> None:
        whole = self.bases[0] @ self.m @ self.bases[1].T
        for axis, (covariance, basis) in enumerate(zip(self.covariances, self.bases, strict=True)):
            order = np.argsort(-np.diag(basis.T @ covariance @ basis))
            self.v = np.take(self.v, order, axis=axis)
            self.bases[axis] = np.linalg.qr(covariance @ basis[:, order])[0]
        self.m = self.bases[0].T @ whole @ self.bases[1]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("every", [1, 3])
def test_a_second_version_in_numpy_over_several_bases(shape: tuple[int, int], every: int) -> None:
    """The second moment moves at every call, between refreshes too."""
    start, gradients = random_run(shape, 9)
    run = trace(soap(0.05, **ADAM, every=every, weight_decay=0.1), start, gradients)
    first: Rotated = run.states[0].rotated
    second = Published(start, gradients[0], (first.left_MxM, first.right_NxN))
    for gradient, values, state in zip(gradients[1:], run.values[1:], run.states[1:], strict=True):
        np.testing.assert_allclose(values, second.call(gradient, 0.05, every, 0.1), rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(state.rotated.v_MxN, second.v, rtol=1e-8)


def test_the_bases_are_refreshed_every_few_calls_alone_and_are_orthogonal_then() -> None:
    start, gradients = random_run((24, 16), 10)
    states = [state.rotated for state in trace(soap(0.1, **ADAM, every=3, weight_decay=0.0), start, gradients,
                                               "float32").states]
    changed = [bool(np.any(old.left_MxM != new.left_MxM)) for old, new in itertools.pairwise(states)]
    assert changed == [False, False, True] * 3
    for state in states:
        for basis in (state.left_MxM.astype(np.float64), state.right_NxN.astype(np.float64)):
            assert np.linalg.norm(basis.T @ basis - np.eye(len(basis))) < 1e-5


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("every", [2, 100])
def test_diagonal_preconditioners_give_adam_one_gradient_later(shape: tuple[int, int], every: int) -> None:
    """A refresh then only puts the axes in another order, m and v with them."""
    start, gradients = random_run(shape, 8)
    gradients = [gradient * np.eye(*shape) for gradient in gradients]
    adam = {"b1": 0.95, "b2": 0.95, "eps": 1e-9}  # less would enlarge the rounding of the rotated zeros
    found = trace(soap(0.1, **adam, every=every, weight_decay=0.0), start, gradients).values
    expected = trace(optax.adam(0.1, **adam), start, gradients[1:]).values
    np.testing.assert_allclose(found[1:], expected, atol=1e-7)
