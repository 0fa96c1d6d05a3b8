"""Averages of the parameters of several runs: model soups, merged modules."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from scaling.optimizers.schedule_free import evaluation_params, rested
from scaling.training.state import TrainState


def average(states: Sequence[TrainState], weights: Sequence[float]) -> TrainState:
    """The first state with the weighted average of all parameters, θ = θ_1 + Σ_i w_i (θ_i - θ_1), as each is evaluated.

    Computed in float64 on the host, then back in the type of θ_1: equal parameters stay exactly what they are.
    `weights` sum to 1, one a state. Everything else is the first state's; a single state is returned as it is.
    """
    first, *others = states
    if not others:
        return first

    def mean(leaf: np.ndarray, *leaves: np.ndarray) -> np.ndarray:
        start = np.asarray(leaf, np.float64)
        moved = sum(weight * (np.asarray(other, np.float64) - start)
                    for weight, other in zip(weights[1:], leaves, strict=True))
        return (start + moved).astype(leaf.dtype)

    params = jax.tree.map(mean, *(evaluation_params(state.optimizer, state.params) for state in states))
    return first._replace(params=params, optimizer=rested(first.optimizer, params))
