"""Bilevel reweighting: weights of the training loss under which held-out loss is least. K domains."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, nn

from scaling.data.mixers.mixer import Mixer, MixerValues, Observation


def bilevel(values: MixerValues) -> Mixer:
    """λ ← λ - η α ∂/∂λ [L(w, λ) - L(u, λ)], L(·, λ) = Σ_k softmax(λ)_k ℓ_k(·), with rate η and penalty α.

    u, the companion, descends the training loss L alone; the model w descends held-out loss + α L. With
    d_k = ℓ_k(w) - ℓ_k(u) the gradient is α p_k (d_k - Σ_j p_j d_j), p = softmax(λ): weight moves to the domains on
    which w, drawn by the held-out loss, does better than u. A λ under which training alone reaches the least held-out
    loss is at rest, whatever α, since then w = u. A domain that the batch lacks is left out of L: its λ stays.

    Source: Pan et al. 2024, arXiv 2406.19976 (ScaleBiO). The authors' code steps λ by AdamW, here plain descent.
    """
    start_K = jnp.asarray(values.start_K)

    def weights(logits_K: Array, step: Array) -> Array:
        return nn.softmax(logits_K)

    def update(logits_K: Array, observation: Observation) -> Array:
        present_K = observation.counts_K > 0
        gap_K = jnp.where(present_K, observation.seen[0] - observation.seen[1], 0)
        shares_K = nn.softmax(jnp.where(present_K, logits_K, -jnp.inf))
        gradient_K = values.penalty * shares_K * (gap_K - (shares_K * gap_K).sum())
        return logits_K - values.rate * gradient_K

    return Mixer("bilevel", "loss", lambda: jnp.log(start_K), weights, update)
