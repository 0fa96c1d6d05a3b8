"""Aioli: sampling shares from a linear law of held-out losses, measured by short probes in every round. K domains."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax, nn

from scaling.data.mixers.mixer import Mixer, MixerValues, Observation

PROBES = 2  # purpose folded into a run's seed


class AioliState(NamedTuple):
    logs_K: Array  # logarithms of the mixture's shares
    losses_K: Array  # held-out, as last measured, nats/token
    drops_KxK: Array  # of the held-out loss of j (column) while probing domain i (row), summed over this round


def probe_steps(domains: int, interval: int, passes: int) -> int:
    """Steps at the head of each round that go to probes."""
    return domains * interval * passes


def aioli(values: MixerValues, every: int, interval: int, passes: int) -> Mixer:
    """p_j ∝ p_j^memory · exp(η Σ_i A_ij), A_ij the drop of i's held-out loss a share of j brings, found in each round.

    A round of `every` steps opens with `passes` sweeps over the domains, each in its own random order. A probe trains
    `interval` steps on share `own` of one domain and (1 - own) / (K - 1) of each other; the drops of the held-out
    losses, averaged over sweeps, are B. Then C Aᵀ = Bᵀ for the mixtures C of the probes, so Aᵀ = (Bᵀ - b 1 1ᵀ Bᵀ) /
    (own - b), b = (1 - own) / (K - 1); with own = 1 / K all probes are one, and p is NaN. A is lowered by its least
    entry if that is negative and divided by its sum, and the rest of the round trains on p. Probes visit every domain,
    also those whose share is 0. `own` is 0.75 in several of the authors' scripts; with 1, A = B.

    memory = 1 is the paper's update. 0 forgets the mixture: p ∝ exp(η Σ_i A_ij) from the uniform one. Between, effects
    of m rounds ago count memory^m: the authors' `ema` averages A by (1 - ema) A + ema A_before and starts from uniform,
    which is memory = ema with rate η (1 - ema), except that theirs gives the first round's A full weight.

    Source: Chen et al. 2024, arXiv 2411.05735, Algorithm 1, and the authors' code.
    """
    start_K = jnp.asarray(values.start_K)
    domains = len(start_K)
    others = (1 - values.own) / (domains - 1)

    def probed(step: Array, probe: Array) -> Array:
        key = jax.random.fold_in(jax.random.key(values.seed), PROBES)
        key = jax.random.fold_in(jax.random.fold_in(key, step // every), probe // domains)
        return jax.random.permutation(key, domains)[probe % domains]

    def init() -> AioliState:
        return AioliState(jnp.log(start_K), jnp.zeros_like(start_K), jnp.zeros((domains, domains), start_K.dtype))

    def weights(state: AioliState, step: Array) -> Array:
        within = step % every
        shares_K = jnp.where(jnp.arange(domains) == probed(step, within // interval), values.own, others)
        probing = within < probe_steps(domains, interval, passes)
        return jnp.where(probing, shares_K, nn.softmax(state.logs_K))

    def mixed(state: AioliState) -> AioliState:
        gain_K = normalized(effects(state.drops_KxK / passes, values.own)).sum(axis=1)
        kept_K = jnp.where(start_K > 0, values.memory * state.logs_K, -jnp.inf)
        return state._replace(logs_K=nn.log_softmax(kept_K + values.rate * gain_K))

    def update(state: AioliState, observation: Observation) -> AioliState:
        within = observation.step % every
        row = probed(observation.step, within // interval - 1)
        drops_KxK = state.drops_KxK.at[row].add(state.losses_K - observation.seen)
        drops_KxK = jnp.where(within == 0, 0, drops_KxK)
        state = AioliState(state.logs_K, observation.seen, drops_KxK)
        return lax.cond(within == probe_steps(domains, interval, passes), mixed, lambda state: state, state)

    return Mixer("held_out", "sampling", init, weights, update)


def effects(drops_KxK: Array, own: Array) -> Array:
    """Aᵀ, from the drop of each loss (column) in each domain's probe (row), the other domains sharing 1 - own."""
    others = (1 - own) / (len(drops_KxK) - 1)
    return (drops_KxK - others * drops_KxK.sum(axis=0, keepdims=True)) / (own - others)


def normalized(effects_KxK: Array) -> Array:
    """Effects shifted so that the least is not negative, over their sum; zeros where that leaves nothing."""
    positive_KxK = effects_KxK - jnp.minimum(effects_KxK.min(), 0)
    total = positive_KxK.sum()
    return positive_KxK / jnp.where(total > 0, total, 1)
