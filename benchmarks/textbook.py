"""The textbook way to train a small transformer, kept as the reference that the pack trainer is measured against.

[batch, position, width] activations, `nn.Dense`, `jax.nn.dot_product_attention`, one run at a time, one jitted and
donated step a call, batches from the host. Parameters carry the names of `scaling.models`: one tree serves both.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array

from scaling import config


class Attention(nn.Module):
    heads: int

    @nn.compact
    def __call__(self, x_BxSxD: Array) -> Array:
        width = x_BxSxD.shape[-1]
        shape = (*x_BxSxD.shape[:2], self.heads, width // self.heads)
        q, k, v = (nn.Dense(width, use_bias=False, name=name)(x_BxSxD).reshape(shape)
                   for name in ("query", "key", "value"))
        y_BxSxHxE = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        return nn.Dense(width, use_bias=False, name="output")(y_BxSxHxE.reshape(x_BxSxD.shape))


class FeedForward(nn.Module):
    hidden: int

    @nn.compact
    def __call__(self, x_BxSxD: Array) -> Array:
        up_BxSxF = nn.gelu(nn.Dense(self.hidden, use_bias=False, name="up")(x_BxSxD))
        return nn.Dense(x_BxSxD.shape[-1], use_bias=False, name="down")(up_BxSxF)


class Block(nn.Module):
    heads: int
    hidden: int

    @nn.compact
    def __call__(self, x_BxSxD: Array) -> Array:
        x_BxSxD = x_BxSxD + Attention(self.heads, name="attention")(nn.RMSNorm(name="attention_norm")(x_BxSxD))
        return x_BxSxD + FeedForward(self.hidden, name="feedforward")(nn.RMSNorm(name="feedforward_norm")(x_BxSxD))


class Transformer(nn.Module):
    """Learned positions, pre-norm RMSNorm blocks with GELU, head tied to the embedding."""

    model: config.Model
    vocabulary: int

    @nn.compact
    def __call__(self, tokens_BxS: Array) -> Array:
        model, sequence = self.model, tokens_BxS.shape[1]
        embed = nn.Embed(self.vocabulary, model.width, name="embedding")
        positions_SxD = self.param("positions", nn.initializers.normal(0.02), (sequence, model.width))
        x_BxSxD = embed(tokens_BxS) + positions_SxD[None]
        for layer in range(model.depth):
            x_BxSxD = Block(model.heads, model.hidden, name=f"block_{layer}")(x_BxSxD)
        return embed.attend(nn.RMSNorm(name="final_norm")(x_BxSxD))


def optimizer_of(spec: config.Optimizer, learning_rate_T: Array) -> optax.GradientTransformation:
    """Clipping by global norm, then AdamW on a table of rates, decay on dense kernels."""
    def mask(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)

    return optax.chain(
        optax.clip_by_global_norm(spec.clip_norm),
        optax.adamw(lambda step: learning_rate_T[step], spec.b1, spec.b2, spec.eps, weight_decay=spec.weight_decay,
                    mask=mask))


class Trainer:
    """One run: `step(tokens_BxT)` on a host batch of windows of S + 1 tokens, returns the loss in nats/token."""

    def __init__(self, run: config.Run, vocabulary: int, learning_rate_T: Array, params: Any) -> None:
        model, optimizer = Transformer(run.model, vocabulary), optimizer_of(run.optimizer, learning_rate_T)
        self.params, self.state = jax.tree.map(jnp.array, params), optimizer.init(params)

        def loss(params: Any, tokens_BxT: Array) -> Array:
            logits_BxSxV = model.apply({"params": params}, tokens_BxT[:, :-1])
            return optax.softmax_cross_entropy_with_integer_labels(logits_BxSxV, tokens_BxT[:, 1:]).mean()

        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def update(params: Any, state: Any, tokens_BxT: Array) -> tuple[Any, Any, Array]:
            value, grads = jax.value_and_grad(loss)(params, tokens_BxT)
            updates, state = optimizer.update(grads, state, params)
            return optax.apply_updates(params, updates), state, value

        self._update = update

    def step(self, tokens_BxT: Any) -> Array:
        """One update."""
        self.params, self.state, loss = self._update(self.params, self.state, tokens_BxT)
        return loss
