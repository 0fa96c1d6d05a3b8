"""From a batch's gradient to the updates of parameters; and what sophia asks of the batch besides.

B windows of a device's part of a batch, S sequence length, T = S + 1, N = B × S, V vocabulary, A microbatches.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from scaling.config import Run
from scaling.data.packed import predicted
from scaling.models.positions import begins
from scaling.optimizers.build import build
from scaling.training.losses import DATA_AXIS, Batch, accumulated, token_losses
from scaling.training.state import CURVATURE, Hyperparameters, Tables, TrainState, model_of


class Step(NamedTuple):
    """All that one step goes by."""

    program: Run
    vocabulary: int
    data_shards: int
    hyper: Hyperparameters
    at: Tables
    batch: Batch
    held_out_KxMxT: Array | None
    state: TrainState


def optimizer_updates(step: Step, gradient: Any, optimizer: Any, params: Any) -> tuple[Any, Any]:
    """(updates to add to `params`, optimizer state) from the gradient of the whole batch."""
    spec = step.program.optimizer
    values = step.hyper.optimizer
    if spec.momentum_field is not None:
        values = values._replace(**{spec.momentum_field: step.at.momentum_C})
    method = build(spec, values, step.at.learning_rate_C, step.program.model)
    extra = {"diagonal": functools.partial(diagonal, step)} if spec.name == "sophia" else {}
    return method.update(gradient, optimizer, params, **extra)


def diagonal(step: Step, params: Any) -> Any:
    """An estimate of the diagonal of the batch's Hessian at `params`, by the optimizer's form.

    gauss_newton: N g ⊙ g, g the gradient of the mean cross-entropy of N targets sampled from the model itself.
    hutchinson: u ⊙ H u, u of random signs, H of the mean cross-entropy and z-loss. Both of the batch as drawn, whatever
    weights a mixer or an objective gives its losses. Liu et al. 2023, arXiv 2305.14342, who take a part of the batch.
    """
    batch, shards = step.batch, step.data_shards
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(step.hyper.seed), CURVATURE), step.state.step)
    slots_B = jnp.arange(len(batch.tokens_BxT))
    count = jnp.asarray(batch.tokens_BxT[:, 1:].size * shards, step.hyper.z_loss.dtype)
    if shards > 1:
        slots_B = slots_B * shards + lax.axis_index(DATA_AXIS)
    if batch.segments_BxT is not None:
        count = jnp.sum(predicted(batch.segments_BxT), dtype=count.dtype)
        count = jnp.maximum(lax.psum(count, DATA_AXIS) if shards > 1 else count, 1)
    keys_B = jax.vmap(functools.partial(jax.random.fold_in, key))(slots_B)  # so that devices do not matter
    windows_AxBxT = jax.tree.map(lambda x: x.reshape(step.program.training.accumulation, -1, *x.shape[1:]),
                                 (batch.tokens_BxT, batch.segments_BxT, keys_B))
    sampled = step.program.optimizer.form == "gauss_newton"

    def objective(params: Any, windows: Any) -> Array:
        return shards / count * jnp.sum(_losses(step, params, windows, sampled))

    if sampled:
        gradient = accumulated(lambda windows: jax.grad(objective)(params, windows), params, windows_AxBxT)
        gradient = lax.pmean(gradient, DATA_AXIS) if shards > 1 else gradient
        return jax.tree.map(lambda g: count * g**2, gradient)
    signs = optax.tree.random_like(key, params, jax.random.rademacher)

    def product(windows: Any) -> Any:
        return jax.grad(lambda params: optax.tree.vdot(jax.grad(objective)(params, windows), signs))(params)

    curved = accumulated(product, params, windows_AxBxT)
    curved = lax.pmean(curved, DATA_AXIS) if shards > 1 else curved
    return jax.tree.map(jnp.multiply, signs, curved)


def _losses(step: Step, params: Any, windows: Any, sampled: bool) -> Array:
    """Cross-entropy, [N]: of labels sampled from the model, or of the text, z-loss included; 0 where it does not count.
    """
    tokens_BxT, segments_BxT, keys_B = windows
    packing = step.program.packing
    begins_BxS = None
    if packing is not None and packing.attention == "document":
        begins_BxS = begins(jnp.abs(segments_BxT[:, :-1]))
    logits_NxV: Any = model_of(step.program, step.vocabulary).apply({"params": params}, tokens_BxT[:, :-1], begins_BxS)
    if sampled:
        logits_BxSxV = lax.stop_gradient(logits_NxV).reshape(len(tokens_BxT), -1, step.vocabulary)
        labels_N = jax.vmap(jax.random.categorical)(keys_B, logits_BxSxV).reshape(-1)
        loss_N = token_losses(logits_NxV, labels_N)[0]
    else:
        loss_N, log_z_N = token_losses(logits_NxV, tokens_BxT[:, 1:].reshape(-1))
        loss_N = loss_N + step.hyper.z_loss * jnp.square(log_z_N)
    return loss_N if packing is None else jnp.where(predicted(segments_BxT).reshape(-1), loss_N, 0)
