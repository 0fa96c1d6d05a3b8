"""Online data mixing: sampling shares of a bandit that is paid by loss, as published and as released. K domains."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, nn

from scaling.data.mixers.mixer import Mixer, MixerValues, Observation


def _explored(chosen_K: Array, allowed_K: Array, turn: Array) -> Array:
    """(1 - K ε) chosen + ε, ε at a turn counted from 1, over the K domains that are allowed."""
    return chosen_K + _exploration(allowed_K, turn) * (allowed_K - allowed_K.sum() * chosen_K)


def _exploration(allowed_K: Array, turn: Array) -> Array:
    """ε_t = min(1 / K, √(ln K / (K t))); 1 / K before the first turn."""
    count = allowed_K.sum()
    return jnp.minimum(1 / count, jnp.sqrt(jnp.log(count) / (count * jnp.maximum(turn, 1))))


def odm(values: MixerValues) -> Mixer:
    """π_t = (1 - K ε_t) softmax(ε_{t-1} R) + ε_t, and R_k ← α R_k + (1 - α) ℓ_k / π_k for a domain in the batch.

    α is `memory`, ε_t = min(1 / K, √(ln K / (K t))), t = 1 at the first step, R_k = 0 before domain k is seen. Until
    any is, the shares are those at the start; domains that start with none are left out of K. ℓ_k / π_k is unbiased
    where a step draws one domain; in a batch of all domains it favours those of small share. Loss is the reward, so
    domains that stay hard keep their share whether or not training on them helps.

    Source: Albalak et al. 2023, arXiv 2312.02406, Algorithm 1. The paper warms up on the natural mixture for 1 % of
    the steps; here that is the first step.
    """
    start_K = jnp.asarray(values.start_K)
    allowed_K = (start_K > 0).astype(start_K.dtype)

    def weights(reward_K: Array, step: Array) -> Array:
        logits_K = jnp.where(allowed_K > 0, _exploration(allowed_K, step) * reward_K, -jnp.inf)
        return jnp.where(jnp.any(reward_K > 0), _explored(nn.softmax(logits_K), allowed_K, step + 1), start_K)

    def update(reward_K: Array, observation: Observation) -> Array:
        paid_K = observation.seen / weights(reward_K, observation.step)
        return _averaged(values, reward_K, observation, paid_K)

    return Mixer("losses", "sampling", lambda: jnp.zeros_like(start_K), weights, update)


def odm_released(values: MixerValues) -> Mixer:
    """π_t = (1 - K ε_t) R / Σ R + ε_t, and R_k ← α R_k + (1 - α) exp(ℓ_k) for a domain in the batch.

    The rule of the authors' code: the reward is perplexity without importance weights, the shares are linear in it,
    and t counts updates, so that the first update still gives the uniform mixture. Else as `odm`.

    Source: the `group_update` of the authors' code for Albalak et al. 2023, arXiv 2312.02406.
    """
    start_K = jnp.asarray(values.start_K)
    allowed_K = (start_K > 0).astype(start_K.dtype)

    def weights(reward_K: Array, step: Array) -> Array:
        known_K = allowed_K * reward_K
        total = known_K.sum()
        chosen_K = known_K / jnp.where(total > 0, total, 1)
        return jnp.where(total > 0, _explored(chosen_K, allowed_K, step), start_K)

    def update(reward_K: Array, observation: Observation) -> Array:
        return _averaged(values, reward_K, observation, jnp.exp(observation.seen))

    return Mixer("losses", "sampling", lambda: jnp.zeros_like(start_K), weights, update)


def _averaged(values: MixerValues, reward_K: Array, observation: Observation, paid_K: Array) -> Array:
    average_K = values.memory * reward_K + (1 - values.memory) * paid_K
    return jnp.where(observation.counts_K > 0, average_K, reward_K)
