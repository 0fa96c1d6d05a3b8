"""Settings of mixers, mixers driven by hand-written observations, and a world whose losses obey the linear law."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling.data.mixers.mixer import Mixer, MixerValues, Observation


def values(start: Any, **given: Any) -> MixerValues:
    """Settings in the default precision; NaN where not given, so that a mixer that reads another's setting is seen."""
    start_K = np.asarray(start, jax.dtypes.canonicalize_dtype(float))
    nothing = start_K.dtype.type(np.nan)
    pairs_KxK = np.asarray(given.pop("pairs", np.full((len(start_K), len(start_K)), np.nan)), start_K.dtype)
    seed = np.int32(given.pop("seed", 0))
    settings = dict.fromkeys(("rate", "smoothing", "memory", "own", "penalty"), nothing)
    settings |= {name: start_K.dtype.type(value) for name, value in given.items()}
    return MixerValues(start_K=start_K, pairs_KxK=pairs_KxK, seed=seed, **settings)


def observation(seen: Any, step: int = 0, counts: Any = None, learning_rate: float = np.nan) -> Observation:
    """What one update sees; every domain present unless `counts` says otherwise."""
    seen = jnp.asarray(seen, jax.dtypes.canonicalize_dtype(float))
    counts_K = jnp.ones(seen.shape[-1], jnp.int32) if counts is None else jnp.asarray(counts, jnp.int32)
    return Observation(seen, counts_K, jnp.int32(step), jnp.asarray(learning_rate, seen.dtype))


def drive(mixer: Mixer, observations: Collection[Observation]) -> np.ndarray:
    """Shares after each update, at the step that follows it."""
    state, shares = mixer.init(), []
    for seen in observations:
        state = jax.jit(mixer.update)(state, seen)
        shares.append(np.asarray(mixer.weights(state, seen.step + 1)))
    return np.array(shares)


def simulate(
    mixer: Mixer, effects_KxK: Any, losses_K: Any, steps: int, observed: Collection[int] = (),
    reference_K: Any = None, learning_rate: float = np.nan,
) -> tuple[Any, jax.Array, jax.Array]:
    """A run where a step on shares p lowers the losses by A p: (last state, losses at the end, shares of each step).

    Losses are those of the batch and of the held-out windows alike. Gradients are such that their products are A,
    which must then be symmetric.
    """
    effects_KxK, losses_K = jnp.asarray(effects_KxK), jnp.asarray(losses_K)
    observed_T = jnp.isin(jnp.arange(steps), jnp.asarray(sorted(observed), jnp.int32))

    def signal(losses_K: jax.Array) -> jax.Array:
        if mixer.sees == "excess":
            return jnp.maximum(losses_K - jnp.asarray(reference_K), 0)
        return effects_KxK if mixer.sees == "gradients" else losses_K

    def one(carry: Any, at: Any) -> Any:
        state, losses_K = carry
        step, measured = at
        seen = Observation(signal(losses_K), jnp.ones(len(losses_K), jnp.int32), step,
                           jnp.asarray(learning_rate, losses_K.dtype))
        before = mixer.sees in ("held_out", "excess")
        now = measured if mixer.sees == "held_out" else True
        updated = jax.lax.cond(now, lambda: mixer.update(state, seen), lambda: state)
        shares_K = mixer.weights(updated if before else state, step)
        return (updated, losses_K - effects_KxK @ shares_K), shares_K

    steps_T = jnp.arange(steps, dtype=jnp.int32)
    (state, losses_K), shares_TxK = jax.lax.scan(one, (mixer.init(), losses_K), (steps_T, observed_T))
    return state, losses_K, shares_TxK
