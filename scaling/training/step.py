"""The pure train step. B batch, S sequence, N = B × S tokens, V vocabulary, K domains, A microbatches."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from scaling.config import Run
from scaling.data.batches import Tokens, batch, packed_batch
from scaling.model import RUNNING_NORMS
from scaling.models.running import split
from scaling.training.losses import DATA_AXIS, Batch, accumulated, token_losses
from scaling.training.mixing import mixer_of, whole_windows
from scaling.training.packed import packed_gradients
from scaling.training.state import DATA, Hyperparameters, Tables, TrainState, counted_step, model_of
from scaling.training.updating import Step, optimizer_updates
from scaling.training.weighed import weighed_gradients

PART_BYTES, PART_WIDTHS = 2**17, 2  # hidden activations, tokens by widths, that a part on CPU holds at least: measured


def loss_fn(
    program: Run, vocabulary: int, axes: tuple[str, ...], params: Any, tokens_BxT: Array, z_loss: Array,
) -> tuple[Array, Array]:
    """(objective, cross-entropy), means over tokens; the objective adds z_loss · log²Z (2204.02311); T = S + 1."""
    logits_NxV: Any = model_of(program, vocabulary, axes).apply({"params": params}, tokens_BxT[:, :-1])
    loss_N, log_z_N = token_losses(logits_NxV, tokens_BxT[:, 1:].reshape(-1))
    loss = jnp.mean(loss_N)
    return loss + z_loss * jnp.mean(jnp.square(log_z_N)), loss


def microbatches(program: Run, data_shards: int, backend: str) -> int:
    """Into how many parts a device takes its share of a batch: as many as asked for, or on CPU more, as small as they
    may be, so that activations stay in its caches; below PART_WIDTHS tokens a width, adding up gradients costs more
    than that saves. The mean is the same, except for norms of batch statistics, which take as many as asked for.
    """
    asked = program.training.accumulation
    windows = program.data.batch // data_shards // asked
    if backend != "cpu" or program.model.norm in RUNNING_NORMS:
        return asked
    token_bytes = program.model.hidden * jnp.dtype(program.training.dtype).itemsize
    tokens = max(PART_BYTES / token_bytes, PART_WIDTHS * program.model.width)
    most = windows * program.data.sequence / tokens
    return asked * max([1, *(parts for parts in range(1, windows + 1) if windows % parts == 0 and parts <= most)])


def gradients(
    program: Run, vocabulary: int, axes: tuple[str, ...], params: Any, tokens_AxBxT: Array, z_loss: Array,
) -> tuple[Any, Array]:
    """Gradient of the objective and cross-entropy, averaged over A microbatches of equal size; `axes` of the mesh share
    the batch.
    """
    grad_fn = jax.grad(loss_fn, argnums=3, has_aux=True)
    sums = accumulated(lambda tokens_BxT: grad_fn(program, vocabulary, axes, params, tokens_BxT, z_loss),
                       (params, z_loss), tokens_AxBxT)
    return sums if len(tokens_AxBxT) == 1 else jax.tree.map(lambda x: x / len(tokens_AxBxT), sums)


def draw(
    program: Run, data_shards: int, hyper: Hyperparameters, at: Tables, tokens: Tokens, state: TrainState
) -> Batch:
    """This device's part of the next batch: as the tables say, or as a mixer that acts on sampling wants it."""
    drawn_K, counts_K = at.drawn_CxK, at.counts_CxK
    if program.mixer is not None:
        mixer = mixer_of(program, hyper.mixing)
        if mixer.acts_on == "sampling":
            drawn_K = state.mixing.drawn_K
            counts_K = whole_windows(mixer.weights(state.mixing.mixer, state.step), program.data.batch, state.step)
    slots_B = jnp.arange(program.data.batch // data_shards, dtype=jnp.int32)
    if data_shards > 1:
        slots_B = slots_B * data_shards + lax.axis_index(DATA_AXIS).astype(jnp.int32)
    key = jax.random.fold_in(jax.random.key(hyper.seed), DATA)
    where = (tokens, key, hyper.windows_K, drawn_K, counts_K, slots_B, program.data.sequence)
    tokens_BxT, segments_BxT = (batch(*where), None) if program.packing is None else packed_batch(*where)
    domain_B = jnp.sum(slots_B[:, None] >= jnp.cumsum(counts_K)[None, :], axis=1, dtype=jnp.int32)
    return Batch(tokens_BxT, domain_B, counts_K, segments_BxT)


class Gradients(NamedTuple):
    """Gradient and plain cross-entropy of a whole batch, the mixer's state after it, and what a program counts."""

    gradient: Any
    loss: Array
    mixing: Any
    counted: list[Array]


def step_gradients(step: Step) -> Gradients:
    """The gradient of the program's objective on a batch."""
    program, vocabulary, state, drawn = step.program, step.vocabulary, step.state, step.batch
    mixing = state.mixing
    counted: list[Array] = []
    parts = microbatches(program, step.data_shards, jax.default_backend())
    if drawn.segments_BxT is not None:
        grads, loss, *counted = packed_gradients(program, vocabulary, step.data_shards, parts, state.params,
                                                 drawn.tokens_BxT, drawn.segments_BxT, step.hyper.z_loss)
    elif program.mixer is None and program.objective is None:
        tokens_AxBxT = drawn.tokens_BxT.reshape(parts, -1, program.data.sequence + 1)
        axes = (DATA_AXIS,) if step.data_shards > 1 else ()
        grads, loss = gradients(program, vocabulary, axes, state.params, tokens_AxBxT, step.hyper.z_loss)
    else:
        grads, loss, mixing, _ = weighed_gradients(step)
    if step.data_shards > 1:
        grads, loss = lax.pmean((grads, loss), DATA_AXIS)
    return Gradients(grads, loss, mixing, counted)


def updated(step: Step, found: Gradients) -> TrainState:
    """One update; a refused loss or gradient marks the run and changes nothing else."""
    hyper, state, (grads, loss, mixing, counted) = step.hyper, step.state, found
    norm = optax.tree.norm(split(grads)[0])
    sound = jnp.isfinite(norm) & (loss <= hyper.diverged_above)
    updates, optimizer = optimizer_updates(step, grads, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    params, optimizer, mixing = jax.tree.map(lambda new, old: jnp.where(sound, new, old), (params, optimizer, mixing),
                                             (state.params, state.optimizer, state.mixing))
    metrics = jax.tree.map(lambda new, old: jnp.where(sound, new, old),
                           counted_step(state.metrics, loss, norm, *counted), state.metrics)
    return TrainState(params, optimizer, state.step + sound.astype(jnp.int32), jnp.where(sound, -1, state.step + 1),
                      metrics, mixing)


def train_step(
    program: Run, vocabulary: int, data_shards: int, hyper: Hyperparameters, at: Tables, tokens: Tokens,
    held_out_KxMxT: Array | None, state: TrainState,
) -> TrainState:
    """One update from one row of the tables."""
    drawn = draw(program, data_shards, hyper, at, tokens, state)
    step = Step(program, vocabulary, data_shards, hyper, at, drawn, held_out_KxMxT, state)
    return updated(step, step_gradients(step))
