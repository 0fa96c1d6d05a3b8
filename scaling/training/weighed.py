"""Gradients of a training loss that weighs domains or windows: online mixers, scalarisation, reweighting by loss.

B windows of a device's part of a batch, S sequence length, N = B × S, K domains. Everything here looks at the whole
batch: sums over domains go over the devices that share a run.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from scaling.config import Run
from scaling.data.mixers.mixer import Mixer, Observation
from scaling.data.reweighting import example_weights
from scaling.optimizers.build import evaluation_params
from scaling.training.losses import DATA_AXIS, token_losses
from scaling.training.mixing import MixingState, mixer_of
from scaling.training.state import Hyperparameters, TrainState, model_of
from scaling.training.updating import Step, optimizer_updates


class Weighed(NamedTuple):
    """What one step's weighing gives: gradient, plain cross-entropy of the batch, the mixer's state after the step."""

    gradient: Any
    loss: Array
    mixing: Any
    weights_K: Array | None  # as they acted


def weighed_gradients(step: Step) -> Weighed:
    """The gradient of the program's weighed objective; see `scaling.weighing` for what it weighs."""
    if step.program.mixer is None:
        (_, (loss_B, _)), gradient = _value_and_grad(step, step.state.params, None)
        return Weighed(gradient, jnp.mean(loss_B), step.state.mixing, None)
    mixer, mixing = mixer_of(step.program, step.hyper.mixing), step.state.mixing
    ways = {"gradients": _by_domain, "bilevel": _bilevel, "excess": _excess}
    weighed = ways.get(mixer.sees, _sampled)(step, mixer)
    counted = weighed.mixing._replace(drawn_K=mixing.drawn_K + step.batch.counts_K,
                                      weight_sum_K=mixing.weight_sum_K + weighed.weights_K)
    return weighed._replace(mixing=counted)


def observed(program: Run, vocabulary: int, hyper: Hyperparameters, held_out_KxMxT: Array, state: TrainState
             ) -> TrainState:
    """The state after its mixer has looked at the losses of its held-out windows."""
    mixer = mixer_of(program, hyper.mixing)
    params = evaluation_params(state.optimizer, state.params)
    losses_K = lax.map(lambda tokens_MxT: jnp.mean(_window_losses(program, vocabulary, params, tokens_MxT)[0]),
                       held_out_KxMxT)
    seen = Observation(losses_K, jnp.ones_like(losses_K, jnp.int32), state.step, jnp.full((), jnp.nan, losses_K.dtype))
    updated = mixer.update(state.mixing.mixer, seen)
    sound = state.diverged_at < 0
    kept = jax.tree.map(lambda new, old: jnp.where(sound, new, old), updated, state.mixing.mixer)
    return state._replace(mixing=state.mixing._replace(mixer=kept))


def _window_losses(program: Run, vocabulary: int, params: Any, tokens_BxT: Array) -> tuple[Array, Array]:
    """Cross-entropy and log² Z of every token, both [B, S]."""
    logits_NxV: Any = model_of(program, vocabulary).apply({"params": params}, tokens_BxT[:, :-1])
    loss_N, log_z_N = token_losses(logits_NxV, tokens_BxT[:, 1:].reshape(-1))
    shape = (len(tokens_BxT), -1)
    return loss_N.reshape(shape), jnp.square(log_z_N).reshape(shape)


def _domain_means(step: Step, values_B: Array) -> Array:
    """Mean of a value over a domain's windows of the whole batch, [K]; 0 for a domain without any."""
    counts_K = step.batch.counts_K
    sum_K = (step.batch.domain_B[None, :] == jnp.arange(len(counts_K))[:, None]).astype(values_B.dtype) @ values_B
    if step.data_shards > 1:
        sum_K = lax.psum(sum_K, DATA_AXIS)
    return sum_K / jnp.maximum(counts_K, 1)


def _coefficients(step: Step, weights_K: Array | None, loss_B: Array) -> Array:
    """What each window's loss is multiplied by in the objective, [B]: 1 / batch, or w_k / windows of its domain (over
    the domains that the batch has), times the objective's weights.
    """
    batch, objective = step.batch, step.hyper.objective
    if weights_K is None:
        coefficient_B = jnp.full_like(loss_B, 1 / step.program.data.batch)
    else:
        present_K = jnp.where(batch.counts_K > 0, weights_K, 0)
        coefficient_B = (present_K / (jnp.maximum(batch.counts_K, 1) * jnp.sum(present_K)))[batch.domain_B]
    if step.program.objective is not None:
        coefficient_B *= objective.domain_weights_K[batch.domain_B]
        if step.program.objective.reweighting != "none":
            coefficient_B *= jnp.where(step.state.step >= objective.uniform_for, _by_loss(step, loss_B), 1)
    return lax.stop_gradient(coefficient_B)


def _by_loss(step: Step, loss_B: Array) -> Array:
    """Weights by loss within the whole batch, of this device's windows."""
    assert step.program.objective is not None
    name, temperature = step.program.objective.reweighting, step.hyper.objective.temperature
    if step.data_shards == 1:
        return example_weights(name, loss_B, temperature)
    all_DxB = lax.all_gather(loss_B, DATA_AXIS)
    weights_DxB = example_weights(name, all_DxB.reshape(-1), temperature).reshape(all_DxB.shape)
    return weights_DxB[lax.axis_index(DATA_AXIS)]


