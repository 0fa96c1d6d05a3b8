"""Optimizers by name, built inside the compiled step from traced values: a new rate or decay never recompiles."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import optax
from jax import Array

from scaling import config


class OptimizerValues(NamedTuple):
    """Scalars of one run. `weight_decay` multiplies the learning rate: λ when coupled, λ / peak when independent."""

    b1: Any
    b2: Any
    eps: Any
    weight_decay: Any
    clip_norm: Any  # inf: no clipping


def decay_mask(decay_on: str, params: Any) -> Any:
    """Which parameters decay: all of them, or the kernels of dense layers."""
    def decays(path: tuple, _: Array) -> bool:
        return decay_on == "all" or path[-1].key == "kernel"

    return jax.tree_util.tree_map_with_path(decays, params)


def build(spec: config.Optimizer, values: OptimizerValues, learning_rate: Array) -> optax.GradientTransformation:
    """Clipping by global norm, then AdamW: p -= lr (m̂ / (√v̂ + ε) + w p), w on the masked parameters.

    Loshchilov & Hutter 2019, arXiv 1711.05101. Their own form is `independent` decay: w = λ / peak, so that decay
    follows the schedule's shape and not its height; `coupled` is what optax and PyTorch call AdamW.
    """
    return optax.chain(
        optax.clip_by_global_norm(values.clip_norm),
        optax.adamw(learning_rate, values.b1, values.b2, values.eps, weight_decay=values.weight_decay,
                    mask=lambda params: decay_mask(spec.decay_on, params)),
    )
