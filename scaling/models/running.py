"""Running statistics in a parameter tree, apart from what an optimizer trains (scaling/models/running_norms.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

STATISTICS = "statistics"  # the name under which they lie


def split(tree: Any) -> tuple[Any, dict[str, Any]]:
    """Parameters or gradients without their statistics, and the statistics; `merge` undoes it.

    Without any, the first is equal to the tree and the second empty.
    """
    if not isinstance(tree, Mapping):
        return tree, {}
    trained: dict[str, Any] = {}
    statistics: dict[str, Any] = {}
    for name, part in tree.items():
        if name == STATISTICS:
            statistics[name] = part
            continue
        trained[name], found = split(part)
        if found:
            statistics[name] = found
    return trained, statistics


def merge(trained: Any, statistics: Mapping[str, Any]) -> Any:
    """One tree again."""
    if not statistics:
        return trained
    return {**trained, **{name: part if name == STATISTICS else merge(trained[name], part)
                          for name, part in statistics.items()}}


def apart(method: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    """`method` for what is trained, of which alone it sees gradients and keeps a state; each statistic moves to its
    next value, which its gradient is.
    """
    def update(gradients: Any, state: Any, params: Any, **extra: Any) -> Any:
        (trained, old), (gradient, new) = split(params), split(gradients)
        updates, state = method.update(gradient, state, trained, **extra)
        return merge(updates, jax.tree.map(jnp.subtract, new, old)), state

    return optax.GradientTransformationExtraArgs(lambda params: method.init(split(params)[0]), update)
