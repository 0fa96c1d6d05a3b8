"""Skill-It: sampling shares from held-out losses and a graph of which domain teaches which. K domains, W rounds."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, nn

from scaling.data.mixers.mixer import Mixer, MixerValues, Observation


class SkillItState(NamedTuple):
    losses_WxK: Array  # newest last; zeros before the first
    measured: Array  # int32, 1 once a loss was seen


def skill_it(values: MixerValues, window: int) -> Mixer:
    """p ∝ start · exp(η A Σ ℓ) over the held-out losses ℓ of the last `window` rounds; ℓ = 1 until one is measured.

    A_ij, `pairs_KxK`, is the effect of training on domain i upon the loss of j. Each p starts again from the shares at
    the start, so a round is forgotten once it leaves the window.

    Source: Chen et al. 2023, arXiv 2307.14430, Algorithm 1. The authors' code reads losses one evaluation late, adds
    its evaluations rather than its rounds, and takes their mean where only some domains are targets.
    """
    start_K = jnp.asarray(values.start_K)

    def init() -> SkillItState:
        return SkillItState(jnp.zeros((window, len(start_K)), start_K.dtype), jnp.int32(0))

    def weights(state: SkillItState, step: Array) -> Array:
        losses_K = jnp.where(state.measured > 0, state.losses_WxK.sum(axis=0), 1)
        return nn.softmax(jnp.log(start_K) + values.rate * (jnp.asarray(values.pairs_KxK) @ losses_K))

    def update(state: SkillItState, observation: Observation) -> SkillItState:
        losses_WxK = jnp.concatenate([state.losses_WxK[1:], observation.seen[None]])
        return SkillItState(losses_WxK, jnp.int32(1))

    return Mixer("held_out", "sampling", init, weights, update)
