"""Weights of a batch's windows by their own losses. B windows of the global batch."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from scaling.fields import check_key

SMALLEST_RANGE = 1e-6  # nats/token: losses nearer to each other are not spread over all of [-1, 1]

_STRATEGIES: dict[str, Callable[[Array], Array]] = {
    "lin_upper": lambda h_B: jnp.minimum(h_B + 1, 1),
    "quadratic": lambda h_B: 1 - h_B**2,
    "extremes": jnp.abs,
    "upper": lambda h_B: (h_B + 1) / 2,
}


def example_weights(name: str, loss_B: Array, temperature: Array | float) -> Array:
    """Weight of each window in the training loss mean_b w_b ℓ_b: float [B], mean 1, no gradient through it.

    w = B softmax(f(h) / r), where h = (2ℓ - max ℓ - min ℓ) / max(max ℓ - min ℓ, 1e-6) lies in [-1, 1]; equal losses
    give equal weights. f by name:

      lin_upper  min(h + 1, 1)   rises over the lower half of the range, then level
      quadratic  1 - h²          most in the middle, least at both ends, outliers among them
      extremes   |h|             least in the middle, most at both ends
      upper      (h + 1) / 2     rises over the whole range
      none       0               weights are exactly 1

    Args:
      name: one of `scaling.weighing.REWEIGHTINGS`.
      loss_B: mean loss of each window of the *global* batch, nats/token; a part of a batch has another range. A loss
        that is not finite makes all weights NaN, so that the step is refused.
      temperature: r > 0, may be traced; the larger, the nearer to uniform. Not read by `none`.

    Raises:
      ConfigError: an unknown name.

    Source: Sow et al. 2025, Dynamic loss-based sample reweighting for improved LLM pretraining, arXiv 2502.06733,
    with δ = 1 (their code calls `quadratic` "mid"). Their weights sum to 1; ours to B, as in their code for small
    models, so that the gradient keeps the size it has without reweighting.
    """
    check_key(name, ("none", *_STRATEGIES), "reweighting")
    if name == "none":
        return jnp.ones_like(loss_B)
    high, low = jnp.max(loss_B), jnp.min(loss_B)
    h_B = ((loss_B - low) - (high - loss_B)) / jnp.maximum(high - low, SMALLEST_RANGE)
    return jax.lax.stop_gradient(loss_B.size * jax.nn.softmax(_STRATEGIES[name](h_B) / temperature))
