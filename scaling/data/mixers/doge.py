"""DoGE: weights of the training loss from how far the domains' gradients agree. K domains."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, nn

from scaling.data.mixers.mixer import Mixer, MixerValues, Observation

MOST = 5.0  # a score is clipped to so many learning rates


def doge(values: MixerValues) -> Mixer:
    """log w ← log w + η s, s_i = clip(lr W_i / (mean_j ‖g_j‖ + 1e-6), 0, 5 lr), W_i = Σ_j pairs_ij ⟨g_i, g_j⟩.

    η = 1 / μ is `rate`, lr the learning rate of the step, `pairs_KxK` 1 where training on i is to serve j: 1 - I where
    the training domains are the target, ones in its column for another target. Every domain must be in the batch. A
    weight moves by at most 5 η lr a step: with a small learning rate hardly at all. The mixture to train a model on
    is the mean of w over the steps of this one.

    Source: Fan, Pagliardini and Jaggi 2023, arXiv 2310.15393, and the authors' code, which leaves i = j out.
    """
    start_K = jnp.asarray(values.start_K)

    def weights(logs_K: Array, step: Array) -> Array:
        return nn.softmax(logs_K)

    def update(logs_K: Array, observation: Observation) -> Array:
        products_KxK = observation.seen
        agreement_K = (jnp.asarray(values.pairs_KxK) * products_KxK).sum(axis=1)
        norm = jnp.sqrt(jnp.diagonal(products_KxK)).mean() + 1e-6
        score_K = observation.learning_rate * jnp.clip(agreement_K / norm, 0, MOST)
        return nn.log_softmax(logs_K + values.rate * score_K)

    return Mixer("gradients", "loss", lambda: jnp.log(start_K), weights, update)
