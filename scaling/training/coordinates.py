"""The coordinate check: how far activations move in a run's first steps (Yang et al. 2022, arXiv 2203.03466, App. D).

B windows, S sequence, N = B × S tokens, G = B × heads, E head width, T steps, R runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from scaling.config import Run
from scaling.data.batches import Tokens
from scaling.training.state import Hyperparameters, Tables, TrainState, initial_state, model_of
from scaling.training.step import train_step

LOGITS, SCORES = "logits", "scores"


def activations(program: Run, vocabulary: int, params: Any, tokens_BxS: Array) -> dict[str, Array]:
    """Outputs of the embedding, of every block and its two sublayers, and the logits, by module, such as
    block_0/attention; block_0/attention/scores are q · k / √E as they act, 0 where the mask hides the key.
    """
    found: dict[str, Array] = {}

    def note(method: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        output, path = method(*args, **kwargs), "/".join(context.module.path)
        if context.method_name == "attend":
            q_GxSxE, k_GxSxE, *_ = args
            scores_GxSxS = jnp.einsum("gqe,gke->gqk", q_GxSxE, k_GxSxE) * q_GxSxE.shape[-1] ** -0.5
            found[f"{path}/{SCORES}"] = jnp.tril(scores_GxSxS)
        elif context.method_name == "__call__" and isinstance(args[0], jax.Array) and not path.endswith("norm"):
            found[path or LOGITS] = output  # a kernel is called with a number
        return output

    with nn.intercept_methods(note):
        model_of(program, vocabulary).apply({"params": params}, tokens_BxS)
    return found


def activation_changes(
    program: Run, vocabulary: int, hyper: Hyperparameters, tables: Tables, tokens: Tokens, probe_BxS: Array,
) -> dict[str, Array]:
    """mean |h_t - h_0| of each activation h on the probe after updates t = 1 .. T, float[T], T the rows of `tables`.

    NaN from the update on that a run refuses, since it has diverged.
    """
    state = initial_state(program, vocabulary, hyper.seed)
    start = activations(program, vocabulary, state.params, probe_BxS)

    def step(state: TrainState, at: Tables) -> tuple[TrainState, dict[str, Array]]:
        state = train_step(program, vocabulary, 1, hyper, at, tokens, None, state)
        now = activations(program, vocabulary, state.params, probe_BxS)
        moved = jax.tree.map(lambda h, h0: jnp.mean(jnp.abs(h - h0)), now, start)
        return state, jax.tree.map(lambda change: jnp.where(state.diverged_at < 0, change, jnp.nan), moved)

    return lax.scan(step, state, tables)[1]
