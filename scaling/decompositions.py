"""Decompositions of matrices for programs that vmap over runs and run on several devices of one process."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap


def one_by_one(function: Callable) -> Callable:
    """`function` of arrays; under vmap on CPU it goes over the batch one after the other.

    Batches of decompositions on two host devices at once wait for each other for ever there (seen with jaxlib 0.10.2).
    """
    @custom_vmap
    def single(*arrays: Any) -> Any:
        return function(*arrays)

    @single.def_vmap
    def _(size: int, batched: Any, *arrays: Any) -> tuple[Any, Any]:
        arrays_B = tuple(x if has else jnp.broadcast_to(x, (size, *x.shape))
                         for x, has in zip(arrays, batched, strict=True))
        if jax.default_backend() == "cpu":
            found_B = lax.map(lambda one: single(*one), arrays_B)
        else:
            found_B = jax.vmap(function)(*arrays_B)
        return found_B, jax.tree.map(lambda _: True, found_B)

    return single


thin_svd = one_by_one(functools.partial(jnp.linalg.svd, full_matrices=False))
full_svd = one_by_one(functools.partial(jnp.linalg.svd, full_matrices=True))
singular_values = one_by_one(functools.partial(jnp.linalg.svd, compute_uv=False))
orthonormal = one_by_one(lambda matrix: jnp.linalg.qr(matrix)[0])
