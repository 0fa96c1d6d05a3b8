"""Sophia: momentum over an average of the Hessian's diagonal, clipped; and one estimate of it for several groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from optax import contrib

from scaling.optimizers.parts import Mask

Diagonal = Callable[[Any], Any]  # parameters -> an estimate of the Hessian's diagonal there


def sophia(rate: Any, b1: Any, b2: Any, eps: Any, scale: Any, every: int, decay: Any,
           mask: Mask) -> optax.GradientTransformationExtraArgs:
    """u = clip(m̂ / max(scale h, ε), 1); h averages, with β₂, estimates of the Hessian's diagonal every `every` steps.

    `update` takes `diagonal`, from parameters to such an estimate (scaling/training/updating.py). Liu et al. 2023,
    arXiv 2305.14342. As optax's: m is corrected for its start, which the authors' code does not, and h is refreshed
    after it was used, so that the first update is the sign of the gradient.
    """
    def estimate(gradients: Any, state: Any, params: Any, *, diagonal: Diagonal, **_: Any) -> Any:
        return diagonal(params), state

    estimator = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), estimate)
    return contrib.sophia(rate, b1, b2, eps, decay, mask, scale, update_interval=every, hessian_diagonal_fn=estimator)


def shared(diagonal: Diagonal, every: int, state: Any, params: Any) -> Diagonal:
    """`diagonal` for groups of `params` that each see themselves alone: their part of one estimate at all parameters.

    `state` holds the groups' states, which count alike; steps that refresh none cost no estimate.
    """
    counts = [node.count for node in jax.tree.leaves(state, is_leaf=_is_sophia) if _is_sophia(node)]
    if not counts:
        return diagonal
    whole = lax.cond(counts[0] % every == 0, diagonal, lambda params: jax.tree.map(jnp.zeros_like, params), params)

    def of_group(group: Any) -> Any:
        return jax.tree.map(lambda leaf, found: leaf if _is_masked(leaf) else found, group, whole, is_leaf=_is_masked)

    return of_group


def _is_sophia(node: Any) -> bool:
    return isinstance(node, contrib.SophiaState)


def _is_masked(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)
