"""Rotary embedding: lengths are kept, and scores depend on the distance alone."""

import jax
import numpy as np
import pytest

from numpy_model import rotary
from scaling.models.positions import rotate


def test_scores_depend_on_the_distance_alone() -> None:
    with jax.enable_x64(True):
        random = np.random.default_rng(0)
        q_E, k_E = random.normal(size=(2, 8))
        q_SxE, k_SxE = (np.asarray(rotate(np.tile(x_E, (1, 50, 1)))[0]) for x_E in (q_E, k_E))
    scores_SxS = q_SxE @ k_SxE.T
    for distance in range(-49, 50):
        diagonal = np.diagonal(scores_SxS, distance)
        np.testing.assert_allclose(diagonal, diagonal[0], atol=1e-12)
    assert len({round(float(np.diagonal(scores_SxS, d)[0]), 6) for d in range(50)}) == 50
    np.testing.assert_allclose(scores_SxS[0, 0], q_E @ k_E)


def test_equals_rotation_of_complex_pairs_and_keeps_lengths() -> None:
    with jax.enable_x64(True):
        x_GxSxE = np.random.default_rng(1).normal(size=(3, 20, 6))
        turned_GxSxE = np.asarray(rotate(x_GxSxE))
    np.testing.assert_allclose(turned_GxSxE, [rotary(x_SxE) for x_SxE in x_GxSxE], atol=1e-12)
    assert np.linalg.norm(turned_GxSxE, axis=-1) == pytest.approx(np.linalg.norm(x_GxSxE, axis=-1))