def _value_and_grad(step: Step, params: Any, weights: Any) -> Any:
    """((objective, (loss_B, extra)), gradient). `weights`: None, shares of the loss [K], or a function from the token
    losses [B, S] to (shares of the loss, extra), called without gradient.

    The objective of a device is scaled so that the mean over devices is that of the batch.
    """
    def objective(params: Any) -> tuple[Array, tuple[Array, Any]]:
        loss_BxS, z_BxS = _window_losses(step.program, step.vocabulary, params, step.batch.tokens_BxT)
        loss_B = jnp.mean(loss_BxS, axis=1)
        found = weights(lax.stop_gradient(loss_BxS)) if callable(weights) else (weights, None)
        coefficient_B = _coefficients(step, found[0], lax.stop_gradient(loss_B))
        total = jnp.sum(coefficient_B * (loss_B + step.hyper.z_loss * jnp.mean(z_BxS, axis=1)))
        return step.data_shards * total, (loss_B, found[1])

    return jax.value_and_grad(objective, has_aux=True)(params)


def _update(step: Step, mixer: Mixer, seen: Array) -> MixingState:
    mixing = step.state.mixing
    observation = Observation(seen, step.batch.counts_K, step.state.step, step.at.learning_rate_C)
    return mixing._replace(mixer=mixer.update(mixing.mixer, observation))


def _sampled(step: Step, mixer: Mixer) -> Weighed:
    """The mixer has chosen the batch; it looks at training losses afterwards, or at held-out ones at another time."""
    (_, (loss_B, _)), gradient = _value_and_grad(step, step.state.params, None)
    mixing = step.state.mixing
    weights_K = mixer.weights(mixing.mixer, step.state.step)
    if mixer.sees == "losses":
        mixing = _update(step, mixer, _domain_means(step, loss_B))
    return Weighed(gradient, jnp.mean(loss_B), mixing, weights_K)


def _excess(step: Step, mixer: Mixer) -> Weighed:
    """Group DRO against a reference: the batch's excess losses move the weights first, which then weigh its losses."""
    batch = step.batch
    reference_BxS, _ = _window_losses(step.program, step.vocabulary, step.state.mixing.companion, batch.tokens_BxT)

    def weigh(loss_BxS: Array) -> tuple[Array, tuple[MixingState, Array]]:
        excess_B = jnp.mean(jnp.maximum(loss_BxS - reference_BxS, 0), axis=1)
        mixing = _update(step, mixer, _domain_means(step, excess_B))
        weights_K = mixer.weights(mixing.mixer, step.state.step)
        return weights_K, (mixing, weights_K)

    (_, (loss_B, (mixing, weights_K))), gradient = _value_and_grad(step, step.state.params, weigh)
    return Weighed(gradient, jnp.mean(loss_B), mixing, weights_K)


def _by_domain(step: Step, mixer: Mixer) -> Weighed:
    """A gradient a domain, each clipped to norm 1; their products move the weights, which then add them up."""
    domains = len(step.batch.counts_K)
    tokens_KxBxT = step.batch.tokens_BxT.reshape(domains, -1, step.batch.tokens_BxT.shape[-1])

    def one(tokens_BxT: Array) -> tuple[Any, Array]:
        def objective(params: Any) -> tuple[Array, Array]:
            loss_BxS, z_BxS = _window_losses(step.program, step.vocabulary, params, tokens_BxT)
            return jnp.mean(loss_BxS) + step.hyper.z_loss * jnp.mean(z_BxS), jnp.mean(loss_BxS)

        gradient, loss = jax.grad(objective, has_aux=True)(step.state.params)
        scale = 1 / jnp.maximum(optax.tree.norm(gradient), 1)
        return jax.tree.map(lambda leaf: leaf * scale, gradient), loss

    gradient_K, loss_K = lax.map(one, tokens_KxBxT)
    products_KxK = sum(flat @ flat.T for flat in
                       (leaf.reshape(domains, -1) for leaf in jax.tree.leaves(gradient_K)))
    mixing = _update(step, mixer, products_KxK)
    weights_K = mixer.weights(mixing.mixer, step.state.step)
    gradient = jax.tree.map(lambda leaf: jnp.tensordot(weights_K, leaf, axes=1), gradient_K)
    return Weighed(gradient, jnp.mean(loss_K), mixing, weights_K)


def _bilevel(step: Step, mixer: Mixer) -> Weighed:
    """First-order bilevel reweighting (2406.19976): the model descends held-out loss + α weighed training loss, its
    companion the weighed training loss alone, on the same batch; the weights follow the difference of the two.
    """
    params, optimizer = step.state.mixing.companion
    weights_K = mixer.weights(step.state.mixing.mixer, step.state.step)
    (_, (loss_B, _)), inner = _value_and_grad(step, step.state.params, weights_K)
    (_, (companion_B, _)), descent = _value_and_grad(step, params, weights_K)
    if step.data_shards > 1:
        descent = lax.pmean(descent, DATA_AXIS)
    updates, optimizer = optimizer_updates(step, descent, optimizer, params)
    outer = jax.grad(lambda p: jnp.mean(_window_losses(step.program, step.vocabulary, p, _held_out_batch(step))[0]))(
        step.state.params)
    penalty = step.hyper.mixing.values.penalty
    gradient = jax.tree.map(lambda a, b: a + penalty * b, outer, inner)
    seen_2xK = jnp.stack([_domain_means(step, loss_B), _domain_means(step, companion_B)])
    mixing = _update(step, mixer, seen_2xK)._replace(companion=(optax.apply_updates(params, updates), optimizer))
    return Weighed(gradient, jnp.mean(loss_B), mixing, weights_K)


def _held_out_batch(step: Step) -> Array:
    """The next held-out windows, as many a domain as a batch has on average; round and round."""
    assert step.held_out_KxMxT is not None
    domains, windows, length = step.held_out_KxMxT.shape
    count = max(1, step.program.data.batch // domains)
    index_M = (step.state.step * count + jnp.arange(count)) % windows
    return step.held_out_KxMxT[:, index_M].reshape(-1, length).astype(jnp.int32)
