"""The Huber pieces against SciPy and automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import huber as scipy_huber

from scaling.fitting import huber, least_squares, objectives

RESIDUALS = np.array([-3.0, -0.1, -1e-3, -4e-4, 0.0, 2e-4, 1e-3, 0.01, 5.0])


@pytest.mark.parametrize("delta", [1e-3, 0.05, 10.0])
def test_loss_score_and_curvature(delta):
    with jax.enable_x64(True):
        np.testing.assert_allclose(objectives.loss(RESIDUALS, delta), scipy_huber(delta, RESIDUALS), rtol=1e-12)
        slope = jax.vmap(jax.grad(lambda r: objectives.loss(r, delta)))(jnp.asarray(RESIDUALS))
        np.testing.assert_allclose(objectives.score(RESIDUALS, delta), slope, rtol=1e-12)
        nonzero = RESIDUALS[RESIDUALS != 0]
        pseudo = jax.vmap(jax.grad(lambda r: jnp.sign(r) * jnp.sqrt(2 * objectives.loss(r, delta))))
        np.testing.assert_allclose(objectives.curvature(nonzero, delta), pseudo(jnp.asarray(nonzero)) ** 2, rtol=1e-9)


def test_least_squares_is_huber_without_a_threshold():
    objective = least_squares()
    with jax.enable_x64(True):
        np.testing.assert_allclose(objectives.loss(RESIDUALS, objective.delta), RESIDUALS**2 / 2)
        np.testing.assert_array_equal(objectives.curvature(RESIDUALS, objective.delta), np.ones(9))
    assert (str(objective), str(huber())) == ("least squares on target", "Huber(0.001) on log target")


def test_refusals():
    with pytest.raises(ValueError, match="delta: 0 must be > 0"):
        huber(0)
    with pytest.raises(ValueError, match="scale: 'exp' must be 'log'"):
        huber(1e-3, scale="exp")
