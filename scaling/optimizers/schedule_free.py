"""Schedule-free AdamW, and the parameters that a run is judged by, which for it are not those that it trains."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from optax.contrib import ScheduleFreeState

from scaling.optimizers.parts import Mask


def schedule_free(learning_rate: Any, b1: Any, b2: Any, eps: Any, weight_decay: Any,
                  mask: Mask = None) -> optax.GradientTransformationExtraArgs:
    """Gradients at y = (1-β₁) z + β₁ x; z -= η (g / (√v̂ + ε) + λ y); x averages z with weights max_{s<=t} η_s².

    The parameters are y; `evaluation_params` has x. One rate drives both the step and the weight: with
    `optax.contrib.schedule_free_adamw` the step lags one behind. Defazio et al. 2024, arXiv 2405.15682; β₁ > 0.
    """
    base = optax.chain(
        optax.scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True),
        optax.add_decayed_weights(weight_decay, mask), optax.scale_by_learning_rate(learning_rate))
    inner = optax.contrib.schedule_free(base, learning_rate, b1)

    def init(params: Any) -> ScheduleFreeState:
        state = inner.init(params)
        return state._replace(b1=jnp.ones_like(state.b1))  # x = y before the first step, whatever β₁

    def update(gradients: Any, state: ScheduleFreeState, params: Any) -> tuple[Any, ScheduleFreeState]:
        updates, new = inner.update(gradients, state, params)
        return updates, new._replace(b1=jnp.asarray(b1, state.b1.dtype))

    return optax.with_extra_args_support(optax.GradientTransformation(init, update))


def evaluation_params(optimizer: Any, params: Any) -> Any:
    """What a run is evaluated at and what a branch with a fresh optimizer starts from: x = (y - (1-β₁) z) / β₁ where
    schedule-free AdamW trained it, else the parameters themselves. `optimizer`: the state of the run's optimizer.
    """
    for state in _averages(optimizer):
        def average(z: Any, y: Array, b1: Any = state.b1) -> Array:
            return y if _is_masked(z) else (y - (1 - b1) * z) / b1

        params = jax.tree.map(average, state.z, params, is_leaf=_is_masked)
    return params


def rested(optimizer: Any, params: Any) -> Any:
    """The state of an optimizer whose `evaluation_params` of these parameters are themselves: x = y = z."""
    def rest(state: Any) -> Any:
        def end(z: Any, x: Array) -> Any:
            return z if _is_masked(z) else x

        return state._replace(z=jax.tree.map(end, state.z, params, is_leaf=_is_masked)) if _is_average(state) else state

    return jax.tree.map(rest, optimizer, is_leaf=_is_average)


def _averages(optimizer: Any) -> list[Any]:
    return [node for node in jax.tree.leaves(optimizer, is_leaf=_is_average) if _is_average(node)]


def _is_average(node: Any) -> bool:
    return isinstance(node, ScheduleFreeState)


def _is_masked(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)
