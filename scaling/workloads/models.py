"""Models of digits, whose every weight is a matrix `kernel` of a dense layer. N images, H hidden units, C channels.

Hidden layers are named as a transformer's blocks, so that methods of matrices treat them as they treat those.

Convolutions are products with patches: on images this small XLA's CPU convolution loses to it under vmap.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from scaling.models.normalization import Normalization
from scaling.workloads.digits import CLASSES, PIXELS
from scaling.workloads.trial import Workload

SIDE = math.isqrt(PIXELS)
ACTIVATION: dict[str, Callable[[Array], Array]] = {"gelu": jax.nn.gelu, "relu": jax.nn.relu, "tanh": jnp.tanh}


class Layer(nn.Module):
    """act(norm(x @ kernel + bias)) on the last axis of x; no norm for None."""

    features: int
    activation: str
    norm: str | None

    @nn.compact
    def __call__(self, x_NxI: Array) -> Array:
        x_NxH = nn.Dense(self.features, name="dense")(x_NxI)
        if self.norm is not None:
            x_NxH = Normalization(self.norm, jnp.dtype(jnp.float32), name="norm")(x_NxH)
        return ACTIVATION[self.activation](x_NxH)


class MLP(nn.Module):
    """`depth` hidden layers of one width, then logits of the classes."""

    of: Workload

    @nn.compact
    def __call__(self, x_NxP: Array) -> Array:
        for index in range(self.of.depth):
            x_NxP = Layer(self.of.width, self.of.activation, self.of.norm, name=f"block_{index}")(x_NxP)
        return nn.Dense(CLASSES, name="head")(x_NxP)


def patches(x_NxSxSxC: Array, stride: int) -> Array:
    """The 3 × 3 neighbourhood of every `stride`-th pixel, zeros outside: [N, S / stride, S / stride, 9 C]."""
    side = x_NxSxSxC.shape[1]
    padded = jnp.pad(x_NxSxSxC, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifts = [padded[:, i:i + side:stride, j:j + side:stride] for i in range(3) for j in range(3)]
    return jnp.concatenate(shifts, axis=-1)


class ConvNet(nn.Module):
    """`depth` 3 × 3 convolutions of stride 2, each with twice the channels of the one before, then logits."""

    of: Workload

    @nn.compact
    def __call__(self, x_NxP: Array) -> Array:
        x_NxSxSxC = x_NxP.reshape(-1, SIDE, SIDE, 1)
        for index in range(self.of.depth):
            patch_NxSxSxI = patches(x_NxSxSxC, 2)
            images, side, _, inputs = patch_NxSxSxI.shape
            layer = Layer(self.of.width * 2**index, self.of.activation, self.of.norm, name=f"block_{index}")
            x_NxSxSxC = layer(patch_NxSxSxI.reshape(-1, inputs)).reshape(images, side, side, -1)
        return nn.Dense(CLASSES, name="head")(x_NxSxSxC.reshape(len(x_NxP), -1))


class Autoencoder(nn.Module):
    """Pixels to logits of pixels through widths H, H/2, ... and back; the code, H / 2^(depth - 1) wide, is linear."""

    of: Workload

    @nn.compact
    def __call__(self, x_NxP: Array) -> Array:
        widths = [self.of.width // 2**index for index in range(self.of.depth)]
        for index, width in enumerate(widths[:-1]):
            x_NxP = Layer(width, self.of.activation, self.of.norm, name=f"block_{index}")(x_NxP)
        x_NxP = nn.Dense(widths[-1], name=f"block_{self.of.depth - 1}")(x_NxP)
        for index, width in enumerate(reversed(widths[:-1]), self.of.depth):
            x_NxP = Layer(width, self.of.activation, self.of.norm, name=f"block_{index}")(x_NxP)
        return nn.Dense(PIXELS, name="head")(x_NxP)


MODELS: dict[str, type[nn.Module]] = {"mlp": MLP, "convnet": ConvNet, "autoencoder": Autoencoder}


def module_of(workload: Workload) -> Any:
    """The Flax module of a workload."""
    return MODELS[workload.model](workload)


def loss(workload: Workload, params: Any, pixels_NxP: Array, labels_N: Array) -> Array:
    """Mean cross-entropy of the digit, nats an image; of an autoencoder: of its pixels, as shades, nats a pixel."""
    logits = module_of(workload).apply({"params": params}, pixels_NxP)
    if workload.model == "autoencoder":
        return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, pixels_NxP))
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels_N))


def initial_params(workload: Workload, key: Array) -> Any:
    """Fresh parameters."""
    return module_of(workload).init(key, jnp.zeros((1, PIXELS)))["params"]


@functools.cache
def flops_per_image(workload: Workload) -> float:
    """FLOPs of training on one image: 6 for every multiplication of a matrix product, 2 forward and 4 backward."""
    def products(pixels_1xP: Array) -> Any:
        key = jax.random.key(0)
        return module_of(workload).init_with_output(
            key, pixels_1xP, capture_intermediates=lambda module, _: isinstance(module, nn.Dense), mutable=True)[1]

    shapes = jax.eval_shape(products, jax.ShapeDtypeStruct((1, PIXELS), jnp.float32))
    kernels = {path[:-1]: leaf.shape for path, leaf in _leaves(shapes["params"]) if path[-1] == "kernel"}
    outputs = {path[:-2]: leaf.shape for path, leaf in _leaves(shapes["intermediates"])}
    return 6.0 * sum(int(np.prod(outputs[path])) * inputs for path, (inputs, _) in kernels.items())


def _leaves(tree: Any) -> list[tuple[tuple[str, ...], Any]]:
    return [(tuple(str(getattr(part, "key", getattr(part, "idx", part))) for part in path), leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
