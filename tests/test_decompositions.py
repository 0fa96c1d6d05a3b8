"""Decompositions of a batch equal those of its members, and never meet as one batched call on CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.decompositions import full_svd, one_by_one, orthonormal, singular_values, thin_svd

SHAPES = [(4, 7), (7, 4), (5, 5)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_batch_has_the_decompositions_of_its_members(shape: tuple[int, int]) -> None:
    matrices_BxMxN = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    for function in (thin_svd, full_svd, singular_values, orthonormal):
        alone = [function(jnp.asarray(matrix)) for matrix in matrices_BxMxN]
        batch = jax.jit(jax.vmap(function))(matrices_BxMxN)
        jax.tree.map(lambda found, *each: np.testing.assert_array_equal(found, np.stack(each)), batch, *alone)


def test_singular_values_and_bases_are_numpys() -> None:
    matrix = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    np.testing.assert_allclose(singular_values(matrix), np.linalg.svd(matrix, compute_uv=False), rtol=1e-5)
    left, values, right = full_svd(matrix)
    assert left.shape == (6, 6)
    np.testing.assert_allclose((left[:, :4] * values[None, :]) @ right, matrix, atol=1e-5)
    np.testing.assert_allclose(orthonormal(matrix).T @ orthonormal(matrix), np.eye(4), atol=1e-6)


def test_a_batch_of_batches_is_taken_one_by_one() -> None:
    shapes = []

    def seen(matrix: jax.Array, scale: jax.Array) -> jax.Array:
        shapes.append(matrix.shape)
        return jnp.linalg.svd(matrix, compute_uv=False) * scale

    matrices = np.random.default_rng(2).normal(size=(2, 3, 4, 5)).astype(np.float32)
    scales = np.arange(1, 4, dtype=np.float32)
    found = jax.vmap(jax.vmap(one_by_one(seen)), (0, None))(matrices, scales)
    np.testing.assert_allclose(found, np.linalg.svd(matrices, compute_uv=False) * scales[None, :, None], rtol=1e-4)
    assert set(shapes) == {(4, 5)}
