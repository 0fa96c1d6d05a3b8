"""Prodigy: AdamW whose rate is times an estimate of the distance to the solution."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import ProdigyState

from scaling.optimizers.parts import Mask, decaying


def prodigy(learning_rate: Any, b1: Any, b2: Any, eps: Any, initial: Any, weight_decay: Any,
            mask: Mask = None) -> optax.GradientTransformationExtraArgs:
    """p -= η d_t c_t (m / (√v + d ε) + λ p), d_0 = `initial`, d never falls; c_t = √(1-β₂^t) / (1-β₁^t).

    optax's, with decay on the masked parameters alone. The rate stays out of the denominator of d (the authors'
    `safeguard_warmup`), since a warm-up starts from 0; a step of no gradient at all, which leaves d undefined, does
    nothing. Mishchenko & Defazio 2023, arXiv 2306.06101. With parameter groups, every group has its own d.
    """
    inner = optax.contrib.prodigy(learning_rate, (b1, b2), eps=eps, estim_lr0=initial, safeguard_warmup=True)

    def update(gradients: Any, state: ProdigyState, params: Any) -> tuple[Any, ProdigyState]:
        first = state.count == 0  # the state knows nothing of d_0 before
        state = state._replace(estim_lr=jnp.where(first, initial, state.estim_lr).astype(state.estim_lr.dtype))
        updates, new = inner.update(gradients, state, params)
        count = new.count
        rate = learning_rate * state.estim_lr * jnp.sqrt(1 - b2**count) / (1 - b1**count)
        updates = jax.tree.map(lambda u, p, decays: u - rate * weight_decay * decays * p, updates, params,
                               decaying(mask, params))
        defined = jnp.isfinite(new.estim_lr)
        return (jax.tree.map(lambda u: jnp.where(defined, u, 0), updates),
                jax.tree.map(lambda after, before: jnp.where(defined, after, before), new, state))

    return optax.with_extra_args_support(optax.GradientTransformation(inner.init, update))
