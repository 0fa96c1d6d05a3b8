"""Diagnostics of one run at an evaluation, all from its state: nothing is kept from step to step.

B windows, S sequence, N = B × S tokens, V vocabulary, G groups of held-out windows or batch × heads, E head width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from scaling.config import Run
from scaling.data.batches import Tokens
from scaling.decompositions import singular_values
from scaling.models.attention import Attention
from scaling.training.losses import DATA_AXIS
from scaling.training.state import Hyperparameters, Tables, TrainState, initial_state
from scaling.training.step import draw, step_gradients, updated
from scaling.training.updating import Step


def by_path(tree: Any) -> dict[str, Array]:
    """Leaves by path, such as block_0/attention/query/kernel."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def diagnosed(
    program: Run, vocabulary: int, data_shards: int, hyper: Hyperparameters, following: Tables, tokens: Tokens,
    held_out_KxMxT: Array | None, state: TrainState,
) -> dict[str, Array]:
    """Diagnostics of the parameters, by name. `following`: the table row of the step that follows.

    An online mixer that looks at held-out losses before that step is taken as it stands, before the look.
    """
    assert program.diagnostics is not None
    values: dict[str, Array] = {}
    if program.diagnostics.layers:
        drawn = draw(program, data_shards, hyper, following, tokens, state)
        step = Step(program, vocabulary, data_shards, hyper, following, drawn, held_out_KxMxT, state)
        found = step_gradients(step)
        update = jax.tree.map(jnp.subtract, updated(step, found).params, state.params)
        start = initial_state(program, vocabulary, hyper.seed).params
        values |= layer_values(state.params, start, found.gradient, update)
    return values | spectra(state.params, program.diagnostics.spectra)


def layer_values(params: Any, start: Any, gradient: Any, update: Any) -> dict[str, Array]:
    """Of each parameter p, with Frobenius norms; NaN where p, or its start, is 0 and the quantity has no meaning.

    gradient_norm: ‖g‖ of the objective, before clipping. update_norm: ‖Δp‖ as applied, decay included.
    effective_rate: ‖Δp‖ / ‖p‖; for a scale-invariant layer whose update is orthogonal to it, the tangent of the angle
    that it turns. rotation: 1 - cos(p, p_0) (Carbonnelle & De Vleeschouwer 2018, arXiv 1806.01603), p_0 the
    initialisation that the run's own seed gives: a branch's is that of its trunk where both have one seed. Written as
    ½ ‖p/‖p‖ - p_0/‖p_0‖‖², which is 0 at the start and keeps its digits near it.
    """
    starts, gradients, updates = by_path(start), by_path(gradient), by_path(update)
    values = {}
    for path, p in by_path(params).items():
        norm, start_norm = _norm(p), _norm(starts[path])
        change = _norm(updates[path])
        values[f"gradient_norm.{path}"] = _norm(gradients[path])
        values[f"update_norm.{path}"] = change
        values[f"effective_rate.{path}"] = jnp.where(norm > 0, change / norm, jnp.nan)
        turned = jnp.sum(jnp.square(p / norm - starts[path] / start_norm)) / 2
        values[f"rotation.{path}"] = jnp.where((norm > 0) & (start_norm > 0), turned, jnp.nan)
    return values


def _norm(x: Array) -> Array:
    return jnp.sqrt(jnp.sum(jnp.square(x)))


def spectra(params: Any, count: int) -> dict[str, Array]:
    """The `count` largest singular values of every matrix, or as many as it has, singular_value_1 the largest."""
    if count == 0:
        return {}
    matrices = {path: p for path, p in by_path(params).items() if p.ndim == 2}
    values = {path: singular_values(p)[:count] for path, p in matrices.items()}
    return {f"singular_value_{i + 1}.{path}": s for path, values_I in values.items() for i, s in enumerate(values_I)}


class Seen(NamedTuple):
    """What passes through the model on the way to the losses of some windows."""

    maxima: dict[str, Array]
    log_z: Array  # sum over targets that count
    targets: Array  # how many count


class _Watch:
    """An interceptor of Flax methods: notes maxima by module, changes nothing."""

    def __init__(self) -> None:
        self.maxima: dict[str, Array] = {}
        self.logits_NxV: Any = None

    def __call__(self, method: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        output = method(*args, **kwargs)
        path = "/".join(context.module.path)
        if context.method_name == "attend" and isinstance(context.module, Attention):
            if context.module.kind == "softmax":
                self.maxima[f"attention_logit_max.{path}"] = largest_attention_logit(*args)
        elif context.method_name == "__call__" and not isinstance(args[0], int):  # which makes a kernel
            if path:
                self.maxima[f"activation_max.{path}"] = jnp.max(jnp.abs(output))
            else:
                self.logits_NxV = output
                self.maxima["logit_max"] = jnp.max(output)
        return output


def watched(losses: Callable[[], Array], counts_N: Array | None) -> tuple[Array, Seen]:
    """What `losses` returns, and what its one application of the model shows. `counts_N`: targets that count, None
    for all.

    activation_max: largest absolute output of a module. attention_logit_max: largest q · k / √E that the mask lets
    through, of all heads of softmax attention; logit_max: largest logit (Wortsman et al. 2023, arXiv 2309.14322).
    log Z is logsumexp of the logits.
    """
    watch = _Watch()
    with nn.intercept_methods(watch):
        losses_B = losses()
    log_z_N = jax.nn.logsumexp(watch.logits_NxV, axis=-1)
    counts_N = jnp.ones(log_z_N.shape, bool) if counts_N is None else counts_N
    maxima = {name: value.astype(log_z_N.dtype) for name, value in watch.maxima.items()}
    return losses_B, Seen(maxima, jnp.sum(jnp.where(counts_N, log_z_N, 0)), jnp.sum(counts_N, dtype=log_z_N.dtype))


def largest_attention_logit(q_GxSxE: Array, k_GxSxE: Array, v_GxSxE: Array, begins_GxS: Array | None) -> Array:
    """Largest q · k / √E over keys up to the query, from its document's begin on; one of G at a time, to save memory.
    """
    del v_GxSxE
    positions, head_width = q_GxSxE.shape[1:]
    index_S = jnp.arange(positions)

    def one(rows: tuple[Array, Array, Array]) -> Array:
        q_SxE, k_SxE, begins_S = rows
        seen_SxS = (index_S[None, :] <= index_S[:, None]) & (index_S[None, :] >= begins_S[:, None])
        return jnp.max(jnp.where(seen_SxS, q_SxE @ k_SxE.T, -jnp.inf))

    begins_GxS = jnp.zeros(q_GxSxE.shape[:2], jnp.int32) if begins_GxS is None else begins_GxS
    return jnp.max(lax.map(one, (q_GxSxE * head_width**-0.5, k_GxSxE, begins_GxS)))


def seen_values(seen_G: Seen) -> dict[str, Array]:
    """One value a name, from those of all groups of windows and devices that share a run."""
    maxima = {name: lax.pmax(jnp.max(value_G), DATA_AXIS) for name, value_G in seen_G.maxima.items()}
    log_z, targets = (lax.psum(jnp.sum(value_G), DATA_AXIS) for value_G in (seen_G.log_z, seen_G.targets))
    return {**maxima, "log_z_mean": log_z / targets}
