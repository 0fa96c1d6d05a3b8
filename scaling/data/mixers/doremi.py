"""DoReMi: group-distributionally robust weights of the training loss. K domains."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, nn

from scaling.data.mixers.mixer import Mixer, MixerValues, Observation


class DoReMiState(NamedTuple):
    shares_K: Array
    excess_K: Array  # as last seen, nats/token


def doremi(values: MixerValues) -> Mixer:
    """w ← (1 - c) softmax(log w + η λ) + c u, with rate η, smoothing c and λ_k the excess loss of domain k.

    λ_k is the mean over a domain's tokens of max(loss - reference loss, 0), as last seen where the batch holds none of
    it; u is uniform over the domains that start with a share, so that the others stay at 0. The mixture to train a
    model on is the mean of w over the steps of this one.

    Source: Xie et al. 2023, arXiv 2305.10429, Algorithm 1, and the authors' code, which have u over all domains.
    """
    start_K = jnp.asarray(values.start_K)
    uniform_K = (start_K > 0) / jnp.sum(start_K > 0, dtype=start_K.dtype)

    def init() -> DoReMiState:
        return DoReMiState(start_K, jnp.zeros_like(start_K))

    def weights(state: DoReMiState, step: Array) -> Array:
        return state.shares_K

    def update(state: DoReMiState, observation: Observation) -> DoReMiState:
        excess_K = jnp.where(observation.counts_K > 0, observation.seen, state.excess_K)
        shares_K = nn.softmax(jnp.log(state.shares_K) + values.rate * excess_K)
        return DoReMiState((1 - values.smoothing) * shares_K + values.smoothing * uniform_K, excess_K)

    return Mixer("excess", "loss", init, weights, update)
